//! The HTTP side of a registry: the OCI distribution spec's pull half, with Docker's token dance.
//!
//! One [`Session`] is one image's; it never shares credentials or tokens with another.

use crate::{
    Config, Credentials, Mirror, Reference,
    digest::Digest,
    error::{Error, Result, printable},
    manifest::{ACCEPT, Descriptor, MANIFEST_LIMIT},
};
use bytes::{Bytes, BytesMut};
use http_auth::parser::ChallengeParser;
use reqwest::{
    Certificate, Client, Response, StatusCode, Url,
    header::{
        ACCEPT as ACCEPT_HEADER, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE,
        WWW_AUTHENTICATE,
    },
};
use std::{
    net::IpAddr,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How often a download may break without progress before we give up.
const TRIES: u32 = 5;
/// What counts as progress: a registry that sends a byte per connection must not hold us for ever.
const PROGRESS: u64 = 64 << 10;
/// So many stall times of waiting must bring that much, or all of something small.
const WINDOWS: u32 = 3;

/// HTTP clients, made when first needed: root certificates are megabytes that an idle node does without.
#[derive(Debug, Default)]
pub struct Registries {
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
    /// `host[:port]` of registries spoken to without TLS. Loopback ones always are.
    plain_http: Vec<String>,
    mirrors: Vec<Mirror>,
    ca: Option<String>,
    stall: Duration,
}

impl Registries {
    pub fn new(config: &Config) -> Self {
        Self {
            plain_http: config.plain_http.clone(),
            mirrors: config.mirrors.clone(),
            ca: config.ca.clone(),
            stall: config.stall,
            ..Self::default()
        }
    }

    /// Sessions for one image, in the order in which they are to be tried: its registry's mirrors, then the registry
    /// itself, which alone sees the credentials. Connects to nothing yet.
    pub fn sessions(&self, reference: &Reference, credentials: &Credentials) -> Result<Vec<Session>> {
        let registry = reference.registry().to_string();
        let mut sessions = Vec::new();
        for mirror in self.mirrors.iter().filter(|m| m.registry == registry) {
            let (host, plain) = match mirror.endpoint.strip_prefix("http://") {
                Some(host) => (host, true),
                None => (mirror.endpoint.trim_start_matches("https://"), false),
            };
            let host = host.trim_end_matches('/');
            sessions.push(self.session(reference, host, host, plain, &Credentials::Anonymous)?);
        }
        let plain = is_loopback(&registry) || self.plain_http.contains(&registry);
        sessions.push(self.session(reference, &registry, reference.host(), plain, credentials)?);
        Ok(sessions)
    }

    fn session(
        &self,
        reference: &Reference,
        registry: &str,
        host: &str,
        plain: bool,
        credentials: &Credentials,
    ) -> Result<Session> {
        let authorization = match credentials {
            Credentials::Bearer(token) => Some(header(format!("Bearer {token}"))?),
            _ => None,
        };
        Ok(Session {
            client: self.client(plain)?,
            base: format!("{}://{host}/v2/{}", if plain { "http" } else { "https" }, reference.repository()),
            plain,
            registry: registry.into(),
            repository: reference.repository().into(),
            reference: reference.to_string(),
            credentials: credentials.clone(),
            authorization: Mutex::new(authorization),
            stall: self.stall,
        })
    }

    fn client(&self, plain: bool) -> Result<Client> {
        let tls = |e| Error::io("set up TLS", std::io::Error::other(e));
        let cell = if plain { &self.plain } else { &self.tls };
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let builder =
            Client::builder().connect_timeout(self.stall.min(Duration::from_secs(10))).read_timeout(self.stall);
        let builder = match (plain, &self.ca) {
            (true, _) => builder.no_proxy(),
            // TLS only also keeps redirects from leading to plain HTTP: nobody reads the metadata service through a
            // registry.
            (false, None) => builder.https_only(true),
            (false, Some(ca)) => {
                let ca = Certificate::from_pem_bundle(ca.as_bytes()).map_err(tls)?;
                builder.https_only(true).tls_certs_merge(ca)
            }
        };
        let made = builder.build().map_err(tls)?;
        Ok(cell.get_or_init(|| made).clone())
    }
}

/// Whether a registry is on this host.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|a| a.is_loopback())
}

