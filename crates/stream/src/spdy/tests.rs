//! A client that does what it likes.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{
    Spdy,
    frame::{self, Head},
    headers::{Decoder, Encoder},
    serve,
};

/// The client's end of a connection.
pub(crate) struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Data(u32, bool, Vec<u8>),
    Reply(u32),
    Reset(u32, u32),
    Ping(u32),
    Goaway,
}

impl Client {
    /// A client, and what a server is to serve.
    pub fn pair() -> (Self, DuplexStream) {
        let (io, served) = duplex(1 << 20);
        (Self { io, encoder: Encoder::new(), decoder: Decoder::new() }, served)
    }

    fn connected() -> (Self, Spdy) {
        let (client, io) = Self::pair();
        (client, serve(io))
    }

    pub async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let block = self.encoder.encode(headers);
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend([0; 6]);
        payload.extend(block);
        self.control(1, &payload).await;
    }

    async fn control(&mut self, kind: u16, payload: &[u8]) {
        let head = (1u32 << 31 | 3 << 16 | u32::from(kind)).to_be_bytes();
        let length = (payload.len() as u32).to_be_bytes();
        self.io.write_all(&[&head, &length[..], payload].concat()).await.unwrap();
    }

    async fn data(&mut self, stream: u32, end: bool, bytes: &[u8]) {
        self.io.write_all(&frame::data(stream, end, bytes.len())).await.unwrap();
        self.io.write_all(bytes).await.unwrap();
    }

    /// The next thing; none at the end.
    async fn next(&mut self) -> Option<Heard> {
        let mut head = [0; 8];
        self.io.read_exact(&mut head).await.ok()?;
        let (Head::Data { length, .. } | Head::Control { length, .. }) = Head::parse(head);
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await.ok()?;
        let word = |at: usize| u32::from_be_bytes(*payload[at..].first_chunk().unwrap());
        Some(match Head::parse(head) {
            Head::Data { stream, end, .. } => Heard::Data(stream, end, payload),
            Head::Control { kind: 2, .. } => {
                assert_eq!(self.decoder.decode(&payload[4..]), Ok(vec![]));
                Heard::Reply(word(0))
            }
            Head::Control { kind: 3, .. } => Heard::Reset(word(0), word(4)),
            Head::Control { kind: 6, .. } => Heard::Ping(word(0)),
            Head::Control { kind: 7, .. } => Heard::Goaway,
            other => panic!("{other:?}"),
        })
    }

    /// All data until the server says goodbye.
    pub async fn hear(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut data = Vec::new();
        loop {
            match self.next().await.expect("a goodbye") {
                Heard::Data(stream, _, bytes) => data.push((stream, bytes)),
                Heard::Goaway => return data,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_ends_each_way_alone() {
    let (mut client, mut spdy) = Client::connected();
    client.open(1, &[("StreamType", "data"), ("port", "80")]).await;
    let mut stream = spdy.streams.recv().await.unwrap();
    assert_eq!((stream.id(), stream.header("streamtype")), (1, Some("data")));
    assert_eq!(client.next().await, Some(Heard::Reply(1)));
    client.data(1, true, b"to you").await;
    let mut text = String::new();
    stream.reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "to you");
    stream.writer.write_all(b"to me").await.unwrap();
    assert_eq!(client.next().await, Some(Heard::Data(1, false, b"to me".into())));
    drop(stream);
    assert_eq!(client.next().await, Some(Heard::Data(1, true, vec![])));
}

#[tokio::test]
async fn a_ping_is_answered() {
    let (mut client, _spdy) = Client::connected();
    client.control(6, &2u32.to_be_bytes()).await;
    client.control(6, &7u32.to_be_bytes()).await;
    assert_eq!(client.next().await, Some(Heard::Ping(7)), "even ones are answers");
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_ping() {
    let (mut client, _spdy) = Client::connected();
    let start = tokio::time::Instant::now();
    assert_eq!(client.next().await, Some(Heard::Ping(2)));
    assert_eq!(start.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn a_stream_that_is_broken_off_is_a_broken_pipe() {
    let (mut client, mut spdy) = Client::connected();
    client.open(1, &[]).await;
    client.open(3, &[]).await;
    let (mut broken, mut other) = (spdy.streams.recv().await.unwrap(), spdy.streams.recv().await.unwrap());
    client.control(3, &[1u32.to_be_bytes(), 5u32.to_be_bytes()].concat()).await;
    assert_eq!(broken.reader.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(broken.writer.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    other.writer.write_all(b"x").await.expect("the other one lives");
}

#[tokio::test]
async fn bytes_that_nobody_reads_do_not_hold_up_the_rest() {
    let (mut client, mut spdy) = Client::connected();
    client.open(1, &[]).await;
    client.open(3, &[]).await;
    let (unread, mut read) = (spdy.streams.recv().await.unwrap(), spdy.streams.recv().await.unwrap());
    drop(unread);
    client.data(1, false, &vec![0; 200_000]).await;
    client.data(5, false, b"of no stream").await;
    client.data(3, true, b"here").await;
    let mut text = String::new();
    read.reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "here");
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_let_go() {
    let block = |stream: u32, block: &[u8]| [&stream.to_be_bytes(), &[0; 6][..], block].concat();
    for (kind, payload, why) in [
        (1, block(2, &Encoder::new().encode(&[])), "an even stream"),
        (1, block(1, b"garbage"), "headers that are none"),
        (1, vec![0; 3], "cut short"),
        (4, vec![0; 20_000], "too large"),
    ] {
        let (mut client, spdy) = Client::connected();
        client.control(kind, &payload).await;
        while client.next().await.is_some() {}
        spdy.gone.cancelled().await;
        assert!(spdy.gone.is_cancelled(), "{why}");
    }
}

#[tokio::test]
async fn streams_that_are_over_make_room() {
    let (mut client, mut spdy) = Client::connected();
    for i in 0..1500 {
        client.open(2 * i + 1, &[("port", "80")]).await;
        client.data(2 * i + 1, true, b"x").await;
        drop(spdy.streams.recv().await.unwrap());
        assert_eq!(client.next().await, Some(Heard::Reply(2 * i + 1)));
        assert_eq!(client.next().await, Some(Heard::Data(2 * i + 1, true, vec![])));
    }
}

#[tokio::test]
async fn streams_that_nobody_takes_are_refused() {
    let (mut client, spdy) = Client::connected();
    for i in 0..33 {
        client.open(2 * i + 1, &[]).await;
    }
    for i in 0..32 {
        assert_eq!(client.next().await, Some(Heard::Reply(2 * i + 1)));
    }
    assert_eq!(client.next().await, Some(Heard::Reset(65, frame::REFUSED_STREAM)));
    drop(spdy);
}

proptest! {
    /// Whatever a client sends: the connection ends with it, and nothing panics.
    #[test]
    fn no_client_hangs_it(frames in prop::collection::vec((any::<bool>(), 0u16..10, 0u32..8, prop::collection::vec(any::<u8>(), 0..40)), 0..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, mut spdy) = Client::connected();
            for (data, kind, stream, bytes) in frames {
                match (data, kind) {
                    (true, _) => client.data(stream, kind % 2 == 0, &bytes).await,
                    (false, 1) => client.open(stream, &[("port", "80")]).await,
                    (false, kind) => client.control(kind, &bytes).await,
                }
            }
            client.io.shutdown().await.unwrap();
            while spdy.streams.recv().await.is_some() {}
            spdy.gone.cancelled().await;
        });
    }
}
