//! A server of `grpc.health.v1.Health`.

use std::{convert::Infallible, net::TcpListener, thread};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};

const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
const OK: HeaderValue = HeaderValue::from_static("0");
const NOT_FOUND: HeaderValue = HeaderValue::from_static("5");

/// Says of one service that it is well, and knows no other; gives its port, on all addresses of the host.
pub fn health_server(service: &'static str) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || serve(listener, service));
    port
}

fn serve(listener: TcpListener, service: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        while let Ok((stream, _)) = listener.accept().await {
            let answering = service_fn(move |request| answer(request, service));
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answering));
        }
    });
}

async fn answer(
    request: Request<Incoming>,
    service: &str,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let question = request.into_body().collect().await?.to_bytes();
    // After the frame's five bytes and the field's two.
    let known = question.get(7..).unwrap_or_default() == service.as_bytes();
    let (message, status) = if known { (SERVING, OK) } else { (&[][..], NOT_FOUND) };
    let end = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), status)]);
    let body = Full::new(Bytes::from_static(message)).with_trailers(async move { Some(Ok(end)) }).boxed();
    Ok(Response::builder().header("content-type", "application/grpc").body(body).expect("a response"))
}
