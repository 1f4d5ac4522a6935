//! Streams into a pod: exec, attach, port-forward.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, TcpStream},
    path::PathBuf,
};

use axum::{
    body::Body,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::Response,
};
use runtime::{ExecSpec, Process};
use stream::{Options, Outcome, Session, Writer};
use tokio::io::{AsyncRead, AsyncWriteExt, copy};

use crate::{
    act::chain,
    agent::Agent,
    decide, pod,
    server::{Refusal, Words, bad},
};

type Names = Path<(String, String, String)>;
/// Repeated keys (`command`) keep their order.
type Pairs = Query<Vec<(String, String)>>;

/// Runs a command in a container.
pub(crate) async fn exec(
    State(agent): State<Agent>,
    Path((namespace, name, container)): Names,
    Query(pairs): Pairs,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let id = running(&agent, &namespace, &name, &container, &pairs)?;
    let options = options(&pairs)?;
    let args: Vec<String> = pairs.into_iter().filter(|(k, _)| k == "command").map(|(_, v)| v).collect();
    if args.is_empty() {
        return Err(bad("you must specify at least one command for the container".into()));
    }
    Ok(connect(request, options, true, move |size| async move {
        let spec = ExecSpec { args, terminal: options.tty, stdin: options.stdin, size };
        agent.0.runtime.exec(&id, &spec).await
    }))
}

/// Connects to a container's own streams.
pub(crate) async fn attach(
    State(agent): State<Agent>,
    Path((namespace, name, container)): Names,
    Query(pairs): Pairs,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let id = running(&agent, &namespace, &name, &container, &pairs)?;
    Ok(connect(request, options(&pairs)?, false, move |_| async move { agent.0.runtime.attach(&id).await }))
}

/// Takes the client's connection over and joins it to the process that `open` gives for a terminal of the client's
/// size. `code`: whether the client hears the exit code, or just that the process has ended.
fn connect<F>(
    request: Request<Body>,
    options: Options,
    code: bool,
    open: impl FnOnce(Option<(u16, u16)>) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = runtime::Result<Process>> + Send,
{
    let (response, session) = stream::accept(request, options);
    tokio::spawn(async move {
        let session = match session.await {
            Ok(session) => session,
            Err(e) => return tracing::debug!("streams of a pod: {}", chain(e)),
        };
        let size = session.size.borrow().map(|s| (s.width, s.height));
        match open(size).await {
            Ok(process) => pump(session, process, code).await,
            Err(e) => session.finish.send(Outcome::Failed(chain(e))).await,
        }
    });
    response
}

/// The container's id, if it runs.
fn running(
    agent: &Agent,
    namespace: &str,
    name: &str,
    container: &str,
    pairs: &[(String, String)],
) -> Result<String, Refusal> {
    let uid = pairs.iter().find(|(k, _)| k == "uid").map(|(_, v)| v.as_str());
    let scene = agent.find_pod(namespace, name, uid)?;
    if pod::container(&scene.want, container).is_none() {
        return Err(bad(format!("container {container} is not valid for pod {name}")));
    }
    let attempt = agent.with(scene.uid(), |e| {
        let runs = matches!(e.seen.container(container).state, crate::observe::State::Running { .. });
        (runs && decide::alive(&e.seen, container)).then(|| e.seen.container(container).attempt)
    });
    match attempt.flatten() {
        Some(attempt) => Ok(pod::id(scene.uid(), container, attempt)),
        None => Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found (\"{container}\")"))),
    }
}

/// Kubelet's names for the streams, and the API's.
fn options(pairs: &[(String, String)]) -> Result<Options, Refusal> {
    let asked =
        |names: [&str; 2]| pairs.iter().any(|(k, v)| names.contains(&k.as_str()) && matches!(v.as_str(), "1" | "true"));
    let tty = asked(["tty", "tty"]);
    let options = Options {
        stdin: asked(["input", "stdin"]),
        stdout: asked(["output", "stdout"]),
        stderr: asked(["error", "stderr"]) && !tty,
        tty,
    };
    match options.stdin || options.stdout || options.stderr {
        true => Ok(options),
        false => Err(bad("you must specify at least 1 of stdin, stdout, stderr".into())),
    }
}

