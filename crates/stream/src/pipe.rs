//! The two halves of a stream: bytes from the client, bytes to the client.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::PollSender;

/// Bytes from the client that wait to be read.
const INBOX: usize = 64 << 10;
/// The largest piece that is sent; a client's buffers are often 32 KiB.
const PIECE: usize = 16 << 10;
/// Pieces of all streams of a connection that wait to be sent.
const OUTBOX: usize = 8;

/// Silence on a connection before a sign of life: without one, a client that went without a word (its host is gone)
/// would never be noticed.
const BEAT: Duration = Duration::from_secs(30);

/// What waits to be sent on a connection, in order.
#[derive(Debug)]
pub(crate) enum Out {
    /// A piece of a stream, `end` if it is the last.
    Piece { stream: u32, bytes: Bytes, end: bool },
    /// Something of the protocol's own, encoded.
    Raw(Bytes),
    /// A sign of life, after a long silence.
    Beat,
    /// Nothing more: the connection ends.
    Close,
}

/// The way to the client, shared by all streams of a connection.
pub(crate) type Outbox = mpsc::Sender<Out>;

/// What comes out of an outbox.
pub(crate) struct Pending(mpsc::Receiver<Out>);

impl Pending {
    /// What comes next, once it is there.
    pub async fn next(&mut self) -> Out {
        match timeout(BEAT, self.0.recv()).await {
            Ok(out) => out.unwrap_or(Out::Close),
            Err(_) => Out::Beat,
        }
    }

    /// What comes next, if it is there.
    pub fn now(&mut self) -> Option<Out> {
        self.0.try_recv().ok()
    }
}

/// An outbox and what comes out of it.
pub(crate) fn outbox() -> (Outbox, Pending) {
    let (sender, receiver) = mpsc::channel(OUTBOX);
    (sender, Pending(receiver))
}

/// Where a connection puts what a client sends. Dropping it is the end of the stream.
pub(crate) type Inbox = DuplexStream;

/// A stream's bytes from the client.
pub(crate) fn inbox() -> (Reader, Inbox) {
    // Not `simplex`, whose halves end nothing when they are dropped.
    let (reader, inbox) = duplex(INBOX);
    (Reader { pipe: reader, _back: None }, inbox)
}

/// What the client sends; ends when the client ends it, or is gone.
#[derive(Debug)]
pub struct Reader {
    pipe: DuplexStream,
    /// A SPDY client takes the end of its input stream's other direction for "do not send any more": it must not come
    /// before nobody reads.
    _back: Option<Writer>,
}

impl Reader {
    /// Ends the other direction of its stream when it is dropped.
    pub(crate) fn with_back(self, writer: Writer) -> Self {
        Self { _back: Some(writer), ..self }
    }
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

/// What the client gets. Shutting it down, or dropping it, ends the stream; a client that is gone is a broken pipe.
#[derive(Debug)]
pub struct Writer {
    stream: u32,
    outbox: PollSender<Out>,
    ended: bool,
    /// Set when the client breaks off this stream alone.
    reset: Option<Arc<AtomicBool>>,
}

impl Writer {
    pub(crate) fn new(stream: u32, outbox: Outbox) -> Self {
        Self { stream, outbox: PollSender::new(outbox), ended: false, reset: None }
    }

    /// One that is broken once the flag is set.
    pub(crate) fn until(self, reset: Arc<AtomicBool>) -> Self {
        let mut writer = self;
        writer.reset = Some(reset);
        writer
    }

    /// Drops it without ending the stream.
    pub(crate) fn leave_open(mut self) {
        self.ended = true;
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], end: bool) -> Poll<io::Result<()>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.outbox.poll_reserve(cx)).map_err(gone)?;
        let piece = Out::Piece { stream: self.stream, bytes: Bytes::copy_from_slice(bytes), end };
        Poll::Ready(self.outbox.send_item(piece).map_err(gone))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended || self.reset.as_ref().is_some_and(|reset| reset.load(Ordering::Relaxed)) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let piece = &buf[..buf.len().min(PIECE)];
        if !piece.is_empty() {
            ready!(self.poll_send(cx, piece, false))?;
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection sends what it has as soon as it can.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            // A client that is gone has nothing more to be told.
            let _ = ready!(self.poll_send(cx, &[], true));
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(outbox) = self.outbox.get_ref().filter(|_| !self.ended) else { return };
        let end = Out::Piece { stream: self.stream, bytes: Bytes::new(), end: true };
        if let (Err(mpsc::error::TrySendError::Full(end)), Ok(runtime)) =
            (outbox.try_send(end), tokio::runtime::Handle::try_current())
        {
            let outbox = outbox.clone();
            runtime.spawn(async move { outbox.send(end).await });
        }
    }
}
