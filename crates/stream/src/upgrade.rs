//! Agreeing on a protocol, and taking over the connection.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{Error, Result};

/// Kubernetes' header for what is spoken over SPDY.
const SPDY_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What a SPDY client could have asked for.
const SPDY_ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";
/// kubectl sends pieces of 32 KiB, but other clients all that they are given at once; more than this is not held for
/// them.
const LARGEST_MESSAGE: usize = 16 << 20;

/// The connection once it speaks another protocol.
pub(crate) type Connection = TokioIo<hyper::upgrade::Upgraded>;

/// The client's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreed {
    /// WebSocket, with a protocol of those offered; the empty one when the client named none.
    WebSocket(&'static str),
    /// SPDY/3.1, likewise.
    Spdy(&'static str),
}

/// What a request asks for, among what is offered, and the answer to it.
pub(crate) fn negotiate(
    request: &Request<Body>,
    websocket: &[&'static str],
    spdy: &[&'static str],
) -> (Result<Agreed>, Response) {
    match agree(request, websocket, spdy) {
        Ok((agreed, headers)) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = headers;
            (Ok(agreed), response)
        }
        Err(Refusal { status, why }) => {
            let mut response = refuse(status, why.clone());
            if status == StatusCode::FORBIDDEN {
                response.headers_mut().extend(spdy.iter().map(|p| (SPDY_ACCEPTED, HeaderValue::from_static(p))));
            }
            (Err(Error::Refused(why)), response)
        }
    }
}

/// Whether a request asks for another protocol.
pub(crate) fn asked(headers: &HeaderMap) -> bool {
    tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

struct Refusal {
    status: StatusCode,
    why: String,
}

fn agree(
    request: &Request<Body>,
    websocket: &[&'static str],
    spdy: &[&'static str],
) -> std::result::Result<(Agreed, HeaderMap), Refusal> {
    let bad = |why: &str| Refusal { status: StatusCode::BAD_REQUEST, why: why.to_owned() };
    let asked = request.headers();
    if !self::asked(asked) {
        return Err(bad("an upgrade to WebSocket or SPDY/3.1 is required"));
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let wants = |name: &str| tokens(asked, &header::UPGRADE).any(|token| token.eq_ignore_ascii_case(name));
    let (agreed, name, protocol) = if wants("websocket") {
        let protocol = choose(tokens(asked, &header::SEC_WEBSOCKET_PROTOCOL), websocket)
            .ok_or_else(|| bad(&format!("no WebSocket protocol in common; spoken: {}", list(websocket))))?;
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, handshake(request).map_err(bad)?);
        (Agreed::WebSocket(protocol), header::SEC_WEBSOCKET_PROTOCOL, protocol)
    } else if wants(SPDY) {
        // The status is what Kubernetes' clients expect here.
        let protocol = choose(tokens(asked, &SPDY_PROTOCOL), spdy).ok_or_else(|| Refusal {
            status: StatusCode::FORBIDDEN,
            why: format!("no protocol over SPDY in common; spoken: {}", list(spdy)),
        })?;
        headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
        (Agreed::Spdy(protocol), SPDY_PROTOCOL, protocol)
    } else {
        return Err(bad("only WebSocket and SPDY/3.1 are spoken"));
    };
    if !protocol.is_empty() {
        headers.insert(name, HeaderValue::from_static(protocol));
    }
    Ok((agreed, headers))
}

/// The connection, once the response has been sent.
pub(crate) async fn connection(upgrade: hyper::upgrade::OnUpgrade) -> Result<Connection> {
    Ok(TokioIo::new(upgrade.await.map_err(Error::Upgrade)?))
}

/// The same as a WebSocket.
pub(crate) async fn websocket(connection: Connection) -> WebSocketStream<Connection> {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        // Messages come ready-made and are flushed together: nothing is gained by another buffer.
        .write_buffer_size(0)
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// A response that says why not.
pub(crate) fn refuse(status: StatusCode, why: String) -> Response {
    let mut response = Response::new(Body::from(why));
    *response.status_mut() = status;
    response
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        refuse(StatusCode::BAD_REQUEST, self.to_string())
    }
}

/// RFC 6455, 4.2.
fn handshake(request: &Request<Body>) -> std::result::Result<HeaderValue, &'static str> {
    if request.method() != Method::GET {
        return Err("a WebSocket is asked for by GET");
    }
    let headers = request.headers();
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("Sec-WebSocket-Version must be 13");
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or("Sec-WebSocket-Key is missing")?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| "Sec-WebSocket-Key is not a key")
}

/// The client's first that is offered; a client that names none gets the empty one, if that is offered.
fn choose<'a>(mut wanted: impl Iterator<Item = &'a str>, offered: &[&'static str]) -> Option<&'static str> {
    let first = wanted.next().unwrap_or_default();
    std::iter::once(first).chain(wanted).find_map(|name| offered.iter().copied().find(|offer| *offer == name))
}

fn list(offered: &[&'static str]) -> String {
    offered.iter().filter(|offer| !offer.is_empty()).copied().collect::<Vec<_>>().join(", ")
}

/// The comma-separated values of a header that may occur several times.
fn tokens<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &str)]) -> std::result::Result<Agreed, (StatusCode, HeaderMap)> {
        let mut request = Request::get("/").body(Body::empty()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
        }
        let (agreed, response) = negotiate(&request, &["v5", "v4", ""], &["v4", ""]);
        let (status, headers) = (response.status(), response.headers().clone());
        assert_eq!(agreed.is_ok(), status == StatusCode::SWITCHING_PROTOCOLS);
        agreed.map_err(|_| (status, headers))
    }

    #[test]
    fn the_client_s_first_choice_that_is_spoken() {
        let key = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-version", "13")];
        let key = [key.as_slice(), &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]].concat();
        let with = |protocol| asked(&[key.as_slice(), &[("sec-websocket-protocol", protocol)]].concat());
        assert_eq!(with("v6, v4, v5").unwrap(), Agreed::WebSocket("v4"));
        assert_eq!(asked(&key).unwrap(), Agreed::WebSocket(""));
        assert_eq!(with("v6").unwrap_err().0, StatusCode::BAD_REQUEST);
        assert_eq!(asked(&key[..3]).unwrap_err().0, StatusCode::BAD_REQUEST, "no key");
    }

    #[test]
    fn spdy_may_name_protocols_in_several_headers() {
        let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let with = |more: &[(&'static str, &'static str)]| asked(&[upgrade.as_slice(), more].concat());
        let name = "x-stream-protocol-version";
        assert_eq!(with(&[(name, "v9"), (name, "v4")]).unwrap(), Agreed::Spdy("v4"));
        assert_eq!(with(&[]).unwrap(), Agreed::Spdy(""));
        let (status, headers) = with(&[(name, "v9")]).unwrap_err();
        assert_eq!((status, headers[SPDY_ACCEPTED].to_str().unwrap()), (StatusCode::FORBIDDEN, "v4"));
    }
}