/// One image's conversation with its registry.
#[derive(Debug)]
pub struct Session {
    client: Client,
    base: String,
    plain: bool,
    registry: String,
    repository: String,
    reference: String,
    credentials: Credentials,
    authorization: Mutex<Option<HeaderValue>>,
    stall: Duration,
}

impl Session {
    /// The registry's name.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// A manifest or index, with the media type the registry gives it. Its digest is the caller's to check.
    pub async fn manifest(&self, tag_or_digest: &str) -> Result<(Bytes, String)> {
        let answer = self.get(&format!("manifests/{tag_or_digest}"), 0).await?;
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_string();
        Ok((self.body(answer, MANIFEST_LIMIT, "manifest bytes").await?, kind))
    }

    /// A small blob, verified.
    pub async fn blob(&self, what: &str, wanted: &Descriptor) -> Result<Bytes> {
        if wanted.size > MANIFEST_LIMIT {
            return Err(Error::TooLarge { what: format!("{what}, bytes"), limit: MANIFEST_LIMIT });
        }
        let (into, mut chunks) = mpsc::channel::<Bytes>(1);
        let collect = async {
            let mut bytes = BytesMut::new();
            while let Some(chunk) = chunks.recv().await {
                bytes.extend_from_slice(&chunk);
            }
            bytes.freeze()
        };
        let (downloaded, bytes) = tokio::join!(self.download(wanted, into, |_| {}), collect);
        downloaded?;
        verify(what, &bytes, &wanted.digest)?;
        Ok(bytes)
    }

    /// Streams a blob into `into`, beginning again where a connection broke. Whether the bytes are the right ones the
    /// receiver tells; here only their number is kept to. Ends quietly when the receiver has gone.
    ///
    /// # Errors
    /// When the registry failed five times without sending anything of weight in between.
    pub async fn download(&self, blob: &Descriptor, into: mpsc::Sender<Bytes>, mut got: impl FnMut(u64)) -> Result<()> {
        let (mut at, mut failures, mut since) = (0, 0, 0);
        let (mut waited, mut mark) = (Duration::ZERO, 0);
        while at < blob.size {
            let broken = match self.get(&format!("blobs/{}", blob.digest), at).await {
                Ok(answer) => {
                    let mut skip = if answer.status() == StatusCode::PARTIAL_CONTENT { 0 } else { at };
                    let mut answer = answer;
                    loop {
                        let asked = Instant::now();
                        match answer.chunk().await {
                            Ok(Some(mut chunk)) => {
                                let drop = skip.min(chunk.len() as u64);
                                skip -= drop;
                                let chunk = chunk.split_off(drop as usize);
                                at += chunk.len() as u64;
                                if at > blob.size {
                                    return Err(Error::Digest {
                                        what: format!("blob {}", blob.digest),
                                        expected: format!("{} bytes", blob.size),
                                        found: "more".into(),
                                    });
                                }
                                waited += asked.elapsed();
                                if waited >= WINDOWS * self.stall && at < blob.size {
                                    if at - mark < PROGRESS {
                                        return Err(Error::Stalled { registry: self.registry.clone(), after: waited });
                                    }
                                    (waited, mark) = (Duration::ZERO, at);
                                }
                                got(chunk.len() as u64);
                                if !chunk.is_empty() && into.send(chunk).await.is_err() {
                                    return Ok(());
                                }
                            }
                            Ok(None) => {
                                break self
                                    .unreachable(format!("the connection ended after {at} of {} bytes", blob.size));
                            }
                            Err(e) => break self.transport(&e),
                        }
                    }
                }
                Err(e) if e.is_transient() => e,
                Err(e) => return Err(e),
            };
            if at == blob.size {
                break;
            }
            if at - since >= PROGRESS {
                (failures, since) = (0, at);
            }
            failures += 1;
            if failures == TRIES {
                return Err(broken);
            }
            tracing::debug!(registry = self.registry, blob = %blob.digest, at, %broken, "download broke; trying again");
            tokio::time::sleep(self.stall.min(Duration::from_millis(100 << failures))).await;
        }
        Ok(())
    }

