//! A conversation with one cloud as one project: authentication, addresses, retries.
//!
//! Guarantees: a request that may not be repeated is sent again only when the cloud cannot have acted on it. A
//! token that ends is renewed. Every error carries OpenStack's id of the request, where there was one.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::{Certificate, Method, RequestBuilder, StatusCode, header};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    Secret,
    config::{Auth, Config, ConfigError},
    error::{self, Error, Refusal},
    retry::{self, Failure},
    service::Service,
    token::{self, Token},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that an upload may take.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);
/// So many times as long as for an answer is waited for an upload that does not move: at its end Glance files it away.
const STILL: u32 = 4;
const REQUEST_IDS: [&str; 2] = ["x-openstack-request-id", "x-compute-request-id"];

/// An open conversation. Clones share it.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    config: Config,
    token: Mutex<Arc<Token>>,
    project: String,
    calls: AtomicU64,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    service: Service,
    path: String,
    doing: String,
    body: Option<Value>,
    /// Asking twice does no more than asking once.
    again: bool,
    kind: &'static str,
}

impl Call {
    /// A request to `path` below the service's address; `doing` says in words what it is for.
    pub fn new(method: Method, service: Service, path: impl Into<String>, doing: impl Into<String>) -> Self {
        let again = method != Method::POST && method != Method::PATCH;
        let kind = "application/json";
        Self { method, service, path: path.into(), doing: doing.into(), body: None, again, kind }
    }

    /// With a body.
    pub fn with(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Asking twice does no more than asking once, whatever the method.
    pub fn repeatable(mut self) -> Self {
        self.again = true;
        self
    }

    /// With a body of another kind than JSON proper.
    pub fn of_kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }
}

