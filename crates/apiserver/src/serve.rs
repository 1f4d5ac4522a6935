//! The ways in: TLS connections, and the service for components of this process.

mod connection;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, response::Response};
use bytes::Bytes;
use http::Request;
use rustix::process::{Resource, getrlimit};
use rustls::ServerConfig;
use tokio::{net::TcpListener, time::Instant};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::{
    Identity, Server,
    filters::Local,
    limits::{Shares, Turns},
};
use connection::Socket;

pub(crate) use connection::counted_for;

/// Connections that are open at a time, and the part of them that one host may have: four hosts are needed to shut all
/// others out. With 32 KiB each they take 130 MiB (docs/decisions/api-port.md). One of HTTP/2 carries 250 requests.
const CONNECTIONS: (usize, usize) = (4096, 4);
/// How often one host may begin a handshake once it has begun as many at once as it may have connections. One costs
/// the server a third of a millisecond, and whoever only begins it far less.
const HANDSHAKES: Duration = Duration::from_millis(10);
/// The part of the process's files that connections may take: store and node need theirs.
const OF_FILES: usize = 2;
/// How long connections may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// How often it is said that there are too many.
const COMPLAINT: Duration = Duration::from_secs(60);

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
    ///
    /// A connection for which there is no room is closed before its handshake: an answer would cost what is short.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<ServerConfig>) -> io::Result<()> {
        let each = room() / CONNECTIONS.1;
        self.serve_within(listener, tls, Shares::new(room(), each), Turns::new(HANDSHAKES, each)).await
    }

    async fn serve_within(
        &self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        places: Arc<Shares>,
        turns: Turns,
    ) -> io::Result<()> {
        let mut tls = ServerConfig::clone(&tls);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (acceptor, router, connections) = (TlsAcceptor::from(Arc::new(tls)), self.router(), TaskTracker::new());
        let mut complained: Option<Instant> = None;
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
            let host = counted_for(address.ip());
            let Some(place) = places.take(&host) else {
                if complained.is_none_or(|at| at.elapsed() > COMPLAINT) {
                    tracing::warn!(%address, "too many connections: this one and others are closed");
                    complained = Some(Instant::now());
                }
                continue;
            };
            let socket = Socket { stream, _place: place };
            let now = Instant::now();
            let turn = now + turns.wait(&host, now);
            let (server, acceptor, router) = (self.clone(), acceptor.clone(), router.clone());
            connections.spawn(async move {
                tokio::time::sleep_until(turn).await;
                if let Err(error) = connection::serve(server, socket, address, acceptor, router).await {
                    tracing::debug!(%address, "connection: {error}");
                }
            });
        }
        connections.close();
        let _ = tokio::time::timeout(GRACE, connections.wait()).await;
        Ok(())
    }
}

/// How many connections there is room for.
fn room() -> usize {
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
    CONNECTIONS.0.min(files / OF_FILES)
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
