//! OpenStack's metadata service.

use std::time::Duration;

use super::{Found, Source, openstack::Meta};

/// Where it is in every cloud.
pub const SERVICE: &str = "http://169.254.169.254";

const PATIENCE: Duration = Duration::from_secs(5);
/// User data is at most 64 KiB; what the cloud says itself may be longer.
const LIMIT: u64 = 1 << 20;

/// The service did not say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or does not speak as it should.
    #[error("metadata service: {path}: {source}")]
    Unreachable {
        /// What was asked for.
        path: String,
        /// Why not.
        source: Box<ureq::Error>,
    },
    /// It answered with an error.
    #[error("metadata service: {path}: HTTP {code}")]
    Refused {
        /// What was asked for.
        path: String,
        /// The status.
        code: u16,
    },
    /// The document is not what it should be.
    #[error("metadata service: {path}: {why}")]
    Broken {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The service, as a client sees it.
pub struct Metadata {
    agent: ureq::Agent,
    base: String,
}

impl Metadata {
    /// Connects to nothing yet.
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        Self { agent: config.into(), base: format!("{base}/openstack/latest/") }
    }

    /// Everything it says; `None` where there is no such service.
    ///
    /// # Errors
    /// When it answers in part: what is missing must not be taken for absent.
    pub fn read(&self) -> Result<Option<Found>, Error> {
        let Some(meta) = self.get("meta_data.json")? else { return Ok(None) };
        let mut found = Found::at(Source::Metadata);
        found.take("meta_data.json", meta);
        for name in ["network_data.json", "user_data"] {
            if let Some(text) = self.get(name)? {
                found.take(name, text);
            }
        }
        Ok(Some(found))
    }

    /// What the server's owner wrote down.
    pub fn meta(&self) -> Result<Meta, Error> {
        let path = "meta_data.json";
        let text = self.get(path)?.unwrap_or_default();
        Meta::read(&text).map_err(|why| Error::Broken { path: path.into(), why })
    }

    /// Puts a word into the server's password slot, which takes one and keeps it. `false`: it holds another already.
    pub fn post_password(&self, word: &str) -> Result<bool, Error> {
        let path = "password";
        let answer = self.agent.post(format!("{}{path}", self.base)).send(word).map_err(unreachable(path))?;
        match answer.status().as_u16() {
            200..300 => Ok(true),
            409 => Ok(false),
            code => Err(Error::Refused { path: path.into(), code }),
        }
    }

    /// A document; `None` when there is none.
    fn get(&self, path: &str) -> Result<Option<String>, Error> {
        let mut answer = self.agent.get(format!("{}{path}", self.base)).call().map_err(unreachable(path))?;
        match answer.status().as_u16() {
            200 => {
                let text = answer.body_mut().with_config().limit(LIMIT).read_to_string();
                text.map(Some).map_err(unreachable(path))
            }
            404 => Ok(None),
            code => Err(Error::Refused { path: path.into(), code }),
        }
    }
}

fn unreachable(path: &str) -> impl FnOnce(ureq::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Unreachable { path, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        thread,
    };

    use super::*;

    /// One request, body and all: what is closed with something unread is reset.
    fn request(stream: &mut TcpStream) -> String {
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head_lower = head.to_ascii_lowercase();
                let length = head_lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    return head.to_owned();
                }
            }
            let mut more = [0; 4096];
            let n = stream.read(&mut more).unwrap();
            assert!(n > 0, "the request ends early: {text}");
            read.extend_from_slice(&more[..n]);
        }
    }

    /// Answers requests in turn, each with a status and a body; gives back what was asked.
    fn serve(answers: Vec<(&'static str, &'static str)>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let head = request(&mut stream);
                asked.push(head.lines().next().unwrap_or_default().to_owned());
                let size = body.len();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n{body}")
                    .unwrap();
            }
            asked
        });
        (base, serving)
    }

    #[test]
    fn all_of_it_is_read() {
        let (base, serving) = serve(vec![
            ("200 OK", r#"{"uuid": "u", "meta": {"rastos-enrol": "ab"}}"#),
            ("404 Not Found", ""),
            ("200 OK", "kind: MachineConfig\n"),
        ]);
        let found = Metadata::new(&base).read().unwrap().unwrap();
        assert_eq!(found.user_data.as_deref(), Some("kind: MachineConfig\n"));
        assert_eq!((found.meta.enrol(), found.network), (vec!["ab".to_owned()], None));
        assert_eq!(serving.join().unwrap()[2], "GET /openstack/latest/user_data HTTP/1.1");
    }

    #[test]
    fn half_an_answer_is_none() {
        let (base, _serving) = serve(vec![("200 OK", "{}"), ("200 OK", "{}"), ("502 Bad Gateway", "")]);
        assert!(matches!(Metadata::new(&base).read(), Err(Error::Refused { code: 502, .. })));
    }

    #[test]
    fn a_password_is_written_once() {
        let (base, _serving) = serve(vec![("200 OK", ""), ("409 Conflict", "")]);
        let service = Metadata::new(&base);
        assert!(service.post_password("rastos-ca-sha256:ab").unwrap());
        assert!(!service.post_password("rastos-ca-sha256:ab").unwrap());
    }
}
