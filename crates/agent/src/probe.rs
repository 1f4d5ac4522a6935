//! Probes and lifecycle hooks: exec, HTTP, TCP and gRPC, each with its time limit.

use std::{net::IpAddr, pin::pin, time::Duration};

use http::{Request, Uri, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::{
    act::chain,
    agent::{Agent, Scene},
    events,
    pod::{self, ProbeKind},
};

/// What of a probe's output is kept.
const OUTPUT: u64 = 10 * 1024;
const REDIRECTS: usize = 10;

type Result<T, E = String> = std::result::Result<T, E>;

/// Why a probe or hook did not succeed.
enum Fault {
    /// The container's doing.
    Failed(String),
    /// It could not be tried: says nothing of the container.
    Untried(String),
}

impl Fault {
    fn text(self) -> String {
        match self {
            Self::Failed(text) | Self::Untried(text) => text,
        }
    }
}

impl Agent {
    /// Probes once, see [`crate::observe::Outcome::Probed`]. A failure is told as an event.
    pub(crate) async fn probe(&self, scene: &Scene, name: &str, attempt: u32, kind: ProbeKind) -> Option<bool> {
        let (_, c) = pod::container(&scene.want, name)?;
        let p = kind.of(c)?;
        let id = pod::id(scene.uid(), name, attempt);
        let (verdict, how, why) = match once(self, c, &id, &scene.ips, p).await {
            Ok(()) => return Some(true),
            Err(Fault::Failed(why)) => (Some(false), "failed", why),
            Err(Fault::Untried(why)) => (None, "could not be made", why),
        };
        let text = format!("{} probe {how}: {why}", kind.title());
        self.0.events.warning(events::about(&scene.want, Some(name)), "Unhealthy", text);
        verdict
    }
}

async fn once(agent: &Agent, c: &Container, id: &str, ips: &[IpAddr], p: &Probe) -> Result<(), Fault> {
    let limit = pod::seconds(p.timeout_seconds.unwrap_or(1).max(1).into());
    let ip = ips.first().copied().ok_or_else(|| Fault::Untried("the pod has no address yet".into()));
    let probing = async {
        if let Some(e) = &p.exec {
            return exec(agent, id, e.command.as_deref().unwrap_or_default()).await;
        }
        if let Some(get) = &p.http_get {
            let uri = uri(c, ip?, get).map_err(Fault::Untried)?;
            return http_get(uri, get).await.map_err(Fault::Failed);
        }
        if let Some(tcp) = &p.tcp_socket {
            let (host, port) = (address(tcp.host.as_deref(), ip?), port(c, &tcp.port).map_err(Fault::Untried)?);
            let dialled = TcpStream::connect((host.as_str(), port)).await.map(drop);
            return dialled.map_err(|e| Fault::Failed(format!("dial tcp {host}:{port}: {e}")));
        }
        if let Some(grpc) = &p.grpc {
            let port = u16::try_from(grpc.port).map_err(|e| Fault::Untried(e.to_string()))?;
            let service = grpc.service.as_deref().unwrap_or_default();
            return health(ip?, port, service).await.map_err(Fault::Failed);
        }
        Ok(())
    };
    match timeout(limit, probing).await {
        Ok(result) => result,
        Err(_) => Err(Fault::Failed(format!("timed out after {}s", limit.as_secs()))),
    }
}

/// Runs a hook to its end.
pub(crate) async fn hook(agent: &Agent, scene: &Scene, name: &str, id: &str, hook: &LifecycleHandler) -> Result<()> {
    let Some((_, c)) = pod::container(&scene.want, name) else { return Ok(()) };
    if let Some(e) = &hook.exec {
        return exec(agent, id, e.command.as_deref().unwrap_or_default()).await.map_err(Fault::text);
    }
    if let Some(get) = &hook.http_get {
        let uri = uri(c, *scene.ips.first().ok_or("the pod has no address yet")?, get)?;
        // As for kubelet, any answer is one.
        return request(&uri, get).await.map(drop).map_err(|e| format!("Get \"{uri}\": {e}"));
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(pod::seconds(sleep.seconds)).await;
    }
    Ok(())
}

async fn exec(agent: &Agent, id: &str, command: &[String]) -> Result<(), Fault> {
    let spec = runtime::ExecSpec { args: command.to_vec(), ..runtime::ExecSpec::default() };
    let mut process = agent.0.runtime.exec(id, &spec).await.map_err(|e| match e {
        // Its program is not there, or cannot be run.
        runtime::Error::Start { why, .. } => Fault::Failed(why),
        e => Fault::Untried(chain(e)),
    })?;
    drop(process.stdin.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let stderr = process.stderr.take();
    let mut both = process.stdout;
    let reading = async {
        let first = async {
            let _ = (&mut both).take(OUTPUT).read_to_end(&mut out).await;
            let _ = tokio::io::copy(&mut both, &mut tokio::io::sink()).await;
        };
        let second = async {
            if let Some(mut stderr) = stderr {
                let _ = (&mut stderr).take(OUTPUT).read_to_end(&mut err).await;
                let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
            }
        };
        tokio::join!(first, second);
    };
    // A child that holds on to the output must not hold up the verdict.
    let exit = {
        let mut wait = process.wait;
        let mut reading = std::pin::pin!(reading);
        tokio::select! {
            exit = &mut wait => {
                let _ = timeout(Duration::from_millis(100), &mut reading).await;
                exit
            }
            () = &mut reading => wait.await,
        }
    };
    match exit.map_err(|e| Fault::Untried(chain(e)))?.code {
        Some(0) => Ok(()),
        code => {
            out.extend(err);
            let text = String::from_utf8_lossy(&out);
            let code = code.map_or_else(|| "unknown".into(), |c| c.to_string());
            Err(Fault::Failed(format!("command {command:?} ended with exit code {code}: {}", text.trim_end())))
        }
    }
}

fn address(host: Option<&str>, ip: IpAddr) -> String {
    host.filter(|h| !h.is_empty()).map_or_else(|| ip.to_string(), String::from)
}

fn port(c: &Container, port: &IntOrString) -> Result<u16> {
    let number = match port {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(name) => {
            let named = c.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    number.ok_or_else(|| format!("no port {port:?} in container {}", c.name))
}

fn uri(c: &Container, ip: IpAddr, get: &HTTPGetAction) -> Result<Uri> {
    let (host, port) = (address(get.host.as_deref(), ip), port(c, &get.port)?);
    let path = get.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let host_text = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    format!("{scheme}://{host_text}:{port}{path}").parse().map_err(|e| format!("{path}: {e}"))
}

async fn http_get(mut uri: Uri, get: &HTTPGetAction) -> Result<()> {
    let first = uri.host().unwrap_or_default().to_string();
    for _ in 0..REDIRECTS {
        let (status, location) = request(&uri, get).await.map_err(|e| format!("Get \"{uri}\": {e}"))?;
        let next = match (status, location) {
            (300..=399, Some(to)) => to,
            (200..=399, _) => return Ok(()),
            _ => return Err(format!("HTTP probe failed with statuscode: {status}")),
        };
        let to = join(&uri, &next)?;
        // A redirect to another host is as good as an answer, and is not followed.
        if to.host() != Some(&first) {
            return Ok(());
        }
        uri = to;
    }
    Err(format!("stopped after {REDIRECTS} redirects"))
}

pub(crate) fn join(base: &Uri, to: &str) -> Result<Uri> {
    let absolute = if to.contains("://") {
        to.to_string()
    } else {
        let authority = base.authority().map(ToString::to_string).unwrap_or_default();
        let path = match to.strip_prefix('/') {
            Some(rest) => format!("/{rest}"),
            None => format!("{}/{to}", base.path().rsplit_once('/').map_or("", |p| p.0)),
        };
        format!("{}://{authority}{path}", base.scheme_str().unwrap_or("http"))
    };
    absolute.parse().map_err(|e| format!("redirect to {to:?}: {e}"))
}

async fn request(uri: &Uri, get: &HTTPGetAction) -> Result<(u16, Option<String>)> {
    let host = uri.host().ok_or("no host")?;
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(|e| e.to_string())?;
    let mut request = Request::get(uri.path_and_query().map_or("/", |p| p.as_str()));
    let mut headers = vec![
        (header::USER_AGENT.to_string(), "kube-probe/1.36".to_string()),
        (header::ACCEPT.to_string(), "*/*".into()),
    ];
    let named = uri.authority().map(ToString::to_string).unwrap_or_default();
    headers.push((header::HOST.to_string(), named));
    for h in get.http_headers.iter().flatten() {
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&h.name));
        headers.push((h.name.clone(), h.value.clone()));
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = if secure {
        let stream = crate::tls::trusting(host, stream).await?;
        send(TokioIo::new(stream), request).await?
    } else {
        send(TokioIo::new(stream), request).await?
    };
    let location = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok()).map(String::from);
    Ok((answer.status().as_u16(), location))
}

async fn send<I>(
    io: I,
    request: Request<http_body_util::Empty<bytes::Bytes>>,
) -> Result<http::Response<hyper::body::Incoming>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
    let mut sending = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut sending => answer,
        // A server that closes with its answer ends the connection in the same moment: the answer is there, then.
        ended = connection => match ended {
            Ok(()) => sending.await,
            Err(error) => Err(error),
        },
    };
    answer.map_err(chain)
}

