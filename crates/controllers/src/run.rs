//! The loop that all controllers share: one watch a kind, one world, one queue.

use std::{collections::HashMap, future::Future, pin::pin, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{FuturesUnordered, SelectAll},
};
use jiff::Timestamp;
use kube::{
    Api, Client,
    core::ApiResource,
    runtime::{WatchStreamExt, watcher},
};
use tokio::time::Instant;

use crate::{
    account, deployment,
    door::{Door, Outcome, Served},
    events::{Note, Recorder},
    eviction, garbage,
    garbage::Graph,
    leftover,
    node::{self, Node},
    object::{Body, Object, Pod, Wire},
    queue::{Part, Queue, Work},
    replicaset,
    step::{CONFIGMAPS, DEPLOYMENTS, Id, Kind, LEASES, NAMESPACES, NODES, PODS, REPLICASETS, SERVICEACCOUNTS, Step},
    world::{Change, World},
};

/// Plans being carried out at once.
const PARALLEL: usize = 64;
/// News taken in before the next decisions.
const NEWS: usize = 4096;
/// Kinds that nothing is kept of: they own nothing and their owners do not matter.
const IGNORED: [&str; 1] = ["events"];

/// What controllers are told.
#[derive(Clone)]
pub struct Config {
    /// The kinds that are served.
    pub registry: Arc<api::Registry>,
    /// The certificate authority of the API, in PEM, for `kube-root-ca.crt`.
    pub authority: String,
    /// How long after its last word a node counts as unreachable; Kubernetes has 40 s.
    pub grace: Duration,
}

/// Runs all controllers until `shutdown` resolves.
///
/// Guarantees: level-triggered, so that it may be killed at any moment and run again; no decision before all kinds are
/// known; no second decision about a thing while the first is carried out, nor before its answers are known, so that
/// nothing is made twice. Assumes to be the only one running. Faults of the API server are logged and retried.
pub async fn run(client: Client, config: Config, shutdown: impl Future<Output = ()>) {
    let kinds: HashMap<Kind, Served> = config.registry.kinds().iter().filter_map(|k| served(k)).collect();
    let door = Door { client, kinds: Arc::new(kinds) };
    let mut watches = SelectAll::new();
    for (kind, served) in door.kinds.iter().filter(|(kind, _)| !IGNORED.contains(&&***kind)) {
        let api: Api<Wire> = Api::all_with(door.client.clone(), &served.api);
        let kind = kind.clone();
        let watch = watcher(api, watcher::Config::default()).default_backoff();
        let watch = watch.map(move |event| (kind.clone(), event));
        watches.push(watch.boxed());
    }
    let watched: Vec<Kind> = door.kinds.keys().filter(|kind| !IGNORED.contains(&&***kind)).cloned().collect();
    let recorder = Recorder::new(door.client.clone());
    let mut state = State::new(config, Timestamp::now());
    let mut running: FuturesUnordered<BoxFuture<'static, (Work, Outcome)>> = FuturesUnordered::new();
    let mut shutdown = pin!(shutdown);
    let mut known = false;
    loop {
        let tick = state.queue.next_at();
        tokio::select! {
            biased;
            () = &mut shutdown => return,
            Some((work, mut outcome)) = running.next() => {
                // What the garbage collector does is no news of the owner's.
                match work.0 {
                    Part::ReplicaSet | Part::Deployment => outcome.notes.drain(..).for_each(|n| recorder.tell(n)),
                    Part::Eviction => outcome.answers.iter().for_each(|(_, pod)| recorder.tell(Note::evicted(pod))),
                    _ => {}
                }
                state.finish(work, outcome);
            }
            Some((kind, event)) = watches.next() => {
                state.news(&kind, event);
                for _ in 0..NEWS {
                    let Some(Some((kind, event))) = watches.next().now_or_never() else { break };
                    state.news(&kind, event);
                }
            }
            () = async { tokio::time::sleep_until(tick.unwrap_or_else(Instant::now)).await }, if tick.is_some() => {}
        }
        state.queue.tick(Instant::now());
        known = known || state.world.knows(&watched);
        while known
            && running.len() < PARALLEL
            && let Some(work) = state.queue.pop()
        {
            let steps = state.plan(&work, Timestamp::now());
            if steps.is_empty() {
                state.queue.done(work, true, Instant::now());
                continue;
            }
            let door = door.clone();
            running.push(Box::pin(async move {
                let outcome = door.carry_out(steps).await;
                (work, outcome)
            }));
        }
    }
}