    /// A successful answer to `GET path` from byte `at` on, after whatever authentication it takes.
    async fn get(&self, path: &str, at: u64) -> Result<Response> {
        let url = format!("{}/{path}", self.base);
        let mut asked = false;
        loop {
            let mut request = self.client.get(&url).header(ACCEPT_HEADER, ACCEPT);
            if let Some(value) = self.authorization() {
                request = request.header(AUTHORIZATION, value);
            }
            if at > 0 {
                request = request.header(RANGE, format!("bytes={at}-"));
            }
            let answer = request.send().await.map_err(|e| self.transport(&e))?;
            match answer.status() {
                StatusCode::PARTIAL_CONTENT if !starts_at(answer.headers(), at) => {
                    return Err(self.unreachable("it sent another range than the one asked for".into()));
                }
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(answer),
                StatusCode::UNAUTHORIZED if !asked && !matches!(self.credentials, Credentials::Bearer(_)) => {
                    asked = true;
                    let challenges = answer.headers().clone();
                    let Some(value) = self.authorize(&challenges).await? else {
                        return Err(self.refusal(answer).await);
                    };
                    *self.authorization.lock().unwrap_or_else(|e| e.into_inner()) = Some(value);
                }
                _ => return Err(self.refusal(answer).await),
            }
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Answers a challenge (RFC 7235): a token from the realm it names, or our password. `None` when we have nothing to answer.
    async fn authorize(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>> {
        let basic = match &self.credentials {
            Credentials::Basic { user, password } => Some((user, password)),
            _ => None,
        };
        let asked = asked(headers);
        if let Some((realm, service)) = asked.bearer {
            return self.token(&realm, service, basic).await.map(Some);
        }
        let Some((user, password)) = basic.filter(|_| asked.basic) else { return Ok(None) };
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        header(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))).map(Some)
    }

    /// A token to pull this repository. The scope is ours, not the challenge's: it shall not get more than it needs.
    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        basic: Option<(&String, &String)>,
    ) -> Result<HeaderValue> {
        let scope = format!("repository:{}:pull", self.repository);
        let query = [("scope", Some(scope)), ("service", service)];
        let query = query.iter().filter_map(|(k, v)| v.as_ref().map(|v| (k, v)));
        let url = Url::parse_with_params(realm, query)
            .map_err(|_| self.unreachable("its token service has no URL".into()))?;
        // A password goes to another host only under TLS.
        if url.scheme() != "https" && !self.plain {
            return Err(self.unreachable("its token service does not use TLS".into()));
        }
        let mut request = self.client.get(url);
        if let Some((user, password)) = basic {
            request = request.basic_auth(user, Some(password));
        }
        let answer = request.send().await.map_err(|e| self.transport(&e))?;
        if !answer.status().is_success() {
            return Err(self.refusal(answer).await);
        }
        #[derive(serde::Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let bytes = self.body(answer, 1 << 20, "token bytes").await?;
        let token: Option<Token> = serde_json::from_slice(&bytes).ok();
        match token.and_then(|t| t.token.or(t.access_token)) {
            Some(token) => header(format!("Bearer {token}")),
            None => Err(self.unreachable("its token service sent no token".into())),
        }
    }

