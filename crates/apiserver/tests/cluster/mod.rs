//! A real API server for the tests of what stands on it.

#![allow(dead_code)]

use std::{sync::Arc, time::Duration};

use futures::{AsyncBufReadExt, StreamExt, stream::BoxStream};
use kube::Client;
use serde_json::Value;

struct Nowhere;

#[async_trait::async_trait]
impl apiserver::Nodes for Nowhere {
    async fn forward(&self, _: &str, _: http::Request<axum::body::Body>) -> axum::response::Response {
        axum::response::Response::default()
    }
}

/// A real API server over a real store, in this process.
pub struct Cluster {
    /// May do everything.
    pub client: Client,
    server: apiserver::Server,
    _dir: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.server.stop();
    }
}

impl Cluster {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(store::Embedded::open(dir.path().join("store")).unwrap());
        let authorizer = apiserver::rbac::Rbac::open(store.clone(), jiff::Timestamp::now()).await.unwrap();
        let server = apiserver::Server::new(apiserver::Config {
            store,
            registry: Arc::new(api::builtin()),
            authenticator: Arc::new(apiserver::Authenticator::default()),
            authorizer,
            audit: Arc::new(apiserver::Audit::default()),
            nodes: Arc::new(Nowhere),
            doors: Vec::new(),
            version: apiserver::Version::default(),
            clock: Arc::new(jiff::Timestamp::now),
        });
        server.ready().await;
        let client = Client::new(server.local(apiserver::Identity::system("test", &["system:masters"])), "default");
        Self { client, server, _dir: dir }
    }

    /// For a component, with its own rights.
    pub fn component(&self, name: &str) -> Client {
        Client::new(self.server.local(apiserver::Identity::system(name, &[])), "default")
    }

    /// The kinds that it serves.
    pub fn registry(&self) -> Arc<api::Registry> {
        self.server.config().registry.clone()
    }

    pub async fn send(&self, method: &str, path: &str, media: &str, body: Value) -> Result<Value, kube::Error> {
        let request = http::Request::builder().method(method).uri(path).header("content-type", media);
        self.client.request(request.body(body.to_string().into_bytes()).unwrap()).await
    }

    pub async fn create(&self, path: &str, body: Value) -> Value {
        self.send("POST", path, "application/json", body).await.unwrap()
    }

    pub async fn merge(&self, path: &str, body: Value) -> Value {
        self.send("PATCH", path, "application/merge-patch+json", body).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Option<Value> {
        self.send("GET", path, "application/json", Value::Null).await.ok()
    }

    pub async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.send("GET", path, "application/json", Value::Null).await.unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The changes of a collection from now on: what happened, and the object.
    pub async fn watch(&self, path: &str) -> BoxStream<'static, (String, Value)> {
        let list = self.send("GET", path, "application/json", Value::Null).await.unwrap();
        let from = list["metadata"]["resourceVersion"].as_str().unwrap();
        let request = http::Request::get(format!("{path}?watch=true&resourceVersion={from}"));
        let lines = self.client.request_stream(request.body(Vec::new()).unwrap()).await.unwrap().lines();
        let event = |line: std::io::Result<String>| {
            let mut event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            (event["type"].as_str().unwrap().to_owned(), event["object"].take())
        };
        lines.map(event).boxed()
    }

    /// Asks again until the answer is there, for at most thirty seconds; fails with the last state.
    pub async fn until<T>(&self, what: &str, path: &str, found: impl Fn(Option<Value>) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let state = self.get(path).await;
            if let Some(found) = found(state.clone()) {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "{what}: {state:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
