//! The WebSocket protocols that no client at hand speaks by itself, byte by byte.

mod common;

use common::*;
use futures::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest, http::HeaderValue},
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(node: &Node, path: &str, protocol: &'static str) -> Result<Socket, tungstenite::Error> {
    let url = format!("ws://{}/api/v1/namespaces/default/pods/p/{path}", node.address);
    let mut request = url.into_client_request().unwrap();
    if !protocol.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    }
    connect_async(request).await.map(|(socket, _)| socket)
}

/// All messages to the end of the connection, by channel.
async fn all(mut socket: Socket) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = timeout(PATIENCE, socket.next()).await.unwrap() {
        match message.unwrap() {
            Message::Close(frame) => assert_eq!(u16::from(frame.unwrap().code), 1000),
            other => messages.push(other),
        }
    }
    messages
}

const ECHO: &str = "exec?command=echo&command=hi&stdout=1";

#[tokio::test(flavor = "multi_thread")]
async fn each_protocol_has_its_form() {
    let node = Node::start().await;
    let success = r#"{"metadata":{},"status":"Success"}"#;
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io"] {
        let messages = all(connect(&node, ECHO, protocol).await.unwrap()).await;
        let expected = [
            Message::binary(vec![1]),
            Message::binary(b"\x01hi\n".to_vec()),
            Message::binary(format!("\x03{success}")),
        ];
        assert_eq!(messages, expected, "{protocol}");
    }
    for protocol in ["channel.k8s.io", ""] {
        let messages = all(connect(&node, ECHO, protocol).await.unwrap()).await;
        assert_eq!(messages, [Message::binary(vec![1]), Message::binary(b"\x01hi\n".to_vec())], "{protocol:?}");
    }
    let messages = all(connect(&node, ECHO, "v4.base64.channel.k8s.io").await.unwrap()).await;
    let status = Message::text("3eyJtZXRhZGF0YSI6e30sInN0YXR1cyI6IlN1Y2Nlc3MifQ==");
    assert_eq!(messages, [Message::text("1"), Message::text("1aGkK"), status]);
    let messages = all(connect(&node, ECHO, "base64.channel.k8s.io").await.unwrap()).await;
    assert_eq!(messages, [Message::text("1"), Message::text("1aGkK")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn input_and_its_end() {
    let node = Node::start().await;
    let mut socket = connect(&node, "exec?command=cat&stdin=1&stdout=1", "v5.channel.k8s.io").await.unwrap();
    socket.send(Message::binary(b"\x00hello".to_vec())).await.unwrap();
    // Of no channel, and no message at all.
    socket.send(Message::binary(b"\x09lost".to_vec())).await.unwrap();
    socket.send(Message::binary(Vec::new())).await.unwrap();
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    let messages = all(socket).await;
    assert_eq!(messages[1], Message::binary(b"\x01hello".to_vec()));
    node.event().await;
    assert_eq!(node.event().await, "exited 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_spoken_is_refused() {
    let node = Node::start().await;
    for (path, protocol, why) in [
        (ECHO, "v9.channel.k8s.io", "spoken: v5.channel.k8s.io, v4"),
        ("exec?command=echo", "v5.channel.k8s.io", "at least one of stdin"),
        ("portforward", "v4.channel.k8s.io", "at least one port"),
        ("portforward?ports=0", "v4.channel.k8s.io", "\"0\" is not a port"),
    ] {
        let Err(tungstenite::Error::Http(response)) = connect(&node, path, protocol).await else {
            panic!("{path} {protocol}");
        };
        let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned();
        assert!(response.status() == 400 && body.contains(why), "{path}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_told() {
    let node = Node::start().await;
    for protocol in ["binary.k8s.io", ""] {
        let messages = all(connect(&node, "log", protocol).await.unwrap()).await;
        assert_eq!(messages, [Message::binary("one\n"), Message::binary("two")], "{protocol:?}");
    }
    let messages = all(connect(&node, "log", "base64.binary.k8s.io").await.unwrap()).await;
    assert_eq!(messages, [Message::text("b25lCg=="), Message::text("dHdv")]);
    assert!(connect(&node, "log", "channel.k8s.io").await.is_err(), "it is no channel");

    let mut plain = TcpStream::connect(node.address).await.unwrap();
    let request = "GET /api/v1/namespaces/default/pods/p/log HTTP/1.0\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut plain, request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, tokio::io::AsyncReadExt::read_to_string(&mut plain, &mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("\r\n\r\none\ntwo") && answer.contains("content-type: text/plain"), "{answer}");
}
