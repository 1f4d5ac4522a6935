//! The loop against a real API server.

use std::{sync::Arc, time::Duration};

use kube::Client;
use serde_json::{Value, json};

/// Everyone may do everything, and there are no nodes.
struct Open;

impl apiserver::Authorizer for Open {
    fn decide(&self, _: &apiserver::Identity, _: &apiserver::Attributes) -> apiserver::Decision {
        apiserver::Decision { allowed: true, reason: "test".into() }
    }
}

#[async_trait::async_trait]
impl apiserver::Nodes for Open {
    async fn forward(&self, _: &str, _: http::Request<axum::body::Body>) -> axum::response::Response {
        axum::response::Response::default()
    }
}

/// A real API server over a real store, in this process.
struct Cluster {
    client: Client,
    server: apiserver::Server,
    _dir: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.server.stop();
    }
}

impl Cluster {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();

        let server = apiserver::Server::new(apiserver::Config {
            store: Arc::new(store::Embedded::open(dir.path().join("store")).unwrap()),
            registry: Arc::new(api::builtin()),
            authenticator: Arc::new(apiserver::Authenticator::default()),
            authorizer: Arc::new(Open),
            audit: Arc::new(apiserver::Audit::default()),
            nodes: Arc::new(Open),
            version: apiserver::Version {
                major: "1".into(),
                minor: "36".into(),
                git_version: "v1.36.0".into(),
                git_commit: String::new(),
                build_date: String::new(),
            },
            clock: Arc::new(jiff::Timestamp::now),
        });
        server.ready().await;
        let client = Client::new(server.local(apiserver::Identity::system("test", &["system:masters"])), "default");
        Self { client, server, _dir: dir }
    }

    async fn send(&self, method: &str, path: &str, media: &str, body: Value) -> Result<Value, kube::Error> {
        let request = http::Request::builder().method(method).uri(path).header("content-type", media);
        self.client.request(request.body(body.to_string().into_bytes()).unwrap()).await
    }

    async fn create(&self, path: &str, body: Value) -> Value {
        self.send("POST", path, "application/json", body).await.unwrap()
    }

    async fn merge(&self, path: &str, body: Value) -> Value {
        self.send("PATCH", path, "application/merge-patch+json", body).await.unwrap()
    }

    async fn get(&self, path: &str) -> Option<Value> {
        self.send("GET", path, "application/json", Value::Null).await.ok()
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.send("GET", path, "application/json", Value::Null).await.unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Asks again until the answer is there, for at most thirty seconds; fails with the last state.
    async fn until<T>(&self, what: &str, path: &str, found: impl Fn(Option<Value>) -> Option<T>) -> T {
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

const PODS: &str = "/api/v1/namespaces/default/pods";

/// With the scheduler running, the namespace `default` and its account.
async fn scheduled() -> Cluster {
    let cluster = Cluster::new().await;
    tokio::spawn(scheduler::run(cluster.client.clone(), std::future::pending()));
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await;
    cluster.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    cluster
}

async fn node(cluster: &Cluster, name: &str, memory: &str) {
    cluster.create("/api/v1/nodes", json!({"metadata": {"name": name}})).await;
    let status = json!({"status": {
        "allocatable": {"cpu": "4", "memory": memory, "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    cluster.merge(&format!("/api/v1/nodes/{name}/status"), status).await;
}

fn pod(name: &str, memory: &str) -> Value {
    let resources = json!({"requests": {"memory": memory}});
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

fn on(state: Option<Value>) -> Option<String> {
    state?["spec"]["nodeName"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn told_why_then_bound_once_there_is_room() {
    let cluster = scheduled().await;
    node(&cluster, "small", "1Gi").await;
    cluster.create(PODS, pod("web", "2Gi")).await;
    let path = format!("{PODS}/web");
    let says = |state: Option<Value>| state?["status"]["conditions"][0]["message"].as_str().map(str::to_owned);
    let message = cluster.until("the reason", &path, says).await;
    assert_eq!(message, "0/1 nodes are available: 1 Insufficient memory.");
    node(&cluster, "large", "4Gi").await;
    assert_eq!(cluster.until("a node", &path, on).await, "large");
    let pod = cluster.get(&path).await.unwrap();
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let scheduled: Vec<_> = conditions.iter().filter(|c| c["type"] == "PodScheduled").collect();
    assert_eq!((scheduled.len(), &scheduled[0]["status"]), (1, &json!("True")));
    let reasons = cluster
        .until("the events", "/api/v1/namespaces/default/events", |state| {
            let events = state?["items"].as_array()?.clone();
            let reasons: Vec<_> = events.iter().map(|e| e["reason"].as_str().unwrap().to_owned()).collect();
            reasons.contains(&"Scheduled".to_owned()).then_some(reasons)
        })
        .await;
    assert!(reasons.contains(&"FailedScheduling".to_owned()));
}

#[tokio::test]
async fn a_burst_fills_nodes_to_the_brim_and_no_further() {
    let cluster = scheduled().await;
    for name in ["a", "b", "c"] {
        node(&cluster, name, "1Gi").await;
    }
    // Ten fit on each node.
    for i in 0..35 {
        cluster.create(PODS, pod(&format!("p{i}"), "100Mi")).await;
    }
    let nodes = cluster
        .until("30 of them bound", PODS, |state| {
            let pods = state?["items"].as_array()?.clone();
            let nodes: Vec<_> = pods.iter().filter_map(|p| on(Some(p.clone()))).collect();
            (nodes.len() >= 30).then_some(nodes)
        })
        .await;
    for name in ["a", "b", "c"] {
        assert_eq!(nodes.iter().filter(|n| *n == name).count(), 10);
    }
    // Room that one leaves is given to one that waits.
    let bound = cluster.list(PODS).await.into_iter().find(|p| on(Some(p.clone())).is_some()).unwrap();
    let path = format!("{PODS}/{}", bound["metadata"]["name"].as_str().unwrap());
    let now = json!({"gracePeriodSeconds": 0});
    cluster.send("DELETE", &path, "application/json", now).await.unwrap();
    cluster
        .until("30 again", PODS, |state| {
            let pods = state?["items"].as_array()?.clone();
            (pods.iter().filter(|p| on(Some((*p).clone())).is_some()).count() == 30).then_some(())
        })
        .await;
}

#[tokio::test]
async fn another_schedulers_pods_are_left_alone() {
    let cluster = scheduled().await;
    node(&cluster, "n", "1Gi").await;
    let mut other = pod("other", "1Mi");
    other["spec"]["schedulerName"] = "mine".into();
    cluster.create(PODS, other).await;
    cluster.create(PODS, pod("ours", "1Mi")).await;
    cluster.until("ours bound", &format!("{PODS}/ours"), on).await;
    assert_eq!(on(cluster.get(&format!("{PODS}/other")).await), None);
}
