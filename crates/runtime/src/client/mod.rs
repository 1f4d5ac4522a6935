//! `rast`'s side of the helper: finds or starts it, and finds it again.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::{
    Backend, Container, ContainerSpec, Error, Event, ExecSpec, Exit, Process, Resources, Result, Runtime, Sandbox,
    SandboxSpec, State, Stats,
    protocol::{Answer, Request, Streams},
};

mod link;
mod streams;

/// Where the helper of an instance lives and how it is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its socket and records; made when absent. Expected to be lost with a reboot (`/run`).
    pub run_dir: PathBuf,
    /// The instance's name: the first level of all its cgroups.
    pub instance: String,
    /// The program that calls [`crate::helper::main`], in `rast` `/proc/self/exe`.
    pub program: PathBuf,
    /// What leads it there, in `rast` `["helper"]`.
    pub args: Vec<String>,
    /// What makes containers from now on. Those that run are not touched by a change of it.
    pub backend: Backend,
}

/// Containers through the helper process of an instance.
///
/// Guarantees: containers, their logs and their records outlive both this and the helper. When the helper
/// dies, open calls fail with [`Error::Helper`], a new one is started, and [`Event::Resync`] follows. A start
/// that was not answered leaves nothing behind, or a running container that [`Runtime::list`] shows.
pub struct Keeper {
    calls: mpsc::UnboundedSender<Outgoing>,
    shared: Arc<Shared>,
}

/// What the connection's task and the callers both see.
struct Shared {
    config: Config,
    events: broadcast::Sender<Event>,
    /// Second handles of terminals and standard inputs, lest they hang up when the helper dies.
    held: Mutex<HashMap<String, HeldInput>>,
    /// The helper is told to end, or serves another client: do not look for it again.
    over: AtomicBool,
}

struct HeldInput {
    fd: OwnedFd,
    once: bool,
}

type ReplyTo = oneshot::Sender<Result<(Answer, Vec<OwnedFd>)>>;

/// A request on its way.
struct Outgoing {
    request: Request,
    reply: Option<ReplyTo>,
    /// Told the call's number, and of the process's end.
    exit: Option<(oneshot::Sender<u64>, oneshot::Sender<Exit>)>,
}

impl Shared {
    fn hold(&self, id: &str, fd: Option<OwnedFd>, once: bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match fd {
            Some(fd) => held.insert(id.to_owned(), HeldInput { fd, once }),
            None => held.remove(id),
        };
    }
}

impl Keeper {
    /// Connects to the instance's helper, starting one if none answers.
    ///
    /// # Errors
    /// The helper could not be started, or speaks another protocol.
    pub async fn start(config: Config) -> Result<Arc<Self>> {
        let (calls, outgoing) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(1024);
        let shared = Arc::new(Shared { config, events, held: Mutex::default(), over: AtomicBool::new(false) });
        let link = link::connect(&shared).await?;
        tokio::spawn(link::run(link, outgoing, shared.clone()));
        Ok(Arc::new(Self { calls, shared }))
    }

    /// Ends the helper.
    ///
    /// # Errors
    /// A sandbox or container exists.
    pub async fn stop(&self) -> Result<()> {
        self.shared.over.store(true, Ordering::Relaxed);
        let stopped = self.done(Request::Stop).await;
        self.shared.over.store(stopped.is_ok(), Ordering::Relaxed);
        stopped
    }

    fn send(&self, outgoing: Outgoing) -> Result<()> {
        self.calls.send(outgoing).map_err(|_| gone())
    }

    async fn call(&self, request: Request) -> Result<(Answer, Vec<OwnedFd>)> {
        let (reply, answer) = oneshot::channel();
        self.send(Outgoing { request, reply: Some(reply), exit: None })?;
        answer.await.map_err(|_| gone())?
    }

    async fn done(&self, request: Request) -> Result<()> {
        self.call(request).await.map(drop)
    }
}

fn gone() -> Error {
    Error::Helper("the connection is closed".into())
}

fn unexpected() -> Error {
    Error::Helper("an answer to another question".into())
}

/// Tells the helper to kill a process of exec that nobody waits for any more.
struct KillOnDrop {
    call: Option<u64>,
    calls: mpsc::UnboundedSender<Outgoing>,
}