impl Session {
    /// Authenticates.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let http = client(&config)?;
        let calls = AtomicU64::new(0);
        let token = Arc::new(authenticate(&http, &config, &calls).await?);
        let project = token.project.clone().ok_or(Error::NoProject)?;
        placed(&config, &token)?;
        Ok(Self(Arc::new(Inner { http, config, token: Mutex::new(token), project, calls })))
    }

    /// The project's id.
    pub fn project(&self) -> &str {
        &self.0.project
    }

    /// The region, when one was chosen.
    pub fn region(&self) -> Option<&str> {
        self.0.config.region.as_deref()
    }

    /// How long an answer is waited for.
    pub fn patience(&self) -> Duration {
        self.0.config.timeout
    }

    /// How many requests were sent so far.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// A token that is good for a while.
    pub async fn token(&self) -> Result<Arc<Token>, Error> {
        let mut token = self.0.token.lock().await;
        if !token.is_fresh(Timestamp::now()) && !matches!(self.0.config.auth, Auth::Token(_)) {
            *token = Arc::new(authenticate(&self.0.http, &self.0.config, &self.0.calls).await?);
        }
        Ok(token.clone())
    }

    /// Gets another token, unless somebody else has done so since `refused` was shown.
    async fn renew(&self, refused: &Secret) -> Result<(), Error> {
        let mut token = self.0.token.lock().await;
        if token.secret == *refused {
            *token = Arc::new(authenticate(&self.0.http, &self.0.config, &self.0.calls).await?);
        }
        Ok(())
    }

    /// Whether the cloud offers a service.
    pub async fn offers(&self, service: Service) -> Result<bool, Error> {
        Ok(self.address(service, &*self.token().await?).is_ok())
    }

    fn address(&self, service: Service, token: &Token) -> Result<String, Error> {
        let config = &self.0.config;
        let overridden = service.types().iter().find_map(|t| config.overrides.get(*t)).map(String::as_str);
        let found = overridden.or_else(|| token.catalog.find(service, config.region.as_deref(), config.interface));
        match (found, service) {
            (Some(url), _) => Ok(service.versioned(url, &self.0.project)),
            (None, Service::Identity) => Ok(config.auth_url.clone()),
            (None, _) => Err(Error::NoService { service, region: config.region.clone() }),
        }
    }

    /// Reads an object.
    pub async fn get(&self, service: Service, path: impl Into<String>, doing: &str) -> Result<Value, Error> {
        self.call(Call::new(Method::GET, service, path, doing)).await
    }

    /// Deletes an object; one that is not there is deleted.
    pub async fn delete(&self, service: Service, path: impl Into<String>, doing: &str) -> Result<(), Error> {
        error::optional(self.call(Call::new(Method::DELETE, service, path, doing)).await).map(drop)
    }

    /// Reads a whole list, page after page.
    pub async fn list(&self, service: Service, path: &str, key: &str, doing: &str) -> Result<Vec<Value>, Error> {
        const MOST_PAGES: usize = 1000;
        let mut items = Vec::new();
        let mut next = Some(path.to_owned());
        for _ in 0..MOST_PAGES {
            let Some(path) = next else { break };
            let mut page = self.get(service, path, doing).await?;
            match page[key].take() {
                Value::Array(some) => items.extend(some),
                // Swift's list of containers is the body itself.
                Value::Null => match page.as_array_mut() {
                    Some(some) => items.append(some),
                    None => return Err(answer(doing, format!("it holds no {key}"), None)),
                },
                _ => return Err(answer(doing, format!("{key} is no list"), None)),
            }
            next = following(&page, key).and_then(|link| self.below(link));
        }
        Ok(items)
    }

    /// A link of an answer as a path below the service's address: its host may be one that only the cloud knows.
    fn below(&self, link: &str) -> Option<String> {
        let (resource, query) = link.split_once('?')?;
        let parts: Vec<&str> = resource.split('/').collect();
        let is_version = |p: &&str| p.strip_prefix('v').is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()));
        let version = parts.iter().position(is_version)?;
        let rest: Vec<&str> = parts[version + 1..].iter().copied().filter(|p| *p != self.0.project).collect();
        Some(format!("/{}?{query}", rest.join("/")))
    }

    /// Sends a request and reads its answer; `null` for an empty one.
    pub async fn call(&self, call: Call) -> Result<Value, Error> {
        let body = call.body.as_ref().map(|b| Bytes::from(b.to_string()));
        let dress = |request: RequestBuilder| match &body {
            Some(body) => Ok(request.header(header::CONTENT_TYPE, call.kind).body(body.clone())),
            None => Ok(request),
        };
        let (bytes, request_id) = self.attempt(&call, dress).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|e| answer(&call.doing, e.to_string(), request_id))
    }

    /// Sends until the answer stands; each time with what `dress` puts on.
    async fn attempt(
        &self,
        call: &Call,
        dress: impl Fn(RequestBuilder) -> Result<RequestBuilder, Error>,
    ) -> Result<(Bytes, Option<String>), Error> {
        let mut renewed = false;
        for attempt in 1.. {
            let token = self.token().await?;
            let url = format!("{}{}", self.address(call.service, &token)?, call.path);
            let mut request = self.0.http.request(call.method.clone(), &url);
            request = request.header("x-auth-token", token.secret.reveal()).header(header::ACCEPT, "application/json");
            if call.service == Service::BlockStorage {
                // The oldest in which attachments are objects (Ocata, 2017); without it they are 404.
                request = request.header("openstack-api-version", "volume 3.27");
            }
            self.0.calls.fetch_add(1, Ordering::Relaxed);
            let (error, failure) = match read(dress(request)?, &call.doing, &url).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            // A token can be revoked, and a clock can be wrong. It was refused before anything was done.
            if error.status() == Some(401) && !renewed && !matches!(self.0.config.auth, Auth::Token(_)) {
                renewed = true;
                self.renew(&token.secret).await?;
                continue;
            }
            let Some(wait) = retry::after(failure, call.again, attempt, rand::random()) else { return Err(error) };
            tracing::info!(doing = call.doing, attempt, ?wait, %error, "trying again");
            tokio::time::sleep(wait).await;
        }
        unreachable!("retry::after ends it")
    }

    /// Sends a stream of bytes. `stream` begins it: once, unless the cloud refused to look at it. `sent` is how much of
    /// it has been taken.
    pub async fn upload(
        &self,
        call: Call,
        length: u64,
        sent: &AtomicU64,
        stream: impl Fn() -> Result<reqwest::Body, Error>,
    ) -> Result<(), Error> {
        let kind = call.kind;
        let dress = |request: RequestBuilder| {
            let request = request.timeout(UPLOAD_TIMEOUT).header(header::CONTENT_LENGTH, length);
            Ok(request.header(header::CONTENT_TYPE, kind).body(stream()?))
        };
        let (call, patience) = (Call { again: false, ..call }, self.0.config.timeout * STILL);
        tokio::select! {
            done = self.attempt(&call, dress) => done.map(drop),
            () = still(sent, patience) => Err(Error::Still { doing: call.doing.clone(), seconds: patience.as_secs() }),
        }
    }
}