fn served(kind: &api::Kind) -> Option<(Kind, Served)> {
    use api::Verb;
    let verbs = [Verb::List, Verb::Watch, Verb::Delete];
    // What is only another form of a kind is seen in that kind.
    if !kind.stored || kind.view.is_some() || !verbs.iter().all(|v| kind.verbs.contains(v)) {
        return None;
    }
    let name =
        if kind.group.is_empty() { kind.plural.clone() } else { format!("{}.{}", kind.plural, kind.group).into() };
    let api = ApiResource {
        group: kind.group.to_string(),
        version: kind.version.to_string(),
        api_version: kind.api_version(),
        kind: kind.kind.to_string(),
        plural: kind.plural.to_string(),
    };
    Some((name, Served { api, namespaced: kind.scope == api::Scope::Namespaced }))
}

struct State {
    config: Config,
    /// Since when leases could be renewed.
    started: Timestamp,
    world: World,
    queue: Queue,
    /// Why the last pod of a ReplicaSet was refused.
    refused: HashMap<Id, String>,
}

impl State {
    fn new(config: Config, started: Timestamp) -> Self {
        let (world, queue) = (World::default(), Queue::default());
        Self { config, started, world, queue, refused: HashMap::new() }
    }

    fn news(&mut self, kind: &Kind, event: Result<watcher::Event<Wire>, watcher::Error>) {
        let changes: Vec<Change> = match event {
            Err(error) => {
                tracing::warn!(%kind, %error, "controllers: watch");
                Vec::new()
            }
            Ok(watcher::Event::Init) => {
                self.world.list_begins(kind);
                Vec::new()
            }
            Ok(watcher::Event::InitApply(wire)) => {
                self.world.listed(kind, Object::lift(kind, wire));
                Vec::new()
            }
            Ok(watcher::Event::InitDone) => self.world.list_ends(kind),
            Ok(watcher::Event::Apply(wire)) => self.world.applied(kind, Object::lift(kind, wire)).into_iter().collect(),
            Ok(watcher::Event::Delete(wire)) => {
                self.world.deleted(kind, &Object::lift(kind, wire)).into_iter().collect()
            }
        };
        for change in &changes {
            self.touch(change);
        }
    }

    fn finish(&mut self, work: Work, outcome: Outcome) {
        for (id, uid) in outcome.doomed {
            if let Some(change) = self.world.doom(&id, &uid) {
                self.touch(&change);
            }
        }
        for (kind, object) in outcome.answers {
            if let Some(change) = self.world.answered(&kind, object) {
                self.touch(&change);
            }
        }
        let stale = matches!(&outcome.error, Some(kube::Error::Api(status)) if status.code == 409);
        if let Some(error) = outcome.error.as_ref().filter(|_| !stale) {
            tracing::warn!(part = ?work.0, namespace = %work.1.namespace, name = %work.1.name, %error, "controllers: act");
        }
        if work.0 == Part::ReplicaSet {
            let before = self.refused.get(&work.1);
            if before != outcome.refused.as_ref() && (outcome.refused.is_some() || outcome.error.is_none()) {
                self.queue.push(work.clone()); // its status tells
                match outcome.refused {
                    Some(message) => drop(self.refused.insert(work.1.clone(), message)),
                    None => drop(self.refused.remove(&work.1)),
                }
            }
        }
        let now = Instant::now();
        if let (Some(wait), None) = (outcome.again, &outcome.error) {
            self.queue.push_later(work.clone(), now + wait);
        }
        self.queue.done(work, outcome.error.is_none(), now);
    }