    async fn body(&self, answer: Response, limit: u64, what: &str) -> Result<Bytes> {
        let after = WINDOWS * self.stall;
        let stalled = |_| Err(Error::Stalled { registry: self.registry.clone(), after });
        tokio::time::timeout(after, self.whole(answer, limit, what)).await.unwrap_or_else(stalled)
    }

    async fn whole(&self, mut answer: Response, limit: u64, what: &str) -> Result<Bytes> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.transport(&e))? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(Error::TooLarge { what: what.into(), limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The typed error for an answer that is not a success, with what the registry said.
    async fn refusal(&self, answer: Response) -> Error {
        let status = answer.status();
        let body = self.body(answer, 64 << 10, "").await.unwrap_or_default();
        let registry_said = said(status, &body);
        let reference = self.reference.clone();
        match status {
            StatusCode::NOT_FOUND => Error::NotFound { reference, registry_said },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { reference, registry_said },
            _ => self.unreachable(registry_said),
        }
    }

    fn unreachable(&self, registry_said: String) -> Error {
        Error::Unreachable { registry: self.registry.clone(), registry_said }
    }

    fn transport(&self, e: &reqwest::Error) -> Error {
        if e.is_timeout() && !e.is_connect() {
            return Error::Stalled { registry: self.registry.clone(), after: self.stall };
        }
        let mut cause: &dyn std::error::Error = e;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        self.unreachable(printable(cause.to_string().as_bytes(), 300))
    }
}

/// What a registry asks for before it answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// A token of this realm, for this service.
    bearer: Option<(String, Option<String>)>,
    /// A password.
    basic: bool,
}

/// Reads challenges (RFC 7235); what makes no sense ends its line.
pub(crate) fn asked(headers: &HeaderMap) -> Asked {
    let mut asked = Asked::default();
    for line in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok()) {
        for challenge in ChallengeParser::new(line).map_while(|c| c.ok()) {
            asked.basic |= challenge.scheme.eq_ignore_ascii_case("basic");
            let param = |name: &str| {
                let found = challenge.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
                found.map(|(_, v)| v.to_unescaped())
            };
            if let (None, true, Some(realm)) =
                (&asked.bearer, challenge.scheme.eq_ignore_ascii_case("bearer"), param("realm"))
            {
                asked.bearer = Some((realm, param("service")));
            }
        }
    }
    asked
}

/// Checks content against its digest.
pub fn verify(what: &str, bytes: &[u8], wanted: &Digest) -> Result<()> {
    let found = Digest::of(bytes);
    if found == *wanted {
        return Ok(());
    }
    Err(Error::Digest { what: what.into(), expected: wanted.to_string(), found: found.to_string() })
}

fn header(value: String) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| Error::BadCredentials { reason: "hold characters that HTTP does not carry".into() })?;
    value.set_sensitive(true);
    Ok(value)
}

fn starts_at(headers: &HeaderMap, at: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    range.strip_prefix("bytes ").and_then(|r| r.split('-').next()).and_then(|n| n.parse().ok()) == Some(at)
}

/// The distribution spec's error list as `CODE: message`, else the body, else the status.
pub(crate) fn said(status: StatusCode, body: &[u8]) -> String {
    let listed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let errors = listed.as_ref().and_then(|v| v.get("errors")).and_then(|v| v.as_array());
    let text: Vec<String> = errors
        .into_iter()
        .flatten()
        .filter_map(|e| match (e.get("code")?.as_str()?, e.get("message").and_then(|m| m.as_str())) {
            (code, Some(message)) => Some(format!("{code}: {message}")),
            (code, None) => Some(code.to_string()),
        })
        .collect();
    match (text.is_empty(), body.is_empty()) {
        (false, _) => format!("{} ({status})", printable(text.join("; ").as_bytes(), 300)),
        (true, false) => format!("{} ({status})", printable(body, 300).trim()),
        (true, true) => status.to_string(),
    }
}