/// Whether it is clear which region is meant: services of different ones know nothing of each other.
fn placed(config: &Config, token: &Token) -> Result<(), Error> {
    let known = token.catalog.regions(config.interface);
    let clear = match config.region.as_deref() {
        Some(region) => known.is_empty() || known.contains(&region),
        None => known.len() < 2,
    };
    match clear {
        true => Ok(()),
        false => Err(Error::Region { wanted: config.region.clone(), known: known.join(", ") }),
    }
}

/// Waits until nothing has moved for so long.
async fn still(moved: &AtomicU64, patience: Duration) {
    let mut before = None;
    loop {
        let now = moved.load(Ordering::Relaxed);
        if before.replace(now) == Some(now) {
            return;
        }
        tokio::time::sleep(patience).await;
    }
}

/// Where the next page is: Glance says `next`, the others `KEY_links`.
fn following<'a>(page: &'a Value, key: &str) -> Option<&'a str> {
    let links = page[format!("{key}_links")].as_array().into_iter().flatten();
    let next = links.filter(|l| l["rel"] == "next").find_map(|l| l["href"].as_str());
    next.or_else(|| page["next"].as_str())
}

fn client(config: &Config) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(config.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("rastos/", env!("CARGO_PKG_VERSION")));
    let tls = |e: reqwest::Error| Error::Tls { why: e.to_string() };
    let file =
        |path: &std::path::Path| fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source });
    if let Some(path) = &config.tls.cacert {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(&file(path)?).map_err(tls)?);
    }
    if let Some((cert, key)) = &config.tls.identity {
        let pem = [file(key)?, b"\n".to_vec(), file(cert)?].concat();
        builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(tls)?);
    }
    builder.tls_danger_accept_invalid_certs(config.tls.insecure).build().map_err(tls)
}

async fn authenticate(http: &reqwest::Client, config: &Config, calls: &AtomicU64) -> Result<Token, Error> {
    let doing = "authenticate";
    let url = format!("{}/auth/tokens", config.auth_url);
    let body = Bytes::from(token::request(config).to_string());
    for attempt in 1.. {
        let request = http.post(&url).header(header::CONTENT_TYPE, "application/json").body(body.clone());
        calls.fetch_add(1, Ordering::Relaxed);
        let (error, failure) = match asked(request, doing, &url).await {
            Ok(token) => return Ok(token),
            Err(failed) => failed,
        };
        // Asking for a token twice does no harm.
        let Some(wait) = retry::after(failure, true, attempt, rand::random()) else { return Err(error) };
        tokio::time::sleep(wait).await;
    }
    unreachable!("retry::after ends it")
}

/// Asks for a token once.
async fn asked(request: RequestBuilder, doing: &str, url: &str) -> Result<Token, Failed> {
    let response = send(request, doing, url).await?;
    let secret = response.headers().get("x-subject-token").and_then(|v| v.to_str().ok()).map(Secret::new);
    let id = request_id(&response);
    let bytes = response.bytes().await.map_err(|source| (connection(doing, url, source), Failure::Broken))?;
    let token = secret.zip(serde_json::from_slice(&bytes).ok()).and_then(|(secret, body)| Token::read(secret, &body));
    token.ok_or_else(|| (answer(doing, "it holds no token".into(), id), Failure::Broken))
}

