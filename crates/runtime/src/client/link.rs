//! The connection to the helper, and the task that keeps it.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::DirBuilderExt, net::UnixStream},
    },
    process::Stdio,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    sync::{mpsc, oneshot},
};

use super::{Config, Outgoing, ReplyTo, Shared, one};
use crate::{
    Container, Error, Event, Exit, Result, State, helper,
    protocol::{Answer, Call, Hello, Message, Request},
    wire::{Frame, Inbox, Outbox},
};

/// A helper starts within milliseconds; adopting a thousand containers takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after a failed start the next is tried.
const RETRY: Duration = Duration::from_millis(200);
/// How often a start is tried before its failure counts.
const TRIES: u32 = 25;

pub(super) struct Link {
    socket: AsyncFd<UnixStream>,
    inbox: Inbox,
    outbox: Outbox,
    next_call: u64,
    /// Came while an answer was waited for.
    early: Vec<Message>,
}

impl Link {
    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = crate::sys::register(socket)?;
        Ok(Self { socket, inbox: Inbox::default(), outbox: Outbox::default(), next_call: 0, early: Vec::new() })
    }

    fn push(&mut self, request: Request, fds: Vec<OwnedFd>) -> io::Result<u64> {
        self.next_call += 1;
        let call = Call { call: self.next_call, request };
        self.outbox.push(&serde_json::to_vec(&call)?, fds);
        self.outbox.flush(self.socket.get_ref())?;
        Ok(self.next_call)
    }

    /// Waits until the socket can be read, or written where something waits for that; does either once.
    async fn progress(&mut self) -> io::Result<()> {
        let mut interest = Interest::READABLE;
        if !self.outbox.is_empty() {
            interest |= Interest::WRITABLE;
        }
        let mut guard = self.socket.ready(interest).await?;
        if guard.ready().is_writable() && !self.outbox.is_empty() {
            self.outbox.flush(guard.get_inner())?;
            if !self.outbox.is_empty() {
                guard.clear_ready_matching(tokio::io::Ready::WRITABLE);
            }
        }
        if guard.ready().is_readable() {
            match self.inbox.fill(guard.get_inner()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    guard.clear_ready_matching(tokio::io::Ready::READABLE);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.inbox.next()? {
                return Ok(frame);
            }
            self.progress().await?;
        }
    }

    /// One call with nothing else under way.
    async fn ask(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<(Answer, Vec<OwnedFd>)> {
        let doing = || Error::io("talk to the helper");
        let number = self.push(request, fds).map_err(doing())?;
        loop {
            let (body, fds) = self.frame().await.map_err(doing())?;
            match Message::read(&body) {
                Some(Message::Reply { call, result }) if call == number => return Ok((result?, fds)),
                message => self.early.extend(message),
            }
        }
    }
}

/// Connects to the helper (starting one if none answers), gives it back what its predecessor held, and takes
/// hold of what it holds.
pub(super) async fn connect(shared: &Shared) -> Result<Link> {
    let config = &shared.config;
    let path = config.run_dir.join(helper::SOCKET);
    let mut tries = 0;
    let socket = loop {
        if let Ok(socket) = UnixStream::connect(&path) {
            break socket;
        }
        match spawn(config).await {
            // One that a process killed meanwhile has started holds the lock before it listens.
            Err(_) if tries < TRIES => tokio::time::sleep(RETRY).await,
            started => started?,
        }
        tries += 1;
    };
    let doing = || Error::io("talk to the helper");
    let mut link = Link::new(socket).map_err(doing())?;
    let (body, _) = tokio::time::timeout(START_TIMEOUT, link.frame())
        .await
        .map_err(|_| {
            Error::Helper(format!("it holds {} and says nothing; kill -9 it: its containers run on", path.display()))
        })?
        .map_err(doing())?;
    let hello: Hello = serde_json::from_slice(&body).map_err(|e| Error::Helper(format!("no hello: {e}")))?;
    hello.check(&config.backend)?;

    let restore: Vec<(String, OwnedFd)> = {
        let held = shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter_map(|(id, held)| Some((id.clone(), held.fd.try_clone().ok()?))).collect()
    };
    for (id, fd) in restore {
        match link.ask(Request::Restore(id.clone()), vec![fd]).await {
            Err(Error::NotFound(_)) => shared.hold(&id, None, false),
            other => other.map(drop)?,
        }
    }
    let (Answer::Containers(all), _) = link.ask(Request::List, vec![]).await? else { return Err(super::unexpected()) };
    for container in all {
        let spec = container.spec;
        let open = matches!(container.state, State::Running { .. }) && (spec.terminal || spec.stdin);
        let known = shared.held.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&spec.id);
        if open
            && !known
            && let Ok((Answer::Streams(which), fds)) = link.ask(Request::Hold(spec.id.clone()), vec![]).await
        {
            shared.hold(&spec.id, one(which, fds), spec.stdin_once);
        }
    }
    Ok(link)
}

