//! The worker that makes a container and starts its first process.

use std::{
    fs::{self, File},
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{fs::symlink, net::UnixListener},
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use libcontainer::{
    container::builder::ContainerBuilder,
    error::LibcontainerError,
    notify_socket::NotifySocket,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags},
};

use super::{
    record,
    worker::{Outcome, Report},
};
use crate::{
    ContainerSpec, Error, Result, SandboxSpec,
    cgroup::Hierarchies,
    finish::{self, Payload},
    spec, sys,
    user::{self, Identity},
};

/// What a worker needs to know.
pub struct Job<'a> {
    /// The container's directory.
    pub dir: &'a Path,
    /// Where namespaces are pinned.
    pub netns: &'a Path,
    /// The pins of the container's sandbox.
    pub pins: [PathBuf; 3],
    /// What to start.
    pub spec: &'a ContainerSpec,
    /// Where to start it.
    pub sandbox: &'a SandboxSpec,
    /// The host's cgroups.
    pub hierarchies: &'a Hierarchies,
    /// The container's group.
    pub cgroup: &'a Path,
    /// The compiled filter.
    pub seccomp: Option<&'a [u8]>,
}

/// Starts the container's first process, which the helper inherits. With a terminal, its master is handed over.
pub fn start(job: &Job<'_>) -> Outcome {
    let spec = job.spec;
    let group = job.hierarchies.group(job.cgroup);
    group.create()?;
    group.limit(&spec.resources)?;
    if !spec.security.privileged {
        group.deny_devices()?;
    }
    group.join()?; // first of all: whatever this worker leaves behind is found there and killed
    set_oom_score(spec.resources.oom_score_adj);

    let namespaces = open_namespaces(job)?;
    let joined: Vec<_> =
        namespaces.iter().map(|(kind, fd)| (*kind, format!("/proc/self/fd/{}", fd.as_raw_fd()))).collect();
    let root = mount_root(job)?;
    let root_fd = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io(format!("open {}", root.display())))?;
    check_targets(root_fd.as_fd(), spec)?;
    let identity = user::resolve(&spec.id, root_fd.as_fd(), &spec.user)?;
    drop(root_fd);

    let oci = spec::oci(spec, &root, &joined, job.sandbox.host_pid);
    let config = job.dir.join("config.json");
    fs::write(&config, oci.to_string()).map_err(Error::io(format!("write {}", config.display())))?;

    let (mut failure, tell) = pipe()?;
    let payload = payload(spec, &identity, job.seccomp, job.hierarchies.names())?;
    let last = Last { payload: Rc::new(payload), tell: Rc::new(tell) };
    let builder = ContainerBuilder::new("oci".into(), SyscallType::default())
        .with_executor(last)
        .with_root_path(job.dir)
        .map_err(|e| failed(spec, &e))?;
    let (builder, console) = connect(job, builder)?;
    let container = builder.as_init(job.dir).with_systemd(false).build().map_err(|e| failed(spec, &e))?;
    let master = console.map(|listener| receive_master(&listener)).transpose()?;

    let pid = container.pid().map(|pid| pid.as_raw()).unwrap_or_default();
    NotifySocket::new(job.dir.join("oci/notify.sock"))
        .notify_container_start()
        .map_err(|e| Error::Start { id: spec.id.clone(), why: e.to_string() })?;
    // Ends when the program replaces the process (the pipe is close-on-exec), or with the reason why not.
    let mut why = String::new();
    failure.read_to_string(&mut why).map_err(Error::io("read the start's outcome"))?;
    if !why.is_empty() {
        return Err(Error::Start { id: spec.id.clone(), why });
    }
    let (_, start_ticks, _) = record::process(pid).ok_or_else(|| Error::NotRunning(spec.id.clone()))?;
    for leftover in ["oci", "layers"] {
        let _ = fs::remove_dir_all(job.dir.join(leftover));
    }
    let _ = fs::remove_file(config);
    Ok((Report { pid, start_ticks, identity }, master.into_iter().collect()))
}

