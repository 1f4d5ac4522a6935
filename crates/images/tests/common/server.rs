//! A registry on loopback that answers as a test tells it to.
#![allow(dead_code)]

use super::Content;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A request, as far as it matters.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    /// How many requests for this path there were before.
    pub nth: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v)
    }

    /// The first byte wanted.
    pub fn from(&self) -> usize {
        self.header("range").trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0)
    }
}

/// An answer, honest or not.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// What Content-Length says, if not the truth.
    pub length: Option<usize>,
    /// Send only so much.
    pub cut: Option<usize>,
    /// Then hold the connection instead of closing it.
    pub stall: bool,
    /// Send the rest a byte at a time.
    pub trickle: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![], body: body.into(), length: None, cut: None, stall: false, trickle: false }
    }
}

pub type Answer = dyn Fn(&Request, Reply) -> Reply + Send + Sync;

/// The registry; ends when dropped.
pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Serves `content` as `/v2/app`, tag `1`; `answer` may change each reply.
    pub async fn start(content: Content, answer: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, content, answer): (_, _, Arc<Answer>) = (seen.clone(), Arc::new(content), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, content.clone(), answer.clone(), log.clone()));
            }
        });
        Self { port, seen, task }
    }

    pub async fn honest(content: Content) -> Self {
        Self::start(content, |_, reply| reply).await
    }

    pub fn reference(&self) -> images::Reference {
        format!("127.0.0.1:{}/app:1", self.port).parse().unwrap()
    }

    pub fn seen(&self, part: &str) -> Vec<Request> {
        self.seen.lock().unwrap().iter().filter(|r| r.path.contains(part)).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    content: Arc<Content>,
    answer: Arc<Answer>,
    log: Arc<Mutex<Vec<Request>>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let target = lines.next()?.split(' ').nth(1)?.to_string();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let headers = lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_string())).collect();
    let request = {
        let mut log = log.lock().unwrap();
        let nth = log.iter().filter(|r| r.path == path).count();
        log.push(Request { path: path.into(), query: query.into(), headers, nth });
        log.last()?.clone()
    };
    let reply = answer(&request, honest(&content, &request));
    let mut out = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status).into_bytes();
    out.extend(format!("Content-Length: {}\r\n", reply.length.unwrap_or(reply.body.len())).bytes());
    for (name, value) in &reply.headers {
        out.extend(format!("{name}: {value}\r\n").bytes());
    }
    out.extend(b"\r\n");
    out.extend_from_slice(&reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())]);
    stream.write_all(&out).await.ok()?;
    if reply.trickle {
        for byte in &reply.body[reply.cut.unwrap_or(0)..] {
            stream.write_all(&[*byte]).await.ok()?;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    if reply.stall {
        // Until the other side gives up.
        while stream.read_u8().await.is_ok() {}
    }
    stream.shutdown().await.ok()
}

fn honest(content: &Content, request: &Request) -> Reply {
    let name = request.path.rsplit('/').next().unwrap_or_default();
    let digest = if name == "1" { &content.top } else { name };
    let Some(bytes) = content.blobs.get(digest) else {
        return Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#);
    };
    let mut reply = Reply::new(200, bytes.clone());
    if request.path.contains("/manifests/") {
        let kind = serde_json::from_slice::<serde_json::Value>(bytes).unwrap_or_default()["mediaType"].clone();
        reply.headers.push(("Content-Type", kind.as_str().unwrap_or_default().into()));
    } else if request.from() > 0 {
        reply.status = 206;
        reply.headers.push(("Content-Range", format!("bytes {}-{}/{}", request.from(), bytes.len() - 1, bytes.len())));
        reply.body.drain(..request.from());
    }
    reply
}
