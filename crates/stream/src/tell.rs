//! What is only told: an answer that goes on, as a body or as the messages of a WebSocket.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, response::Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use http::{HeaderValue, Request, header};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{
    Result,
    upgrade::{self, Agreed},
};

/// WebSocket protocols of logs, best first.
const WEBSOCKET: [&str; 3] = ["binary.k8s.io", "base64.binary.k8s.io", ""];
/// How long a client may take to close after the last message.
const CLOSING: Duration = Duration::from_secs(5);

/// Answers a request with text that comes piece by piece: a message each over a WebSocket, if it asks for one, else
/// its body.
pub fn tell(mut request: Request<Body>, told: impl Stream<Item = Bytes> + Send + Unpin + 'static) -> Response {
    if !upgrade::asked(request.headers()) {
        let mut response = Response::new(Body::from_stream(told.map(Ok::<_, Infallible>)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return response;
    }
    let (agreed, response) = upgrade::negotiate(&request, &WEBSOCKET, &[]);
    let upgrade = hyper::upgrade::on(&mut request);
    if let Ok(Agreed::WebSocket(protocol)) = agreed {
        tokio::spawn(async move {
            if let Err(error) = messages(upgrade, protocol.starts_with("base64"), told).await {
                tracing::debug!("a client left: {error}");
            }
        });
    }
    response
}

async fn messages(
    upgrade: hyper::upgrade::OnUpgrade,
    base64: bool,
    mut told: impl Stream<Item = Bytes> + Unpin,
) -> Result<()> {
    let socket = upgrade::websocket(upgrade::connection(upgrade).await?).await;
    let (mut sink, mut source) = socket.split();
    let all = async {
        while let Some(piece) = told.next().await {
            let message = if base64 { Message::text(BASE64_STANDARD.encode(&piece)) } else { Message::binary(piece) };
            sink.send(message).await?;
        }
        sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await
    };
    // What the client says is not listened to, but its leaving ends the telling, and pings are answered on the way.
    let mut gone = std::pin::pin!(async { while let Some(Ok(_)) = source.next().await {} });
    let done = tokio::select! {
        done = all => done.is_ok(),
        () = &mut gone => false,
    };
    if done {
        let _slow_client = tokio::time::timeout(CLOSING, gone).await;
    }
    Ok(())
}
