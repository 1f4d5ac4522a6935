//! Deployments and ReplicaSets.

use serde_json::{Value, json};
use tests::eventually;

use crate::{Place, image, with};

fn template(app: &str, more: Value) -> Value {
    json!({"metadata": {"labels": {"app": app, "tier": "back"}}, "spec": with(json!({"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": image(), "command": ["sleep", "1000"]}]}), more)})
}

fn workload(kind: &str, name: &str, more: Value) -> Value {
    let spec = json!({"selector": {"matchLabels": {"app": name}}, "template": template(name, json!({}))});
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": with(spec, more)})
}

#[test]
fn replicasets() {
    let place = Place::up();
    let chosen = json!({"matchLabels": {"app": "chosen"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["back"]}]});
    let stranger = |name: &str, tier: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "chosen", "tier": tier}},
            "spec": {"containers": [{"name": "main", "image": image(), "command": ["sleep", "1000"]}]}})
    };
    place.apply(vec![stranger("kin", "back"), stranger("other", "front")]);
    place.apply(vec![
        workload("ReplicaSet", "two", json!({"replicas": 2})),
        workload("ReplicaSet", "slow", json!({"replicas": 1, "minReadySeconds": 3000})),
        workload("ReplicaSet", "chosen", json!({"replicas": 2, "selector": chosen})),
    ]);
    place.until("rs/two", ".status.readyReplicas", "2");
    place.until("rs/two", ".status.availableReplicas", "2");
    place.until("rs/slow", ".status.readyReplicas", "1");
    assert!(["", "0"].contains(&place.read("rs/slow", ".status.availableReplicas").as_str()), "not available yet");
    place.until("rs/chosen", ".status.readyReplicas", "2");
    assert_eq!(place.read("pod/kin", ".metadata.ownerReferences[0].name"), "chosen");
    assert_eq!(place.read("pod/other", ".metadata.ownerReferences[0].name"), "");
}

#[test]
fn deployments() {
    let place = Place::up();
    let rolling = |surge: u32, unavailable: u32| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    let broken = |name: &str, more: Value| {
        let missing = json!([{"name": "main", "image": image(), "imagePullPolicy": "Never", "command": ["/absent"]}]);
        workload("Deployment", name, with(more, json!({"template": template(name, json!({"containers": missing}))})))
    };
    let more = |strategy: Value| json!({"replicas": 3, "strategy": strategy});
    place.apply(vec![
        workload("Deployment", "surge", more(rolling(2, 0))),
        workload("Deployment", "shrink", more(rolling(0, 2))),
        workload("Deployment", "recreate", more(json!({"type": "Recreate"}))),
        workload(
            "Deployment",
            "slow",
            json!({"replicas": 1, "minReadySeconds": 3000, "progressDeadlineSeconds": 9000}),
        ),
        workload("Deployment", "paused", json!({"replicas": 1, "paused": true})),
        workload("Deployment", "history", json!({"replicas": 0, "revisionHistoryLimit": 1})),
        broken("late", json!({"replicas": 1, "progressDeadlineSeconds": 3})),
    ]);
    for name in ["surge", "shrink", "recreate"] {
        place.until(&format!("deployment/{name}"), ".status.availableReplicas", "3");
    }
    let selects =
        place.kubectl.ok(&["get", "rs", "-l", "app=surge", "-o", "jsonpath={..spec.selector.matchLabels.app}"]);
    assert_eq!(selects, "surge", "a set selects what its deployment does");
    place.until("deployment/slow", ".status.readyReplicas", "1");
    assert!(
        ["", "0"].contains(&place.read("deployment/slow", ".status.availableReplicas").as_str()),
        "not available yet"
    );
    place.until("deployment/late", ".status.conditions[?(@.type==\"Progressing\")].reason", "ProgressDeadlineExceeded");
    let sets =
        |name: &str| place.kubectl.ok(&["get", "rs", "-l", &format!("app={name}"), "-o", "name"]).lines().count();
    assert_eq!(sets("paused"), 0, "a paused deployment makes nothing");
    place.apply(vec![
        broken("surge", more(rolling(2, 0))),
        broken("shrink", more(rolling(0, 2))),
        broken("recreate", more(json!({"type": "Recreate"}))),
    ]);
    place.until("deployment/surge", ".status.replicas", "5");
    place.until("deployment/surge", ".status.availableReplicas", "3");
    place.until("deployment/shrink", ".status.unavailableReplicas", "2");
    place.until("deployment/shrink", ".status.updatedReplicas", "2");
    place.until("deployment/recreate", ".status.unavailableReplicas", "3");
    for command in ["one", "two", "three"] {
        let changed = json!({"spec": {"template": {"metadata": {"annotations": {"is": command}}}}}).to_string();
        place.kubectl.ok(&["patch", "deployment", "history", "-p", &changed]);
        place.kubectl.ok(&["rollout", "status", "deployment/history", "--timeout=30s"]);
    }
    eventually("two sets are left", || match sets("history") {
        2 => Ok(()),
        n => Err(n.to_string()),
    });
    assert_eq!(place.read("rs", ".items[?(@.metadata.labels.tier!=\"back\")].metadata.name"), "");
}
