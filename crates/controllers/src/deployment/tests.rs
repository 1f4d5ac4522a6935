use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::util::intstr::IntOrString,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{object::Wire, replicaset, step::PODS};

/// An API server, a node and a clock: objects by kind and name, and the rules that plans rely on.
struct World {
    objects: BTreeMap<(String, String), Value>,
    revision: u64,
    now: i64,
    /// Which image never becomes ready.
    broken: Option<String>,
    seed: u64,
}

impl World {
    fn new(deployment: Value, seed: u64) -> Self {
        let objects = BTreeMap::new();
        let mut world = Self { objects, revision: 0, now: 0, broken: None, seed };
        world.put("deployments.apps", deployment);
        world
    }

    fn random(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % below.max(1)
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + self.now).unwrap()
    }

    fn put(&mut self, kind: &str, mut object: Value) -> String {
        self.revision += 1;
        let meta = &mut object["metadata"];
        if meta["name"].is_null() {
            meta["name"] = format!("{}{}", meta["generateName"].as_str().unwrap(), self.revision).into();
        }
        meta["resourceVersion"] = self.revision.to_string().into();
        if meta["uid"].is_null() {
            meta["uid"] = format!("uid-{}", self.revision).into();
            meta["creationTimestamp"] = crate::object::rfc3339(self.time()).into();
            meta["generation"] = 1.into();
        }
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.objects.insert((kind.to_owned(), name.clone()), object);
        name
    }

    fn lifted(&self, kind: &str) -> Vec<Object> {
        let all = self.objects.iter().filter(|((k, _), _)| k == kind);
        all.map(|(_, o)| Object::lift(kind, serde_json::from_value::<Wire>(o.clone()).unwrap())).collect()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Create { kind, object, .. } => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                assert!(!self.objects.contains_key(&(kind.to_string(), name)), "{kind} made twice");
                self.put(&kind, object);
            }
            Step::Patch { id, patch, .. } | Step::Scale { id, patch, .. } | Step::Status { id, patch, .. } => {
                let Some(object) = self.objects.get(&(id.kind.to_string(), id.name)) else { return };
                let mut new = object.clone();
                merge(&mut new, &patch);
                if new["spec"] != object["spec"] {
                    new["metadata"]["generation"] = (new["metadata"]["generation"].as_i64().unwrap() + 1).into();
                }
                self.put(&id.kind, new);
            }
            Step::Delete { id, uid, .. } => {
                let key = (id.kind.to_string(), id.name);
                match self.objects.get_mut(&key) {
                    // Pods take their time.
                    Some(pod) if id.kind == PODS => {
                        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()
                    }
                    Some(other) if other["metadata"]["uid"] == uid => drop(self.objects.remove(&key)),
                    _ => {}
                }
            }
            Step::Again(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn deployment(&self) -> Value {
        self.objects[&("deployments.apps".to_owned(), "web".to_owned())].clone()
    }

    fn deployment_steps(&self) -> Vec<Step> {
        let (sets, pods) = (self.lifted("replicasets.apps"), self.lifted("pods"));
        let count = |s: &Object| {
            let ours: Vec<_> = pods.iter().filter(|p| p.controller().is_some_and(|c| c.uid == s.uid())).collect();
            Pods { live: ours.iter().filter(|p| !p.deleting()).count(), all: ours.len() }
        };
        let sets: Vec<_> = sets.iter().map(|s| (s, count(s))).collect();
        let taken = |name: &str| self.objects.contains_key(&("replicasets.apps".to_owned(), name.to_owned()));
        plan(&self.lifted("deployments.apps")[0], &sets, &taken, self.time())
    }

    fn set_steps(&self) -> Vec<Vec<Step>> {
        let (sets, pods) = (self.lifted("replicasets.apps"), self.lifted("pods"));
        let pods: Vec<_> = pods.iter().collect();
        sets.iter().map(|s| replicaset::plan(s, &pods, None, self.time())).collect()
    }

    fn pods(&self, f: impl Fn(&Value) -> bool) -> Vec<String> {
        let pods = self.objects.iter().filter(|((kind, _), o)| kind == "pods" && f(o));
        pods.map(|((_, name), _)| name.clone()).collect()
    }

    /// Pods that are not on their way out.
    fn live(&self) -> usize {
        self.pods(|p| p["metadata"]["deletionTimestamp"].is_null()).len()
    }

    fn available(&self) -> usize {
        self.pods(|p| p["metadata"]["deletionTimestamp"].is_null() && is_ready(p)).len()
    }

    /// The node: one pod gets ready, or one is gone for good.
    fn node(&mut self) {
        let leaving = self.pods(|p| !p["metadata"]["deletionTimestamp"].is_null());
        let broken = self.broken.clone();
        let starting = self.pods(|p| {
            let image = p["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
            p["metadata"]["deletionTimestamp"].is_null() && !is_ready(p) && image != broken
        });
        let pick = self.random(leaving.len() + starting.len());
        if let Some(name) = leaving.get(pick) {
            self.objects.remove(&("pods".to_owned(), name.clone()));
        } else if let Some(name) = starting.get(pick - leaving.len()) {
            let since = crate::object::rfc3339(self.time());
            let pod = self.objects.get_mut(&("pods".to_owned(), name.clone())).unwrap();
            pod["spec"]["nodeName"] = "n".into();
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
            pod["status"] = json!({"phase": "Running", "conditions": ready});
        }
    }

    /// One thing happens, anywhere; false when nothing is left to happen.
    fn happen(&mut self) -> bool {
        self.now += 1;
        let mut choices = vec![self.deployment_steps()];
        choices.extend(self.set_steps());
        choices.retain(|steps| steps.iter().any(|s| !matches!(s, Step::Again(_))));
        let waiting = self.pods(|p| {
            !p["metadata"]["deletionTimestamp"].is_null()
                || !is_ready(p) && p["spec"]["containers"][0]["image"].as_str() != self.broken.as_deref()
        });
        let pick = self.random(choices.len() + usize::from(!waiting.is_empty()));
        if choices.is_empty() && waiting.is_empty() {
            return false;
        }
        match choices.into_iter().nth(pick) {
            Some(steps) => steps.into_iter().for_each(|step| self.apply(step)),
            None => self.node(),
        }
        true
    }

    fn set_template(&mut self, image: &str) {
        let mut deployment = self.deployment();
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        deployment["metadata"]["generation"] = (deployment["metadata"]["generation"].as_i64().unwrap() + 1).into();
        self.put("deployments.apps", deployment);
    }

    fn settle(&mut self, mut check: impl FnMut(&Self)) {
        for _ in 0..3000 {
            if !self.happen() {
                return;
            }
            check(self);
        }
        panic!("never settles: {:?}", self.deployment_steps());
    }

    fn images(&self) -> BTreeMap<String, usize> {
        let mut images = BTreeMap::new();
        for ((kind, _), pod) in &self.objects {
            if kind == "pods" {
                *images.entry(pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()).or_insert(0) += 1;
            }
        }
        images
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let deployment = self.deployment();
        let conditions = deployment["status"]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|c| c["type"] == kind).unwrap();
        (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
    }
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"][0]["status"] == "True"
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else { return *target = patch.clone() };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn deployment(replicas: i64, strategy: Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": strategy,
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "v1"}]},
            },
        },
    })
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn percentages_round_so_that_a_rollout_can_move_and_no_further() {
    let of = |surge: &str, unavailable: &str, replicas| {
        let percent = |text: &str| Some(IntOrString::String(text.into()));
        let rolling = RollingUpdateDeployment { max_surge: percent(surge), max_unavailable: percent(unavailable) };
        let strategy = DeploymentStrategy { rolling_update: Some(rolling), type_: None };
        rollout::Strategy::of(Some(&strategy), replicas)
    };
    assert_eq!(of("25%", "25%", 10), rollout::Strategy::Rolling { surge: 3, unavailable: 2 });
    assert_eq!(of("25%", "25%", 1), rollout::Strategy::Rolling { surge: 1, unavailable: 0 });
    assert_eq!(of("0%", "10%", 3), rollout::Strategy::Rolling { surge: 0, unavailable: 1 });
    assert_eq!(of("100%", "100%", 3), rollout::Strategy::Rolling { surge: 3, unavailable: 3 });
    assert_eq!(rollout::Strategy::of(None, 4), rollout::Strategy::Rolling { surge: 1, unavailable: 1 });
}

