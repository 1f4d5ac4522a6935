//! A cloud's metadata service, as small as a machine under test needs it.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Serves documents that may change, and keeps what is posted.
#[derive(Clone)]
pub struct Metadata {
    documents: Arc<Mutex<BTreeMap<String, String>>>,
    posted: Arc<Mutex<Vec<String>>>,
    port: u16,
}

impl Metadata {
    /// A service on a port of loopback, with nothing in it.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let service = Self { documents: Arc::default(), posted: Arc::default(), port };
        let serving = service.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let service = serving.clone();
                thread::spawn(move || service.answer(stream));
            }
        });
        service
    }

    /// Sets a document below `/openstack/latest/`.
    pub fn set(&self, name: &str, text: impl Into<String>) {
        let path = format!("/openstack/latest/{name}");
        self.documents.lock().expect("no test has panicked").insert(path, text.into());
    }

    /// What was posted, in order.
    pub fn posted(&self) -> Vec<String> {
        self.posted.lock().expect("no test has panicked").clone()
    }

    /// The port of loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut request, mut length) = (String::new(), 0);
            if reader.read_line(&mut request)? == 0 {
                return Ok(());
            }
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                let (name, value) = header.trim().split_once(':').unwrap_or_default();
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap_or(0);
                }
                if header.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let mut words = request.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let found = self.documents.lock().expect("no test has panicked").get(path).cloned();
            let (status, text) = match (method, found) {
                ("POST", _) => {
                    let mut posted = self.posted.lock().expect("no test has panicked");
                    posted.push(String::from_utf8_lossy(&body).into_owned());
                    if posted.len() == 1 { ("200 OK", String::new()) } else { ("409 Conflict", String::new()) }
                }
                (_, Some(text)) => ("200 OK", text),
                _ => ("404 Not Found", String::new()),
            };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}", text.len())?;
        }
    }
}
