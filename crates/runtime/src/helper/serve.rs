//! What the helper does when asked.

use std::{os::fd::OwnedFd, path::Path, rc::Rc, time::SystemTime};

use rustix::process::{Pid, Signal};

use super::{
    container::Held,
    create, exec,
    keeper::{Caller, HeldSandbox, Keeper, Task, creating},
    sandbox,
    worker::{Outcome, Worker},
};
use crate::{
    Container, ContainerSpec, Error, ExecSpec, Result, Sandbox, SandboxSpec, Seccomp, State, finish,
    protocol::{Answer, Call, Request, Streams},
    seccomp, spec,
};

impl Keeper {
    /// One request of the client.
    pub fn request(&mut self, client: u64, body: &[u8], fds: Vec<OwnedFd>) {
        let Ok(call) = serde_json::from_slice::<Call<serde_json::Value>>(body) else { return };
        let caller = Self::caller(client, call.call);
        match serde_json::from_value::<Request>(call.request) {
            Ok(request) => match self.obey(caller, request, fds) {
                Ok(Some(answer)) => self.answer(caller, Ok(answer), vec![]),
                Ok(None) => {} // answered already, or by a worker later
                Err(e) => self.answer(caller, Err(e), vec![]),
            },
            Err(_) => self.answer_unknown(caller),
        }
    }

    fn obey(&mut self, caller: Caller, request: Request, fds: Vec<OwnedFd>) -> Result<Option<Answer>> {
        match request {
            Request::MakeSandbox(spec) => return self.make_sandbox(caller, spec),
            Request::RemoveSandbox(id) => return self.remove_sandbox(caller, &id),
            Request::Sandboxes => {
                let ready = self.sandboxes.values().filter(|held| held.ready);
                return Ok(Some(Answer::Sandboxes(ready.map(|held| held.sandbox.clone()).collect())));
            }
            Request::Start(spec) => return self.start(caller, *spec).map(|()| None),
            Request::Kill { id, signal } => self.kill(&id, signal)?,
            Request::Remove(id) => {
                if self.containers.contains_key(&id) {
                    self.destroy(&id, Some(caller));
                    return Ok(None);
                }
            }
            Request::List => {
                let all = self.containers.values().filter(|held| !held.doomed).map(container);
                return Ok(Some(Answer::Containers(all.collect())));
            }
            Request::Exec { id, spec } => return self.exec(caller, &id, spec).map(|()| None),
            Request::KillExec(call) => {
                self.kill_exec(Self::caller_of(caller, call));
            }
            Request::Attach(id) => return self.subscribe(&id, caller).map(|()| None),
            Request::CloseStdin(id) => self.close_stdin(&id),
            Request::Hold(id) => {
                let (streams, fds) = self.held(&id)?.hold()?;
                self.answer(caller, Ok(Answer::Streams(streams)), fds);
                return Ok(None);
            }
            Request::Restore(id) => self.restore(&id, fds)?,
            Request::Stats(id) => {
                self.held(&id)?.pid().ok_or_else(|| Error::NotRunning(id.clone()))?;
                return Ok(Some(Answer::Stats(self.hierarchies.group(self.cgroup(&id)).stats()?)));
            }
            Request::Update { id, resources } => {
                self.held(&id)?.pid().ok_or_else(|| Error::NotRunning(id.clone()))?;
                self.hierarchies.group(self.cgroup(&id)).limit(&resources)?;
            }
            Request::ReopenLog(id) => {
                let held = self.containers.get_mut(&id).ok_or(Error::NotFound(id))?;
                held.reopen_log()?;
            }
            Request::Stop => {
                if let Some(id) = self.sandboxes.keys().chain(self.containers.keys()).next() {
                    return Err(Error::Helper(format!("{id} still exists")));
                }
                let _ = rustix::mount::unmount(self.dir.path("netns"), rustix::mount::UnmountFlags::DETACH);
                for path in self.hierarchies.below(Path::new(&self.instance)) {
                    self.hierarchies.group(path).remove();
                }
                self.stopping = true;
            }
        }
        Ok(Some(Answer::Done))
    }

