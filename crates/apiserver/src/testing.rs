//! What this crate's tests stand on: a server over a real store, and a client without a socket.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use api::Kind;
use async_trait::async_trait;
use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    Attributes, Audit, Authenticator, Authorizer, Config, Decision, Identity, LocalService, Nodes, Server, Version,
};

/// The kind that unit tests of pure code use.
pub(crate) fn configmap() -> Kind {
    kind("configmaps")
}

/// A kind that is built in, by its plural.
pub(crate) fn kind(plural: &str) -> Kind {
    let registry = api::builtin();
    Kind::clone(registry.kinds().iter().find(|k| k.plural == plural).expect("built in"))
}

/// Everyone may do everything but impersonate (deputy users, but no group, uid or account), mallory nothing, reader only
/// get, patcher only patch.
struct Anything;

impl Authorizer for Anything {
    fn decide(&self, identity: &Identity, at: &Attributes) -> Decision {
        let allowed = match identity.user.as_str() {
            "mallory" => false,
            "reader" => at.verb == "get",
            "patcher" => at.verb == "patch",
            "system:admin" => true,
            "deputy" => at.verb != "impersonate" || at.resource == "users",
            _ => at.verb != "impersonate",
        };
        Decision { allowed, reason: "test".into() }
    }
}

/// Echoes what would go to a node.
struct Echo;

#[async_trait]
impl Nodes for Echo {
    async fn forward(&self, node: &str, request: Request<Body>) -> Response {
        assert_ne!(node, "broken", "this node panics");
        if request.uri().query().is_some_and(|query| query.contains("previous=true")) {
            let refusal = Response::builder().status(400).header(header::CONTENT_TYPE, "text/plain");
            return refusal.body(Body::from("no previous container")).expect("a response");
        }
        let secret = request.headers().contains_key(header::AUTHORIZATION);
        Response::new(Body::from(format!("{node} {} {} {secret}", request.method(), request.uri())))
    }
}

/// A server of the built-in kinds that knows nobody and lets all but mallory do everything.
pub(crate) fn config(store: Arc<dyn store::Store>, clock: crate::Clock) -> Config {
    Config {
        store,
        registry: Arc::new(api::builtin()),
        authenticator: Arc::new(Authenticator::default()),
        authorizer: Arc::new(Anything),
        audit: Arc::new(Audit::default()),
        nodes: Arc::new(Echo),
        doors: vec![crate::Door { path: "/door", answers: axum::routing::post(async || "come in") }],
        version: Version::default(),
        clock,
    }
}

/// A server over a store of its own, its clock and a client.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) client: LocalService,
    clock: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    /// Serves the kinds that are built in; has the namespace `default`.
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store::Embedded::open(dir.path().join("store")).expect("a store");
        Self::over(Arc::new(store), Arc::default(), dir).await
    }

    /// Like [`Fixture::new`], with an audit log.
    pub(crate) async fn audited(audit: Arc<Audit>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store::Embedded::open(dir.path().join("store")).expect("a store");
        Self::over(Arc::new(store), audit, dir).await
    }

    async fn over(store: Arc<dyn store::Store>, audit: Arc<Audit>, dir: tempfile::TempDir) -> Self {
        let clock = Arc::new(AtomicI64::new(1_767_323_045));
        let time = clock.clone();
        let now = move || jiff::Timestamp::from_second(time.load(Ordering::Relaxed)).unwrap_or_default();
        let server = Server::new(Config { audit, ..config(store, Arc::new(now)) });
        server.ready().await;
        let client = server.local(Identity::system("admin", &["system:masters"]));
        let fixture = Self { server, client, clock, _dir: dir };
        fixture.post("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await.expect(201);
        let account = json!({"metadata": {"name": "default"}});
        fixture.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
        fixture
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.client.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    /// Sends a request with a body of this media type.
    pub(crate) async fn call(&self, method: &str, uri: &str, media: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, media);
        let response = self.send(request.header("user-agent", "test/1").body(body.into()).expect("a request")).await;
        Answer::read(response).await
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.call("GET", uri, "application/json", Body::empty()).await
    }

    pub(crate) async fn post(&self, uri: &str, body: Value) -> Answer {
        self.call("POST", uri, "application/json", body.to_string()).await
    }

    pub(crate) async fn put(&self, uri: &str, body: Value) -> Answer {
        self.call("PUT", uri, "application/json", body.to_string()).await
    }

    pub(crate) async fn delete(&self, uri: &str, options: Value) -> Answer {
        let body = if options.is_null() { String::new() } else { options.to_string() };
        self.call("DELETE", uri, "application/json", body).await
    }

    /// `what`: `merge`, `strategic-merge`, `json`.
    pub(crate) async fn patch(&self, what: &str, uri: &str, body: Value) -> Answer {
        self.call("PATCH", uri, &format!("application/{what}-patch+json"), body.to_string()).await
    }

    /// Server-side apply.
    pub(crate) async fn apply(&self, uri: &str, manager: &str, force: bool, body: Value) -> Answer {
        let uri = format!("{uri}?fieldManager={manager}&force={force}");
        self.call("PATCH", &uri, "application/apply-patch+yaml", body.to_string()).await
    }

    /// Opens a watch.
    pub(crate) async fn watch(&self, uri: &str) -> Watch {
        self.watch_as(uri, "application/json").await
    }

    /// Opens a watch in another form.
    pub(crate) async fn watch_as(&self, uri: &str, accept: &str) -> Watch {
        let request = Request::builder().uri(uri).header(header::ACCEPT, accept).body(Body::empty());
        let response = self.send(request.expect("a request")).await;
        assert_eq!(response.status(), StatusCode::OK, "{uri}");
        Watch { body: response.into_body().into_data_stream(), rest: Vec::new() }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.server.stop();
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Self { code: parts.status, headers: parts.headers, bytes }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).expect("UTF-8")
    }

    /// The body, given this status.
    #[track_caller]
    pub(crate) fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code.as_u16(), code, "{}", self.text());
        self.json()
    }
}

/// An open watch.
pub(crate) struct Watch {
    body: axum::body::BodyDataStream,
    rest: Vec<u8>,
}

impl Watch {
    /// The next event: type and object. `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let mut event: Value = serde_json::from_slice(&line).expect("an event");
                return Some((event["type"].as_str().expect("a type").to_owned(), event["object"].take()));
            }
            let wait = tokio::time::timeout(std::time::Duration::from_secs(10), self.body.next());
            self.rest.extend_from_slice(&wait.await.expect("an event in time")?.expect("a body"));
        }
    }

    /// The next event as `TYPE NAME`.
    pub(crate) async fn line(&mut self) -> String {
        let (what, object) = self.next().await.expect("an event");
        format!("{what} {}", object["metadata"]["name"].as_str().unwrap_or_default())
    }
}

/// A pod that is valid.
pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "busybox"}]}})
}