#[test]
fn a_template_and_back_again() {
    let mut world = World::new(deployment(3, rolling(json!(1), json!(0))), 7);
    world.settle(|_| ());
    assert_eq!(world.images(), BTreeMap::from([("v1".into(), 3)]));
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    world.set_template("v2");
    world.settle(|_| ());
    let revision = |world: &World| world.deployment()["metadata"]["annotations"][REVISION].as_str().unwrap().to_owned();
    assert_eq!((world.images(), revision(&world)), (BTreeMap::from([("v2".into(), 3)]), "2".into()));
    // What `kubectl rollout undo` does.
    world.set_template("v1");
    world.settle(|_| ());
    assert_eq!((world.images(), revision(&world)), (BTreeMap::from([("v1".into(), 3)]), "3".into()));
    assert_eq!(world.lifted("replicasets.apps").len(), 2, "the old ReplicaSet is used again");
    let status = world.deployment()["status"].clone();
    assert_eq!(status["updatedReplicas"], 3);
    assert_eq!(status["availableReplicas"], 3);
    assert_eq!(status["observedGeneration"], 3);
    assert!(status["unavailableReplicas"].is_null());
}

#[test]
fn recreate_never_mixes() {
    let mut world = World::new(deployment(3, json!({"type": "Recreate"})), 3);
    world.settle(|_| ());
    world.set_template("v2");
    world.settle(|w| assert!(w.images().len() <= 1, "{:?}", w.images()));
    assert_eq!(world.images(), BTreeMap::from([("v2".into(), 3)]));
}

