//! The controllers against a real API server: what plans cannot show by themselves.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

#[path = "../../apiserver/tests/cluster/mod.rs"]
mod cluster;

use cluster::Cluster;

/// With controllers running and the namespace `default`.
async fn controlled(grace: Duration) -> Cluster {
    let cluster = Cluster::new().await;
    let (registry, authority) = (cluster.registry(), "PEM".to_owned());
    let config = controllers::Config { registry, authority, grace };
    tokio::spawn(controllers::run(cluster.component("controllers"), config, std::future::pending()));
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await;
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    cluster.until("the default account", account, |found| found).await;
    cluster
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const GRACE: Duration = Duration::from_secs(40);

fn workload(kind: &str, name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "v1"}]},
            },
        },
    })
}

/// A node that makes every pod ready that is made from now on.
async fn node(cluster: Arc<Cluster>) -> JoinHandle<()> {
    let mut pods = cluster.watch(PODS).await;
    tokio::spawn(async move {
        while let Some((what, pod)) = pods.next().await {
            if what == "ADDED" {
                let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
                let status = json!({"status": {"phase": "Running", "conditions": ready}});
                let path = format!("{PODS}/{}/status", pod["metadata"]["name"].as_str().unwrap());
                // Unless it is gone already.
                let _ = cluster.send("PATCH", &path, "application/merge-patch+json", status).await;
            }
        }
    })
}

fn named(object: Value) -> (String, Value) {
    (object["metadata"]["name"].as_str().unwrap().to_owned(), object)
}

/// The uids of the pods of which this was told until the last of `number`, and no more.
async fn pods_told(pods: &mut BoxStream<'static, (String, Value)>, what: &str, number: usize) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    while told.len() < number {
        let (event, pod) = pods.next().await.unwrap();
        if event == what {
            assert!(told.insert(pod["metadata"]["uid"].as_str().unwrap().to_owned()));
        } else {
            assert_eq!(event, "MODIFIED", "{what}: {}", pod["metadata"]);
        }
    }
    told
}

#[tokio::test]
async fn a_namespace_is_given_its_authority_again() {
    let cluster = controlled(GRACE).await;
    let path = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
    let is = |state: Option<Value>| state.filter(|map| map["data"]["ca.crt"] == "PEM");
    cluster.until("the authority", path, is).await;
    cluster.merge(path, json!({"data": {"ca.crt": "forged"}})).await;
    cluster.until("the authority back", path, is).await;
    cluster.send("DELETE", path, "application/json", json!({})).await.unwrap();
    cluster.until("the authority again", path, is).await;
}

#[tokio::test]
async fn exactly_so_many_pods_up_and_down() {
    let cluster = controlled(GRACE).await;
    let mut pods = cluster.watch(PODS).await;
    cluster.create(SETS, workload("ReplicaSet", "web", 150)).await;
    let path = format!("{SETS}/web");
    let has = |n: u64| move |state: Option<Value>| state.filter(|s| s["status"]["replicas"].as_u64() == Some(n));
    cluster.until("150 pods", &path, has(150)).await;
    let created = pods_told(&mut pods, "ADDED", 150).await;
    assert_eq!(cluster.list(PODS).await.len(), 150);
    cluster.merge(&path, json!({"spec": {"replicas": 20}})).await;
    cluster.until("20 pods", &path, has(20)).await;
    // Neither one too many and away again, nor a new one on the way down.
    let deleted = pods_told(&mut pods, "DELETED", 130).await;
    assert!(deleted.is_subset(&created));
    assert_eq!(cluster.list(PODS).await.len(), 20);
    assert_eq!(pods.next().now_or_never(), None);
}

