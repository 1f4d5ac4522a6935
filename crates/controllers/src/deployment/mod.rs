//! Deployment: rolls a template of pods out by scaling one ReplicaSet up and others down.

mod rollout;
mod status;
mod template;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{DeploymentSpec, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::{Value, json};

use crate::{
    object::{Body, Object, parse},
    ownership,
    replicaset::ReplicaSet,
    step::{DEPLOYMENTS, Id, Merge, REPLICASETS, Step},
};

/// The annotation that numbers the templates of a Deployment.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// How many pods the Deployment wanted when the ReplicaSet was last scaled.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// How many pods there could be at most then.
const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// The label that tells ReplicaSets of one Deployment apart.
const HASH: &str = "pod-template-hash";
/// Annotations of a Deployment that its ReplicaSets are not given.
const PRIVATE: [&str; 4] = [REVISION, DESIRED, MOST, "kubectl.kubernetes.io/last-applied-configuration"];

/// What matters of a Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    pub replicas: i64,
    pub selector: LabelSelector,
    pub template: Value,
    pub strategy: rollout::Strategy,
    pub min_ready: i64,
    pub history: usize,
    pub paused: bool,
    pub deadline: Option<i64>,
    pub status: DeploymentStatus,
}

impl Deployment {
    pub fn lift(mut spec: Value, status: Value) -> Self {
        let (selector, template) = (parse(spec["selector"].take()), spec["template"].take());
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|key, _| key != "selector" && key != "template");
            fields.insert("selector".into(), json!({}));
            fields.insert("template".into(), json!({}));
        }
        let spec: DeploymentSpec = parse(spec);
        let replicas = i64::from(spec.replicas.unwrap_or(1)).max(0);
        Self {
            replicas,
            selector,
            template,
            strategy: rollout::Strategy::of(spec.strategy.as_ref(), replicas),
            min_ready: i64::from(spec.min_ready_seconds.unwrap_or(0)),
            history: usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0),
            paused: spec.paused.unwrap_or(false),
            // The largest number means never, as in Kubernetes.
            deadline: spec.progress_deadline_seconds.filter(|s| *s != i32::MAX).map(i64::from),
            status: parse(status),
        }
    }

    /// How many pods there may be at most.
    fn most(&self) -> i64 {
        self.replicas + self.strategy.surge()
    }
}

/// A ReplicaSet of the Deployment.
#[derive(Clone, Copy)]
struct Member<'a> {
    object: &'a Object,
    set: &'a ReplicaSet,
    pods: Pods,
}

/// How many pods of a ReplicaSet have not run to their end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pods {
    /// Those that are not on their way out.
    pub live: usize,
    /// Those too.
    pub all: usize,
}

impl Member<'_> {
    fn revision(&self) -> i64 {
        self.object.annotation(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
    }
}

/// What to do about a Deployment. `sets`: the ReplicaSets that it manages or that nobody does, in its namespace; `taken`:
/// whether any there, of whomever, has this name.
pub fn plan(object: &Object, sets: &[(&Object, Pods)], taken: &dyn Fn(&str) -> bool, now: Timestamp) -> Vec<Step> {
    let Body::Deployment(deployment) = &object.body else { return Vec::new() };
    let Ok(selector) = Selector::from_struct(&deployment.selector) else { return Vec::new() };
    let reference = ownership::reference("apps/v1", "Deployment", object);
    let objects: Vec<_> = sets.iter().map(|(o, _)| *o).collect();
    let (ours, claims) = ownership::claim(object, &reference, &selector, &REPLICASETS, &objects);
    if !claims.is_empty() {
        return claims; // decide once everything has its place
    }
    let pods: BTreeMap<&str, Pods> = sets.iter().map(|(o, pods)| (o.uid(), *pods)).collect();
    let mut members: Vec<_> = ours
        .into_iter()
        .filter_map(|o| Some(Member { object: o, set: ReplicaSet::of(o)?, pods: pods.get(o.uid()).copied()? }))
        .collect();
    members.sort_by_key(|m| (m.object.created(), m.object.name().to_owned()));
    let new = members.iter().position(|m| template::same(&m.set.template, &deployment.template));
    let new = new.map(|i| members.remove(i));
    let old = members;

    let mut steps = Vec::new();
    let settled = object.deleting() || {
        let mut act = Act { object, deployment, new, old: &old, steps: &mut steps };
        act.run(&reference, taken)
    };
    let status = status::status(object, deployment, new.as_ref(), &old, now);
    if settled && status::complete(deployment, &status) && !object.deleting() {
        steps.extend(surplus(deployment, &old));
    }
    if let Some(wait) = status::deadline(deployment, &status, now) {
        steps.push(Step::Again(wait));
    }
    // A collision count that a step sets is not overwritten by what was seen before it.
    if status != deployment.status {
        let patch = json!({"status": crate::replicaset::replace(&deployment.status, &status)});
        steps.push(Step::Status { id: Id::of(DEPLOYMENTS, object), merge: Merge::Json, patch });
    }
    steps
}

