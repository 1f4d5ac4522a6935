//! Channels over a WebSocket: the first byte of each message is the number of its stream.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::CloseFrame, protocol::frame::coding::CloseCode},
};
use tokio_util::sync::CancellationToken;

use crate::pipe::{Inbox, Out, Pending};

/// From version 5 on, "the stream of the next byte ends".
const CLOSE: u8 = 255;

/// How long a client may take to hang up once it has been told all.
const LINGER: Duration = Duration::from_secs(5);

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coding {
    /// In text messages, the number as a digit and the rest in base 64.
    pub base64: bool,
    /// Whether a client can end a single stream.
    pub closes: bool,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Bytes(u8, Bytes),
    End(u8),
}

impl Coding {
    pub(crate) fn decode(self, message: Bytes) -> Option<Said> {
        let (&number, rest) = message.split_first()?;
        if self.base64 {
            let channel = number.checked_sub(b'0').filter(|digit| *digit <= 9)?;
            return BASE64.decode(rest).ok().map(|bytes| Said::Bytes(channel, bytes.into()));
        }
        if self.closes && number == CLOSE {
            return rest.first().map(|channel| Said::End(*channel));
        }
        Some(Said::Bytes(number, message.slice(1..)))
    }

    fn encode(self, channel: u32, bytes: &[u8]) -> Message {
        // Channels are few: Kubernetes' highest is 4, or twice the ports of a port-forward.
        let number = channel as u8;
        if self.base64 {
            let mut text = String::from(char::from(b'0'.saturating_add(number)));
            BASE64.encode_string(bytes, &mut text);
            return Message::text(text);
        }
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(number);
        message.extend_from_slice(bytes);
        Message::binary(message)
    }
}

/// Carries the channels until the client is gone, or all has been said.
pub(crate) async fn run<Io>(
    websocket: WebSocketStream<Io>,
    coding: Coding,
    mut inboxes: BTreeMap<u32, Inbox>,
    mut outbox: Pending,
    gone: CancellationToken,
) where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = websocket.split();
    let read = async {
        while let Some(Ok(message)) = stream.next().await {
            let said = match message {
                Message::Binary(bytes) => coding.decode(bytes),
                Message::Text(text) => coding.decode(text.into()),
                Message::Close(_) => break,
                _ => None,
            };
            match said {
                Some(Said::Bytes(channel, bytes)) => {
                    let Some(inbox) = inboxes.get_mut(&channel.into()) else { continue };
                    // Nobody reads it any more: what comes is passed over.
                    if inbox.write_all(&bytes).await.is_err() {
                        inboxes.remove(&channel.into());
                    }
                }
                Some(Said::End(channel)) => drop(inboxes.remove(&channel.into())),
                None => {}
            }
        }
        // Who waits for input hears that there is no more.
        inboxes.clear();
    };
    let write = async {
        let mut next = outbox.next().await;
        loop {
            match next {
                Out::Piece { stream, bytes, end } if !bytes.is_empty() || !end => {
                    sink.feed(coding.encode(stream, &bytes)).await?;
                }
                // The end of an output is the end of the connection.
                Out::Piece { .. } | Out::Raw(_) => {}
                Out::Beat => sink.feed(Message::Ping(Bytes::new())).await?,
                Out::Close => break,
            }
            next = match outbox.now() {
                Some(out) => out,
                None => {
                    sink.flush().await?;
                    outbox.next().await
                }
            };
        }
        let done = CloseFrame { code: CloseCode::Normal, reason: Default::default() };
        sink.send(Message::Close(Some(done))).await
    };
    converse(read, write, &gone).await;
    gone.cancel();
}

/// Reads and writes until the client hangs up, or all is written and it has had time to hang up: closing before it has
/// read all could take away what it has not.
pub(crate) async fn converse<E>(
    read: impl Future<Output = ()>,
    write: impl Future<Output = Result<(), E>>,
    gone: &CancellationToken,
) where
    E: std::fmt::Display,
{
    tokio::pin!(read);
    let written = tokio::select! {
        () = &mut read => return,
        written = write => written,
    };
    gone.cancel();
    match written {
        Ok(()) => drop(timeout(LINGER, read).await),
        Err(e) => tracing::debug!(error = %e, "a client is gone"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(message: Message) -> Bytes {
        message.into_data()
    }

    #[test]
    fn a_stream_ends_in_version_5_only() {
        let message = Bytes::from_static(&[255, 0]);
        let coding = Coding { base64: false, closes: true };
        assert_eq!(coding.decode(message.clone()), Some(Said::End(0)));
        let coding = Coding { base64: false, closes: false };
        assert_eq!(coding.decode(message), Some(Said::Bytes(255, Bytes::from_static(&[0]))));
    }

    #[test]
    fn base64_is_text() {
        let coding = Coding { base64: true, closes: false };
        assert_eq!(coding.encode(1, b"hi"), Message::text("1aGk="));
        assert_eq!(coding.decode(Bytes::from_static(b"0aGk=")), Some(Said::Bytes(0, Bytes::from_static(b"hi"))));
        assert_eq!(coding.decode(Bytes::from_static(b"0***")), None);
    }

    proptest! {
        #[test]
        fn no_message_panics(message in prop::collection::vec(any::<u8>(), 0..20), base64: bool, closes: bool) {
            Coding { base64, closes }.decode(message.into());
        }

        #[test]
        fn what_is_encoded_is_decoded(channel in 0u8..5, sent in prop::collection::vec(any::<u8>(), 0..50), base64: bool) {
            let coding = Coding { base64, closes: true };
            let said = coding.decode(bytes(coding.encode(channel.into(), &sent)));
            prop_assert_eq!(said, Some(Said::Bytes(channel, sent.into())));
        }
    }
}
