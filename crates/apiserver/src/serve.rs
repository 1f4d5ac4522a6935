//! The ways in: TLS connections, and the service for components of this process.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, response::Response};
use bytes::Bytes;
use http::Request;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::{Identity, Server, filters::Local};

/// How long a client may take for the TLS handshake and the head of a request.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a silent HTTP/2 client is asked whether it is there, and how long it may take to say so.
const ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long connections may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// The other end of a connection, in the extensions of its requests.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The certificate that it showed, DER; its signature is verified already.
    pub(crate) certificate: Option<Arc<[u8]>>,
}

impl Server {
    /// Serves TLS connections (HTTP/1.1 and HTTP/2) until [`Server::stop`]; then gives them 10 s to end. The
    /// configuration must ask for client certificates, without requiring them, for these to count.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<ServerConfig>) -> io::Result<()> {
        let mut tls = ServerConfig::clone(&tls);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (acceptor, router, connections) = (TlsAcceptor::from(Arc::new(tls)), self.router(), TaskTracker::new());
        loop {
            let (stream, address) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, or a client that left: neither is cured by trying at once.
                        tracing::warn!("accept a connection: {error}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = self.stopping() => break,
            };
            let (server, acceptor, router) = (self.clone(), acceptor.clone(), router.clone());
            connections.spawn(async move {
                if let Err(error) = connection(server, stream, address, acceptor, router).await {
                    tracing::debug!(%address, "connection: {error}");
                }
            });
        }
        connections.close();
        let _ = tokio::time::timeout(GRACE, connections.wait()).await;
        Ok(())
    }
}

async fn connection(
    server: Server,
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.as_ref().into());
    let service = With { router, extension: Peer { address, certificate } };
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 << 10);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(ALIVE.0)
        .keep_alive_timeout(ALIVE.1)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_concurrent_streams(250)
        .max_send_buf_size(64 << 10);
    let mut connection =
        pin!(http.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service)));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = server.stopping() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// The router, with something put into the extensions of every request.
#[derive(Clone)]
struct With<E> {
    router: Router,
    extension: E,
}

/// The API as a tower service of this process; see [`Server::local`].
#[derive(Clone)]
pub struct LocalService(With<Local>);

impl LocalService {
    pub(crate) fn new(router: Router, identity: Identity) -> Self {
        Self(With { router, extension: Local(Arc::new(identity)) })
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<B, E> Service<Request<B>> for With<E>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
    E: Clone + Send + Sync + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // so is a router, always
    }

    fn call(&mut self, mut request: Request<B>) -> Answer {
        request.extensions_mut().insert(self.extension.clone());
        Box::pin(self.router.call(request))
    }
}

impl<B> Service<Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<B>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests;