/// Starts a helper that outlives this process.
async fn spawn(config: &Config) -> Result<()> {
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(&config.run_dir).map_err(Error::io(format!("make {}", config.run_dir.display())))?;
    let log = config.run_dir.join("helper.log");
    let errors = File::options().create(true).append(true).open(&log);
    let errors = errors.map_err(Error::io(format!("open {}", log.display())))?;
    let mut command = tokio::process::Command::new(&config.program);
    command.args(&config.args).arg("--dir").arg(&config.run_dir).args(["--instance", &config.instance]);
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", path);
    }
    let mut child = command.spawn().map_err(Error::io(format!("start {}", config.program.display())))?;
    let mut ready = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(helper::READY.len() as u64);
        let mut read = std::pin::pin!(read);
        let _ = tokio::time::timeout(START_TIMEOUT, read.read_to_end(&mut ready)).await;
    }
    if ready == helper::READY {
        tokio::spawn(async move { child.wait().await }); // so that no zombie stays while we live
        return Ok(());
    }
    let _ = child.start_kill();
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let why = text.lines().last().unwrap_or("it said nothing").to_owned();
    Err(Error::Helper(format!("did not start: {why}")))
}

/// Serves calls until the last [`super::Keeper`] is dropped; reconnects whenever the helper is lost.
pub(super) async fn run(mut link: Link, mut calls: mpsc::UnboundedReceiver<Outgoing>, shared: Arc<Shared>) {
    loop {
        if serve(&mut link, &mut calls, &shared).await.is_ok() || shared.over.load(Ordering::Relaxed) {
            return;
        }
        tracing::warn!("the helper is lost; its containers run on");
        link = loop {
            match connect(&shared).await {
                Ok(link) => break link,
                Err(error) => tracing::error!(%error, "no helper"),
            }
            // Calls are refused rather than kept waiting for a helper that may never start.
            while let Ok(outgoing) = calls.try_recv() {
                if let Some(reply) = outgoing.reply {
                    let _ = reply.send(Err(super::gone()));
                }
            }
            if calls.is_closed() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        };
        let _ = shared.events.send(Event::Resync);
    }
}

type Replies = HashMap<u64, ReplyTo>;
type Exits = HashMap<u64, oneshot::Sender<Exit>>;

/// `Ok` when nobody will call any more.
async fn serve(link: &mut Link, calls: &mut mpsc::UnboundedReceiver<Outgoing>, shared: &Shared) -> io::Result<()> {
    let (mut replies, mut exits) = (Replies::new(), Exits::new());
    for message in std::mem::take(&mut link.early) {
        dispatch(message, vec![], &mut replies, &mut exits, shared);
    }
    loop {
        tokio::select! {
            outgoing = calls.recv() => {
                let Some(Outgoing { request, reply, exit }) = outgoing else { return Ok(()) };
                let call = link.push(request, vec![])?;
                replies.extend(reply.map(|reply| (call, reply)));
                if let Some((number, exit)) = exit {
                    let _ = number.send(call);
                    exits.insert(call, exit);
                }
            }
            progress = link.progress() => {
                progress?;
                while let Some((body, fds)) = link.inbox.next()? {
                    if let Some(message) = Message::read(&body) {
                        dispatch(message, fds, &mut replies, &mut exits, shared);
                    }
                }
            }
        }
    }
}

fn dispatch(message: Message, mut fds: Vec<OwnedFd>, replies: &mut Replies, exits: &mut Exits, shared: &Shared) {
    match message {
        Message::Reply { call, result } => {
            if result.is_err() {
                exits.remove(&call);
            }
            let Some(reply) = replies.remove(&call) else { return };
            let result = result.map(|answer| {
                // Held before the next message is looked at: that may say that the container ended already.
                if let Answer::Container(container) = &answer {
                    let Container { spec, state } = &**container;
                    let open = matches!(state, State::Running { .. });
                    shared.hold(&spec.id, fds.pop().filter(|_| open), spec.stdin_once);
                }
                (answer, fds)
            });
            let _ = reply.send(result.map_err(Error::from));
        }
        Message::Exited { id, exit } => {
            shared.hold(&id, None, false);
            let _ = shared.events.send(Event::Exited { id, exit });
        }
        Message::Replaced => {
            tracing::error!("another rast has taken over the helper");
            shared.over.store(true, Ordering::Relaxed);
        }
        Message::ExecExited { call, exit } => {
            exits.remove(&call).map(|told| told.send(exit));
        }
    }
}