/// One round of a rollout.
struct Act<'a> {
    object: &'a Object,
    deployment: &'a Deployment,
    new: Option<Member<'a>>,
    old: &'a [Member<'a>],
    steps: &'a mut Vec<Step>,
}

impl Act<'_> {
    /// Adds the steps of this round; true when there are none, that is, nothing but time and pods is waited for.
    fn run(
        &mut self,
        reference: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
        taken: &dyn Fn(&str) -> bool,
    ) -> bool {
        let d = self.deployment;
        let sizes = |old: &[Member<'_>]| old.iter().map(|m| rollout::Set::of(m.set, m.pods.live)).collect::<Vec<_>>();
        let old_sets = sizes(self.old);
        let new_set = self.new.map(|m| rollout::Set::of(m.set, m.pods.live));
        let desired: Vec<_> = self.old.iter().chain(&self.new).map(|m| annotated(m.object, DESIRED)).collect();
        let resized = self.old.iter().chain(&self.new).zip(&desired);
        let resized =
            resized.into_iter().any(|(m, was)| m.set.replicas > 0 && was.is_some_and(|was| was != d.replicas));
        if d.paused || resized {
            if let Some(new) = self.new {
                self.number(&new);
            }
            let most: Vec<_> = self.old.iter().chain(&self.new).map(|m| annotated(m.object, MOST)).collect();
            let sizes = rollout::resize(&old_sets, new_set.as_ref(), &most, d.replicas, d.most());
            let targets: Vec<_> = self.old.iter().chain(&self.new).copied().collect();
            for (member, replicas) in targets.into_iter().zip(sizes) {
                self.scale(&member, replicas);
            }
            return self.steps.is_empty();
        }
        let Some(new) = self.new else {
            self.create(reference, taken, &old_sets);
            return self.steps.is_empty();
        };
        self.number(&new);
        let old_pods: usize = self.old.iter().map(|m| m.pods.all).sum();
        let new_set = rollout::Set::of(new.set, new.pods.live);
        match d.strategy.next(d.replicas, &new_set, &old_sets, old_pods > 0) {
            rollout::Move::New(replicas) => self.scale(&new, replicas),
            rollout::Move::Old(sizes) => {
                for (member, replicas) in self.old.iter().zip(sizes) {
                    self.scale(member, replicas);
                }
            }
            rollout::Move::Stay => {}
        }
        self.steps.is_empty()
    }

    /// The number of the present template: one more than that of any other.
    fn revision(&self) -> i64 {
        let highest = self.old.iter().map(Member::revision).max().unwrap_or(0);
        self.new.map_or(highest + 1, |new| if new.revision() > highest { new.revision() } else { highest + 1 })
    }

    /// Keeps the number of the template, and the annotations that a ReplicaSet shares, where they belong.
    fn number(&mut self, new: &Member<'_>) {
        let revision = self.revision().to_string();
        let mut wanted = shared(self.object);
        wanted.insert(REVISION.into(), revision.clone());
        wanted.retain(|key, value| new.object.annotation(key) != Some(value));
        let min_ready = self.deployment.min_ready;
        if !wanted.is_empty() || new.set.min_ready != min_ready {
            let patch = json!({"metadata": {"annotations": wanted}, "spec": {"minReadySeconds": min_ready}});
            let id = Id::of(REPLICASETS, new.object);
            self.steps.push(Step::Patch { id, merge: Merge::Json, patch });
        }
        if self.object.annotation(REVISION) != Some(&revision) {
            let patch = json!({"metadata": {"annotations": {REVISION: revision}}});
            let id = Id::of(DEPLOYMENTS, self.object);
            // With the status: nobody has asked for anything else, so the generation stays.
            self.steps.push(Step::Status { id, merge: Merge::Json, patch });
        }
    }

    /// Gives a ReplicaSet its size, with the annotations that say for how many pods in all.
    fn scale(&mut self, member: &Member<'_>, replicas: i64) {
        let (desired, most) = (self.deployment.replicas, self.deployment.most());
        let noted = annotated(member.object, DESIRED) == Some(desired) && annotated(member.object, MOST) == Some(most);
        if member.set.replicas == replicas && (noted || replicas == 0) {
            return;
        }
        let patch = json!({
            "metadata": {
                "uid": member.object.uid(),
                "annotations": {DESIRED: desired.to_string(), MOST: most.to_string()},
            },
            "spec": {"replicas": replicas},
        });
        let id = Id::of(REPLICASETS, member.object);
        self.steps.push(Step::Scale { id, from: member.set.replicas, patch });
    }

    /// Makes the ReplicaSet of the present template.
    fn create(
        &mut self,
        reference: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
        taken: &dyn Fn(&str) -> bool,
        old: &[rollout::Set],
    ) {
        let d = self.deployment;
        let old_pods: usize = self.old.iter().map(|m| m.pods.all).sum();
        let collisions = d.status.collision_count.unwrap_or(0);
        let hash = template::hash(&d.template, collisions);
        let name = format!("{}-{hash}", self.object.name());
        if taken(&name) {
            // Another template has the same hash, or a former Deployment's set is on its way out: count on, and the next round has another name.
            let patch = json!({"status": {"collisionCount": collisions + 1}});
            self.steps.push(Step::Status { id: Id::of(DEPLOYMENTS, self.object), merge: Merge::Json, patch });
            return;
        }
        let empty = rollout::Set::default();
        let replicas = match d.strategy.next(d.replicas, &empty, old, old_pods > 0) {
            rollout::Move::New(replicas) => replicas,
            // A new template replaces nothing before it exists.
            rollout::Move::Old(sizes) if matches!(d.strategy, rollout::Strategy::Recreate) => {
                for (member, replicas) in self.old.iter().zip(sizes) {
                    self.scale(member, replicas);
                }
                return;
            }
            _ if old_pods > 0 && matches!(d.strategy, rollout::Strategy::Recreate) => return,
            _ => 0,
        };
        let revision = self.revision().to_string();
        let mut annotations = shared(self.object);
        annotations.insert(REVISION.into(), revision);
        annotations.insert(DESIRED.into(), d.replicas.to_string());
        annotations.insert(MOST.into(), d.most().to_string());
        let mut template = d.template.clone();
        template["metadata"]["labels"][HASH] = hash.clone().into();
        let mut selector = json!(d.selector);
        selector["matchLabels"][HASH] = hash.into();
        let set = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": self.object.namespace(),
                "labels": template["metadata"]["labels"],
                "annotations": annotations,
                "ownerReferences": [reference],
            },
            "spec": {
                "replicas": replicas,
                "minReadySeconds": d.min_ready,
                "selector": selector,
                "template": template,
            },
        });
        let namespace = self.object.namespace().to_owned();
        self.steps.push(Step::Create { kind: REPLICASETS, namespace, object: set });
    }
}

/// The annotations that a ReplicaSet takes over.
fn shared(deployment: &Object) -> BTreeMap<String, String> {
    let all = deployment.meta.annotations.iter().flatten();
    all.filter(|(key, _)| !PRIVATE.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn annotated(object: &Object, key: &str) -> Option<i64> {
    object.annotation(key)?.parse().ok()
}

/// Deletes ReplicaSets of old templates beyond the limit, the oldest first.
fn surplus(deployment: &Deployment, old: &[Member<'_>]) -> Vec<Step> {
    let idle = |m: &&Member<'_>| {
        let seen = m.set.status.observed_generation >= m.object.meta.generation;
        m.set.replicas == 0 && m.pods.all == 0 && m.set.status.replicas == 0 && seen && !m.object.deleting()
    };
    let mut old: Vec<_> = old.iter().filter(idle).collect();
    old.sort_by_key(|m| m.revision());
    let surplus = old.len().saturating_sub(deployment.history);
    let delete = |m: &Member<'_>| Step::Delete {
        id: Id::of(REPLICASETS, m.object),
        uid: m.object.uid().to_owned(),
        propagation: "Background",
    };
    old[..surplus].iter().map(|m| delete(m)).collect()
}

/// A number of seconds as a pause.
fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0))
}