#[tokio::test]
async fn a_deployment_from_rollout_to_removal() {
    let cluster = Arc::new(controlled(GRACE).await);
    let kubelet = node(cluster.clone()).await;
    let path = format!("{DEPLOYMENTS}/web");
    let rolled = |image: &'static str| {
        move |state: Option<Value>| {
            state.filter(|d| {
                let status = &d["status"];
                d["spec"]["template"]["spec"]["containers"][0]["image"] == image
                    && status["observedGeneration"] == d["metadata"]["generation"]
                    && status["updatedReplicas"] == 3
                    && status["replicas"] == 3
                    && status["availableReplicas"] == 3
            })
        }
    };
    cluster.create(DEPLOYMENTS, workload("Deployment", "web", 3)).await;
    let first = cluster.until("the first rollout", &path, rolled("v1")).await;
    assert_eq!(first["metadata"]["generation"], 1, "what controllers write down is no new wish");
    let mut pods: HashMap<_, _> = cluster.list(PODS).await.into_iter().map(named).collect();
    let mut changes = cluster.watch(PODS).await;
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "v2"}]);
    cluster.send("PATCH", &path, "application/json-patch+json", image).await.unwrap();
    let deployment = cluster.until("the second rollout", &path, rolled("v2")).await;
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    assert_eq!(cluster.list(SETS).await.len(), 2);
    assert_eq!(cluster.list(PODS).await.len(), 3);
    // Of three, a quarter is one that may be too many, and none that may be missing.
    while pods.len() != 3 || pods.values().any(|pod| pod["spec"]["containers"][0]["image"] != "v2") {
        let (what, pod) = changes.next().await.unwrap();
        let (name, pod) = named(pod);
        if what == "DELETED" {
            pods.remove(&name)
        } else {
            pods.insert(name, pod)
        };
        let ready = pods.values().filter(|pod| pod["status"]["phase"] == "Running").count();
        assert!(pods.len() <= 4 && ready >= 3, "{ready} of {}", pods.len());
    }

    let foreground = json!({"propagationPolicy": "Foreground"});
    cluster.send("DELETE", &path, "application/json", foreground).await.unwrap();
    cluster.until("the deployment gone", &path, |state| state.is_none().then_some(())).await;
    assert_eq!(cluster.list(SETS).await, Vec::<Value>::new());
    assert_eq!(cluster.list(PODS).await, Vec::<Value>::new());
    kubelet.abort();
}

/// The events about an object: reason, count and message, without names that were generated.
fn told(list: Option<Value>, kind: &str) -> Vec<(String, u64, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = list.unwrap_or_default();
    let items = list["items"].as_array().into_iter().flatten();
    let about = items.filter(|e| e["involvedObject"]["kind"] == kind);
    about.map(|e| (text(&e["reason"]), e["count"].as_u64().unwrap_or(0), text(&e["message"]))).collect()
}

const EVENTS: &str = "/api/v1/namespaces/default/events";

#[tokio::test]
async fn what_was_done_is_told_in_events() {
    let cluster = controlled(GRACE).await;
    let is = |what: &str, reason: &str, start: &'static str| {
        let (what, reason) = (what.to_owned(), reason.to_owned());
        move |list| told(list, &what).into_iter().find(|(r, _, message)| *r == reason && message.starts_with(start))
    };
    cluster.create(DEPLOYMENTS, workload("Deployment", "web", 2)).await;
    let scaled = cluster.until("scaled up", EVENTS, is("Deployment", "ScalingReplicaSet", "Scaled up")).await;
    assert!(scaled.2.ends_with(" from 0 to 2"), "{scaled:?}");
    cluster.until("a pod made", EVENTS, is("ReplicaSet", "SuccessfulCreate", "Created pod: web-")).await;
    cluster.merge(&format!("{DEPLOYMENTS}/web"), json!({"spec": {"replicas": 1}})).await;
    let scaled = cluster.until("scaled down", EVENTS, is("Deployment", "ScalingReplicaSet", "Scaled down")).await;
    assert!(scaled.2.ends_with(" from 2 to 1"), "{scaled:?}");
    cluster.until("a pod deleted", EVENTS, is("ReplicaSet", "SuccessfulDelete", "Deleted pod: web-")).await;

    let mut bad = workload("ReplicaSet", "bad", 1);
    bad["spec"]["template"]["spec"]["hostNetwork"] = true.into();
    cluster.create(SETS, bad).await;
    let refused = is("ReplicaSet", "FailedCreate", "Error creating: pods \"bad-\" is forbidden");
    let refused = cluster.until("a refusal", EVENTS, refused).await;
    assert!(refused.2.contains("hostNetwork"), "{refused:?}");
}

#[tokio::test]
async fn orphans_are_adopted_by_a_namesake() {
    let cluster = controlled(GRACE).await;
    cluster.create(SETS, workload("ReplicaSet", "web", 2)).await;
    let path = format!("{SETS}/web");
    let two = |state: Option<Value>| state.filter(|s| s["status"]["replicas"] == 2);
    cluster.until("2 pods", &path, two).await;
    let orphan = json!({"propagationPolicy": "Orphan"});
    cluster.send("DELETE", &path, "application/json", orphan).await.unwrap();
    cluster.until("the set gone", &path, |state| state.is_none().then_some(())).await;
    let before = cluster.list(PODS).await;
    assert!(before.iter().all(|p| p["metadata"]["ownerReferences"].is_null()));
    let uid = cluster.create(SETS, workload("ReplicaSet", "web", 2)).await["metadata"]["uid"].clone();
    cluster.until("2 pods again", &path, two).await;
    let after = cluster.list(PODS).await;
    assert_eq!(after.len(), before.len());
    assert!(after.iter().all(|p| p["metadata"]["ownerReferences"][0]["uid"] == uid));
}