    /// Queues whatever a change may matter to.
    fn touch(&mut self, (kind, old, new): &Change) {
        let Some(object) = new.as_ref().or(old.as_ref()) else { return };
        let namespace = object.namespace().to_owned();
        let id = Id::of(kind.clone(), object);
        let mut work: Vec<Work> = Vec::new();
        for part in [old, new].into_iter().flatten() {
            for owner in part.owners() {
                let Some(owner) = self.world.whose(&owner.uid) else { continue };
                match &*owner.kind {
                    "replicasets.apps" => {
                        work.push((Part::ReplicaSet, owner.clone()));
                        let set = self.world.get(owner);
                        let above = set.and_then(|s| self.world.whose(&s.controller()?.uid));
                        // A rollout waits for pods to go.
                        let leaves = new.as_ref().is_none_or(|o| o.deleting());
                        work.extend(above.filter(|_| leaves).map(|id| (Part::Deployment, id.clone())));
                    }
                    "deployments.apps" => work.push((Part::Deployment, owner.clone())),
                    _ => {}
                }
                if self.world.get(owner).is_some_and(|o| o.deleting()) {
                    work.push((Part::Garbage, owner.clone()));
                }
            }
        }
        let adopters = match &**kind {
            "pods" => Some((Part::ReplicaSet, REPLICASETS)),
            "replicasets.apps" => Some((Part::Deployment, DEPLOYMENTS)),
            _ => None,
        };
        if let (Some((part, kind)), Some(object)) = (adopters, new)
            && object.controller().is_none()
        {
            work.extend(self.world.all(&kind, Some(&namespace)).map(|o| (part, Id::of(kind.clone(), o))));
        }
        let part = match &**kind {
            "replicasets.apps" => Some((Part::ReplicaSet, id.clone())),
            "deployments.apps" => Some((Part::Deployment, id.clone())),
            "namespaces" => Some((Part::Account, id.clone())),
            "nodes" => Some((Part::Node, id.clone())),
            "pods" => self.node_of(object).is_some_and(Node::ends_pods).then(|| (Part::Eviction, id.clone())),
            "leases.coordination.k8s.io" if namespace == node::LEASES_IN => {
                Some((Part::Node, Id::new(NODES, "", object.name())))
            }
            "configmaps" if object.name() == account::AUTHORITY => {
                Some((Part::Account, Id::new(NAMESPACES, "", &namespace)))
            }
            "serviceaccounts" if object.name() == account::DEFAULT && new.is_none() => {
                Some((Part::Account, Id::new(NAMESPACES, "", &namespace)))
            }
            _ => None,
        };
        work.extend(part);
        if let Body::Node(node) = &object.body
            && node.ends_pods()
        {
            work.extend(self.pods_on(object.name()).map(|pod| (Part::Eviction, pod)));
        }
        if let Body::Pod(pod) = &object.body
            && new.is_some()
        {
            if pod.node.is_some() && self.node_of(object).is_none() {
                self.queue.push_once((Part::Orphan, id.clone()), Instant::now() + self.config.grace);
            }
            if pod.phase == replicaset::Phase::Finished {
                work.push((Part::Ended, Id::new(NAMESPACES, "", &namespace)));
            }
        }
        if *kind == NODES && new.is_none() {
            let due = Instant::now() + self.config.grace;
            for pod in self.pods_on(object.name()).collect::<Vec<_>>() {
                self.queue.push_later((Part::Orphan, pod), due);
            }
        }
        if *kind == NAMESPACES && object.deleting() {
            work.push((Part::Namespace, id.clone()));
        }
        if *kind == NAMESPACES {
            // Its labels decide what its pods may.
            let refused = self.refused.keys().filter(|set| set.namespace == object.name());
            work.extend(refused.map(|set| (Part::ReplicaSet, set.clone())));
        }
        let home = Id::new(NAMESPACES, "", &namespace);
        if new.is_none() && self.world.get(&home).is_some_and(|n| n.deleting()) {
            work.push((Part::Namespace, home));
        }
        match new {
            Some(object) if !object.owners().is_empty() || object.deleting() => work.push((Part::Garbage, id.clone())),
            _ => {}
        }
        if new.as_ref().is_none_or(|o| o.deleting()) {
            work.extend(self.world.dependents(object.uid()).into_iter().map(|(id, _)| (Part::Garbage, id)));
        }
        for work in work {
            self.queue.push(work);
        }
        if new.is_none() {
            self.refused.remove(&id);
        }
    }

