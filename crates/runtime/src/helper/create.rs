//! The worker that makes a container and starts its first process.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{fs::symlink, net::UnixListener},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags},
};
use serde_json::Value;

use super::{
    record,
    worker::{Outcome, Report},
};
use crate::{
    Backend, ContainerSpec, Error, Result, SandboxSpec,
    cgroup::Hierarchies,
    finish::{self, Payload},
    spec, sys,
    user::{self, Identity},
};

mod crun;
mod library;

/// What a worker needs to know.
pub struct Job<'a> {
    /// The container's directory.
    pub dir: &'a Path,
    /// Where namespaces are pinned.
    pub netns: &'a Path,
    /// The pins of the container's sandbox.
    pub pins: record::Pins,
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
    // By this worker's number, so that a program which it executes finds them too.
    let held = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let joined: Vec<_> = namespaces.iter().map(|(kind, fd)| (*kind, held(fd))).collect();
    let (root, shm) = mount_root(job)?;
    let root_fd = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io(format!("open {}", root.display())))?;
    check_targets(root_fd.as_fd(), spec)?;
    let identity = user::resolve(&spec.id, root_fd.as_fd(), &spec.user)?;
    drop(root_fd);

    let bundle = Bundle {
        job,
        config: spec::oci(spec, &root, shm.as_deref(), &joined, job.sandbox.host_pid),
        payload: payload(spec, &identity, job.seccomp, job.hierarchies.names())?,
    };
    let console = spec.terminal.then(listen_for_terminal).transpose()?;
    let process = match &spec.backend {
        Backend::Libcontainer => library::start(bundle)?,
        Backend::Crun(program) => crun::start(bundle, program)?,
    };
    let master = console.map(|listener| receive_master(&listener)).transpose()?;
    for leftover in [STATE, "layers"] {
        let _ = fs::remove_dir_all(job.dir.join(leftover));
    }
    let _ = fs::remove_file(job.dir.join(CONFIG));
    let report = Report { pid: process.pid, start_ticks: process.start_ticks, identity };
    Ok((report, master.into_iter().collect()))
}

/// The OCI configuration of a bundle, in the container's directory.
const CONFIG: &str = "config.json";
/// Where a backend keeps its own state until the container is started, in the container's directory.
const STATE: &str = "oci";
/// Where a backend sends the terminal's master. Relative: the name of a socket must be shorter than a path may be.
const CONSOLE: &str = "console.sock";

/// What a backend makes a container of. The root is mounted and the worker is in the container's cgroup and in
/// its directory; the container inherits both.
struct Bundle<'a> {
    job: &'a Job<'a>,
    /// All but the process and its rights.
    config: Value,
    /// The process and its rights.
    payload: Payload,
}

/// The first process of a container whose program runs, a child of this worker.
struct Process {
    pid: i32,
    start_ticks: u64,
}

impl Process {
    fn find(spec: &ContainerSpec, pid: i32) -> Result<Self> {
        let (_, start_ticks, _) = record::process(pid).ok_or_else(|| Error::NotRunning(spec.id.clone()))?;
        Ok(Self { pid, start_ticks })
    }
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

/// The pinned namespaces, opened while their pins are still in sight.
fn open_namespaces(job: &Job<'_>) -> Result<Vec<(&'static str, OwnedFd)>> {
    let [net, ipc, uts] = &job.pins.namespaces;
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
/// the container; where it is, and the memory that the sandbox shares. Takes out of sight what would slow down or mislead libcontainer: the pins of all
/// sandboxes, and the cgroup hierarchies, which are seen to already.
fn mount_root(job: &Job<'_>) -> Result<(PathBuf, Option<PathBuf>)> {
    let doing = |what: &str| format!("{what} for {}", job.spec.id);
    sys::unshare(libc::CLONE_NEWNS).map_err(Error::io(doing("unshare mounts")))?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(Error::io(doing("detach from the host's mounts")))?;
    let shm = shared_memory(job)?;
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
    Ok((root, shm))
}

/// Brings the sandbox's shared memory to where it stays in sight. A sandbox made by an older helper has none.
fn shared_memory(job: &Job<'_>) -> Result<Option<PathBuf>> {
    let pin = &job.pins.shm;
    if job.sandbox.host_ipc {
        return Ok(Some("/dev/shm".into()));
    }
    if !pin.is_dir() {
        return Ok(None);
    }
    let shm = job.dir.join("shm");
    let doing = || format!("bring the shared memory of {} to {}", job.sandbox.id, job.spec.id);
    fs::create_dir_all(&shm).map_err(Error::io(doing()))?;
    rustix::mount::mount_bind(pin, &shm).map_err(Error::io(doing()))?;
    Ok(Some(shm))
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

/// The container's streams without a terminal: FIFOs that its own side holds open both ways, so that no reader's
/// death is felt.
fn streams(job: &Job<'_>) -> Result<[File; 3]> {
    let open = |name: &str, write: bool| {
        let path = job.dir.join(name);
        File::options().read(true).write(write).open(&path).map_err(Error::io(format!("open {}", path.display())))
    };
    let stdin = if job.spec.stdin { "stdin" } else { "/dev/null" };
    Ok([open(stdin, false)?, open("stdout", true)?, open("stderr", true)?])
}

fn listen_for_terminal() -> Result<UnixListener> {
    let _ = fs::remove_file(CONSOLE);
    UnixListener::bind(CONSOLE).map_err(Error::io("listen for the terminal"))
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
