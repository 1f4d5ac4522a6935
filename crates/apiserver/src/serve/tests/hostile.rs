//! Clients that take a connection and give nothing for it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Port, listening, listening_by_turns};
use crate::{
    Door,
    limits::{Shares, Turns},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn connect(port: &Port) -> TcpStream {
    TcpStream::connect(port.address).await.unwrap()
}

async fn connect_from(address: &str, port: &Port) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    socket.connect(port.address).await.unwrap()
}

/// A handshake that offers these protocols.
async fn tls(port: &Port, stream: TcpStream, alpn: &[&str]) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(port.pki.ca().as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
}

/// How long it takes the server to close a connection on which nothing more is sent, and what it said.
async fn closed(mut stream: impl AsyncRead + Unpin) -> (Duration, Vec<u8>) {
    tokio::time::pause();
    let (start, mut said) = (Instant::now(), Vec::new());
    let end = timeout(Duration::from_secs(3000), stream.read_to_end(&mut said)).await;
    assert!(end.is_ok(), "still open, after {:?}", String::from_utf8_lossy(&said));
    let took = start.elapsed();
    tokio::time::resume();
    (took, said)
}

#[tokio::test]
async fn who_says_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let port = listening(dir.path(), vec![], Shares::new(10, 10)).await;
    let soon = Duration::from_secs(25);
    assert!(closed(connect(&port).await).await.0 < soon, "no handshake");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (alpn, begun) in [
        ("http/1.1", &b""[..]),
        ("http/1.1", b"PRI * HTTP"),
        ("http/1.1", b"GET /version HTTP/1.1\r\nhost: a\r\n"),
        ("h2", b""),
        ("h2", &preface[..10]),
        ("h2", preface),
    ] {
        let mut stream = tls(&port, connect(&port).await, &[alpn]).await.unwrap();
        stream.write_all(begun).await.unwrap();
        stream.flush().await.unwrap();
        let (took, _) = closed(stream).await;
        assert!(took < soon, "{alpn} {begun:?}: {took:?}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let port = listening(dir.path(), vec![], Shares::new(10, 10)).await;
    port.server.ready().await;
    let mut stream = tls(&port, connect(&port).await, &[]).await.unwrap();
    let request = format!("POST {MAPS} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{{");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (took, said) = closed(stream).await;
    assert!(took < Duration::from_secs(60), "{took:?}");
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 504") && said.contains("the body did not come in time"), "{said}");
}

#[tokio::test]
async fn a_watch_may_be_silent() {
    let dir = tempfile::tempdir().unwrap();
    let port = listening(dir.path(), vec![], Shares::new(10, 10)).await;
    port.server.ready().await;
    let mut stream = tls(&port, connect(&port).await, &[]).await.unwrap();
    let request = format!("GET {MAPS}?watch=1&timeoutSeconds=3600 HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    tokio::time::pause();
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(3000), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_err(), "{}", String::from_utf8_lossy(&rest));
}

/// Whether the server speaks to this connection.
async fn is_served(port: &Port, stream: TcpStream) -> bool {
    tls(port, stream, &[]).await.is_ok()
}

#[tokio::test]
async fn no_host_takes_all_connections() {
    let dir = tempfile::tempdir().unwrap();
    let port = listening(dir.path(), vec![], Shares::new(3, 2)).await;
    let held = [connect(&port).await, connect(&port).await];
    assert!(!is_served(&port, connect(&port).await).await);
    assert!(is_served(&port, connect_from("127.0.0.2:0", &port).await).await);
    drop(held);
    // The server sees the end of them soon.
    while !is_served(&port, connect(&port).await).await {}
}

/// A handshake costs the server more than the client that does no more than begin it.
#[tokio::test]
async fn no_host_begins_handshakes_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let turns = Turns::new(Duration::from_secs(3600), 2);
    let port = listening_by_turns(dir.path(), vec![], Shares::new(10, 10), turns).await;
    for _ in 0..2 {
        assert!(is_served(&port, connect(&port).await).await);
    }
    let (late, other) = (connect(&port).await, connect_from("127.0.0.2:0", &port).await);
    tokio::select! {
        served = is_served(&port, late) => panic!("after its turns: {served}"),
        served = is_served(&port, other) => assert!(served),
    }
}

/// Takes over the connection and says back what it hears.
async fn echo(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        tokio::io::copy(&mut from, &mut to).await
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")], Body::empty()).into_response()
}

#[tokio::test]
async fn a_stream_keeps_the_place_of_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let doors = vec![Door { path: "/echo", answers: axum::routing::get(echo) }];
    let port = listening(dir.path(), doors, Shares::new(1, 1)).await;
    let mut stream = tls(&port, connect(&port).await, &[]).await.unwrap();
    let request = b"GET /echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        said.push(stream.read_u8().await.unwrap());
    }
    assert!(said.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&said));
    for _ in 0..3 {
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        assert!(!is_served(&port, connect(&port).await).await);
    }
    drop(stream);
    while !is_served(&port, connect(&port).await).await {}
}

/// Whether the kernel's keepalive timer runs for the server's end of this connection, as /proc/net/tcp tells it.
fn is_asked_for(server: SocketAddr, client: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let ends = [server, client].map(|end| format!(":{:04X}", end.port()));
    let socket = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut socket = socket.filter(|socket| socket[1].ends_with(&ends[0]) && socket[2].ends_with(&ends[1]));
    // Of the timers (1 retransmits, 4 probes a closed window) the one that waits for a silent peer is 2.
    socket.next().expect("the connection")[5].starts_with("02:")
}

#[tokio::test]
async fn a_client_that_has_gone_without_a_word_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let port = listening(dir.path(), vec![], Shares::new(1, 1)).await;
    let stream = connect(&port).await;
    let client = stream.local_addr().unwrap();
    let _open = tls(&port, stream, &[]).await.unwrap();
    let seen = async {
        while !is_asked_for(port.address, client) {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(Duration::from_secs(10), seen).await.is_ok(), "no keepalive");
}