    fn plan(&self, (part, id): &Work, now: Timestamp) -> Vec<Step> {
        let world = &self.world;
        let Some(object) = world.get(id) else { return Vec::new() };
        let ends = || world.get(&Id::new(NAMESPACES, "", object.namespace())).is_some_and(|home| home.deleting());
        match part {
            // Nothing can be made any more where everything goes.
            Part::ReplicaSet | Part::Deployment if ends() => Vec::new(),
            Part::ReplicaSet => {
                let pods = world.candidates(&PODS, object);
                replicaset::plan(object, &pods, self.refused.get(id).map(String::as_str), now)
            }
            Part::Deployment => {
                let sets = world.candidates(&REPLICASETS, object).into_iter();
                let sets: Vec<_> = sets.map(|set| (set, self.pods_of(set))).collect();
                let taken = |name: &str| world.get(&Id::new(REPLICASETS, object.namespace(), name)).is_some();
                deployment::plan(object, &sets, &taken, now)
            }
            Part::Garbage => garbage::plan(id, object, world),
            Part::Namespace => match &object.body {
                Body::Namespace(finalizers) if object.deleting() && !finalizers.is_empty() => {
                    vec![Step::Empty { namespace: object.name().to_owned(), now }]
                }
                _ => Vec::new(),
            },
            Part::Account => {
                let at = |kind, name| world.get(&Id::new(kind, object.name(), name)).map(|o| &**o);
                let (account, authority) = (at(SERVICEACCOUNTS, account::DEFAULT), at(CONFIGMAPS, account::AUTHORITY));
                account::plan(object, account, authority, &self.config.authority)
            }
            Part::Node => {
                let lease = world.get(&Id::new(LEASES, node::LEASES_IN, object.name())).map(|o| &**o);
                node::plan(object, lease, self.started, self.config.grace, now)
            }
            Part::Eviction => match self.node_of(object) {
                Some(node) => eviction::plan(object, node, self.started, now),
                None => Vec::new(),
            },
            Part::Orphan => leftover::orphan(object, self.node_of(object).is_some()),
            Part::Ended => leftover::ended(world.all(&PODS, Some(object.name())).map(|pod| &**pod)),
        }
    }

    /// The pods on a node.
    fn pods_on(&self, node: &str) -> impl Iterator<Item = Id> {
        let on_it = move |pod: &&Arc<Object>| matches!(&pod.body, Body::Pod(p) if p.node.as_deref() == Some(node));
        self.world.all(&PODS, None).filter(on_it).map(|pod| Id::of(PODS, pod))
    }

    /// The node that a pod is on.
    fn node_of(&self, pod: &Object) -> Option<&Node> {
        let Body::Pod(Pod { node: Some(name), .. }) = &pod.body else { return None };
        match &self.world.get(&Id::new(NODES, "", name))?.body {
            Body::Node(node) => Some(node),
            _ => None,
        }
    }

    fn pods_of(&self, set: &Object) -> deployment::Pods {
        let runs = |o: &Object| matches!(&o.body, Body::Pod(p) if p.phase < replicaset::Phase::Finished);
        let dependents = self.world.dependents(set.uid());
        let pods: Vec<_> = dependents.iter().filter(|(id, o)| id.kind == PODS && runs(o)).collect();
        deployment::Pods { live: pods.iter().filter(|(_, o)| !o.deleting()).count(), all: pods.len() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wire(value: Value) -> Wire {
        serde_json::from_value(value).unwrap()
    }

    /// The watch may be late: what was made and deleted counts once the answers are in.
    #[test]
    fn nothing_is_done_twice_while_the_watch_is_late() {
        let config = Config { registry: Arc::default(), authority: String::new(), grace: Duration::ZERO };
        let mut state = State::new(config, Timestamp::UNIX_EPOCH);
        let set = |replicas: u32, revision: &str| {
            wire(json!({
                "metadata": {"name": "web", "namespace": "a", "uid": "set", "resourceVersion": revision},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {"metadata": {"labels": {"app": "web"}}},
                },
            }))
        };
        let work = (Part::ReplicaSet, Id::new(REPLICASETS, "a", "web"));
        let plan = |state: &State| -> Vec<Step> {
            let steps = state.plan(&work, Timestamp::UNIX_EPOCH).into_iter();
            steps.filter(|s| matches!(s, Step::Create { .. } | Step::Delete { .. })).collect()
        };
        state.news(&REPLICASETS, Ok(watcher::Event::Apply(set(2, "1"))));
        let steps = plan(&state);
        assert_eq!(steps.len(), 2);
        let mut outcome = Outcome::default();
        for (i, step) in steps.into_iter().enumerate() {
            let Step::Create { kind, mut object, .. } = step else { panic!("{step:?}") };
            let (name, uid, revision) = (format!("web-{i}"), format!("pod-{i}"), (i + 2).to_string());
            object["metadata"]["name"] = name.into();
            object["metadata"]["uid"] = uid.into();
            object["metadata"]["resourceVersion"] = revision.into();
            outcome.answers.push((kind.clone(), Object::lift(&kind, wire(object))));
        }
        state.finish(work.clone(), outcome);
        assert_eq!(plan(&state), []);

        state.news(&REPLICASETS, Ok(watcher::Event::Apply(set(1, "9"))));
        let steps = plan(&state);
        let [Step::Delete { id, uid, .. }] = &steps[..] else { panic!("{steps:?}") };
        let doomed = vec![(id.clone(), uid.clone())];
        state.finish(work.clone(), Outcome { doomed, ..Outcome::default() });
        assert_eq!(plan(&state), []);
    }
}
