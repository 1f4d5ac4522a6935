//! The loop against a real API server.

use serde_json::{Value, json};

#[path = "../../apiserver/tests/cluster/mod.rs"]
mod cluster;

use cluster::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// With the scheduler running, the namespace `default` and its account.
async fn scheduled() -> Cluster {
    let cluster = Cluster::new().await;
    tokio::spawn(scheduler::run(cluster.component("kube-scheduler"), std::future::pending()));
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