/// `grpc.health.v1.Health/Check`, by hand: one message each way is all there is to it.
async fn health(ip: IpAddr, port: u16, service: &str) -> Result<()> {
    let stream = TcpStream::connect((ip, port)).await.map_err(|e| format!("dial {ip}:{port}: {e}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(chain)?;
    let exchange = async {
        let request =
            Request::post(format!("http://{}/grpc.health.v1.Health/Check", std::net::SocketAddr::new(ip, port)))
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .header(header::USER_AGENT, "kube-probe/1.36")
                .body(http_body_util::Full::new(bytes::Bytes::from(question(service))))
                .map_err(|e| e.to_string())?;
        let answer = sender.send_request(request).await.map_err(chain)?;
        let status = |h: &http::HeaderMap| h.get("grpc-status").and_then(|s| s.to_str().ok()).map(String::from);
        let early = status(answer.headers());
        let limited = http_body_util::Limited::new(answer.into_body(), 64 * 1024);
        let body = http_body_util::BodyExt::collect(limited).await.map_err(|e| e.to_string())?;
        let late = body.trailers().and_then(status);
        match early.or(late).as_deref() {
            Some("0") | None => {}
            Some("12") => return Err("the server does not implement grpc.health.v1.Health".into()),
            Some(code) => return Err(format!("health rpc failed with grpc-status {code}")),
        }
        match serving(&body.to_bytes()) {
            Some(1) => Ok(()),
            Some(n) => Err(format!("service unhealthy (responded with status {n})")),
            None => Err("the answer is no HealthCheckResponse".into()),
        }
    };
    tokio::select! {
        answer = exchange => answer,
        _ = connection => Err("connection closed".into()),
    }
}

/// A gRPC frame with a HealthCheckRequest: field 1, the service's name.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut n = service.len();
        while n >= 0x80 {
            message.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        message.push(n as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend(message);
    frame
}

/// The status in a frame with a HealthCheckResponse: field 1, a small enum; absent is 0.
pub(crate) fn serving(frame: &[u8]) -> Option<u8> {
    let (&compressed, rest) = frame.split_first()?;
    let (length, message) = rest.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    match (compressed, message.get(..length)?) {
        (0, []) => Some(0),
        (0, [0x08, status, ..]) if *status < 0x80 => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(serving(&[0, 0, 0, 0, 9, 8, 1]), None);
    }

    #[test]
    fn redirects() {
        let base: Uri = "http://10.0.0.1:80/a/b".parse().unwrap();
        assert_eq!(join(&base, "/x").unwrap().to_string(), "http://10.0.0.1:80/x");
        assert_eq!(join(&base, "x").unwrap().to_string(), "http://10.0.0.1:80/a/x");
        assert_eq!(join(&base, "http://h/x").unwrap().to_string(), "http://h/x");
    }

    proptest::proptest! {
        #[test]
        fn answers_never_panic(frame in proptest::collection::vec(proptest::num::u8::ANY, 0..20), to in ".*") {
            let _ = serving(&frame);
            let _ = join(&"http://h/a".parse().unwrap(), &to);
        }
    }
}
