//! The worker that runs one more process in a running container.

use std::{
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags},
    process::{DumpableBehavior, Pid, PidfdFlags},
    thread::ThreadNameSpaceType,
};

use super::{
    create::{payload, pipe},
    record,
    worker::{Outcome, Report},
};
use crate::{ContainerSpec, Error, ExecSpec, Result, cgroup::Hierarchies, finish, sys, user::Identity};

/// What a worker needs to know.
pub struct Job<'a> {
    /// The container's first process.
    pub pid: i32,
    /// What it was made from.
    pub container: &'a ContainerSpec,
    /// Whom it runs as.
    pub identity: &'a Identity,
    /// What to run.
    pub spec: &'a ExecSpec,
    /// The host's cgroups.
    pub hierarchies: &'a Hierarchies,
    /// The container's group.
    pub cgroup: &'a Path,
    /// The compiled filter.
    pub seccomp: Option<&'a [u8]>,
}

/// Starts the process with `stdio` (input, output, errors), or with a terminal whose master is handed over.
/// The helper inherits it.
pub fn start(job: &Job<'_>, stdio: Vec<OwnedFd>) -> Outcome {
    let id = &job.container.id;
    let mut payload = payload(job.container, job.identity, job.seccomp, vec![])?;
    payload.args = job.spec.args.clone();
    if job.spec.terminal && !payload.env.iter().any(|e| e.starts_with("TERM=")) {
        payload.env.push("TERM=xterm".into());
    }

    job.hierarchies.group(job.cgroup).join()?;
    // CVE-2016-9962: the container could look into this process between joining and exec.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Error::io("hide from the container"))?;
    let gone = || Error::NotRunning(id.clone());
    let pid = Pid::from_raw(job.pid).ok_or_else(gone)?;
    let container = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK;
    let (mut failure, tell) = pipe()?;
    rustix::thread::move_into_thread_name_spaces(container.as_fd(), all)
        .map_err(Error::io(format!("join the namespaces of {id}")))?;
    let (stdio, master) = if job.spec.terminal {
        let (master, slave) = open_terminal(job.spec.size)?;
        (vec![slave], Some(master))
    } else {
        (stdio, None)
    };

    match sys::fork().map_err(Error::io("fork into the container"))? {
        sys::Fork::Child => {
            let no_input = !job.spec.terminal && !job.spec.stdin;
            let why = match attach(&stdio, no_input) {
                Ok(()) => finish::exec(&payload),
                Err(e) => format!("connect the streams: {e}"),
            };
            let _ = rustix::io::write(&tell, why.as_bytes());
            sys::exit_now(127)
        }
        sys::Fork::Parent(pid) => {
            drop((tell, stdio));
            let mut why = String::new();
            failure.read_to_string(&mut why).map_err(Error::io("read the start's outcome"))?;
            if !why.is_empty() {
                return Err(Error::Start { id: id.clone(), why });
            }
            // Zero where `/proc` is the container's own: the helper reads it before it reaps.
            let start_ticks = record::process(pid).map_or(0, |(_, ticks, _)| ticks);
            let report = Report { pid, start_ticks, identity: job.identity.clone() };
            Ok((report, master.into_iter().collect()))
        }
    }
}

/// A terminal of the container's own devpts. CVE-2025-52565: `/dev/ptmx` may have been replaced.
fn open_terminal(size: Option<(u16, u16)>) -> Result<(OwnedFd, OwnedFd)> {
    const DEVPTS: i64 = 0x1cd1;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).map_err(Error::io("open a terminal"))?;
    let kind = rustix::fs::fstatfs(&master).map_err(Error::io("check the terminal"))?;
    if kind.f_type != DEVPTS {
        return Err(Error::Helper("/dev/pts/ptmx of the container is no terminal".into()));
    }
    rustix::pty::unlockpt(&master).map_err(Error::io("unlock the terminal"))?;
    let peer = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer).map_err(Error::io("open the terminal"))?;
    if let Some((columns, rows)) = size {
        resize(&master, columns, rows).map_err(Error::io("size the terminal"))?;
    }
    Ok((master, slave))
}

/// Sets a terminal's size.
pub fn resize(master: impl AsFd, columns: u16, rows: u16) -> std::io::Result<()> {
    let size = rustix::termios::Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}

/// The container's own `/dev/null`. The host's would be the container's to change: its mode and owner are the inode's.
fn null() -> Option<OwnedFd> {
    // What the container may have put in its place shall neither block nor be followed.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/dev/null", flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3);
    is_null.then_some(file)
}

/// Makes `stdio` the standard streams of a new session; a single descriptor is its terminal.
fn attach(stdio: &[OwnedFd], no_input: bool) -> std::io::Result<()> {
    rustix::process::setsid()?;
    let [stdin, stdout, stderr] = match stdio {
        [slave] => {
            rustix::process::ioctl_tiocsctty(slave)?;
            [slave, slave, slave]
        }
        [stdin, stdout, stderr] => [stdin, stdout, stderr],
        _ => return Err(std::io::ErrorKind::InvalidInput.into()),
    };
    let null = if no_input { null() } else { None };
    rustix::stdio::dup2_stdin(null.as_ref().unwrap_or(stdin))?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    Ok(())
}

/// The ends of an exec's streams: the process's three, and ours in the order of [`crate::protocol::Streams`].
pub fn streams(spec: &ExecSpec) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
    if spec.terminal {
        return Ok((vec![], vec![]));
    }
    let (mut theirs, mut ours) = (vec![], vec![]);
    if spec.stdin {
        let (reader, writer) = pipe()?;
        theirs.push(reader.into());
        ours.push(writer);
    } else {
        theirs.push(pipe()?.0.into()); // at its end from the beginning
    }
    for _ in 0..2 {
        let (reader, writer) = pipe()?;
        theirs.push(writer);
        ours.push(reader.into());
    }
    Ok((theirs, ours))
}
