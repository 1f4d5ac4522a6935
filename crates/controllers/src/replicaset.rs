//! ReplicaSet: keeps so many pods of one template.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use api::selector::Selector;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Toleration,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
};
use serde_json::{Value, json};

use crate::{
    object::{Body, Object, parse},
    ownership,
    step::{Id, Merge, PODS, REPLICASETS, Step},
};

/// The annotation of a pod that says how dear it is: cheaper ones are deleted first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const FAILED_CREATE: &str = "FailedCreate";
/// Pods made or deleted in one go.
const BURST: usize = 500;
/// For how long a pod that ended counts against the next one, and how long that waits at most.
const MEMORY: SignedDuration = SignedDuration::from_mins(10);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// What matters of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub node: Option<String>,
    pub tolerations: Vec<Toleration>,
    pub phase: Phase,
    /// Since when it is ready, if it is.
    pub ready: Option<Timestamp>,
    pub restarts: i64,
}

/// How far a pod got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Pending,
    Unknown,
    Running,
    Finished,
}

impl Pod {
    pub fn lift(spec: &Value, status: &Value) -> Self {
        let list = |key: &str| status[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let ready = list("conditions").iter().find(|c| c["type"] == "Ready" && c["status"] == "True");
        Self {
            node: spec["nodeName"].as_str().filter(|n| !n.is_empty()).map(str::to_owned),
            tolerations: parse(spec["tolerations"].clone()),
            phase: match status["phase"].as_str() {
                Some("Running") => Phase::Running,
                Some("Succeeded" | "Failed") => Phase::Finished,
                Some("Unknown") => Phase::Unknown,
                _ => Phase::Pending,
            },
            ready: ready.map(|c| parse::<Option<_>>(c["lastTransitionTime"].clone()).unwrap_or(Timestamp::UNIX_EPOCH)),
            restarts: list("containerStatuses").iter().filter_map(|c| c["restartCount"].as_i64()).sum(),
        }
    }

    /// When it counts as available, if it is ready.
    fn available(&self, min_ready: i64) -> Option<Timestamp> {
        let at = self.ready?.checked_add(SignedDuration::from_secs(min_ready));
        Some(at.unwrap_or(Timestamp::MAX))
    }
}

/// What matters of a ReplicaSet.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSet {
    pub replicas: i64,
    pub min_ready: i64,
    pub selector: LabelSelector,
    pub template: Value,
    pub status: ReplicaSetStatus,
}

impl ReplicaSet {
    pub fn lift(mut spec: Value, status: Value) -> Self {
        Self {
            replicas: spec["replicas"].as_i64().unwrap_or(1),
            min_ready: spec["minReadySeconds"].as_i64().unwrap_or(0),
            selector: parse(spec["selector"].take()),
            template: spec["template"].take(),
            status: parse(status),
        }
    }

    /// Of an object that is one.
    pub fn of(object: &Object) -> Option<&Self> {
        if let Body::ReplicaSet(set) = &object.body { Some(set) } else { None }
    }
}

