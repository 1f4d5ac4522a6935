//! The helper's event loop: the client, the containers' output, and children that ended.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::{self, File},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::SystemTime,
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::event::{Timespec, epoll};
use serde::Serialize;

use super::{
    container::Held,
    journal,
    record::{self, Dir, Record},
    worker::Worker,
};
use crate::{
    Error, Exit, Result, Sandbox, State,
    cgroup::Hierarchies,
    protocol::{Answer, Fault, Hello, Message, OLDEST, VERSION},
    sys,
    wire::{Inbox, Outbox},
};

/// A client that reads nothing for so long is let go.
const MAX_OUTBOX: usize = 64 << 20;

/// Who waits for an answer. Answers to a former client's calls are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The client's number.
    pub client: u64,
    /// The call's number.
    pub call: u64,
}

/// What an event is about.
pub(super) enum Source {
    Listener,
    Children,
    Client,
    Output(Rc<str>, usize),
    Listening(Rc<str>),
    Ended(Rc<str>),
}

struct Client {
    socket: UnixStream,
    token: u64,
    inbox: Inbox,
    outbox: Outbox,
}

/// What a worker is about.
pub enum Task {
    /// It starts this container.
    Start(String, Caller),
    /// It starts a process; these descriptors go to the caller, unless that one has given up.
    Exec { caller: Caller, ours: Vec<OwnedFd>, spec: crate::ExecSpec, given_up: bool },
    /// It makes this sandbox.
    Sandbox(String, Caller),
}

/// A sandbox as the helper holds it.
pub struct HeldSandbox {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// Its namespaces are pinned.
    pub ready: bool,
    /// Calls that are answered when it is gone.
    pub removing: Vec<Caller>,
}

/// The helper.
pub struct Keeper {
    pub(super) dir: Dir,
    pub(super) instance: String,
    pub(super) hierarchies: Hierarchies,
    pub(super) sandboxes: BTreeMap<String, HeldSandbox>,
    pub(super) containers: BTreeMap<String, Held>,
    /// Containers that wait for a free worker.
    pub(super) queue: VecDeque<(String, Caller)>,
    pub(super) filters: HashMap<u64, Rc<[u8]>>,
    /// Running processes of exec, by pid.
    pub(super) execs: HashMap<i32, Caller>,
    pub(super) scratch: Box<[u8]>,
    pub(super) stopping: bool,
    workers: HashMap<i32, (Worker, Task)>,
    /// Children that ended before the worker that made them reported.
    unclaimed: HashMap<i32, i32>,
    /// cgroups whose last processes are still ending.
    leftovers: Vec<PathBuf>,
    pub(super) epoll: OwnedFd,
    pub(super) sources: HashMap<u64, Source>,
    pub(super) next: u64,
    client: Option<Client>,
    listener: UnixListener,
    children: SignalFd,
    _lock: File,
}