/// Moves bytes both ways until the process ends, then tells how (`code`), or just that it has.
async fn pump(session: Session, process: Process, code: bool) {
    let Session { stdin, stdout, stderr, mut size, gone, finish } = session;
    let Process { stdin: into, stdout: from, stderr: errors, resize, wait } = process;
    let input = tokio::spawn(async move {
        if let (Some(mut stdin), Some(mut into)) = (stdin, into) {
            let _ = copy(&mut stdin, &mut into).await;
            let _ = into.shutdown().await;
        }
    });
    let sizes = tokio::spawn(async move {
        loop {
            let now = *size.borrow_and_update();
            if let Some(s) = now {
                resize(s.width, s.height);
            }
            if size.changed().await.is_err() {
                return;
            }
        }
    });
    let output = async {
        let errors = async {
            if let Some(errors) = errors {
                drain(errors, stderr).await;
            }
        };
        tokio::join!(drain(from, stdout), errors);
    };
    tokio::select! {
        () = gone.cancelled() => {}
        exit = async { output.await; wait.await } => {
            let outcome = match exit {
                Ok(_) if !code => Outcome::Exited(0),
                Ok(exit) => match exit.code {
                    Some(code) => Outcome::Exited(code),
                    None => Outcome::Failed("the command's exit code is not known".into()),
                },
                Err(e) => Outcome::Failed(chain(e)),
            };
            finish.send(outcome).await;
        }
    }
    input.abort();
    sizes.abort();
}

/// Passes on what comes, or reads it for nobody.
async fn drain(mut from: impl AsyncRead + Unpin, to: Option<Writer>) {
    let _either_gone = match to {
        Some(mut to) => copy(&mut from, &mut to).await,
        None => copy(&mut from, &mut tokio::io::sink()).await,
    };
}

/// Connects a client to ports of a pod.
pub(crate) async fn port_forward(
    State(agent): State<Agent>,
    Path((namespace, name)): Path<(String, String)>,
    Query(words): Query<Words>,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let scene = agent.find_pod(&namespace, &name, words.get("uid").map(String::as_str))?;
    let all = agent.0.runtime.sandboxes().await.map_err(|e| bad(chain(e)))?;
    let sandbox = all.into_iter().find(|s| s.spec.id == scene.uid());
    let netns = sandbox.map(|s| s.netns).ok_or_else(|| bad(format!("pod {name} has no sandbox yet")))?;
    let (response, ports) = stream::accept_ports(request);
    tokio::spawn(async move {
        let mut ports = match ports.await {
            Ok(ports) => ports,
            Err(e) => return tracing::debug!("port-forward to {name}: {}", chain(e)),
        };
        while let Some(mut forward) = ports.next().await {
            let netns = netns.clone();
            tokio::spawn(async move {
                match dial(netns, forward.port).await {
                    Ok(mut pod) => drop(tokio::io::copy_bidirectional(&mut forward.data, &mut pod).await),
                    Err(e) => {
                        let text = format!("connect to port {} of the pod: {e}", forward.port);
                        let _ = forward.error.write_all(text.as_bytes()).await;
                    }
                }
            });
        }
    });
    Ok(response)
}

/// Connects to the pod's own loopback, from inside its network. A thread enters the namespace and ends with that.
async fn dial(netns: PathBuf, port: u16) -> io::Result<tokio::net::TcpStream> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    let (done, result) = tokio::sync::oneshot::channel();
    let enter = move || -> io::Result<TcpStream> {
        let namespace = std::fs::File::open(netns)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).or_else(|_| TcpStream::connect((Ipv6Addr::LOCALHOST, port)))
    };
    std::thread::Builder::new().name("port-forward".into()).stack_size(64 * 1024).spawn(move || done.send(enter()))?;
    let stream = result.await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}
