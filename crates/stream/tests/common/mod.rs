//! A node behind as much of an API as clients need to get to it: one pod, whose commands are the host's.

#![allow(dead_code)]

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde_json::{Value, json};
use stream::{Options, Outcome, Session, accept, accept_ports, tell};
use tokio::{
    io::{AsyncWriteExt, copy, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    time::timeout,
};

/// Longer than anything takes here, shorter than a test may hang.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What happened on the node, in order.
#[derive(Clone)]
pub struct Node {
    pub address: SocketAddr,
    events: Arc<Mutex<mpsc::UnboundedReceiver<String>>>,
}

#[derive(Clone)]
struct Events(mpsc::UnboundedSender<String>);

impl Events {
    fn say(&self, what: impl Into<String>) {
        let _ = self.0.send(what.into());
    }
}

impl Node {
    /// Serves until the test ends.
    pub async fn start() -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let pod = "/api/v1/namespaces/default/pods/p";
        let router = Router::new()
            .route("/api", get(Json(json!({"kind": "APIVersions", "versions": ["v1"]}))))
            .route("/apis", get(Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}))))
            .route("/api/v1", get(Json(resources())))
            .route(pod, get(Json(the_pod())))
            .route(&format!("{pod}/exec"), any(exec))
            .route(&format!("{pod}/attach"), any(exec))
            .route(&format!("{pod}/portforward"), any(forward))
            .route(&format!("{pod}/log"), get(log))
            .with_state(Events(sender));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, events: Arc::new(Mutex::new(events)) }
    }

    /// Waits for the next event.
    #[allow(clippy::await_holding_lock)]
    pub async fn event(&self) -> String {
        let mut events = self.events.lock().unwrap();
        timeout(PATIENCE, events.recv()).await.expect("an event").unwrap()
    }
}

fn resources() -> Value {
    let resource = |name: &str, kind: &str, verb: &str| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": [verb]});
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
        resource("pods", "Pod", "get"),
        resource("pods/exec", "PodExecOptions", "create"),
        resource("pods/attach", "PodAttachOptions", "create"),
        resource("pods/portforward", "PodPortForwardOptions", "create"),
    ]})
}

fn the_pod() -> Value {
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i", "stdin": true, "tty": true}]},
        "status": {"phase": "Running"},
    })
}

async fn exec(State(events): State<Events>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let options = match Options::from_query(&query) {
        Ok(options) => options,
        Err(e) => return e.into_response(),
    };
    events.say(spoken(&request));
    let command: Vec<String> =
        query.split('&').filter_map(|pair| pair.strip_prefix("command=")).map(unescape).collect();
    let (response, session) = accept(request, options);
    tokio::spawn(async move {
        match session.await {
            Ok(session) => run(session, &command, &events).await,
            Err(e) => events.say(format!("no session: {e}")),
        }
    });
    response
}

async fn log(request: Request) -> Response {
    tell(request, futures::stream::iter(["one\n", "two"].map(Into::into)))
}

/// What the upgrade is to.
fn spoken(request: &Request) -> String {
    let header = |name: &str| {
        let values = request.headers().get_all(name).into_iter().map(|value| value.to_str().unwrap().to_owned());
        values.collect::<Vec<_>>().join(",")
    };
    format!("{} {}{}", header("upgrade"), header("sec-websocket-protocol"), header("x-stream-protocol-version"))
}

fn unescape(word: &str) -> String {
    let mut plain = Vec::new();
    let mut bytes = word.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(plain).unwrap()
}

async fn run(mut session: Session, command: &[String], events: &Events) {
    match command.first().map(String::as_str) {
        Some("sizes") => return sizes(session).await,
        // Writes until the client no longer takes it.
        Some("flood") => {
            let mut stdout = session.stdout.take().unwrap();
            let mut written = 0;
            while let Ok(Ok(())) = timeout(Duration::from_millis(500), stdout.write_all(&[b'x'; 1024])).await {
                written += 1024;
            }
            events.say(format!("stalled at {written}"));
            session.gone.cancelled().await;
            events.say(format!("then {:?}", stdout.write_all(b"x").await.map_err(|e| e.kind())));
            return;
        }
        Some("nothing") => {
            session.gone.cancelled().await;
            events.say("gone");
            return;
        }
        _ => {}
    }
    let (program, arguments) = command.split_first().map_or(("cat", &[][..]), |(p, a)| (p.as_str(), a));
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => return session.finish.send(Outcome::Failed(format!("{program}: {e}"))).await,
    };
    let (mut to, mut out, mut err) =
        (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let stdin = session.stdin.take();
    let input = tokio::spawn(async move {
        if let Some(mut stdin) = stdin {
            let _ = copy(&mut stdin, &mut to).await;
        }
    });
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let output = async {
        let Some(mut stdout) = stdout else { return };
        let _ = copy(&mut out, &mut stdout).await;
    };
    let errors = async {
        let Some(mut stderr) = stderr else { return };
        let _ = copy(&mut err, &mut stderr).await;
    };
    tokio::join!(output, errors);
    let code = child.wait().await.unwrap().code().unwrap_or(-1);
    input.abort();
    session.finish.send(Outcome::Exited(code)).await;
    events.say(format!("exited {code}"));
}

/// Tells the size of the terminal once it has one.
async fn sizes(mut session: Session) {
    let mut stdout = session.stdout.take().unwrap();
    while session.size.changed().await.is_ok() {
        let size = session.size.borrow_and_update().unwrap();
        stdout.write_all(format!("{}x{}\r\n", size.width, size.height).as_bytes()).await.unwrap();
        if (size.width, size.height) != (0, 0) {
            break;
        }
    }
    drop(stdout);
    session.finish.send(Outcome::Exited(0)).await;
}

async fn forward(State(events): State<Events>, request: Request) -> Response {
    events.say(spoken(&request));
    let (response, ports) = accept_ports(request);
    tokio::spawn(async move {
        let mut ports = match ports.await {
            Ok(ports) => ports,
            Err(e) => return events.say(format!("no ports: {e}")),
        };
        while let Some(mut forward) = ports.next().await {
            tokio::spawn(async move {
                match TcpStream::connect(("127.0.0.1", forward.port)).await {
                    Ok(mut pod) => drop(copy_bidirectional(&mut forward.data, &mut pod).await),
                    Err(e) => forward.error.write_all(format!("nobody there: {e}").as_bytes()).await.unwrap(),
                }
            });
        }
        events.say("gone");
    });
    response
}

/// Sends back what it gets, until the other side ends; the port.
pub async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = copy(&mut read, &mut write).await;
            });
        }
    });
    port
}

/// Bytes that do not repeat soon.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
