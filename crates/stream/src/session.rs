//! Exec and attach.

use std::{collections::BTreeMap, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::Request;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Outcome, Reader, Result, Writer,
    channels::{self, Coding},
    pipe::{Out, Outbox, inbox, outbox},
    spdy::{self, Stream},
    upgrade::{self, Agreed, Connection},
};

/// How long a SPDY client may take to open its streams, as in Kubernetes.
const OPENING: Duration = Duration::from_secs(30);

/// WebSocket protocols of exec and attach, best first.
const WEBSOCKET: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];
/// SPDY protocols, best first.
const SPDY: [&str; 5] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io", ""];

/// WebSocket channels by their numbers.
const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const ERROR: u32 = 3;
const RESIZE: u32 = 4;

/// Which streams a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Bytes for the command.
    pub stdin: bool,
    /// Its output.
    pub stdout: bool,
    /// Its other output. Never with a terminal, which has but one.
    pub stderr: bool,
    /// A terminal, whose size the client tells.
    pub tty: bool,
}

impl Options {
    /// The options in the query of an exec or attach request (`PodExecOptions`); other keys are passed over.
    ///
    /// # Errors
    /// [`Error::Refused`] if no stream is asked for.
    pub fn from_query(query: &str) -> Result<Self> {
        let asked = |name: &str| {
            let values = query.split('&').filter_map(|pair| pair.split_once('='));
            values
                .filter(|(key, _)| *key == name)
                .any(|(_, value)| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
        };
        let tty = asked("tty");
        let options = Self { stdin: asked("stdin"), stdout: asked("stdout"), stderr: asked("stderr") && !tty, tty };
        if !options.stdin && !options.stdout && !options.stderr {
            return Err(Error::Refused("at least one of stdin, stdout and stderr is required".into()));
        }
        Ok(options)
    }
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// A client's streams, those that it asked for.
#[derive(Debug)]
pub struct Session {
    /// What the client sends; its end is the client's end of input, or the client's own.
    pub stdin: Option<Reader>,
    /// Drop it when the command's output ends.
    pub stdout: Option<Writer>,
    /// Likewise.
    pub stderr: Option<Writer>,
    /// The latest size of the client's terminal; none was told before the first change. Its sender goes with the client.
    pub size: watch::Receiver<Option<Size>>,
    /// Cancelled when the client is gone.
    pub gone: CancellationToken,
    /// Ends the session.
    pub finish: Finish,
}

/// The end of a session, to be told after the last of its output. Dropped, it just breaks off.
#[derive(Debug)]
pub struct Finish {
    outbox: Outbox,
    stream: u32,
    /// From version 4 on the error stream carries a `metav1.Status`.
    structured: bool,
    told: bool,
}

impl Finish {
    /// Tells the client, after everything that was written to the session before, and closes the connection.
    pub async fn send(mut self, outcome: Outcome) {
        let text = if self.structured { outcome.status().to_string() } else { outcome.text() };
        let told = Out::Piece { stream: self.stream, bytes: Bytes::from(text), end: true };
        // A client that is gone need not be told.
        if self.outbox.send(told).await.is_ok() {
            let _ = self.outbox.send(Out::Close).await;
        }
        self.told = true;
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.told, tokio::runtime::Handle::try_current()) {
            let outbox = self.outbox.clone();
            runtime.spawn(async move { outbox.send(Out::Close).await });
        }
    }
}

/// Takes over the connection of an exec or attach request. The response must be sent; the future, awaited on another
/// task than the one that sends it, gives the streams once the client has opened them.
pub fn accept(
    mut request: Request<Body>,
    options: Options,
) -> (Response, impl Future<Output = Result<Session>> + Send + 'static) {
    let (agreed, response) = upgrade::negotiate(&request, &WEBSOCKET, &SPDY);
    let upgrade = hyper::upgrade::on(&mut request);
    let session = async move {
        let agreed = agreed?;
        let connection = upgrade::connection(upgrade).await?;
        match agreed {
            Agreed::WebSocket(protocol) => Ok(over_websocket(connection, protocol, options).await),
            Agreed::Spdy(protocol) => over_spdy(connection, protocol, options).await,
        }
    };
    (response, session)
}

async fn over_websocket(connection: Connection, protocol: &str, options: Options) -> Session {
    let coding = Coding { base64: protocol.contains("base64"), closes: protocol.starts_with("v5") };
    let (sender, receiver) = outbox();
    let gone = CancellationToken::new();
    let mut inboxes = BTreeMap::new();
    let mut open = |channel: u32, wanted: bool| {
        wanted.then(|| {
            let (reader, inbox) = inbox();
            inboxes.insert(channel, inbox);
            reader
        })
    };
    let (stdin, resize) = (open(STDIN, options.stdin), open(RESIZE, options.tty));
    // A first empty message tells the client that the connection stands.
    let first = if options.stdout {
        STDOUT
    } else if options.stderr {
        STDERR
    } else {
        ERROR
    };
    let _ = sender.try_send(Out::Piece { stream: first, bytes: Bytes::new(), end: false });
    let websocket = upgrade::websocket(connection).await;
    tokio::spawn(channels::run(websocket, coding, inboxes, receiver, gone.clone()));
    let writer = |channel: u32, wanted: bool| wanted.then(|| Writer::new(channel, sender.clone()));
    Session {
        stdin,
        stdout: writer(STDOUT, options.stdout),
        stderr: writer(STDERR, options.stderr),
        size: sizes(resize),
        gone,
        finish: Finish { structured: protocol.starts_with('v'), stream: ERROR, told: false, outbox: sender },
    }
}

async fn over_spdy<Io>(io: Io, protocol: &str, options: Options) -> Result<Session>
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let resizes = options.tty && (protocol.starts_with("v3") || protocol.starts_with("v4"));
    let wanted = [
        ("error", true),
        ("stdin", options.stdin),
        ("stdout", options.stdout),
        ("stderr", options.stderr),
        ("resize", resizes),
    ];
    let expected = wanted.iter().filter(|(_, wanted)| *wanted).count();
    let mut spdy = spdy::serve(io);
    let streams = collect(&mut spdy.streams, &wanted, expected).await;
    let mut streams = match streams {
        Ok(streams) => streams,
        Err(e) => {
            let _ = spdy.outbox.send(Out::Close).await;
            return Err(e);
        }
    };
    let mut take = |name: &str| streams.remove(name);
    let (stdin, resize) = (take("stdin").map(Stream::into_reader), take("resize").map(Stream::into_reader));
    let (stdout, stderr) = (take("stdout").map(|s| s.writer), take("stderr").map(|s| s.writer));
    let error = take("error").map(Stream::into_id).unwrap_or_default();
    Ok(Session {
        stdin,
        stdout,
        stderr,
        size: sizes(resize),
        gone: spdy.gone,
        finish: Finish { structured: protocol.starts_with("v4"), stream: error, told: false, outbox: spdy.outbox },
    })
}