#[test]
fn paused_rolls_nothing_out_but_scales() {
    let mut world = World::new(deployment(2, rolling(json!(1), json!(0))), 5);
    world.settle(|_| ());
    let mut paused = world.deployment();
    paused["spec"]["paused"] = true.into();
    paused["spec"]["replicas"] = 4.into();
    world.put("deployments.apps", paused);
    world.set_template("v2");
    world.settle(|_| ());
    assert_eq!(world.images(), BTreeMap::from([("v1".into(), 4)]));
    assert_eq!(world.condition("Progressing").1, "DeploymentPaused");
    let mut resumed = world.deployment();
    resumed["spec"]["paused"] = false.into();
    world.put("deployments.apps", resumed);
    world.settle(|_| ());
    assert_eq!(world.images(), BTreeMap::from([("v2".into(), 4)]));
}

#[test]
fn a_broken_template_stops_and_is_late() {
    let mut world = World::new(deployment(4, rolling(json!(1), json!(1))), 11);
    world.settle(|_| ());
    let mut impatient = world.deployment();
    impatient["spec"]["progressDeadlineSeconds"] = 60.into();
    world.put("deployments.apps", impatient);
    world.broken = Some("v2".into());
    world.set_template("v2");
    world.settle(|w| assert!(w.available() >= 3));
    assert!(world.available() >= 3);
    assert!(world.deployment_steps().iter().any(|s| matches!(s, Step::Again(wait) if wait.as_secs() <= 60)));
    world.now += 61;
    world.settle(|_| ());
    assert_eq!(world.condition("Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(world.condition("Available").0, "True");
    world.set_template("v3");
    world.settle(|w| assert!(w.available() >= 3));
    assert_eq!(world.images(), BTreeMap::from([("v3".into(), 4)]));
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn old_templates_are_kept_up_to_the_limit() {
    let mut spec = deployment(1, rolling(json!(1), json!(0)));
    spec["spec"]["revisionHistoryLimit"] = 2.into();
    let mut world = World::new(spec, 1);
    for version in 1..6 {
        world.set_template(&format!("v{version}"));
        world.settle(|_| ());
    }
    let mut images: Vec<_> = world
        .lifted("replicasets.apps")
        .iter()
        .map(|s| ReplicaSet::of(s).unwrap().template["spec"]["containers"][0]["image"].as_str().unwrap().to_owned())
        .collect();
    images.sort();
    assert_eq!(images, ["v3", "v4", "v5"]);
}

#[test]
fn another_template_with_the_same_hash() {
    let mut world = World::new(deployment(1, Value::Null), 1);
    let template = world.deployment()["spec"]["template"].clone();
    let name = format!("web-{}", template::hash(&template, 0));
    let other = json!({"app": "web", "other": "yes"});
    world.put("replicasets.apps", json!({
        "metadata": {"name": name, "namespace": "default", "labels": other},
        "spec": {"replicas": 0, "selector": {"matchLabels": other}, "template": {"metadata": {"labels": other}, "spec": {"x": 1}}},
    }));
    world.settle(|_| ());
    assert_eq!(world.images(), BTreeMap::from([("v1".into(), 1)]));
    assert_eq!(world.deployment()["status"]["collisionCount"], 1);
}

#[test]
fn equal_templates_hash_alike_in_any_order() {
    let one: Value = serde_json::from_str(r#"{"a": 1, "b": {"c": [1, 2], "d": "x"}}"#).unwrap();
    let other: Value = serde_json::from_str(r#"{"b": {"d": "x", "c": [1, 2]}, "a": 1}"#).unwrap();
    assert_eq!(template::hash(&one, 0), template::hash(&other, 0));
    assert_ne!(template::hash(&one, 0), template::hash(&one, 1));
}

fn bound() -> impl Strategy<Value = Value> {
    prop_oneof![(0i64..4).prop_map(|n| json!(n)), (0i64..=100).prop_map(|n| json!(format!("{n}%")))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever the bounds and the order of events: never too many, never too few, and done in the end.
    #[test]
    fn rollouts_keep_their_bounds_and_converge(
        replicas in 0i64..7, surge in bound(), unavailable in bound(), seed: u64, changes in 1usize..4, midway: bool,
    ) {
        let mut world = World::new(deployment(replicas, rolling(surge, unavailable)), seed);
        world.settle(|_| ());
        let Body::Deployment(lifted) = world.lifted("deployments.apps")[0].body.clone() else { unreachable!() };
        let rollout::Strategy::Rolling { surge, unavailable } = lifted.strategy else { unreachable!() };
        let check = |w: &World| {
            assert!(w.live() as i64 <= replicas + surge, "{} pods, at most {}", w.live(), replicas + surge);
            assert!(w.available() as i64 >= replicas - unavailable, "{} available of {replicas} - {unavailable}", w.available());
        };
        for change in 0..changes {
            world.set_template(&format!("change-{change}"));
            if midway && change + 1 < changes {
                for _ in 0..world.random(20) {
                    world.happen();
                    check(&world);
                }
            } else {
                world.settle(check);
            }
        }
        world.settle(check);
        let last = format!("change-{}", changes - 1);
        let expected = (replicas > 0).then_some((last, replicas as usize));
        prop_assert_eq!(world.images(), expected.into_iter().collect::<BTreeMap<_, _>>());
        prop_assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    }

    /// A new size in the middle of a rollout: it still ends with so many pods of the new template.
    #[test]
    fn resized_on_the_way(from in 1i64..8, to in 0i64..8, seed: u64, steps in 0usize..30) {
        let mut world = World::new(deployment(from, rolling(json!("30%"), json!("30%"))), seed);
        world.settle(|_| ());
        world.set_template("v2");
        for _ in 0..steps {
            world.happen();
        }
        let mut resized = world.deployment();
        resized["spec"]["replicas"] = to.into();
        world.put("deployments.apps", resized);
        world.settle(|_| ());
        let expected = (to > 0).then_some(("v2".to_owned(), to as usize));
        prop_assert_eq!(world.images(), expected.into_iter().collect::<BTreeMap<_, _>>());
    }

    #[test]
    fn sizes_sum_up_to_what_is_allowed(
        old in prop::collection::vec(0i64..20, 0..4), new in prop::option::of(0i64..20), to in 0i64..40, surge in 0i64..5,
    ) {
        let set = |replicas: &i64| rollout::Set { replicas: *replicas, ..rollout::Set::default() };
        let (old_sets, new_set): (Vec<_>, _) = (old.iter().map(set).collect(), new.as_ref().map(set));
        let most = vec![None; old.len() + usize::from(new.is_some())];
        let sizes = rollout::resize(&old_sets, new_set.as_ref(), &most, to, to + surge);
        prop_assert!(sizes.iter().all(|s| *s >= 0));
        let active = old.iter().chain(&new).filter(|n| **n > 0).count();
        let total: i64 = sizes.iter().sum();
        match (sizes.len(), active) {
            (0, _) => {}
            (_, 0 | 1) => prop_assert_eq!(total, to),
            _ => prop_assert_eq!(total, if to > 0 { to + surge } else { 0 }),
        }
    }
}