/// What to do about a ReplicaSet. `pods`: those that it manages or that nobody does, in its namespace. `failure`: why
/// a pod could not be created the last time, if so.
pub fn plan(object: &Object, pods: &[&Object], failure: Option<&str>, now: Timestamp) -> Vec<Step> {
    let Some(set) = ReplicaSet::of(object) else { return Vec::new() };
    let Ok(selector) = Selector::from_struct(&set.selector) else { return Vec::new() };
    let reference = ownership::reference("apps/v1", "ReplicaSet", object);
    // What has run to its end is neither counted nor adopted; the garbage collector removes it with its owner.
    let (pods, over): (Vec<_>, Vec<_>) =
        pods.iter().copied().partition(|p| pod(p).is_some_and(|p| p.phase < Phase::Finished));
    let (ours, mut steps) = ownership::claim(object, &reference, &selector, &PODS, &pods);
    let ours: Vec<_> = ours.into_iter().filter(|p| !p.deleting()).collect();

    let status = status(object, set, &ours, failure, now);
    if status != set.status {
        let patch = json!({"status": replace(&set.status, &status)});
        steps.push(Step::Status { id: Id::of(REPLICASETS, object), merge: Merge::Json, patch });
    }
    if object.deleting() {
        return steps;
    }
    let wanted = usize::try_from(set.replicas).unwrap_or(0);
    let pause = pause(object, &over, now);
    match pause {
        None => steps.extend((ours.len()..wanted).take(BURST).map(|_| create(object, set, &reference))),
        Some(pause) if ours.len() < wanted => steps.push(Step::Again(pause)),
        Some(_) => {}
    }
    if ours.len() > wanted {
        for victim in victims(&ours).into_iter().take((ours.len() - wanted).min(BURST)) {
            let (id, uid) = (Id::of(PODS, victim), victim.uid().to_owned());
            steps.push(Step::Delete { id, uid, propagation: "Background" });
        }
    }
    // A pod becomes available by the mere passing of time.
    let next = ours.iter().filter_map(|p| pod(p)?.available(set.min_ready)).filter(|at| *at > now).min();
    steps.extend(next.map(|at| Step::Again(Duration::try_from(at.duration_since(now)).unwrap_or_default())));
    steps
}

/// How long to wait with new pods, where the last ones ended: a node that refuses each would be asked without end, and
/// the store filled. Kubernetes has no such pause.
fn pause(set: &Object, over: &[&Object], now: Timestamp) -> Option<Duration> {
    let own = |p: &&&Object| !p.deleting() && p.owners().iter().any(|o| o.uid == set.uid());
    let made = over.iter().filter(own).filter_map(|p| p.created()).filter(|at| now.duration_since(*at) < MEMORY);
    let mut lately: Vec<_> = made.collect();
    lately.sort_unstable();
    lately.dedup(); // those made in one go are one try
    let seconds = SignedDuration::from_secs(1_i64 << lately.len().saturating_sub(1).min(9));
    let due = lately.iter().max()?.checked_add(seconds.min(LONGEST_PAUSE)).unwrap_or(Timestamp::MAX);
    Duration::try_from(due.duration_since(now)).ok().filter(|wait| !wait.is_zero())
}

fn pod(object: &Object) -> Option<&Pod> {
    if let Body::Pod(pod) = &object.body { Some(pod) } else { None }
}

fn create(
    object: &Object,
    set: &ReplicaSet,
    reference: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
) -> Step {
    let template = &set.template;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("{}-", object.name()),
            "namespace": object.namespace(),
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"],
            "finalizers": template["metadata"]["finalizers"],
            "ownerReferences": [reference],
        },
        "spec": template["spec"],
    });
    Step::Create { kind: PODS, namespace: object.namespace().to_owned(), object: without_nulls(pod) }
}

/// Without fields that are null at the second level: absent and null are the same to the API, not to validation.
fn without_nulls(mut object: Value) -> Value {
    for part in object.as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
        if let Some(fields) = part.as_object_mut() {
            fields.retain(|_, v| !v.is_null());
        }
    }
    object
}

/// Pods in the order in which to delete them, as Kubernetes ranks them: without a node, pending, not ready, cheap,
/// with many siblings on the node, ready for a shorter time, often restarted, young.
fn victims<'a>(pods: &[&'a Object]) -> Vec<&'a Object> {
    let mut siblings: HashMap<&str, usize> = HashMap::new();
    for node in pods.iter().filter_map(|p| pod(p)?.node.as_deref()) {
        *siblings.entry(node).or_default() += 1;
    }
    let mut order: Vec<_> = pods.to_vec();
    order.sort_by_cached_key(|object| {
        let p = pod(object).cloned().unwrap_or_default();
        let cost = object.annotation(DELETION_COST).and_then(|c| c.parse::<i32>().ok()).unwrap_or(0);
        let crowd = p.node.as_deref().and_then(|n| siblings.get(n)).copied().unwrap_or_default();
        (
            (p.node.is_some(), p.phase, p.ready.is_some(), cost),
            (Reverse(crowd), Reverse(p.ready), Reverse(p.restarts), Reverse(object.created())),
            object.name().to_owned(),
        )
    });
    order
}

