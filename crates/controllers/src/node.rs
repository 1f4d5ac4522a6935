//! Node: a node whose lease is late is `Unknown` and tainted; a taint follows every change of `Ready`. A taint that ends
//! pods is given the time at which it came.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Taint, apimachinery::pkg::apis::meta::v1::Time};
use serde_json::{Value, json};

use crate::{
    eviction::NO_EXECUTE,
    object::{Body, Object, parse, rfc3339},
    step::{Id, Merge, NODES, Step},
};

/// The namespace of nodes' leases.
pub const LEASES_IN: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// What matters of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub taints: Vec<Taint>,
    /// The status of its `Ready` condition.
    pub ready: Option<String>,
}

impl Node {
    pub fn lift(mut spec: Value, status: &Value) -> Self {
        let ready = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
        Self {
            taints: parse(spec["taints"].take()),
            ready: ready.and_then(|c| c["status"].as_str()).map(str::to_owned),
        }
    }
}

impl Node {
    /// Whether it may drive pods away.
    pub fn ends_pods(&self) -> bool {
        self.taints.iter().any(|taint| taint.effect == NO_EXECUTE)
    }
}

/// What matters of a lease.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lease {
    pub renewed: Option<Timestamp>,
}

impl Lease {
    pub fn lift(spec: &Value) -> Self {
        Self { renewed: parse(spec["renewTime"].clone()) }
    }
}

/// What to do about a node. A node is late when nothing was heard of it for `grace`, counted from `watching` at the
/// earliest: nobody could have renewed a lease while there was no API server.
pub fn plan(
    object: &Object,
    lease: Option<&Object>,
    watching: Timestamp,
    grace: Duration,
    now: Timestamp,
) -> Vec<Step> {
    let Body::Node(node) = &object.body else { return Vec::new() };
    let renewed = match lease.map(|l| &l.body) {
        Some(Body::Lease(lease)) => lease.renewed,
        _ => None,
    };
    let heard = renewed.or(object.created()).unwrap_or(watching).max(watching);
    let grace_in = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    let due = heard.checked_add(grace_in).unwrap_or(Timestamp::MAX);
    let late = due <= now;
    let id = Id::new(NODES, "", object.name());
    let mut steps = Vec::new();
    if late && node.ready.as_deref() != Some("Unknown") {
        let patch = json!({"status": {"conditions": [{
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": rfc3339(now),
        }]}});
        steps.push(Step::Status { id: id.clone(), merge: Merge::Strategic, patch });
    }
    let key = match node.ready.as_deref() {
        _ if late => Some(UNREACHABLE),
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    if let Some(taints) = taints(&node.taints, key, now) {
        let patch = json!({
            "metadata": {"uid": object.uid(), "resourceVersion": object.meta.resource_version},
            "spec": {"taints": taints},
        });
        // Before the status: that write would make this one's revision a stale one.
        steps.insert(0, Step::Patch { id, merge: Merge::Json, patch });
    }
    if !late {
        steps.push(Step::Again(Duration::try_from(due.duration_since(now)).unwrap_or(grace)));
    }
    steps
}

/// The taints as they should be, unless they are so already.
fn taints(have: &[Taint], key: Option<&str>, now: Timestamp) -> Option<Vec<Taint>> {
    let now = Some(Time(now));
    let ours = |t: &Taint| t.key == NOT_READY || t.key == UNREACHABLE;
    let wanted = |t: &Taint| Some(t.key.as_str()) == key;
    let effects = ["NoSchedule", NO_EXECUTE];
    let missing = key.into_iter().flat_map(|key| {
        let known = move |effect: &str| have.iter().any(|t| t.key == key && t.effect == effect);
        effects.into_iter().filter(move |e| !known(e)).map(move |effect| Taint {
            key: key.into(),
            value: None,
            effect: effect.into(),
            time_added: None,
        })
    });
    let kept = have.iter().filter(|t| !ours(t) || wanted(t)).cloned();
    let dated = |taint: Taint| match &*taint.effect {
        NO_EXECUTE => Taint { time_added: taint.time_added.or(now.clone()), ..taint },
        _ => taint,
    };
    let wanted: Vec<Taint> = kept.chain(missing).map(dated).collect();
    (wanted != have).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Wire;

    fn object(kind: &str, wire: Value) -> Object {
        Object::lift(kind, serde_json::from_value::<Wire>(wire).unwrap())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn lease(renewed: i64) -> Object {
        let time = at(renewed).strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
        object("leases.coordination.k8s.io", json!({"metadata": {"name": "n"}, "spec": {"renewTime": time}}))
    }

    fn node(ready: &str, taints: &[(&str, &str)]) -> Object {
        let taints: Vec<_> = taints.iter().map(|(key, effect)| json!({"key": key, "effect": effect})).collect();
        object(
            "nodes",
            json!({"metadata": {"name": "n"}, "spec": {"taints": taints}, "status": {"conditions": [
                {"type": "Ready", "status": ready}]}}),
        )
    }

    const GRACE: Duration = Duration::from_secs(40);

    #[test]
    fn a_late_lease_makes_the_node_unknown_and_tainted() {
        let steps = plan(&node("True", &[]), Some(&lease(0)), at(0), GRACE, at(39));
        assert_eq!(steps, [Step::Again(Duration::from_secs(1))]);
        let steps = plan(&node("True", &[]), Some(&lease(0)), at(0), GRACE, at(40));
        let [Step::Patch { patch, .. }, Step::Status { patch: status, .. }] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(patch["spec"]["taints"][0]["key"], UNREACHABLE);
        assert_eq!(status["status"]["conditions"][0]["status"], "Unknown");
    }

    #[test]
    fn time_without_an_api_server_does_not_count() {
        let steps = plan(&node("True", &[]), Some(&lease(0)), at(1000), GRACE, at(1001));
        assert_eq!(steps, [Step::Again(Duration::from_secs(39))]);
    }

    #[test]
    fn taints_follow_the_condition_and_leave_others_alone() {
        let tainted = [(UNREACHABLE, "NoSchedule"), ("mine", "NoSchedule"), (UNREACHABLE, "NoExecute")];
        let steps = plan(&node("True", &tainted), Some(&lease(0)), at(0), GRACE, at(1));
        let [Step::Patch { patch, .. }, Step::Again(_)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(patch["spec"]["taints"], json!([{"key": "mine", "effect": "NoSchedule"}]));
        let steps = plan(&node("False", &[(NOT_READY, "NoSchedule")]), Some(&lease(0)), at(0), GRACE, at(1));
        let [Step::Patch { patch, .. }, Step::Again(_)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(patch["spec"]["taints"].as_array().unwrap().len(), 2);
        let both = node("False", &[(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]);
        let steps = plan(&both, Some(&lease(0)), at(0), GRACE, at(1));
        let [Step::Patch { patch, .. }, Step::Again(_)] = &steps[..] else { panic!("{steps:?}") };
        let taints = &patch["spec"]["taints"];
        assert_eq!((&taints[0]["timeAdded"], &taints[1]["timeAdded"]), (&Value::Null, &json!(at(1))));
        let mut settled = both;
        let Body::Node(body) = &mut settled.body else { panic!("a node") };
        body.taints = parse(taints.clone());
        assert!(matches!(plan(&settled, Some(&lease(0)), at(0), GRACE, at(1))[..], [Step::Again(_)]));
    }
}