type Failed = (Error, Failure);

async fn read(request: RequestBuilder, doing: &str, url: &str) -> Result<(Bytes, Option<String>), Failed> {
    let response = send(request, doing, url).await?;
    let id = request_id(&response);
    match response.bytes().await {
        Ok(bytes) => Ok((bytes, id)),
        Err(source) => Err((connection(doing, url, source), Failure::Broken)),
    }
}

/// A response of success, or why there is none.
async fn send(request: RequestBuilder, doing: &str, url: &str) -> Result<reqwest::Response, Failed> {
    let response = match request.send().await {
        Ok(response) => response,
        Err(source) => {
            let failure = if source.is_connect() { Failure::NotSent } else { Failure::Broken };
            return Err((connection(doing, url, source), failure));
        }
    };
    let status = response.status();
    if status.is_success() || status == StatusCode::MULTIPLE_CHOICES {
        return Ok(response);
    }
    let wish = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let failure = Failure::Status(status.as_u16(), wish.map(Duration::from_secs));
    let request_id = request_id(&response);
    let message = error::message(&response.bytes().await.unwrap_or_default());
    let refusal = Refusal { doing: doing.to_owned(), status: status.as_u16(), message, request_id };
    Err((Error::Refused(Box::new(refusal)), failure))
}

fn request_id(response: &reqwest::Response) -> Option<String> {
    REQUEST_IDS.iter().find_map(|name| response.headers().get(*name)?.to_str().ok()).map(str::to_owned)
}

fn connection(doing: &str, url: &str, source: reqwest::Error) -> Error {
    let host = url.split('/').nth(2).unwrap_or(url).to_owned();
    Error::Connection { doing: doing.to_owned(), host, source: source.without_url() }
}

fn answer(doing: &str, why: String, request_id: Option<String>) -> Error {
    Error::Answer { doing: doing.to_owned(), why, request_id }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::Environment;

    #[test]
    fn services_of_several_regions_are_not_mixed() {
        let at = |regions: &[&str], wanted: Option<&str>| {
            let endpoint = |region: &&str| json!({"interface": "public", "region_id": region, "url": "http://c"});
            let endpoints: Vec<Value> = regions.iter().map(endpoint).collect();
            let mut body = json!({"token": {"expires_at": "2030-01-01T00:00:00Z", "user": {"id": "u"}}});
            let shared = json!({"type": "identity", "endpoints": [endpoint(&"all")]});
            body["token"]["catalog"] = json!([shared, {"type": "compute", "endpoints": endpoints}]);
            let variables = [("OS_AUTH_URL", "http://c"), ("OS_TOKEN", "t")].map(|(k, v)| (k.into(), v.into()));
            let mut config = Config::find(None, &Environment::new(variables, [])).unwrap();
            config.region = wanted.map(str::to_owned);
            placed(&config, &Token::read(Secret::new("t"), &body).unwrap()).map_err(|e| e.to_string())
        };
        assert_eq!((at(&[], None), at(&[], Some("a")), at(&["a"], None)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(at(&["b", "a"], Some("b")), Ok(()));
        let said = "choose one of a, b (region_name, OS_REGION_NAME, --os-region)";
        assert_eq!(at(&["b", "a"], None), Err(format!("the cloud has several regions; {said}")));
        assert_eq!(at(&["b", "a"], Some("c")), Err(format!("the cloud has no region \"c\"; {said}")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_waited_for_and_what_is_still_is_not() {
        let (begun, moved) = (Instant::now(), AtomicU64::new(0));
        let moving = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(3)).await;
                moved.fetch_add(1, Ordering::Relaxed);
            }
        };
        tokio::join!(moving, still(&moved, Duration::from_secs(4)));
        let waited = begun.elapsed().as_secs();
        assert!((34..=40).contains(&waited), "{waited}");
    }
}