fn status(
    object: &Object,
    set: &ReplicaSet,
    pods: &[&Object],
    failure: Option<&str>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let labels: std::collections::BTreeMap<String, String> = parse(set.template["metadata"]["labels"].clone());
    let count = |f: &dyn Fn(&Object) -> bool| pods.iter().filter(|p| f(p)).count() as i32;
    let some = |n: i32| (n > 0).then_some(n);
    let mut conditions = set.status.conditions.clone().unwrap_or_default();
    let known = conditions.iter().position(|c| c.type_ == REPLICA_FAILURE);
    match (known, failure) {
        (Some(i), Some(message)) if conditions[i].message.as_deref() == Some(message) => {}
        (known, failure) => {
            known.map(|i| conditions.remove(i));
            conditions.extend(failure.map(|message| ReplicaSetCondition {
                type_: REPLICA_FAILURE.into(),
                status: "True".into(),
                reason: Some(FAILED_CREATE.into()),
                message: Some(message.to_owned()),
                last_transition_time: Some(Time(now.round(jiff::Unit::Second).unwrap_or(now))),
            }));
        }
    }
    ReplicaSetStatus {
        replicas: pods.len() as i32,
        fully_labeled_replicas: some(count(&|p| labels.iter().all(|(k, v)| p.labels().get(k) == Some(v)))),
        ready_replicas: some(count(&|p| pod(p).is_some_and(|p| p.ready.is_some()))),
        available_replicas: some(count(&|p| pod(p).and_then(|p| p.available(set.min_ready)).is_some_and(|a| a <= now))),
        observed_generation: object.meta.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
        ..set.status.clone()
    }
}

/// A merge patch that leaves exactly `new`: fields that only `old` has are null.
pub fn replace<T: serde::Serialize>(old: &T, new: &T) -> Value {
    let (old, mut new) = (json!(old), json!(new));
    if let (Some(old), Some(new)) = (old.as_object(), new.as_object_mut()) {
        for key in old.keys().filter(|k| !new.contains_key(*k)).cloned().collect::<Vec<_>>() {
            new.insert(key, Value::Null);
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Wire;

    fn object(kind: &str, wire: Value) -> Object {
        Object::lift(kind, serde_json::from_value::<Wire>(wire).unwrap())
    }

    #[test]
    fn pods_that_end_at_once_are_replaced_ever_more_slowly() {
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
        let set = object("replicasets.apps", json!({"metadata": {"name": "web", "uid": "set"}}));
        let ended = |second: i64| {
            let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set"}]);
            let meta = json!({"name": "p", "uid": "p", "creationTimestamp": at(second), "ownerReferences": owner});
            object("pods", json!({"metadata": meta, "status": {"phase": "Failed"}}))
        };
        let waits = |times: &[i64], now: i64| {
            let pods: Vec<_> = times.iter().map(|second| ended(*second)).collect();
            pause(&set, &pods.iter().collect::<Vec<_>>(), at(now))
        };
        assert_eq!(waits(&[], 0), None);
        assert_eq!(waits(&[0], 0), Some(Duration::from_secs(1)));
        assert_eq!(waits(&[0], 1), None);
        assert_eq!(waits(&[0, 1, 3], 3), Some(Duration::from_secs(4)));
        assert_eq!(waits(&(0..40).collect::<Vec<_>>(), 39), Some(Duration::from_secs(300)));
        // However many are made in one go.
        assert_eq!(waits(&[0; 40], 0), Some(Duration::from_secs(1)));
        // What ended long ago is forgotten.
        assert_eq!(waits(&[0, 1, 2, 602], 602), Some(Duration::from_secs(1)));
    }
}
