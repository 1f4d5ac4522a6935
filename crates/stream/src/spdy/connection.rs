//! A connection and its streams.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{
    frame::{self, Control, Head},
    headers::{Decoder, Encoder, Headers},
};
use crate::{
    channels::converse,
    pipe::{Inbox, Out, Outbox, Pending, Reader, Writer, inbox, outbox},
};

/// Streams that wait to be taken.
const BACKLOG: usize = 32;
/// Streams of a connection: a port-forward has two for each connection it carries.
const STREAMS: usize = 1024;
/// The largest control frame; Kubernetes' clients send about a hundred bytes.
const LARGEST_CONTROL: usize = 16 << 10;

/// A connection that is being served.
pub(crate) struct Spdy {
    /// Streams as the client opens them; when it is dropped, further ones are refused.
    pub streams: mpsc::Receiver<Stream>,
    /// The way to the client.
    pub outbox: Outbox,
    /// Cancelled when the client is gone.
    pub gone: CancellationToken,
}

/// A stream that the client opened. Dropping it ends our side.
#[derive(Debug)]
pub(crate) struct Stream {
    id: u32,
    headers: Headers,
    pub reader: Reader,
    pub writer: Writer,
}

impl Stream {
    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What the client sends; our side of the stream ends when it is dropped.
    pub fn into_reader(self) -> Reader {
        self.reader.with_back(self.writer)
    }

    /// Its number, for someone else to write to it.
    pub fn into_id(self) -> u32 {
        self.writer.leave_open();
        self.id
    }
}

/// Serves a connection, on a task of its own, until the client is gone or the outbox says so.
pub(crate) fn serve<Io>(io: Io) -> Spdy
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let (outbox, receiver) = outbox();
    let (sender, streams) = mpsc::channel(BACKLOG);
    let gone = CancellationToken::new();
    let spdy = Spdy { streams, outbox: outbox.clone(), gone: gone.clone() };
    tokio::spawn(async move {
        let (reader, writer) = tokio::io::split(io);
        let mut connection = Incoming {
            reader,
            outbox,
            streams: sender,
            open: HashMap::new(),
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            last: 0,
        };
        let read = async {
            if let Err(e) = connection.run().await {
                tracing::debug!(error = %e, "a SPDY connection ends");
            }
            // Who waits for input hears that there is no more.
            connection.open.clear();
        };
        converse(read, write(writer, receiver), &gone).await;
        gone.cancel();
    });
    spdy
}

/// Sends what comes, until it is to close.
async fn write(mut writer: impl AsyncWrite + Unpin, mut outbox: Pending) -> io::Result<()> {
    let mut next = outbox.next().await;
    loop {
        match next {
            Out::Piece { stream, bytes, end } => {
                let mut frame = Vec::with_capacity(frame::HEAD + bytes.len());
                frame.extend_from_slice(&frame::data(stream, end, bytes.len()));
                frame.extend_from_slice(&bytes);
                writer.write_all(&frame).await?;
            }
            Out::Raw(frame) => writer.write_all(&frame).await?,
            // A server's pings are even.
            Out::Beat => writer.write_all(&frame::ping(2)).await?,
            Out::Close => break,
        }
        next = match outbox.now() {
            Some(out) => out,
            None => {
                writer.flush().await?;
                outbox.next().await
            }
        };
    }
    writer.write_all(&frame::goaway(0, frame::GOAWAY_OK)).await?;
    writer.flush().await?;
    writer.shutdown().await
}

/// The client's side of a connection.
struct Incoming<R> {
    reader: R,
    outbox: Outbox,
    streams: mpsc::Sender<Stream>,
    open: HashMap<u32, Open>,
    decoder: Decoder,
    encoder: Encoder,
    last: u32,
}

