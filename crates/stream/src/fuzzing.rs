//! What a client may send over a stream, for `fuzz/`.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::{Options, channels::Coding, ports, session, spdy, tunnel::Tunnel};

/// A client that sends these bytes and closes.
async fn client(bytes: &[u8]) -> DuplexStream {
    let (mut client, server) = tokio::io::duplex(bytes.len().max(1));
    client.write_all(bytes).await.expect("there is room");
    server
}

/// A SPDY connection; its streams are read to their ends.
pub async fn spdy(bytes: &[u8]) {
    let mut connection = spdy::serve(client(bytes).await);
    while let Some(stream) = connection.streams.recv().await {
        let _ = (stream.id(), stream.header("streamtype"));
        let _cut_short = stream.into_reader().read_to_end(&mut Vec::new()).await;
    }
    connection.gone.cancelled().await;
}

/// The headers of a stream, out of their compression.
pub fn headers(bytes: &[u8]) {
    spdy::headers::parse(bytes);
}

/// The messages of a WebSocket.
pub async fn websocket(bytes: &[u8]) {
    let socket = WebSocketStream::from_raw_socket(client(bytes).await, Role::Server, None).await;
    let _broken = Tunnel::new(socket).read_to_end(&mut Vec::new()).await;
}

/// A message of channels, the sizes of a terminal in it, and the query that asked for it.
pub fn message(bytes: &[u8]) {
    for (base64, closes) in [(false, false), (false, true), (true, false)] {
        Coding { base64, closes }.decode(bytes.to_vec().into());
    }
    session::parse_sizes(bytes);
    if let Ok(query) = std::str::from_utf8(bytes) {
        let _refused = (Options::from_query(query), ports::ports(query));
    }
}