#[tokio::test]
async fn a_deleted_namespace_takes_everything_along() {
    let cluster = controlled(GRACE).await;
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "tenant"}})).await;
    let account = "/api/v1/namespaces/tenant/serviceaccounts/default";
    cluster.until("the account", account, |found| found).await;
    let at = |path: &str| path.replace("/default/", "/tenant/");
    cluster.create(&at(DEPLOYMENTS), workload("Deployment", "web", 3)).await;
    for name in ["a", "b"] {
        cluster.create("/api/v1/namespaces/tenant/configmaps", json!({"metadata": {"name": name}})).await;
    }
    let three = |state: Option<Value>| state.filter(|d| d["status"]["replicas"] == 3);
    cluster.until("the pods", &at(&format!("{DEPLOYMENTS}/web")), three).await;
    cluster.send("DELETE", "/api/v1/namespaces/tenant", "application/json", json!({})).await.unwrap();
    cluster.until("the namespace gone", "/api/v1/namespaces/tenant", |state| state.is_none().then_some(())).await;
    for path in
        [PODS, SETS, DEPLOYMENTS, "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/serviceaccounts"]
    {
        assert_eq!(cluster.list(&at(path)).await, Vec::<Value>::new(), "{path}");
    }
    assert!(cluster.get("/api/v1/namespaces/default").await.is_some());
}

#[tokio::test]
async fn a_namespaces_pods_go_before_what_they_may_need() {
    let cluster = controlled(GRACE).await;
    let home = "/api/v1/namespaces/tenant";
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "tenant"}})).await;
    cluster.until("the account", &format!("{home}/serviceaccounts/default"), |found| found).await;
    cluster.create(&format!("{home}/configmaps"), json!({"metadata": {"name": "needed"}})).await;
    let pod = json!({"metadata": {"name": "held", "finalizers": ["example.com/held"]},
        "spec": {"containers": [{"name": "a", "image": "i"}]}});
    cluster.create(&format!("{home}/pods"), pod).await;
    cluster.send("DELETE", home, "application/json", json!({})).await.unwrap();
    let condition = |home: Option<Value>, name: &str| {
        let conditions = home?["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|c| c["type"] == name && c["status"] == "True")
    };
    let held = |home| condition(home, "NamespaceFinalizersRemaining");
    let held = cluster.until("what holds it is told", home, held).await;
    assert_eq!(held["message"], "example.com/held holds 1");
    let left = condition(cluster.get(home).await, "NamespaceContentRemaining").unwrap();
    assert_eq!(left["message"], "1 pods");
    let needed = cluster.get(&format!("{home}/configmaps/needed")).await.unwrap();
    assert_eq!(needed["metadata"]["deletionTimestamp"], Value::Null);
    cluster.merge(&format!("{home}/pods/held"), json!({"metadata": {"finalizers": null}})).await;
    cluster.until("the namespace gone", home, |state| state.is_none().then_some(())).await;
}

#[tokio::test]
async fn a_silent_node_is_unknown_and_tainted() {
    let cluster = controlled(Duration::from_millis(300)).await;
    cluster.create("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let ready =
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}]}});
    cluster.merge("/api/v1/nodes/n/status", ready).await;
    let node = cluster
        .until("the taints", "/api/v1/nodes/n", |state| {
            state.filter(|n| {
                n["spec"]["taints"].as_array().is_some_and(|t| t.len() == 2)
                    && n["status"]["conditions"][0]["status"] == "Unknown"
            })
        })
        .await;
    assert_eq!(node["spec"]["taints"][0]["key"], "node.kubernetes.io/unreachable");
    assert_eq!(node["status"]["conditions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_refused_pod_is_told_in_the_status() {
    let cluster = controlled(GRACE).await;
    let mut bad = workload("ReplicaSet", "web", 2);
    bad["spec"]["template"]["spec"]["hostNetwork"] = true.into(); // the baseline forbids it
    cluster.create(SETS, bad).await;
    let condition = cluster
        .until("the condition", &format!("{SETS}/web"), |state| state?["status"]["conditions"].get(0).cloned())
        .await;
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("ReplicaFailure"), &json!("FailedCreate")));
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains(r#"pods "web-" is forbidden"#), "each try has another text: {message}");
    let told = |list: Option<Value>| Some(list?["items"].as_array()?.clone()).filter(|events| !events.is_empty());
    let events = cluster.until("the event", "/api/v1/namespaces/default/events", told).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (&events[0]["reason"], &events[0]["message"]),
        (&json!("FailedCreate"), &json!(format!("Error creating: {message}")))
    );
    assert_eq!(events[0]["involvedObject"]["kind"], "ReplicaSet");
}