impl Keeper {
    /// Takes over the instance: its lock, what a former helper recorded, and its socket.
    pub fn open(path: &Path, instance: String) -> Result<Self> {
        let dir = Dir::open(path)?;
        let lock = super::lock(&dir.path("helper.lock"))?;
        let _ = rustix::process::setsid(); // EPERM: it leads a session already
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(Error::io("become a subreaper"))?;
        sys::ignore(libc::SIGPIPE);
        raise_file_limit();
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block().map_err(Error::io("block SIGCHLD"))?;
        let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(Error::io("watch children"))?;
        pin_mount(&dir.path("netns"))?;

        let socket = dir.path(super::SOCKET);
        record::absent_is_done(fs::remove_file(&socket)).map_err(Error::io("remove the old socket"))?;
        let listener = UnixListener::bind(&socket).map_err(Error::io(format!("listen on {}", socket.display())))?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).map_err(Error::io("guard the socket"))?;
        listener.set_nonblocking(true).map_err(Error::io("prepare the socket"))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::io("make an event loop"))?;
        let mut keeper = Self {
            hierarchies: Hierarchies::find()?,
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            queue: VecDeque::new(),
            filters: HashMap::new(),
            execs: HashMap::new(),
            scratch: vec![0; journal::SCRATCH].into(),
            stopping: false,
            workers: HashMap::new(),
            unclaimed: HashMap::new(),
            leftovers: Vec::new(),
            sources: HashMap::new(),
            next: 0,
            client: None,
            _lock: lock,
            dir,
            instance,
            epoll,
            listener,
            children,
        };
        watch(&keeper.epoll, &mut keeper.sources, &mut keeper.next, &keeper.listener, Source::Listener)?;
        watch(&keeper.epoll, &mut keeper.sources, &mut keeper.next, &keeper.children, Source::Children)?;
        keeper.adopt()?;
        Ok(keeper)
    }

    /// Serves until told to stop.
    pub fn run(mut self) -> Result<()> {
        let _ = rustix::io::write(rustix::stdio::stdout(), super::READY);
        let null = File::options().read(true).write(true).open("/dev/null").map_err(Error::io("open /dev/null"))?;
        let _ = rustix::stdio::dup2_stdout(&null);
        let mut events = Vec::with_capacity(64);
        while !self.stopping {
            events.clear();
            // A cgroup is removable a moment after its last process ended; nothing tells when.
            let retry = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            let timeout = (!self.leftovers.is_empty()).then_some(&retry);
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("wait for events")(e)),
            }
            for event in &events {
                let (token, flags) = (event.data.u64(), event.flags);
                match self.sources.get(&token) {
                    Some(Source::Listener) => self.accept(),
                    Some(Source::Children) => self.reap(),
                    Some(Source::Client) => self.serve(flags),
                    Some(Source::Output(id, stream)) => self.output(&id.clone(), *stream, token),
                    Some(Source::Listening(id)) => self.unsubscribe(&id.clone(), token),
                    Some(Source::Ended(id)) => self.adopted_ended(&id.clone()),
                    None => {} // closed by an event before it
                }
            }
            self.retry_leftovers();
        }
        Ok(())
    }

    // The client.

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            let watched = watch(&self.epoll, &mut self.sources, &mut self.next, &socket, Source::Client);
            let Ok(token) = watched else { continue };
            self.send(&Message::Replaced, vec![]); // one rast at a time: the newest
            self.hang_up();
            self.client = Some(Client { socket, token, inbox: Inbox::default(), outbox: Outbox::default() });
            self.send(&Hello { version: VERSION, oldest: OLDEST, pid: std::process::id() }, vec![]);
        }
    }

    fn serve(&mut self, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) {
            self.flush();
        }
        let Some(client) = &mut self.client else { return };
        let token = client.token;
        let alive = matches!(client.inbox.fill(&client.socket), Ok(n) if n > 0)
            || !flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        loop {
            let frame = match &mut self.client {
                Some(client) if client.token == token => client.inbox.next(),
                _ => return,
            };
            match frame {
                Ok(Some((body, fds))) => self.request(token, &body, fds),
                Ok(None) => break,
                Err(_) => return self.hang_up(),
            }
        }
        if !alive {
            self.hang_up();
        }
    }

    fn hang_up(&mut self) {
        if let Some(client) = self.client.take() {
            self.sources.remove(&client.token);
        }
    }

    fn send(&mut self, message: &impl Serialize, fds: Vec<OwnedFd>) {
        let Some(client) = &mut self.client else { return };
        client.outbox.push(&serde_json::to_vec(message).unwrap_or_default(), fds);
        self.flush();
    }

    fn flush(&mut self) {
        let Some(client) = &mut self.client else { return };
        if client.outbox.flush(&client.socket).is_err() || client.outbox.len() > MAX_OUTBOX {
            return self.hang_up();
        }
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, !client.outbox.is_empty());
        let _ = epoll::modify(&self.epoll, &client.socket, epoll::EventData::new_u64(client.token), flags);
    }

    /// Answers a call.
    pub fn answer(&mut self, to: Caller, result: Result<Answer>, fds: Vec<OwnedFd>) {
        if self.client.as_ref().is_some_and(|c| c.token == to.client) {
            self.send(&Message::Reply { call: to.call, result: result.map_err(Fault::from) }, fds);
        }
    }

    /// Answers a call that this helper does not know.
    pub fn answer_unknown(&mut self, to: Caller) {
        self.send(&Message::Reply { call: to.call, result: Err(Fault::Unknown) }, vec![]);
    }

    pub(super) fn caller(client: u64, call: u64) -> Caller {
        Caller { client, call }
    }

    // Output.

    /// Reads a container's streams from now on.
    pub fn watch_output(&mut self, id: &str) -> Result<()> {
        let Some(held) = self.containers.get(id) else { return Ok(()) };
        for (stream, file) in held.output.iter().enumerate() {
            let Some(file) = file else { continue };
            watch(&self.epoll, &mut self.sources, &mut self.next, file, Source::Output(id.into(), stream))?;
        }
        Ok(())
    }

    fn output(&mut self, id: &str, stream: usize, token: u64) {
        let Some(held) = self.containers.get_mut(id) else {
            self.sources.remove(&token);
            return;
        };
        held.pump(stream, &mut self.scratch);
        if held.output[stream].is_none() {
            self.sources.remove(&token);
        }
    }

    /// Adds a listener to a running container and answers with its streams.
    pub fn subscribe(&mut self, id: &str, caller: Caller) -> Result<()> {
        let held = self.containers.get_mut(id).ok_or_else(|| Error::NotFound(id.into()))?;
        held.pid().ok_or_else(|| Error::NotRunning(id.into()))?;
        let token = self.next + 1;
        let (streams, fds) = held.subscribe(token)?;
        if let Some(pipe) = held.subscribers.last().and_then(|s| s.pipes[0].as_ref()) {
            watch(&self.epoll, &mut self.sources, &mut self.next, pipe, Source::Listening(id.into()))?;
        }
        self.answer(caller, Ok(Answer::Streams(streams)), fds);
        Ok(())
    }

    fn unsubscribe(&mut self, id: &str, token: u64) {
        self.sources.remove(&token);
        let Some(held) = self.containers.get_mut(id) else { return };
        held.subscribers.retain(|s| s.token != token);
        if held.spec.stdin_once && held.subscribers.is_empty() {
            self.close_stdin(id);
        }
    }

    /// Ends a container's standard input, for good.
    pub fn close_stdin(&mut self, id: &str) {
        let Some(held) = self.containers.get_mut(id) else { return };
        held.stdin = None;
        held.record.stdin_closed = true;
        let _ = self.dir.save(id, &held.record);
    }

    // Children.

    /// How many workers may run at once: they wait for the kernel's locks more than for a processor.
    fn max_workers() -> usize {
        2 * std::thread::available_parallelism().map_or(2, usize::from)
    }

    /// Whether another worker may be started. Those of exec do not count: a container can hold them up.
    pub fn has_room(&self) -> bool {
        let starts = self.workers.values().filter(|(_, task)| !matches!(task, Task::Exec { .. }));
        starts.count() < Self::max_workers()
    }

    /// Notes a worker under way.
    pub fn employ(&mut self, worker: Worker, task: Task) {
        self.workers.insert(worker.pid, (worker, task));
    }

    /// The workers under way.
    pub fn tasks(&mut self) -> impl Iterator<Item = (&Worker, &mut Task)> {
        self.workers.values_mut().map(|(worker, task)| (&*worker, task))
    }

    /// Whether a worker makes this sandbox.
    pub fn is_making(&self, sandbox: &str) -> bool {
        self.workers.values().any(|(_, task)| matches!(task, Task::Sandbox(id, _) if id == sandbox))
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.children.read_signal() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            match self.workers.remove(&pid) {
                Some((worker, task)) => self.worker_ended(worker, task),
                None => {
                    self.unclaimed.insert(pid, status.as_raw());
                }
            }
        }
        let ended: Vec<i32> = self.unclaimed.keys().copied().collect();
        for pid in ended {
            self.claim(pid);
        }
        if self.workers.is_empty() {
            self.unclaimed.clear(); // descendants of containers that were left to us
        }
        self.start_queued();
    }

    /// Gives an ended child to whom it belongs, if that is known yet.
    pub fn claim(&mut self, pid: i32) {
        let Some(status) = self.unclaimed.get(&pid).copied() else { return };
        let owner = self.containers.iter().find(|(_, held)| held.pid() == Some(pid) && held.pidfd.is_none());
        if let Some(id) = owner.map(|(id, _)| id.clone()) {
            self.unclaimed.remove(&pid);
            self.ended(&id, Some(status));
        } else if let Some(caller) = self.execs.remove(&pid) {
            self.unclaimed.remove(&pid);
            let exit = exit(Some(status), false);
            if self.client.as_ref().is_some_and(|c| c.token == caller.client) {
                self.send(&Message::ExecExited { call: caller.call, exit }, vec![]);
            }
        }
    }

    fn adopted_ended(&mut self, id: &str) {
        let Some(held) = self.containers.get(id) else { return };
        let (Some(pid), Some(pidfd)) = (held.pid(), &held.pidfd) else { return };
        // A zombie still tells by /proc; once its parent has reaped it, by its pidfd where the kernel can.
        let status = match record::process(pid) {
            Some(('Z', ticks, status)) if ticks == held.record.start_ticks => Some(status),
            _ => sys::exit_status(pidfd.as_fd()),
        };
        self.ended(id, status);
    }

    /// A container's first process ended.
    pub(super) fn ended(&mut self, id: &str, status: Option<i32>) {
        let path = self.cgroup(id);
        let Some(held) = self.containers.get_mut(id) else { return };
        held.finish(&mut self.scratch);
        let group = self.hierarchies.group(&path);
        let exit = exit(status, group.oom_killed());
        let since = match held.record.state {
            State::Running { since, .. } => since,
            _ => exit.at,
        };
        held.record.state = State::Exited { since, exit: exit.clone() };
        let _ = self.dir.save(id, &held.record);
        let doomed = held.doomed;
        self.sources.retain(
            |_, source| !matches!(source, Source::Output(i, _) | Source::Listening(i) | Source::Ended(i) if **i == *id),
        );
        self.sweep_cgroup(path);
        self.send(&Message::Exited { id: id.into(), exit }, vec![]);
        if doomed {
            self.forget(id);
        }
    }

    // cgroups.

    /// A container's group below the roots.
    pub fn cgroup(&self, id: &str) -> PathBuf {
        let sandbox = self.containers.get(id).map_or("", |held| held.spec.sandbox.as_str());
        self.sandbox_cgroup(sandbox).join(id)
    }

    /// A sandbox's group below the roots.
    pub fn sandbox_cgroup(&self, id: &str) -> PathBuf {
        let below = self.sandboxes.get(id).map_or("", |held| held.sandbox.spec.cgroup.as_str());
        Path::new(&self.instance).join(below)
    }

    /// Kills what is left in a group and removes it, now or as soon as it can be.
    pub fn sweep_cgroup(&mut self, path: PathBuf) {
        if !self.hierarchies.group(&path).remove() && !self.hierarchies.clear(&path) {
            self.leftovers.push(path);
        }
    }

    fn retry_leftovers(&mut self) {
        let hierarchies = &self.hierarchies;
        self.leftovers.retain(|path| !hierarchies.clear(path));
    }
}