    fn caller_of(caller: Caller, call: u64) -> Caller {
        Caller { call, ..caller }
    }

    fn held(&self, id: &str) -> Result<&Held> {
        self.containers.get(id).ok_or_else(|| Error::NotFound(id.into()))
    }

    // Sandboxes.

    fn make_sandbox(&mut self, caller: Caller, spec: SandboxSpec) -> Result<Option<Answer>> {
        spec::check_sandbox(&spec)?;
        if let Some(held) = self.sandboxes.get(&spec.id) {
            if held.ready && held.removing.is_empty() {
                return Ok(Some(Answer::Sandbox(held.sandbox.clone())));
            }
            return Err(Error::Exists(format!("sandbox {}, in the making or being removed,", spec.id)));
        }
        let id = spec.id.clone();
        let pins = self.dir.pins(&id);
        let netns = if spec.host_network { "/proc/self/ns/net".into() } else { pins.namespaces[0].clone() };
        let sandbox = Sandbox { spec, netns };
        self.dir.save_sandbox(&sandbox)?;
        let made = HeldSandbox { sandbox, ready: false, removing: Vec::new() };
        self.sandboxes.insert(id.clone(), made);
        let spec = &self.sandboxes[&id].sandbox.spec;
        let group = self.hierarchies.group(self.sandbox_cgroup(&id));
        let worker = group
            .create()
            .and_then(|()| group.limit(&spec.resources))
            .and_then(|()| Worker::spawn(vec![], |_| sandbox::make(spec, &pins)).map_err(Error::io("start a worker")));
        match worker {
            Ok(worker) => self.employ(worker, Task::Sandbox(id, caller)),
            Err(e) => {
                self.drop_sandbox(&id);
                return Err(e);
            }
        }
        Ok(None)
    }

    fn remove_sandbox(&mut self, caller: Caller, id: &str) -> Result<Option<Answer>> {
        let Some(held) = self.sandboxes.get_mut(id) else { return Ok(Some(Answer::Done)) };
        held.removing.push(caller);
        let inside: Vec<String> =
            self.containers.iter().filter(|(_, c)| c.spec.sandbox == id).map(|(id, _)| id.clone()).collect();
        inside.iter().for_each(|id| self.destroy(id, None));
        self.sweep_sandbox(id);
        Ok(None)
    }

    /// Finishes a removal once nothing is in the sandbox any more.
    pub fn sweep_sandbox(&mut self, id: &str) {
        let asked = self.sandboxes.get(id).is_some_and(|held| !held.removing.is_empty());
        if asked && !self.is_making(id) && !self.containers.values().any(|c| c.spec.sandbox == id) {
            self.drop_sandbox(id);
        }
    }

    fn drop_sandbox(&mut self, id: &str) {
        let result = sandbox::unpin(&self.dir.pins(id));
        let group = self.sandbox_cgroup(id);
        self.sweep_cgroup(group);
        let result = result.and_then(|()| self.dir.forget_sandbox(id));
        let Some(held) = self.sandboxes.remove(id) else { return };
        match result {
            Ok(()) => held.removing.iter().for_each(|to| self.answer(*to, Ok(Answer::Done), vec![])),
            Err(e) => {
                // Still there, as its record is: asked again, it goes on here.
                for to in &held.removing {
                    self.answer(*to, Err(Error::Helper(e.to_string())), vec![]);
                }
                self.sandboxes.insert(id.into(), HeldSandbox { removing: Vec::new(), ..held });
            }
        }
    }

    // Containers.

