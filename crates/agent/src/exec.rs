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
use stream::{Options, Outcome, Session};
use tokio::io::{AsyncWriteExt, copy};

use crate::{
    act::chain,
    agent::{Agent, Scene},
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
    let (id, _) = running(&agent, &namespace, &name, &container, &pairs)?;
    let options = options(&pairs)?;
    let args: Vec<String> = pairs.into_iter().filter(|(k, _)| k == "command").map(|(_, v)| v).collect();
    if args.is_empty() {
        return Err(bad("you must specify at least one command for the container".into()));
    }
    let (response, session) = stream::accept(request, options);
    tokio::spawn(async move {
        let session = match session.await {
            Ok(session) => session,
            Err(e) => return tracing::debug!("exec in {id}: {}", chain(e)),
        };
        let size = session.size.borrow().map(|s| (s.width, s.height));
        let spec = ExecSpec { args, terminal: options.tty, stdin: options.stdin, size };
        match agent.0.runtime.exec(&id, &spec).await {
            Ok(process) => pump(session, process, true).await,
            Err(e) => session.finish.send(Outcome::Failed(chain(e))).await,
        }
    });
    Ok(response)
}

/// Connects to a container's own streams.
pub(crate) async fn attach(
    State(agent): State<Agent>,
    Path((namespace, name, container)): Names,
    Query(pairs): Pairs,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let (id, _) = running(&agent, &namespace, &name, &container, &pairs)?;
    let (response, session) = stream::accept(request, options(&pairs)?);
    tokio::spawn(async move {
        let session = match session.await {
            Ok(session) => session,
            Err(e) => return tracing::debug!("attach to {id}: {}", chain(e)),
        };
        match agent.0.runtime.attach(&id).await {
            Ok(process) => pump(session, process, false).await,
            Err(e) => session.finish.send(Outcome::Failed(chain(e))).await,
        }
    });
    Ok(response)
}

/// The container's id, if it runs.
fn running(
    agent: &Agent,
    namespace: &str,
    name: &str,
    container: &str,
    pairs: &[(String, String)],
) -> Result<(String, Scene), Refusal> {
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
        Some(attempt) => Ok((pod::id(scene.uid(), container, attempt), scene)),
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
    let Process { stdin: into, stdout: mut from, stderr: errors, resize, wait } = process;
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
        let first = async {
            match stdout {
                Some(mut stdout) => drop(copy(&mut from, &mut stdout).await),
                None => drop(copy(&mut from, &mut tokio::io::sink()).await),
            }
        };
        let second = async {
            if let Some(mut errors) = errors {
                match stderr {
                    Some(mut stderr) => drop(copy(&mut errors, &mut stderr).await),
                    None => drop(copy(&mut errors, &mut tokio::io::sink()).await),
                }
            }
        };
        tokio::join!(first, second);
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
                match connect(netns, forward.port).await {
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
async fn connect(netns: PathBuf, port: u16) -> io::Result<tokio::net::TcpStream> {
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