/// A stream that has not ended on both sides.
struct Open {
    /// Where its bytes go; none once the client has ended it, or nobody reads it.
    inbox: Option<Inbox>,
    /// Shared with the stream's writer: set when the client breaks the stream off.
    reset: Arc<AtomicBool>,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let mut head = [0; frame::HEAD];
            self.reader.read_exact(&mut head).await?;
            match Head::parse(head) {
                Head::Data { stream, end, length } => self.data(stream, end, length).await?,
                Head::Control { length, .. } if length > LARGEST_CONTROL => {
                    return Err(broken("a control frame too large"));
                }
                Head::Control { version, kind, end, length } => {
                    let mut payload = vec![0; length];
                    self.reader.read_exact(&mut payload).await?;
                    let control = Control::parse(version, kind, end, &payload);
                    self.control(control.ok_or_else(|| broken("a control frame that cannot be read"))?).await?;
                }
            }
        }
    }

    /// Passes on the bytes of a data frame as they come.
    async fn data(&mut self, stream: u32, end: bool, mut length: usize) -> io::Result<()> {
        let mut buffer = vec![0; length.min(16 << 10)];
        while length > 0 {
            let wanted = length.min(buffer.len());
            let read = self.reader.read(&mut buffer[..wanted]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            length -= read;
            let Some(open) = self.open.get_mut(&stream) else { continue };
            if let Some(inbox) = &mut open.inbox {
                // Nobody reads it any more: what comes is passed over.
                if inbox.write_all(&buffer[..read]).await.is_err() {
                    open.inbox = None;
                }
            }
        }
        if end {
            self.end(stream);
        }
        Ok(())
    }

    async fn control(&mut self, control: Control<'_>) -> io::Result<()> {
        match control {
            Control::SynStream { stream, end, headers } => {
                let headers = self.decoder.decode(headers).map_err(|_| broken("headers that cannot be read"))?;
                self.accept(stream, headers).await?;
                if end {
                    self.end(stream);
                }
            }
            Control::Headers { stream, end, headers } => {
                self.decoder.decode(headers).map_err(|_| broken("headers that cannot be read"))?;
                if end {
                    self.end(stream);
                }
            }
            Control::Reset { stream } => {
                if let Some(open) = self.open.remove(&stream) {
                    open.reset.store(true, Ordering::Relaxed);
                }
            }
            // Even ones are answers to ours, of which there are none.
            Control::Ping { id } if !id.is_multiple_of(2) => self.send(Out::Raw(frame::ping(id))).await?,
            Control::Ping { .. } | Control::Other => {}
        }
        Ok(())
    }

    async fn accept(&mut self, stream: u32, headers: Headers) -> io::Result<()> {
        // A client's streams are odd and grow.
        if stream.is_multiple_of(2) || stream <= self.last {
            return Err(broken("a stream with a number that is taken"));
        }
        self.last = stream;
        // Those that the client has ended and nobody writes to are over.
        self.open.retain(|_, open| open.inbox.is_some() || Arc::strong_count(&open.reset) > 1);
        let Ok(slot) = self.streams.clone().try_reserve_owned() else {
            return self.send(Out::Raw(frame::reset(stream, frame::REFUSED_STREAM))).await;
        };
        if self.open.len() >= STREAMS {
            return self.send(Out::Raw(frame::reset(stream, frame::REFUSED_STREAM))).await;
        }
        let reply = frame::syn_reply(stream, &self.encoder.encode(&[]));
        self.send(Out::Raw(reply)).await?;
        let (reader, inbox) = inbox();
        let reset = Arc::new(AtomicBool::new(false));
        let writer = Writer::new(stream, self.outbox.clone()).until(reset.clone());
        self.open.insert(stream, Open { inbox: Some(inbox), reset });
        slot.send(Stream { id: stream, headers, reader, writer });
        Ok(())
    }

    fn end(&mut self, stream: u32) {
        if let Some(open) = self.open.get_mut(&stream) {
            open.inbox = None;
        }
    }

    async fn send(&mut self, out: Out) -> io::Result<()> {
        self.outbox.send(out).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