/// The program with the rights of `spec`, for its first process or a later one.
pub fn payload(
    spec: &ContainerSpec,
    identity: &Identity,
    seccomp: Option<&[u8]>,
    cgroups: Vec<String>,
) -> Result<Payload> {
    let mut env = spec.env.clone();
    for (name, value) in [("PATH", finish::DEFAULT_PATH), ("HOME", &identity.home)] {
        if !env.iter().any(|e| e.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))) {
            env.push(format!("{name}={value}"));
        }
    }
    if spec.terminal && !env.iter().any(|e| e.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    Ok(Payload {
        args: spec.args.clone(),
        env,
        cwd: spec.cwd.clone(),
        identity: identity.clone(),
        capabilities: finish::capabilities(&spec.security)?,
        no_new_privileges: spec.security.no_new_privileges,
        seccomp: if spec.security.privileged { None } else { seccomp.map(<[u8]>::to_vec) },
        cgroups,
    })
}

/// A pipe whose ends close on exec.
pub fn pipe() -> Result<(File, OwnedFd)> {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::io("make a pipe"))?;
    Ok((reader.into(), writer))
}

fn failed(spec: &ContainerSpec, error: &LibcontainerError) -> Error {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        source = cause.source();
    }
    Error::Start { id: spec.id.clone(), why }
}

/// The pinned namespaces, opened while their pins are still in sight.
fn open_namespaces(job: &Job<'_>) -> Result<Vec<(&'static str, OwnedFd)>> {
    let [net, ipc, uts] = &job.pins;
    let wanted = [("network", net, !job.sandbox.host_network), ("ipc", ipc, !job.sandbox.host_ipc), ("uts", uts, true)];
    wanted
        .into_iter()
        .filter(|(_, _, own)| *own)
        .map(|(kind, path, _)| {
            let file = File::open(path).map_err(Error::io(format!("open namespace {}", path.display())))?;
            Ok((kind, file.into()))
        })
        .collect()
}

