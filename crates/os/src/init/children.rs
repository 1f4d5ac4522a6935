//! The children of PID 1: its own, and everybody's that lost their parents.

use std::{
    collections::HashMap,
    io,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus},
    sync::{
        Condvar, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{WaitOptions, wait},
};

/// Who waits for whom.
#[derive(Default)]
pub struct Children {
    waiting: Mutex<Waiting>,
    gone: Condvar,
}

#[derive(Default)]
struct Waiting {
    own: HashMap<u32, Sender<ExitStatus>>,
    /// The last look found no child at all.
    none: bool,
}

impl Children {
    /// Starts a program; its end comes by the channel.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, Receiver<ExitStatus>)> {
        // Held until the child is known, so that it is not reaped as a stranger; std reaps one that did not start.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let (tell, told) = channel();
        waiting.own.insert(child.id(), tell);
        waiting.none = false;
        Ok((child, told))
    }

    /// Buries who has died; to be called on SIGCHLD.
    pub fn reap(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let pid = pid.as_raw_nonzero().get().unsigned_abs();
                    if let Some(tell) = waiting.own.remove(&pid) {
                        let _nobody_waits = tell.send(ExitStatus::from_raw(status.as_raw()));
                    }
                }
                Ok(None) => break,
                Err(Errno::INTR) => {}
                Err(_) => {
                    waiting.none = true;
                    self.gone.notify_all();
                    break;
                }
            }
        }
    }

    /// Waits until there is no child any more, at most so long.
    pub fn wait_for_all(&self, at_most: Duration) -> bool {
        self.reap();
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.gone.wait_timeout_while(waiting, at_most, |w| !w.none);
        waited.unwrap_or_else(PoisonError::into_inner).0.none
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_s_end_is_told() {
        let children = Children::default();
        let (child, ended) = children.spawn(Command::new("/bin/sh").args(["-c", "exit 7"])).unwrap();
        let status = loop {
            children.reap();
            if let Ok(status) = ended.recv_timeout(Duration::from_millis(20)) {
                break status;
            }
        };
        assert_eq!(status.code(), Some(7), "{child:?}");
        assert!(children.spawn(&mut Command::new("/nowhere")).is_err());
        assert!(children.wait_for_all(Duration::from_secs(1)));
    }
}
