//! The way to the node of a pod: logs, exec, attach, port-forward, and what the pod serves itself.

use api::Subresource;
use async_trait::async_trait;
use axum::{body::Body, response::Response};
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use crate::{ApiError, Result, call::Call, verbs::options};

/// Passes requests on to nodes.
#[async_trait]
pub trait Nodes: Send + Sync + 'static {
    /// Sends `request`, in the URL form of the kubelet, to `node` and gives back its answer. The request keeps
    /// its upgrade extension, so that a node in this process can take over the connection.
    async fn forward(&self, node: &str, request: Request<Body>) -> Response;
}

/// The longest refusal of a node that is passed on, in bytes.
const WORDS: usize = 64 << 10;

/// The annotation that names the container to use when none is asked for.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Passes a request for a pod's streams, or for what it serves itself, on to its node.
pub(crate) async fn proxy(mut call: Call, part: Subresource) -> Result<Response> {
    let target = if part == Subresource::Proxy { Some(Target::parse(&call.at.name)?) } else { None };
    if let Some(target) = &target {
        call.at.name = target.pod.clone();
    } else if part == Subresource::Log {
        options::log(&call)?;
    } else {
        // A WebSocket begins with a GET, yet a right to read is no right to run.
        call.may("create")?;
    }
    let pod = call.current(&call.at.name).await?.object();
    let node = pod["spec"]["nodeName"]
        .as_str()
        .filter(|n| !n.is_empty())
        .ok_or_else(|| ApiError::bad_request(format!("pod {} does not have a host assigned", call.at.name)))?;
    if let Some(place) = target.as_ref().and_then(|_| inside(&call)) {
        let moved = Response::builder().status(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, place);
        return Ok(moved.body(Body::empty()).unwrap_or_default());
    }
    let uri = match &target {
        Some(target) => target.uri(&call, &pod)?,
        None => uri(&call, part, &pod)?,
    };
    let mut request = Request::new(Body::from(std::mem::take(&mut call.body)));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = std::mem::take(&mut call.headers);
    request.headers_mut().remove(header::AUTHORIZATION); // not the node's business
    *request.extensions_mut() = std::mem::take(&mut call.extensions);
    let answer = call.server.config().nodes.forward(node, request).await;
    // What a pod answers itself is its own.
    if target.is_some() { Ok(answer) } else { told(answer).await }
}

/// What of a pod is asked: `[SCHEME:]POD[:PORT]` in the place of its name.
struct Target {
    pod: String,
    port: Option<String>,
}

impl Target {
    fn parse(name: &str) -> Result<Self> {
        let (pod, port) = match name.split(':').collect::<Vec<_>>()[..] {
            [pod] => (pod, None),
            [pod, port] | ["" | "http", pod, port] => (pod, Some(port)),
            ["https", ..] => return Err(ApiError::bad_request("a pod is asked over http only: use port-forward")),
            _ => return Err(ApiError::bad_request(format!("{name:?} is not POD, POD:PORT or http:POD:PORT"))),
        };
        let port = port.filter(|port| !port.is_empty()).map(str::to_owned);
        Ok(Self { pod: pod.to_owned(), port })
    }

    /// `/proxy/NAMESPACE/POD/PORT/PATH?QUERY`; without a port the first that the pod names, else 80.
    fn uri(&self, call: &Call, pod: &Value) -> Result<Uri> {
        let ports = || {
            let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
            containers.flat_map(|c| c["ports"].as_array().into_iter().flatten())
        };
        let number = |port: &Value| port["containerPort"].as_u64().and_then(|n| u16::try_from(n).ok());
        let port = match &self.port {
            None => Some(ports().next().and_then(number).unwrap_or(80)),
            Some(text) => text.parse().ok().or_else(|| ports().find(|p| p["name"] == text.as_str()).and_then(number)),
        };
        let port =
            port.ok_or_else(|| ApiError::bad_request(format!("pod {} has no port {:?}", self.pod, self.port)))?;
        // `/api/v1/namespaces/NAMESPACE/pods/NAME/proxy/PATH`
        let path = call.at.path.splitn(9, '/').nth(8).unwrap_or_default();
        let uri = format!("/proxy/{}/{}/{port}/{path}{}", call.at.namespace, self.pod, queried(call));
        uri.parse().map_err(|_| ApiError::bad_request("the request makes no URL"))
    }
}

