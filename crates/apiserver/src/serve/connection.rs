//! One connection: its place among all, and how long it may be silent.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, response::Response};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch::{self, Receiver, Sender},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::{Peer, With};
use crate::{Server, filters::keeping, limits::Share};

/// How long a client may take for the TLS handshake, for its first request, and with HTTP/1.1 from one answer to the
/// end of the next request's head: hyper has one time for silence and for sending.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an HTTP/2 connection may be without a request in progress: as in Kubernetes, whose clients count on it.
const IDLE: Duration = Duration::from_secs(90);
/// How often a silent HTTP/2 client is asked whether it is there, and how long it may take to say so.
const ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// The same of TCP, for a stream that has outlived HTTP and whose client is gone without a word: when it is asked first,
/// how often again, and how many times in vain.
const PROBES: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(15), 3);
/// How long a connection that is told to end may be without a request in progress.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection until a side ends it, or the client asks for nothing.
pub(super) async fn serve(
    server: Server,
    socket: Socket,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    socket.stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&socket.stream, true)?;
    sockopt::set_tcp_keepidle(&socket.stream, PROBES.0)?;
    sockopt::set_tcp_keepintvl(&socket.stream, PROBES.1)?;
    sockopt::set_tcp_keepcnt(&socket.stream, PROBES.2)?;
    let stream = timeout(PATIENCE, acceptor.accept(socket)).await??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.as_ref().into());
    let api = With { router, extension: Peer { address, certificate } };
    let (requests, seen) = watch::channel(0);
    let service = service_fn(move |request| answer(api.clone(), InProgress::new(&requests), request));
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
    let mut connection = pin!(http.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = server.stopping() => {}
        () = silence(seen.clone(), PATIENCE, IDLE) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = silence(seen, FAREWELL, FAREWELL) => Ok(()),
    }
}

async fn answer(mut api: With<Peer>, held: InProgress, request: Request<Incoming>) -> Result<Response, Infallible> {
    Ok(keeping(api.call(request).await?, held))
}

/// Waits until no request has been in progress for that long: at the beginning, and later.
async fn silence(mut requests: Receiver<usize>, first: Duration, later: Duration) {
    let mut patience = first;
    loop {
        let silent = *requests.borrow_and_update() == 0;
        let changed = match silent {
            true => timeout(patience, requests.changed()).await,
            false => Ok(requests.changed().await),
        };
        if !matches!(changed, Ok(Ok(()))) {
            return;
        }
        patience = later;
    }
}

/// A request that has begun and whose answer is not at its end.
struct InProgress(Sender<usize>);

impl InProgress {
    fn new(requests: &Sender<usize>) -> Self {
        requests.send_modify(|n| *n += 1);
        Self(requests.clone())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Whom a connection counts for: an IPv4 address, or the IPv6 network of one host.
pub(crate) fn counted_for(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).to_string(),
        v4 => v4.to_string(),
    }
}

/// A socket with its place among the connections, which it keeps when it is taken over for a stream.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    pub(super) _place: Share,
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether, when nothing else happens, silence has come after so many seconds.
    async fn silent_after(seen: &Receiver<usize>, seconds: u64) -> bool {
        timeout(Duration::from_secs(seconds), silence(seen.clone(), PATIENCE, IDLE)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_goes_on_is_no_silence() {
        let (requests, seen) = watch::channel(0);
        assert!(silent_after(&seen, 16).await);
        let watching = InProgress::new(&requests);
        assert!(!silent_after(&seen, 100_000).await);
        drop(watching);
        assert!(silent_after(&seen, 100_000).await);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_answer() {
        let (requests, seen) = watch::channel(0);
        let start = tokio::time::Instant::now();
        let silence = silence(seen, PATIENCE, IDLE);
        let asking = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(10)).await;
                drop(InProgress::new(&requests));
            }
        };
        tokio::join!(silence, asking);
        assert_eq!(start.elapsed(), Duration::from_secs(30) + IDLE);
    }

    #[test]
    fn a_host_counts_once_by_whichever_address() {
        let of = |text: &str| counted_for(text.parse().unwrap());
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
