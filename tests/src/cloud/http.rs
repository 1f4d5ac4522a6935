//! As much of HTTP as the proxies need.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs},
};

use serde_json::{Value, json};

/// A whole request, made to end its connection.
pub struct Request {
    bytes: Vec<u8>,
    body: usize,
}

impl Request {
    /// Reads one.
    pub fn read(client: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = end_of_head(&bytes) {
                break at;
            }
            more(client, &mut bytes)?;
        };
        let length = header(&bytes[..end], "content-length").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
        while bytes.len() < end + length {
            more(client, &mut bytes)?;
        }
        const LAST: &[u8] = b"connection: close\r\n";
        bytes.splice(end - 2..end - 2, LAST.iter().copied());
        Ok(Self { bytes, body: end + LAST.len() })
    }

    /// Asks a service; its answer.
    pub fn ask(&self, service: impl ToSocketAddrs) -> io::Result<Vec<u8>> {
        let mut service = TcpStream::connect(service)?;
        service.write_all(&self.bytes)?;
        let mut answer = Vec::new();
        service.read_to_end(&mut answer)?;
        Ok(answer)
    }

    /// Whether it changes nothing.
    pub fn reads(&self) -> bool {
        self.bytes.starts_with(b"GET ") || self.bytes.starts_with(b"HEAD ")
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.bytes[..self.body], name)
    }

    /// What makes two requests the same one: all but the ids, of which each run makes its own.
    pub fn key(&self) -> (String, Vec<u8>) {
        let line = self.bytes.split(|b| *b == b'\r').next().unwrap_or_default();
        (String::from_utf8_lossy(&without_ids(line)).into_owned(), without_ids(&self.bytes[self.body..]))
    }
}

/// An answer with fields that nobody knows, in every object of its JSON; `None` for another answer.
pub fn grown(answer: &[u8]) -> Option<Vec<u8>> {
    let end = end_of_head(answer)?;
    let mut body: Value = serde_json::from_slice(&answer[end..]).ok()?;
    grow(&mut body);
    let body = body.to_string();
    let head = String::from_utf8_lossy(&answer[..end - 4]).into_owned();
    let kept = head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
    let head = kept.collect::<Vec<_>>().join("\r\n");
    Some(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

fn grow(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(grow),
        Value::Object(fields) => {
            fields.values_mut().for_each(grow);
            fields.insert("of_a_later_version".into(), json!({"id": null, "is": ["unknown", 1, {"name": 2.5}]}));
        }
        _ => {}
    }
}

fn more(client: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 16 << 10];
    match client.read(&mut chunk)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            bytes.extend_from_slice(&chunk[..read]);
            Ok(())
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

fn header(head: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head).into_owned();
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
}

/// Runs of 16 and more hexadecimal digits, with dashes or without, as one star: ids, and digests of what holds them.
fn without_ids(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: usize = 16;
    let is_part = |b: &u8| b.is_ascii_hexdigit() || *b == b'-';
    let mut kept = Vec::new();
    for run in bytes.chunk_by(|a, b| is_part(a) == is_part(b)) {
        let digits = run.iter().filter(|b| b.is_ascii_hexdigit()).count();
        match is_part(&run[0]) && digits >= DIGITS {
            true => kept.push(b'*'),
            false => kept.extend_from_slice(run),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_same_whatever_ids_it_names() {
        let without = |text: &str| String::from_utf8(without_ids(text.as_bytes())).unwrap();
        assert_eq!(without("PUT /images/0d3c5a1e-7f43-4b55-9b6e-5f6f9c1d2a3b/file"), "PUT /images/*/file");
        assert_eq!(without("/v1/5f6f9c1d2a3b0d3c5a1e7f434b559b6e/stacks/rastos-demo"), "/v1/*/stacks/rastos-demo");
        assert_eq!(without("/stacks/rastos-demo-state/feed-beef"), "/stacks/rastos-demo-state/feed-beef");
    }

    #[test]
    fn an_answer_grows_in_every_object() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\nx-a: b\r\n\r\n{\"servers\":[{}]}  ";
        let grown = String::from_utf8(grown(answer).unwrap()).unwrap();
        let (head, body) = grown.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("x-a: b") && head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(body.matches("of_a_later_version").count(), 2);
    }
}
