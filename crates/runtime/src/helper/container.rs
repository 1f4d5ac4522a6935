//! One container as the helper holds it: its record, streams, log and listeners.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags};

use super::{journal::Journal, record::Record};
use crate::{ContainerSpec, Error, Result, State, protocol::Streams};

/// What a pipe holds at most (`F_SETPIPE_SZ` of anyone, `/proc/sys/fs/pipe-max-size`).
const PIPE: usize = 1 << 20;

/// A client that listens.
pub struct Subscriber {
    /// Its number in the event loop.
    pub token: u64,
    /// Where the streams are copied to.
    pub pipes: [Option<OwnedFd>; 2],
}

/// A container.
pub struct Held {
    /// What it was made from.
    pub spec: ContainerSpec,
    /// Its record.
    pub record: Record,
    /// Its output: two FIFOs, or the terminal's master as the first. Closed once it ended.
    pub output: [Option<File>; 2],
    /// The writing end of its standard input.
    pub stdin: Option<OwnedFd>,
    /// Tells the end of a process that is not our child.
    pub pidfd: Option<OwnedFd>,
    /// Who listens.
    pub subscribers: Vec<Subscriber>,
    /// Calls that are answered when it is gone.
    pub removing: Vec<super::keeper::Caller>,
    /// It shall be removed as soon as it ended.
    pub doomed: bool,
    journal: Journal,
}

impl Held {
    /// A container with its record in `dir`, and nothing open yet.
    pub fn new(spec: ContainerSpec, record: Record, dir: &Path) -> Self {
        Self {
            journal: Journal::new(dir, &spec.log),
            output: [None, None],
            stdin: None,
            pidfd: None,
            subscribers: Vec::new(),
            removing: Vec::new(),
            doomed: false,
            spec,
            record,
        }
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<i32> {
        match self.record.state {
            State::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// Makes the FIFOs that are missing in `dir` and opens our ends, both ways, so that they never hang up.
    pub fn open_streams(&mut self, dir: &Path) -> Result<()> {
        let open = |name: &str| -> Result<File> {
            let path = dir.join(name);
            let doing = || format!("open {}", path.display());
            match rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(Error::io(doing())(e)),
            }
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            Ok(rustix::fs::open(&path, flags, Mode::empty()).map_err(Error::io(doing()))?.into())
        };
        if self.spec.terminal {
            return Ok(());
        }
        self.output = [Some(open("stdout")?), Some(open("stderr")?)];
        if self.spec.stdin && !self.record.stdin_closed {
            self.stdin = Some(open("stdin")?.into());
        }
        Ok(())
    }

    /// Opens the log, so that a container that says nothing has one too.
    pub fn open_log(&mut self) -> Result<()> {
        self.journal.open_log().map_err(Error::io(format!("open log {}", self.spec.log.display())))
    }

    /// Continues the log in a fresh file.
    pub fn reopen_log(&mut self) -> Result<()> {
        self.journal.reopen_log().map_err(Error::io(format!("reopen log {}", self.spec.log.display())))?;
        if matches!(self.record.state, State::Exited { .. }) {
            self.journal.close_log();
        }
        Ok(())
    }

    /// Logs what a former helper had taken from the streams when it was cut off.
    pub fn recover(&mut self, scratch: &mut [u8]) {
        self.journal.recover(scratch);
    }

    /// Takes once what a stream holds, for the log and the listeners; how much. 0: nothing more is there now.
    pub fn pump(&mut self, stream: usize, scratch: &mut [u8]) -> usize {
        let Some(file) = &self.output[stream] else { return 0 };
        let Ok(chunk) = self.journal.pump(stream, file, scratch) else {
            self.output[stream] = None; // EIO: the last process left the terminal
            return 0;
        };
        self.subscribers.retain_mut(|subscriber| {
            let Some(pipe) = subscriber.pipes[stream].as_ref().filter(|_| !chunk.is_empty()) else { return true };
            // A listener that does not keep up misses output; it cannot stop the container.
            !matches!(rustix::io::write(pipe, chunk), Err(rustix::io::Errno::PIPE))
        });
        chunk.len()
    }

    /// Takes what the ended container left and closes everything.
    pub fn finish(&mut self, scratch: &mut [u8]) {
        for stream in 0..2 {
            // Not to its end: whoever was given the stream by the container may write on for ever.
            let mut left = PIPE;
            while left > 0 {
                match self.pump(stream, scratch) {
                    0 => break,
                    read => left = left.saturating_sub(read),
                }
            }
        }
        self.journal.finish(scratch);
        self.output = [None, None];
        self.stdin = None;
        self.pidfd = None;
        self.subscribers.clear();
    }

    /// Duplicates of what a client shall hold in case this helper dies.
    pub fn hold(&self) -> Result<(Streams, Vec<OwnedFd>)> {
        let duplicate = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().map_err(Error::io("duplicate a stream"));
        match (&self.output[0], &self.stdin) {
            (Some(master), _) if self.spec.terminal => {
                Ok((Streams { master: true, ..Streams::default() }, vec![duplicate(master)?]))
            }
            (_, Some(stdin)) => Ok((Streams { stdin: true, ..Streams::default() }, vec![duplicate(stdin)?])),
            _ => Ok((Streams::default(), vec![])),
        }
    }

    /// Adds a listener; what it reads and writes, in the order of [`Streams`].
    pub fn subscribe(&mut self, token: u64) -> Result<(Streams, Vec<OwnedFd>)> {
        let (mut streams, mut held) = self.hold()?;
        let mut fds: Vec<_> = if streams.stdin { std::mem::take(&mut held) } else { vec![] };
        let mut pipes = [None, None];
        for pipe in pipes.iter_mut().take(if self.spec.terminal { 1 } else { 2 }) {
            let flags = rustix::pipe::PipeFlags::CLOEXEC;
            let (reader, writer) = rustix::pipe::pipe_with(flags).map_err(Error::io("make a pipe"))?;
            rustix::io::ioctl_fionbio(&writer, true).map_err(Error::io("prepare a pipe"))?;
            *pipe = Some(writer);
            fds.push(reader);
        }
        (streams.stdout, streams.stderr) = (true, !self.spec.terminal);
        fds.append(&mut held);
        self.subscribers.push(Subscriber { token, pipes });
        Ok((streams, fds))
    }
}
