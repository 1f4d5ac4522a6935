//! HTTP requests passed on to what a pod serves.

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    act::chain,
    agent::Agent,
    server::{Refusal, bad},
};

/// Headers that are about a connection and not about what goes over it (RFC 9110, 7.6.1).
const HOP_BY_HOP: [header::HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Asks the pod, and answers as it does.
pub(crate) async fn proxy(
    State(agent): State<Agent>,
    Path(place): Path<Vec<String>>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let [namespace, name, port, ..] = &place[..] else { return Err(bad("no pod and port are named".into())) };
    let port: u16 = port.parse().map_err(|_| bad(format!("{port:?} is not a port")))?;
    let scene = agent.find_pod(namespace, name, None)?;
    let ip = scene.ips.first().ok_or_else(|| bad(format!("pod {name} has no address yet")))?;
    let unreachable = |why: String| Refusal(StatusCode::BAD_GATEWAY, format!("reach pod {name} at {ip}:{port}: {why}"));
    let pod = TcpStream::connect((*ip, port)).await.map_err(|e| unreachable(e.to_string()))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(pod)).await.map_err(|e| unreachable(chain(e)))?;
    tokio::spawn(connection);
    *request.uri_mut() = rest(request.uri()).ok_or_else(|| bad("the request makes no URL".into()))?;
    *request.version_mut() = axum::http::Version::HTTP_11;
    HOP_BY_HOP.iter().for_each(|name| drop(request.headers_mut().remove(name)));
    if let Ok(host) = HeaderValue::from_str(&std::net::SocketAddr::from((*ip, port)).to_string()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let mut answer = sender.send_request(request).await.map_err(|e| unreachable(chain(e)))?;
    HOP_BY_HOP.iter().for_each(|name| drop(answer.headers_mut().remove(name)));
    Ok(answer.map(Body::new))
}

/// `/proxy/NAMESPACE/POD/PORT/PATH?QUERY` without what the pod does not know of: `/PATH?QUERY`.
fn rest(uri: &Uri) -> Option<Uri> {
    let text = uri.path_and_query()?.as_str();
    let (at, _) = text.match_indices('/').nth(4)?;
    text[at..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_gets_its_own_path() {
        let rest = |uri: &str| super::rest(&uri.parse::<Uri>().unwrap()).map(|uri| uri.to_string());
        assert_eq!(rest("/proxy/a/b/80/"), Some("/".into()));
        assert_eq!(rest("/proxy/a/b/80/x%2Fy/z?q=%20"), Some("/x%2Fy/z?q=%20".into()));
        assert_eq!(rest("/proxy/a/b"), None);
    }
}