/// Adds a descriptor to the event loop, until it is closed.
pub(super) fn watch(
    epoll: &OwnedFd,
    sources: &mut HashMap<u64, Source>,
    next: &mut u64,
    fd: impl AsFd,
    source: Source,
) -> Result<u64> {
    *next += 1;
    let flags = match source {
        Source::Listening(_) => epoll::EventFlags::empty(), // only that its reader is gone
        _ => epoll::EventFlags::IN,
    };
    epoll::add(epoll, fd, epoll::EventData::new_u64(*next), flags).map_err(Error::io("watch a descriptor"))?;
    sources.insert(*next, source);
    Ok(*next)
}

/// A wait status as an exit.
fn exit(status: Option<i32>, oom: bool) -> Exit {
    let signal = status.filter(|s| libc::WIFSIGNALED(*s)).map(|s| libc::WTERMSIG(s));
    let code = status.map(|s| signal.map_or_else(|| libc::WEXITSTATUS(s), |signal| 128 + signal));
    Exit { code, signal, oom, at: SystemTime::now() }
}

/// Makes the pins' directory a mount of its own that no propagation reaches, so that workers get rid of all
/// pins at once.
fn pin_mount(path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let device =
        |path: &Path| fs::metadata(path).map(|m| m.dev()).map_err(Error::io(format!("stat {}", path.display())));
    let parent = path.parent().unwrap_or(path);
    if device(path)? == device(parent)? {
        let doing = || format!("mount {}", path.display());
        let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
        rustix::mount::mount("rast-netns", path, "tmpfs", flags, Some(c"mode=700")).map_err(Error::io(doing()))?;
        let private = rustix::mount::MountPropagationFlags::PRIVATE;
        rustix::mount::mount_change(path, private).map_err(Error::io(doing()))?;
    }
    Ok(())
}

/// Two streams, their journals and a log for each container: the soft limit of 1024 would end at 200.
fn raise_file_limit() {
    let held = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: held.maximum, ..held };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

/// A container that is recorded and not running yet.
pub fn creating() -> Record {
    Record { state: State::Creating, start_ticks: 0, identity: Default::default(), stdin_closed: false }
}