/// The streams that were announced, by type.
async fn collect(
    incoming: &mut mpsc::Receiver<Stream>,
    wanted: &[(&'static str, bool)],
    expected: usize,
) -> Result<BTreeMap<&'static str, Stream>> {
    let deadline = Instant::now() + OPENING;
    let mut streams = BTreeMap::new();
    while streams.len() < expected {
        let Ok(Some(stream)) = timeout_at(deadline, incoming.recv()).await else {
            return Err(Error::Incomplete { opened: streams.len(), expected });
        };
        let kind = stream.header("streamtype").unwrap_or_default();
        // Another of a kind, or one that was not announced, ends here: dropping a stream closes it.
        let announced = wanted.iter().find(|(name, wanted)| *wanted && *name == kind).map(|(name, _)| *name);
        if let Some(name) = announced.filter(|name| !streams.contains_key(name)) {
            streams.insert(name, stream);
        }
    }
    Ok(streams)
}

/// The sizes that a stream of JSON objects tells.
fn sizes(resize: Option<Reader>) -> watch::Receiver<Option<Size>> {
    /// No size takes more: what is longer is none.
    const LONGEST: usize = 4096;
    let (sender, sizes) = watch::channel(None);
    if let Some(mut resize) = resize {
        tokio::spawn(async move {
            let mut text = Vec::new();
            while resize.read_buf(&mut text).await.is_ok_and(|read| read > 0) {
                let (told, rest) = parse_sizes(&text);
                if let Some(size) = told {
                    let _ = sender.send(Some(size));
                }
                match rest {
                    Some(read) if text.len() - read <= LONGEST => drop(text.drain(..read)),
                    // Not what it should be: passed over, but still read, or it would hold up the other streams.
                    _ => text.clear(),
                }
            }
        });
    }
    sizes
}

/// The last size in a text, and how much of the text is done with; none if it is not a sequence of sizes.
pub(crate) fn parse_sizes(text: &[u8]) -> (Option<Size>, Option<usize>) {
    let mut parsed = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let mut last = None;
    loop {
        let before = parsed.byte_offset();
        match parsed.next() {
            Some(Ok(size)) => last = Some(size),
            Some(Err(e)) if e.is_eof() => return (last, Some(before)),
            Some(Err(_)) => return (last, None),
            None => return (last, Some(text.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::spdy::tests::Client;

    #[test]
    fn a_terminal_has_no_stderr() {
        let options = Options::from_query("command=a&stdin=1&stdout=true&stderr=true&tty=true").unwrap();
        assert_eq!(options, Options { stdin: true, stdout: true, stderr: false, tty: true });
        assert!(Options::from_query("stdin=false&tty=true").is_err());
    }

    #[test]
    fn sizes_come_in_pieces() {
        let text = br#"{"Width":80,"Height":24}{"Width":100,"Height":30} {"Wid"#;
        let (last, done) = parse_sizes(text);
        assert_eq!(last, Some(Size { width: 100, height: 30 }));
        assert_eq!(&text[done.unwrap()..].trim_ascii_start(), b"{\"Wid");
        assert_eq!(parse_sizes(b"x"), (None, None));
        assert_eq!(parse_sizes(br#"{"Width":70000,"Height":1}"#), (None, None));
    }

    const SHELL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };

    #[tokio::test(start_paused = true)]
    async fn a_client_that_opens_too_few_streams_is_let_go() {
        let (mut client, io) = Client::pair();
        client.open(1, &[("streamType", "error")]).await;
        client.open(3, &[("streamtype", "error")]).await;
        client.open(5, &[("streamtype", "nonsense")]).await;
        let session = over_spdy(io, "v4.channel.k8s.io", SHELL).await;
        assert!(matches!(session, Err(Error::Incomplete { opened: 1, expected: 4 })), "{session:?}");
    }

    #[tokio::test]
    async fn the_outcome_comes_last() {
        for (protocol, outcome, said) in [
            ("v4.channel.k8s.io", Outcome::Exited(0), r#"{"metadata":{},"status":"Success"}"#),
            ("v2.channel.k8s.io", Outcome::Exited(0), ""),
            ("v2.channel.k8s.io", Outcome::Exited(7), "command terminated with exit code 7"),
        ] {
            let (mut client, io) = Client::pair();
            for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
                client.open(stream, &[("streamType", kind)]).await;
            }
            let mut session = over_spdy(io, protocol, SHELL).await.unwrap();
            session.stdout.take().unwrap().write_all(b"last words").await.unwrap();
            session.finish.send(outcome).await;
            let heard = client.hear().await;
            let of =
                |stream| heard.iter().filter(|(s, _)| *s == stream).flat_map(|(_, b)| b.clone()).collect::<Vec<_>>();
            assert_eq!(of(5), b"last words");
            assert_eq!(of(1), said.as_bytes());
            assert_eq!(heard.last().unwrap().0, 1, "{protocol}");
        }
    }

    proptest! {
        #[test]
        fn no_size_panics(text in r#"[{}" :,0-9WidthHeg]{0,60}"#) {
            parse_sizes(text.as_bytes());
        }
    }
}
