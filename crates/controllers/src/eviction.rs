//! Eviction: a pod leaves its node when a taint that says `NoExecute` repels it, at once or after the time that it
//! tolerates it.

use std::time::Duration;

use api::taints::tolerates;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Taint, Toleration};
use serde_json::json;

use crate::{
    node::Node,
    object::{Body, Object, rfc3339},
    replicaset::Phase,
    step::{Id, Merge, PODS, Step},
};

/// The effect that ends pods.
pub const NO_EXECUTE: &str = "NoExecute";

/// What to do about a pod on a node. Time counts from when the taint or the pod came, and not before `watching`: what
/// the node says may be old when the API server is back.
pub fn plan(object: &Object, node: &Node, watching: Timestamp, now: Timestamp) -> Vec<Step> {
    let Body::Pod(pod) = &object.body else { return Vec::new() };
    if object.deleting() || pod.phase == Phase::Finished {
        return Vec::new();
    }
    let since = object.created().unwrap_or(watching).max(watching);
    let repelling = node.taints.iter().filter(|t| t.effect == NO_EXECUTE);
    match repelling.filter_map(|taint| leaves(taint, &pod.tolerations, since)).min() {
        None => Vec::new(),
        Some(due) if due <= now => {
            let (id, uid) = (Id::of(PODS, object), object.uid().to_owned());
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "lastTransitionTime": rfc3339(now),
                "reason": "DeletionByTaintManager", "message": "it does not tolerate a taint of its node",
            });
            let patch = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
            let told = Step::Status { id: id.clone(), merge: Merge::Strategic, patch };
            vec![told, Step::Delete { id, uid, propagation: "Background" }]
        }
        Some(due) => vec![Step::Again(Duration::try_from(due.duration_since(now)).unwrap_or_default())],
    }
}

/// When a taint drives a pod away that is there `since`; `None` if never. The first toleration that covers it counts.
fn leaves(taint: &Taint, tolerations: &[Toleration], since: Timestamp) -> Option<Timestamp> {
    let since = taint.time_added.as_ref().map_or(since, |added| since.max(added.0));
    match tolerations.iter().find(|t| tolerates(t, taint)) {
        None => Some(since),
        Some(toleration) => {
            let seconds = SignedDuration::from_secs(toleration.toleration_seconds?.max(0));
            Some(since.checked_add(seconds).unwrap_or(Timestamp::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::object::Wire;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn object(kind: &str, wire: Value) -> Object {
        Object::lift(kind, serde_json::from_value::<Wire>(wire).unwrap())
    }

    /// What is done at a moment about a pod made at 0, on a node tainted at 10.
    fn planned(effect: &str, tolerations: Value, status: Value, watching: i64, now: i64) -> Vec<Step> {
        let node = object("nodes", json!({"spec": {"taints": [{"key": "k", "effect": effect, "timeAdded": at(10)}]}}));
        let pod = json!({"metadata": {"name": "p", "uid": "u", "creationTimestamp": at(0)},
            "spec": {"nodeName": "n", "tolerations": tolerations}, "status": status});
        let Body::Node(node) = &node.body else { panic!("a node") };
        plan(&object("pods", pod), node, at(watching), at(now))
    }

    fn tolerating(seconds: Option<i64>) -> Value {
        json!([{"key": "other", "operator": "Exists"}, {"key": "k", "operator": "Exists", "tolerationSeconds": seconds}])
    }

    #[test]
    fn what_does_not_tolerate_leaves_at_once() {
        let steps = planned(NO_EXECUTE, json!([]), Value::Null, 0, 10);
        let [Step::Status { patch, .. }, Step::Delete { .. }] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(patch["status"]["conditions"][0]["type"], "DisruptionTarget");
        assert_eq!(planned("NoSchedule", json!([]), Value::Null, 0, 10), []);
        assert_eq!(planned(NO_EXECUTE, json!([]), json!({"phase": "Succeeded"}), 0, 10), []);
    }

    #[test]
    fn what_tolerates_for_a_time_leaves_after_it() {
        assert_eq!(planned(NO_EXECUTE, tolerating(None), Value::Null, 0, 999), []);
        let later = planned(NO_EXECUTE, tolerating(Some(5)), Value::Null, 0, 12);
        assert_eq!(later, [Step::Again(Duration::from_secs(3))]);
        let steps = planned(NO_EXECUTE, tolerating(Some(5)), Value::Null, 0, 15);
        assert!(matches!(steps[..], [_, Step::Delete { .. }]));
    }

    #[test]
    fn time_without_an_api_server_does_not_count() {
        let steps = planned(NO_EXECUTE, tolerating(Some(300)), Value::Null, 1000, 1001);
        assert_eq!(steps, [Step::Again(Duration::from_secs(299))]);
    }
}
