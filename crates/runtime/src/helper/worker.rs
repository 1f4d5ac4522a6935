//! Short-lived children of the helper that do one thing and report.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixStream,
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    protocol::Fault,
    sys,
    user::Identity,
    wire::{Inbox, Outbox},
};

/// What a worker made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The process it leaves behind to the helper.
    pub pid: i32,
    /// When the kernel started that process.
    pub start_ticks: u64,
    /// Whom it runs as.
    pub identity: Identity,
}

/// A worker under way.
pub struct Worker {
    /// Its pid.
    pub pid: i32,
    /// Where it reports.
    pub socket: UnixStream,
    inbox: Inbox,
}

/// What a worker hands over: its report and descriptors.
pub type Outcome = Result<(Report, Vec<OwnedFd>)>;

impl Worker {
    /// Forks a worker. It inherits `kept` and nothing else that the helper has open, and dies with the helper.
    pub fn spawn(kept: Vec<OwnedFd>, work: impl FnOnce(Vec<OwnedFd>) -> Outcome) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let helper = rustix::process::getpid();
        match sys::fork()? {
            sys::Fork::Parent(pid) => Ok(Self { pid, socket: ours, inbox: Inbox::default() }),
            sys::Fork::Child => {
                let code = match isolate(helper, theirs.into(), kept) {
                    Ok((socket, kept)) => report(socket, work(kept)),
                    Err(_) => 1,
                };
                sys::exit_now(code)
            }
        }
    }

    /// The outcome, once the worker has ended.
    pub fn outcome(&mut self) -> Outcome {
        while self.inbox.fill(&self.socket).is_ok_and(|n| n > 0) {}
        let died = || Error::Helper("a worker died before it could report".into());
        let (body, fds) = self.inbox.next().ok().flatten().ok_or_else(died)?;
        let result: Result<Report, Fault> = serde_json::from_slice(&body).map_err(|_| died())?;
        Ok((result?, fds))
    }
}

/// Leaves of the inherited descriptors only the standard three, the report socket and `kept`.
fn isolate(helper: rustix::process::Pid, socket: OwnedFd, kept: Vec<OwnedFd>) -> io::Result<(OwnedFd, Vec<OwnedFd>)> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(helper) {
        return Err(io::ErrorKind::NotConnected.into()); // it died between fork and prctl
    }
    sys::reset_signals()?;
    let first = 3;
    let past = first + 1 + kept.len() as i32;
    // Out of the way first, so that no target number is also a source.
    let away = std::iter::once(&socket)
        .chain(&kept)
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, past))
        .collect::<Result<Vec<_>, _>>()?;
    // What has those numbers now belongs to objects of the helper's that are never dropped here.
    std::mem::forget((socket, kept));
    let mut placed =
        (first..).zip(&away).map(|(target, fd)| sys::place(fd.as_fd(), target)).collect::<io::Result<Vec<_>>>()?;
    std::mem::forget(away);
    sys::close_from(past as u32)?;
    let socket = placed.remove(0);
    Ok((socket, placed))
}

fn report(socket: OwnedFd, outcome: Outcome) -> i32 {
    let (result, fds) = match outcome {
        Ok((report, fds)) => (Ok(report), fds),
        Err(e) => (Err(Fault::from(e)), vec![]),
    };
    let mut outbox = Outbox::default();
    outbox.push(&serde_json::to_vec(&result).unwrap_or_default(), fds);
    i32::from(outbox.flush(&socket).is_err())
}