/// Mounts the root in a mount namespace of this worker's, where nobody else sees it and where it ends with
/// the container. Takes out of sight what would slow down or mislead libcontainer: the pins of all
/// sandboxes, and the cgroup hierarchies, which are seen to already.
fn mount_root(job: &Job<'_>) -> Result<PathBuf> {
    let doing = |what: &str| format!("{what} for {}", job.spec.id);
    sys::unshare(libc::CLONE_NEWNS).map_err(Error::io(doing("unshare mounts")))?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(Error::io(doing("detach from the host's mounts")))?;
    let _ = rustix::mount::unmount(job.netns, UnmountFlags::DETACH);
    let cgroups = "/sys/fs/cgroup";
    let _ = rustix::mount::unmount(cgroups, UnmountFlags::DETACH);
    rustix::mount::mount("tmpfs", cgroups, "tmpfs", MountFlags::empty(), None)
        .map_err(Error::io(doing("hide cgroups")))?;

    // Short names whatever the layers are called: the options fit a page, need no escapes and, seen in the
    // container's mount table, tell nothing of the host.
    let layers = job.dir.join("layers");
    let _ = fs::remove_dir_all(&layers);
    fs::create_dir(&layers).map_err(Error::io(doing("make layer links")))?;
    std::env::set_current_dir(&layers).map_err(Error::io(doing("enter layer links")))?;
    let rootfs = &job.spec.rootfs;
    let mut lower = String::new();
    for (i, layer) in rootfs.lower.iter().enumerate() {
        symlink(layer, i.to_string()).map_err(Error::io(doing("link layers")))?;
        lower.push_str(&format!("{}{i}", if i == 0 { "" } else { ":" }));
    }
    for (path, name) in [(&rootfs.upper, "u"), (&rootfs.work, "w")] {
        fs::create_dir_all(path).map_err(Error::io(doing("make the writable layer")))?;
        symlink(path, name).map_err(Error::io(doing("link layers")))?;
    }
    // Left by a volatile mount that was not unmounted cleanly: the layer is this container's alone and as lossy.
    let _ = fs::remove_dir_all(rootfs.work.join("work/incompat"));
    let root = job.dir.join("root");
    fs::create_dir_all(&root).map_err(Error::io(doing("make the mount point")))?;
    let options = format!("lowerdir={lower},upperdir=u,workdir=w,metacopy=on,volatile");
    let options = std::ffi::CString::new(options).unwrap_or_default();
    rustix::mount::mount("overlay", &root, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .map_err(Error::io(doing("mount overlay")))?;
    std::env::set_current_dir(job.dir).map_err(Error::io(doing("enter the record")))?;
    Ok(root)
}

/// An image may make its own `/dev` or `/etc/resolv.conf` a link to send our mounts elsewhere.
fn check_targets(root: BorrowedFd<'_>, spec: &ContainerSpec) -> Result<()> {
    let refuse = |path: &Path, what: &str| Error::Start {
        id: spec.id.clone(),
        why: format!("{} in the image is a {what}; refused", path.display()),
    };
    for dir in ["dev", "proc", "sys"] {
        if let Ok(stat) = rustix::fs::statat(root, dir, AtFlags::SYMLINK_NOFOLLOW)
            && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
        {
            return Err(refuse(&Path::new("/").join(dir), "symbolic link or file, not a directory"));
        }
    }
    for mount in &spec.mounts {
        let path = &mount.destination;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let Ok(parent) = rustix::fs::openat2(root, parent, flags, Mode::empty(), ResolveFlags::IN_ROOT) else {
            continue;
        };
        if let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
        {
            return Err(refuse(path, "symbolic link"));
        }
    }
    Ok(())
}

/// As near to what was asked for as we may: lowering it needs a capability that not every host grants.
fn set_oom_score(wanted: Option<i32>) {
    let Some(wanted) = wanted else { return };
    let file = "/proc/self/oom_score_adj";
    if fs::write(file, wanted.clamp(-1000, 1000).to_string()).is_err() {
        tracing::debug!(wanted, "oom_score_adj stays as it is");
    }
}

/// Gives the container its streams: FIFOs that its own side holds open both ways, so that no reader's death
/// is felt, or a console socket.
fn connect(job: &Job<'_>, builder: ContainerBuilder) -> Result<(ContainerBuilder, Option<UnixListener>)> {
    let path = |name: &str| job.dir.join(name);
    if job.spec.terminal {
        // Relative: the name of a socket must be shorter than a path may be.
        let _ = fs::remove_file("console.sock");
        let listener = UnixListener::bind("console.sock").map_err(Error::io("listen for the terminal"))?;
        return Ok((builder.with_console_socket(Some(path("console.sock"))), Some(listener)));
    }
    let open = |path: &Path, write: bool| {
        File::options().read(true).write(write).open(path).map_err(Error::io(format!("open {}", path.display())))
    };
    let stdin = if job.spec.stdin { open(&path("stdin"), false)? } else { open(Path::new("/dev/null"), false)? };
    let (stdout, stderr) = (open(&path("stdout"), true)?, open(&path("stderr"), true)?);
    Ok((builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr), None))
}

fn receive_master(listener: &UnixListener) -> Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let doing = "receive the terminal";
    let (socket, _) = listener.accept().map_err(Error::io(doing))?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 64];
    recvmsg(&socket, &mut [std::io::IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .map_err(Error::io(doing))?;
    let mut messages = ancillary.drain();
    let fd = messages.find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| Error::Helper("the terminal did not arrive".into()))
}

/// libcontainer's last call inside the container: our own last steps.
#[derive(Clone)]
struct Last {
    payload: Rc<Payload>,
    tell: Rc<OwnedFd>,
}

impl Executor for Last {
    fn exec(&self, _: &libcontainer::oci_spec::runtime::Spec) -> Result<(), ExecutorError> {
        let why = finish::exec(&self.payload);
        let _ = rustix::io::write(&*self.tell, why.as_bytes());
        sys::exit_now(127)
    }

    fn validate(&self, _: &libcontainer::oci_spec::runtime::Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(()) // the payload carries its own
    }
}