/// Where a reader is sent who asks for what a pod serves without the slash that ends the pod's own root: the links of
/// a page below it would lead elsewhere.
fn inside(call: &Call) -> Option<String> {
    let reads = matches!(call.method, Method::GET | Method::HEAD);
    (reads && call.at.path.ends_with("/proxy") && call.at.path.split('/').count() == 8)
        .then(|| format!("{}/{}", call.at.path, queried(call)))
}

/// The query as it came, with its question mark.
fn queried(call: &Call) -> String {
    let query: Vec<String> = call.query.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
    if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) }
}

/// What a node refuses in plain words, as the status that clients look for.
async fn told(response: Response) -> Result<Response> {
    let code = response.status();
    if !code.is_client_error() && !code.is_server_error() {
        return Ok(response);
    }
    let body = Limited::new(response.into_body(), WORDS).collect().await;
    let body = body.map_err(|e| ApiError::internal(format!("read the answer of a node: {e}")))?.to_bytes();
    let message = String::from_utf8_lossy(&body).into_owned();
    Err(match code {
        StatusCode::BAD_REQUEST => ApiError::bad_request(message),
        StatusCode::NOT_FOUND => ApiError::new(code, "NotFound", message),
        _ => ApiError::new(code, "InternalError", message),
    })
}

/// The kubelet's URL: `/exec/NAMESPACE/POD/CONTAINER?command=…&uid=…`.
fn uri(call: &Call, part: Subresource, pod: &Value) -> Result<Uri> {
    let (namespace, name) = (&call.at.namespace, &call.at.name);
    let container = || container(call.query("container"), name, pod);
    let (path, kept): (String, &[&str]) = match part {
        Subresource::Log => (
            format!("/containerLogs/{namespace}/{name}/{}", container()?),
            &["follow", "previous", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "limitBytes", "stream"],
        ),
        Subresource::Exec => (format!("/exec/{namespace}/{name}/{}", container()?), &["command"]),
        Subresource::Attach => (format!("/attach/{namespace}/{name}/{}", container()?), &[]),
        _ => (format!("/portForward/{namespace}/{name}"), &["port", "ports"]),
    };
    let mut query: Vec<(&str, &str)> =
        call.query.iter().map(|(k, v)| (k.as_str(), v.as_str())).filter(|(k, _)| kept.contains(k)).collect();
    if matches!(part, Subresource::Exec | Subresource::Attach) {
        let streams = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
        query.extend(streams.iter().filter(|(ours, _)| call.flag(ours)).map(|(_, node)| (*node, "1")));
    }
    query.push(("uid", pod["metadata"]["uid"].as_str().unwrap_or_default()));
    let query: Vec<String> = query.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
    format!("{path}?{}", query.join("&")).parse().map_err(|_| ApiError::bad_request("the request makes no URL"))
}

/// The container asked for, or the default one: annotated, or the first.
fn container<'a>(asked: &'a str, name: &str, pod: &'a Value) -> Result<&'a str> {
    let names = |list: &str| pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str());
    let all: Vec<&str> = ["containers", "initContainers", "ephemeralContainers"].into_iter().flat_map(names).collect();
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    let wanted = match (asked, annotated) {
        ("", Some(annotated)) if all.contains(&annotated) => annotated,
        ("", _) => all.first().copied().unwrap_or_default(),
        (asked, _) => asked,
    };
    if all.contains(&wanted) {
        return Ok(wanted);
    }
    Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {name}; it has: {}", all.join(", "))))
}

/// Percent-encodes all but unreserved characters.
fn encode(text: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => (b as char).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
