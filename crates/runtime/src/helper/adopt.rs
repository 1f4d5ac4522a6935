//! What a new helper does with what a dead one left.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::{
    event::Timespec,
    process::{Pid, PidfdFlags},
};

use super::{
    container::Held,
    keeper::{Caller, HeldSandbox, Keeper, Source, watch},
    record::{self, Adoption},
    sandbox,
};
use crate::Result;

impl Keeper {
    /// Groups of this instance that no record explains: their removal was cut off.
    fn sweep_unknown_cgroups(&mut self) {
        let running = self.containers.iter().filter(|(_, held)| held.pid().is_some());
        let running: Vec<PathBuf> = running.map(|(id, _)| self.cgroup(id)).collect();
        let mut known: Vec<PathBuf> = self.sandboxes.keys().map(|id| self.sandbox_cgroup(id)).collect();
        known.extend_from_slice(&running);
        for path in self.hierarchies.below(Path::new(&self.instance)) {
            // What a running container makes below its own group is its own.
            let its_own = running.iter().any(|running| path.starts_with(running));
            if !its_own && !known.iter().any(|known| known.starts_with(&path)) {
                self.sweep_cgroup(path);
            }
        }
    }

    /// Takes over every record, and ends what none explains.
    pub(super) fn adopt(&mut self) -> Result<()> {
        end_stragglers();
        for sandbox in self.dir.sandboxes()? {
            let id = sandbox.spec.id.clone();
            let pins = self.dir.pins(&id);
            let ready = sandbox::pinned(&sandbox.spec, &pins);
            self.sandboxes.insert(id, HeldSandbox { sandbox, ready, removing: Vec::new() });
        }
        for (id, whole) in self.dir.containers()? {
            let Some((spec, record)) = whole else {
                self.dir.forget(&id)?; // its worker was never started
                continue;
            };
            let dir = self.dir.container(&id);
            let ticks = |pid| record::process(pid).map(|(_, ticks, _)| ticks);
            let mut held = Held::new(spec, record, &dir);
            let seen = held.pid().and_then(ticks);
            let decision = record::adopt(&held.record.state, held.record.start_ticks, seen);
            if let Adoption::Watch = decision {
                let pid = held.pid().and_then(Pid::from_raw);
                held.pidfd = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
                // Only now is it certain whose pidfd that is.
                if held.pid().and_then(ticks) != seen {
                    held.pidfd = None;
                }
            }
            if matches!(decision, Adoption::Watch | Adoption::Lost) {
                held.open_streams(&dir)?;
                held.recover(&mut self.scratch);
            }
            let watched = held.pidfd.is_some();
            self.containers.insert(id.clone(), held);
            match decision {
                Adoption::Watch if watched => {
                    self.watch_output(&id)?;
                    self.watch_end(&id)?;
                }
                Adoption::Watch | Adoption::Lost => self.ended(&id, None),
                Adoption::Ended => {}
                Adoption::Discard => self.forget(&id),
            }
        }
        self.sweep_unknown_cgroups();
        let broken: Vec<String> =
            self.sandboxes.iter().filter(|(_, held)| !held.ready).map(|(id, _)| id.clone()).collect();
        for id in broken {
            // Never answered for, or lost with the host's mounts; containers in it are lost as well.
            let lost: Vec<String> =
                self.containers.iter().filter(|(_, c)| c.spec.sandbox == id).map(|(id, _)| id.clone()).collect();
            lost.iter().for_each(|id| self.destroy(id, None));
            if let Some(held) = self.sandboxes.get_mut(&id) {
                held.removing.push(Caller { client: 0, call: 0 });
            }
            self.sweep_sandbox(&id);
        }
        Ok(())
    }

    /// Learns of the end of a process that is not our child.
    fn watch_end(&mut self, id: &str) -> Result<()> {
        let Some(pidfd) = self.containers.get(id).and_then(|held| held.pidfd.as_ref()) else { return Ok(()) };
        watch(&self.epoll, &mut self.sources, &mut self.next, pidfd, Source::Ended(id.into())).map(drop)
    }
}

/// Kills what a dead helper's workers left before it became a container's program. All of that still has
/// this program's very command line.
fn end_stragglers() {
    let read = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let (own, own_pid) = (read("self"), std::process::id().to_string());
    let pids =
        || fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let straggler = |pid: &String| pid.parse::<i32>().is_ok() && *pid != own_pid && read(pid) == own;
    let found: Vec<String> = pids().filter(straggler).collect();
    for pid in found.iter().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut ended, Some(&Timespec { tv_sec: 5, tv_nsec: 0 }));
    }
}