    fn start(&mut self, caller: Caller, spec: ContainerSpec) -> Result<()> {
        spec::check_container(&spec)?;
        let id = spec.id.clone();
        if let Some(held) = self.containers.get(&id) {
            let under_way = held.record.state == State::Creating && !held.doomed && held.spec == spec;
            return if under_way && self.take_over_start(&id, caller) { Ok(()) } else { Err(Error::Exists(id)) };
        }
        let sandbox = self.sandboxes.get(&spec.sandbox).filter(|held| held.ready && held.removing.is_empty());
        sandbox.ok_or_else(|| Error::NotFound(format!("sandbox {}", spec.sandbox)))?;
        self.dir.create(&spec, &creating())?;
        let dir = self.dir.container(&id);
        self.containers.insert(id.clone(), Held::new(spec, creating(), &dir));
        let held = self.containers.get_mut(&id).ok_or_else(|| Error::NotFound(id.clone()))?;
        let ready = held.open_streams(&dir).and_then(|()| held.open_log()).and_then(|()| self.watch_output(&id));
        if let Err(e) = ready {
            self.forget(&id);
            return Err(e);
        }
        self.queue.push_back((id, caller));
        self.start_queued();
        Ok(())
    }

    /// Gives a start's outcome to this caller in place of a former client's. `false`: that one is still there.
    fn take_over_start(&mut self, id: &str, caller: Caller) -> bool {
        let waits = |other: &Caller| other.client != caller.client;
        if let Some((_, starter)) = self.queue.iter_mut().find(|(queued, starter)| queued == id && waits(starter)) {
            *starter = caller;
            return true;
        }
        for (_, task) in self.tasks() {
            match task {
                Task::Start(started, starter) if started == id && waits(starter) => {
                    *starter = caller;
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    /// Starts workers for containers that wait, as many as there is room for.
    pub fn start_queued(&mut self) {
        while self.has_room() {
            let Some((id, caller)) = self.queue.pop_front() else { return };
            match self.spawn_start(&id) {
                Ok(worker) => self.employ(worker, Task::Start(id, caller)),
                Err(e) => self.not_started(&id, caller, e),
            }
        }
    }

    fn spawn_start(&mut self, id: &str) -> Result<Worker> {
        let spec = self.held(id)?.spec.clone();
        let filter = self.filter(&spec)?;
        let cgroup = self.cgroup(id);
        let sandbox = &self.sandboxes.get(&spec.sandbox).ok_or_else(|| Error::NotFound(spec.sandbox.clone()))?.sandbox;
        let job = create::Job {
            dir: &self.dir.container(id),
            netns: &self.dir.path("netns"),
            pins: self.dir.pins(&spec.sandbox),
            spec: &spec,
            sandbox: &sandbox.spec,
            hierarchies: &self.hierarchies,
            cgroup: &cgroup,
            seccomp: filter.as_deref(),
        };
        Worker::spawn(vec![], |_| create::start(&job)).map_err(Error::io("start a worker"))
    }

    /// The compiled filter of a container.
    fn filter(&mut self, spec: &ContainerSpec) -> Result<Option<Rc<[u8]>>> {
        if spec.security.privileged {
            return Ok(None);
        }
        let capabilities = finish::capabilities(&spec.security)?;
        let compile = || Ok::<_, Error>(seccomp::compile(&spec.security.seccomp, capabilities)?.map(Rc::from));
        if spec.security.seccomp != Seccomp::Default {
            return compile();
        }
        if let Some(known) = self.filters.get(&capabilities.bits()) {
            return Ok(Some(known.clone()));
        }
        let fresh: Option<Rc<[u8]>> = compile()?;
        if self.filters.len() >= 64 {
            self.filters.clear();
        }
        self.filters.extend(fresh.clone().map(|filter| (capabilities.bits(), filter)));
        Ok(fresh)
    }

    /// A worker has ended; what it reports becomes a record before it becomes an answer.
    pub fn worker_ended(&mut self, mut worker: Worker, task: Task) {
        let outcome = worker.outcome();
        match task {
            Task::Start(id, caller) => match self.started(&id, outcome) {
                Ok((answer, fds)) => {
                    let pid = self.containers.get(&id).and_then(Held::pid);
                    self.answer(caller, Ok(answer), fds);
                    pid.into_iter().for_each(|pid| self.claim(pid));
                }
                Err(e) => self.not_started(&id, caller, e),
            },
            Task::Exec { given_up: true, .. } => {
                if let Ok((report, _)) = outcome {
                    signal_child(report.pid, Signal::KILL);
                }
            }
            Task::Exec { caller, ours, spec, .. } => match outcome {
                Ok((report, master)) => {
                    let piped = !spec.terminal;
                    let streams =
                        Streams { stdin: piped && spec.stdin, stdout: piped, stderr: piped, master: spec.terminal };
                    self.execs.insert(report.pid, caller);
                    let fds = ours.into_iter().chain(master).collect();
                    self.answer(caller, Ok(Answer::Streams(streams)), fds);
                    self.claim(report.pid);
                }
                Err(e) => self.answer(caller, Err(e), vec![]),
            },
            Task::Sandbox(id, caller) => match outcome {
                Ok(_) => {
                    let Some(held) = self.sandboxes.get_mut(&id) else { return };
                    held.ready = true;
                    let sandbox = held.sandbox.clone();
                    self.answer(caller, Ok(Answer::Sandbox(sandbox)), vec![]);
                    self.sweep_sandbox(&id);
                }
                Err(e) => {
                    self.drop_sandbox(&id);
                    self.answer(caller, Err(e), vec![]);
                }
            },
        }
    }

    fn started(&mut self, id: &str, outcome: Outcome) -> Result<(Answer, Vec<OwnedFd>)> {
        let (report, mut master) = outcome?;
        let held = self.containers.get_mut(id).ok_or_else(|| Error::NotFound(id.into()))?;
        held.record.state = State::Running { pid: report.pid, since: SystemTime::now() };
        held.record.start_ticks = report.start_ticks;
        held.record.identity = report.identity;
        self.dir.save(id, &held.record)?;
        let doomed = held.doomed;
        if let Some(master) = master.pop() {
            self.restore(id, vec![master])?;
        }
        if doomed {
            self.destroy(id, None);
        }
        let held = self.held(id)?;
        let (_, fds) = held.hold()?;
        Ok((Answer::Container(Box::new(container(held))), fds))
    }

    /// Nothing of a container that did not start remains.
    fn not_started(&mut self, id: &str, caller: Caller, error: Error) {
        self.forget(id);
        self.answer(caller, Err(error), vec![]);
    }

    fn restore(&mut self, id: &str, mut fds: Vec<OwnedFd>) -> Result<()> {
        let held = self.containers.get_mut(id).ok_or_else(|| Error::NotFound(id.into()))?;
        let (Some(fd), true, Some(_)) = (fds.pop(), held.spec.terminal && held.output[0].is_none(), held.pid()) else {
            return Ok(());
        };
        rustix::io::ioctl_fionbio(&fd, true).map_err(Error::io("prepare the terminal"))?;
        held.output[0] = Some(fd.into());
        self.watch_output(id)
    }

    fn kill(&self, id: &str, signal: i32) -> Result<()> {
        let held = self.held(id)?;
        let pid = held.pid().ok_or_else(|| Error::NotRunning(id.into()))?;
        let signal = nix::sys::signal::Signal::try_from(signal)
            .map_err(|_| Error::Invalid { field: "signal".into(), why: format!("{signal} is no signal") })?;
        // Our own child is not reaped before its record says so: the pid is its own until then.
        let sent = match &held.pidfd {
            Some(pidfd) => match Signal::from_named_raw(signal as i32) {
                Some(signal) => rustix::process::pidfd_send_signal(pidfd, signal).map_err(std::io::Error::from),
                None => Ok(()),
            },
            None => nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).map_err(std::io::Error::from),
        };
        match sent {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Err(Error::NotRunning(id.into())),
            sent => sent.map_err(Error::io(format!("signal {id}"))),
        }
    }

    /// Ends a container if it runs and forgets it; `caller` is answered then.
    pub fn destroy(&mut self, id: &str, caller: Option<Caller>) {
        let path = self.cgroup(id);
        let Some(held) = self.containers.get_mut(id) else { return };
        held.doomed = true;
        held.removing.extend(caller);
        match held.record.state {
            State::Exited { .. } => self.forget(id),
            State::Running { .. } => {
                let _ = self.kill(id, libc::SIGKILL);
                self.hierarchies.group(&path).kill();
            }
            State::Creating => match self.queue.iter().position(|(queued, _)| queued == id) {
                Some(at) => {
                    if let Some((_, starter)) = self.queue.remove(at) {
                        self.answer(starter, Err(Error::NotRunning(id.into())), vec![]);
                    }
                    self.forget(id);
                }
                None => self.hierarchies.group(&path).kill(), // its worker and all that made; the rest when it is reaped
            },
        }
    }

    /// Removes a container that does not run: its cgroup, its record, and what waits for that.
    pub fn forget(&mut self, id: &str) {
        let path = self.cgroup(id);
        if path.ends_with(id) {
            self.sweep_cgroup(path);
        }
        let result = self.dir.forget(id);
        let Some(held) = self.containers.remove(id) else { return };
        for to in &held.removing {
            let answer = result.as_ref().map(|()| Answer::Done).map_err(|e| Error::Helper(e.to_string()));
            self.answer(*to, answer, vec![]);
        }
        let sandbox = held.spec.sandbox.clone();
        drop(held);
        self.sweep_sandbox(&sandbox);
    }

    fn exec(&mut self, caller: Caller, id: &str, spec: ExecSpec) -> Result<()> {
        if spec.args.first().is_none_or(String::is_empty) || spec.args.iter().any(|a| a.contains('\0')) {
            return Err(Error::Invalid { field: "args".into(), why: "must name a program, without NUL".into() });
        }
        let container = self.held(id)?.spec.clone();
        let filter = self.filter(&container)?;
        let held = self.held(id)?;
        let pid = held.pid().ok_or_else(|| Error::NotRunning(id.into()))?;
        let (theirs, ours) = exec::streams(&spec)?;
        let cgroup = self.cgroup(id);
        let job = exec::Job {
            pid,
            container: &container,
            identity: &held.record.identity,
            spec: &spec,
            hierarchies: &self.hierarchies,
            cgroup: Path::new(&cgroup),
            seccomp: filter.as_deref(),
        };
        let worker = Worker::spawn(theirs, |stdio| exec::start(&job, stdio)).map_err(Error::io("start a worker"))?;
        self.employ(worker, Task::Exec { caller, ours, spec, given_up: false });
        Ok(())
    }

    /// Ends a process that nobody waits for any more, even one that the container keeps from becoming its program.
    fn kill_exec(&mut self, wanted: Caller) {
        if let Some((pid, _)) = self.execs.iter().find(|(_, c)| **c == wanted) {
            signal_child(*pid, Signal::KILL);
        }
        for (worker, task) in self.tasks() {
            match task {
                Task::Exec { caller, given_up, .. } if *caller == wanted => {
                    *given_up = true;
                    signal_child(worker.pid, Signal::STOP); // it forks no more
                    let children = format!("/proc/{0}/task/{0}/children", worker.pid);
                    let children = std::fs::read_to_string(children).unwrap_or_default();
                    children
                        .split_whitespace()
                        .filter_map(|pid| pid.parse().ok())
                        .for_each(|pid| signal_child(pid, Signal::KILL));
                    signal_child(worker.pid, Signal::KILL);
                }
                _ => {}
            }
        }
    }
}

fn container(held: &Held) -> Container {
    Container { spec: held.spec.clone(), state: held.record.state.clone() }
}

fn signal_child(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