impl KillOnDrop {
    /// The process ended by itself.
    fn disarm(&mut self) {
        self.call = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            let _ = self.calls.send(Outgoing { request: Request::KillExec(call), reply: None, exit: None });
        }
    }
}

#[async_trait]
impl Runtime for Keeper {
    async fn make_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox> {
        match self.call(Request::MakeSandbox(spec.clone())).await? {
            (Answer::Sandbox(sandbox), _) => Ok(sandbox),
            _ => Err(unexpected()),
        }
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        self.done(Request::RemoveSandbox(id.into())).await
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        match self.call(Request::Sandboxes).await? {
            (Answer::Sandboxes(all), _) => Ok(all),
            _ => Err(unexpected()),
        }
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<Container> {
        let spec = ContainerSpec { backend: self.shared.config.backend.clone(), ..spec.clone() };
        match self.call(Request::Start(Box::new(spec))).await? {
            (Answer::Container(container), _) => Ok(*container),
            _ => Err(unexpected()),
        }
    }

    async fn kill(&self, id: &str, signal: i32) -> Result<()> {
        self.done(Request::Kill { id: id.into(), signal }).await
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.done(Request::Remove(id.into())).await
    }

    async fn list(&self) -> Result<Vec<Container>> {
        match self.call(Request::List).await? {
            (Answer::Containers(all), _) => Ok(all),
            _ => Err(unexpected()),
        }
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Process> {
        let ((reply, answer), (number, call), (told, exit)) =
            (oneshot::channel(), oneshot::channel(), oneshot::channel());
        let request = Request::Exec { id: id.into(), spec: spec.clone() };
        self.send(Outgoing { request, reply: Some(reply), exit: Some((number, told)) })?;
        let mut guard = KillOnDrop { call: call.await.ok(), calls: self.calls.clone() };
        let (Answer::Streams(which), fds) = answer.await.map_err(|_| gone())?? else { return Err(unexpected()) };
        let wait = async move {
            let exit = exit.await.map_err(|_| Error::Helper("the helper died; the process's end is unknown".into()));
            guard.disarm();
            exit
        };
        streams::process(which, fds, Box::pin(wait), None)
    }

    async fn attach(&self, id: &str) -> Result<Process> {
        let mut events = self.events();
        let (Answer::Streams(which), fds) = self.call(Request::Attach(id.into())).await? else {
            return Err(unexpected());
        };
        let once = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner).get(id).is_some_and(|h| h.once);
        let (calls, shared, id) = (self.calls.clone(), self.shared.clone(), id.to_owned());
        let leave = once.then(|| {
            let (calls, id) = (calls.clone(), id.clone());
            let leave = move || {
                shared.hold(&id, None, false);
                let _ = calls.send(Outgoing { request: Request::CloseStdin(id.clone()), reply: None, exit: None });
            };
            Box::new(leave) as Box<dyn Fn() + Send>
        });
        let lister = Self { calls, shared: self.shared.clone() };
        let wait = async move {
            loop {
                match events.recv().await {
                    Ok(Event::Exited { id: ended, exit }) if ended == id => return Ok(exit),
                    Ok(Event::Exited { .. }) => continue,
                    Err(broadcast::error::RecvError::Closed) => return Err(gone()),
                    Ok(Event::Resync) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                }
                let all = lister.list().await?;
                match all.into_iter().find(|c| c.spec.id == id).map(|c| c.state) {
                    Some(State::Exited { exit, .. }) => return Ok(exit),
                    Some(_) => {}
                    None => return Err(Error::NotFound(id)),
                }
            }
        };
        streams::process(which, fds, Box::pin(wait), leave)
    }

    async fn stats(&self, id: &str) -> Result<Stats> {
        match self.call(Request::Stats(id.into())).await? {
            (Answer::Stats(stats), _) => Ok(stats),
            _ => Err(unexpected()),
        }
    }

    async fn update(&self, id: &str, resources: &Resources) -> Result<()> {
        self.done(Request::Update { id: id.into(), resources: resources.clone() }).await
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        self.done(Request::ReopenLog(id.into())).await
    }
}

/// The one descriptor that [`Streams`] of a hold announces.
fn one(which: Streams, mut fds: Vec<OwnedFd>) -> Option<OwnedFd> {
    (which.stdin || which.master).then(|| fds.pop()).flatten()
}
