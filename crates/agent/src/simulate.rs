//! Deterministic simulation of a pod's life: effects and time are faked, every order of results is tried.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    decide::{self, Step},
    observe::{Ended, Failure, ImageId, Observed, Outcome, State, essence},
    pod::{self, Role},
};

const T0: Timestamp = Timestamp::UNIX_EPOCH;

/// A pod, what the agent knows of it, and a world that does what it is told.
struct World {
    want: Pod,
    seen: Observed,
    now: Timestamp,
    /// Exit codes by container, one an instance; an instance without one runs until it is stopped.
    script: BTreeMap<String, Vec<i32>>,
    /// Effects that fail: one flag each, then none.
    faults: Vec<bool>,
    /// Which of the outcomes that are due comes first.
    order: Vec<usize>,
    pending: Vec<Outcome>,
    starts: BTreeMap<String, Vec<Timestamp>>,
    exits: BTreeMap<String, Timestamp>,
    /// Stop signals are ignored: only SIGKILL ends a container.
    deaf: bool,
    /// Probes of these kinds fail.
    sick: Vec<pod::ProbeKind>,
    deleted: bool,
}

impl World {
    fn new(spec: Value) -> Self {
        let want = json!({"metadata": {"uid": "u", "name": "p", "namespace": "ns"}, "spec": spec});
        Self {
            want: serde_json::from_value(want).unwrap(),
            seen: Observed { since: Some(T0), ..Observed::default() },
            now: T0,
            script: BTreeMap::new(),
            faults: vec![],
            order: vec![],
            pending: vec![],
            starts: BTreeMap::new(),
            exits: BTreeMap::new(),
            deaf: false,
            sick: vec![],
            deleted: false,
        }
    }

    fn delete(&mut self, grace: i64) {
        self.want.metadata.deletion_timestamp = Some(pod::after(self.now, pod::seconds(grace)).into());
        self.want.metadata.deletion_grace_period_seconds = Some(grace);
    }

    fn running(&self, name: &str) -> bool {
        matches!(self.seen.container(name).state, State::Running { .. })
    }

    /// One decision and what follows from it; false when nothing is left to do now.
    fn step(&mut self) -> bool {
        let plan = decide::next(&self.want, &self.seen, self.now);
        let idle = plan.steps.is_empty();
        for step in plan.steps {
            assert!(!self.seen.doing.contains(&step.work()) || matches!(step, Step::Hurry { .. }), "{step:?} twice");
            self.check(&step);
            self.seen.begin(&step, self.now);
            self.carry_out(step);
        }
        if self.pending.is_empty() {
            return !idle;
        }
        let pick = self.order.pop().unwrap_or(0) % self.pending.len();
        let outcome = self.pending.remove(pick);
        self.seen.learn(&self.want.clone(), outcome, self.now);
        true
    }

    /// Steps and passes the time until nothing more happens, at most to `until` seconds.
    fn run(&mut self, until: i64) {
        let end = Timestamp::from_second(until).unwrap();
        for _ in 0..20_000 {
            if self.step() {
                continue;
            }
            match decide::next(&self.want, &self.seen, self.now).again {
                Some(at) if at <= end => {
                    assert!(at > self.now, "the time to ask again has passed");
                    self.now = at;
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("does not settle: {:?}", decide::next(&self.want, &self.seen, self.now));
    }

    fn check(&self, step: &Step) {
        match step {
            Step::Start { container, attempt } => {
                assert!(!self.running(container), "{container} runs already");
                assert!(decide::over(&self.want, &self.seen, self.now).is_none(), "started when over");
                let known = self.seen.container(container);
                let started = self.starts.get(container).map_or(0, Vec::len);
                if started > 0 && !matches!(known.state, State::Waiting) {
                    assert_eq!(*attempt, known.attempt + 1, "attempts are counted");
                }
                for (role, c) in pod::containers(&self.want).take_while(|(_, c)| c.name != *container) {
                    let before = self.seen.container(&c.name);
                    match role {
                        Role::Init => assert!(
                            matches!(&before.state, State::Exited(e) if e.code == Some(0)),
                            "{container} starts before {} has succeeded",
                            c.name
                        ),
                        Role::Sidecar if started == 0 => {
                            let once = self.starts.contains_key(&c.name);
                            assert!(once, "{container} starts before sidecar {}", c.name);
                        }
                        _ => {}
                    }
                }
                if let (Some(exit), true) = (self.exits.get(container), known.crashes > 1) {
                    let least = Duration::from_secs(10 << (known.crashes - 2).min(5)).min(Duration::from_secs(300));
                    assert!(self.now >= pod::after(*exit, least), "{container} is started again too soon");
                }
            }
            Step::Stop { container, .. } => {
                let (role, _) = pod::container(&self.want, container).unwrap();
                if role == Role::Sidecar && decide::over(&self.want, &self.seen, self.now).is_some() {
                    let mains = pod::containers(&self.want).filter(|(r, _)| *r == Role::Main);
                    assert!(mains.into_iter().all(|(_, c)| !self.running(&c.name)), "a sidecar ends first");
                }
            }
            Step::Kill { container } => {
                let stop = self.seen.container(container).stop.as_ref().expect("is being stopped");
                assert!(self.now >= stop.deadline, "killed within its grace");
            }
            Step::Clean => {
                let names = pod::containers(&self.want).map(|(_, c)| &c.name);
                assert!(names.into_iter().all(|n| !self.running(n)), "cleaned while something runs");
            }
            Step::Delete => assert!(self.seen.cleaned, "deleted before it was cleaned"),
            _ => {}
        }
    }

    fn carry_out(&mut self, step: Step) {
        let fault = self.faults.pop().unwrap_or(false);
        let failed = || Failure { reason: "Fault", message: "injected".into() };
        let ok = if fault { Err(failed()) } else { Ok(()) };
        let outcome = match step {
            Step::Sandbox => Outcome::Sandbox(ok.map(|()| vec!["10.0.0.2".parse().unwrap()])),
            Step::Volumes => Outcome::Volumes(ok),
            Step::Pull { container } => {
                let reason = Failure { reason: "ErrImagePull", message: "injected".into() };
                let name = pod::container(&self.want, &container).and_then(|(_, c)| c.image.clone()).unwrap();
                let id = ImageId { name, id: "sha256:1".into() };
                Outcome::Image(container, ok.map(|()| id).map_err(|_| reason))
            }
            Step::Start { container, attempt } => {
                if fault {
                    let result = Err(failed());
                    self.pending.push(Outcome::Started { name: container, attempt, hash: 1, result });
                    return;
                }
                self.starts.entry(container.clone()).or_default().push(self.now);
                let c = pod::container(&self.want, &container).unwrap().1;
                let hash = decide::definition(c);
                self.pending.push(Outcome::Started { name: container.clone(), attempt, hash, result: Ok(self.now) });
                let script = self.script.get(&container).and_then(|s| s.get(attempt as usize)).copied();
                if let Some(code) = script {
                    self.exit(&container, attempt, Some(code));
                }
                return;
            }
            Step::PostStart { container, attempt } => Outcome::Hooked(container, attempt, ok.map_err(|f| f.message)),
            Step::Stop { container, .. } => {
                if !self.deaf {
                    self.exit(&container, self.seen.container(&container).attempt, Some(143));
                }
                Outcome::Signalled(container)
            }
            Step::Hurry { .. } => return,
            Step::Kill { container } => {
                self.exit(&container, self.seen.container(&container).attempt, Some(137));
                Outcome::Killed(container)
            }
            Step::Probe { container, kind, .. } => {
                let attempt = self.seen.container(&container).attempt;
                let well = !self.sick.contains(&kind);
                Outcome::Probed(container, attempt, kind, Some(well))
            }
            Step::Forget { container, attempt } => Outcome::Forgotten(container, attempt),
            Step::Report(_) if self.deleted => Outcome::Absent,
            Step::Report(status) => match ok {
                Ok(()) => {
                    self.want.status = Some(*status.clone());
                    Outcome::Reported(Ok(essence(&status)))
                }
                Err(_) => Outcome::Reported(Err(failed())),
            },
            Step::Clean => Outcome::Cleaned(ok),
            Step::Delete => Outcome::Deleted(ok),
        };
        self.pending.push(outcome);
    }

    fn exit(&mut self, name: &str, attempt: u32, code: Option<i32>) {
        self.exits.insert(name.into(), self.now);
        let ended = Ended {
            attempt,
            since: self.starts.get(name).and_then(|s| s.last()).copied(),
            at: self.now,
            code,
            signal: None,
            reason: if code == Some(0) { "Completed" } else { "Error" }.into(),
            message: String::new(),
        };
        self.pending.push(Outcome::Exited(name.into(), ended));
    }

    fn phase(&self) -> &str {
        self.want.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("none")
    }

    fn status(&self, name: &str) -> Value {
        let status = self.want.status.as_ref().unwrap();
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        serde_json::to_value(all.into_iter().find(|c| c.name == name)).unwrap()
    }

    fn condition(&self, name: &str) -> String {
        let conditions = self.want.status.as_ref().unwrap().conditions.as_ref().unwrap();
        conditions.iter().find(|c| c.type_ == name).unwrap().status.clone()
    }
}

#[test]
fn one_container_runs() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    let plan = decide::next(&w.want, &w.seen, T0);
    let works: Vec<_> = plan.steps.iter().map(Step::work).collect();
    assert_eq!(works.len(), 4, "sandbox, volumes, image and first status side by side: {works:?}");
    w.run(60);
    assert_eq!((w.phase(), w.condition("Ready").as_str()), ("Running", "True"));
    assert_eq!(w.status("c")["ready"], true);
    w.delete(30);
    w.run(61);
    assert!(w.seen.gone);
    assert_eq!(w.status("c")["state"]["terminated"]["exitCode"], 143);
}

#[test]
fn restart_policies() {
    for (policy, codes, phase, starts) in [
        ("Never", vec![0], "Succeeded", 1),
        ("Never", vec![3], "Failed", 1),
        ("OnFailure", vec![1, 0], "Succeeded", 2),
        ("OnFailure", vec![1, 1], "Running", 3),
        ("Always", vec![0, 0], "Running", 3),
    ] {
        let mut w = World::new(json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}));
        w.script.insert("c".into(), codes.clone());
        w.run(300);
        assert_eq!((w.phase(), w.starts["c"].len()), (phase, starts), "{policy} {codes:?}");
        assert_eq!(w.seen.cleaned, phase != "Running");
        assert!(w.seen.container("c").remains.len() <= 1);
    }
}

#[test]
fn what_is_started_again_at_once_is_shown_as_it_ended() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.script.insert("c".into(), vec![1]);
    while !matches!(w.seen.container("c").state, State::Exited(_)) {
        assert!(w.step());
    }
    let status = json!(crate::status::of(&w.want, &w.seen, w.now).container_statuses);
    assert_eq!((&status[0]["state"]["terminated"]["exitCode"], &status[0]["lastState"]), (&json!(1), &json!({})));
    w.run(1);
    assert_eq!(w.status("c")["lastState"]["terminated"]["exitCode"], 1);
}

/// Its end was seen before its start was told, and is told after it.
#[test]
fn what_ends_at_once_tells_when_it_started() {
    let mut w = World::new(json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}));
    while !w.running("c") {
        assert!(w.step());
    }
    let exit = runtime::Exit { code: Some(1), signal: None, oom: false, at: std::time::SystemTime::UNIX_EPOCH };
    let ended = crate::message::ended(0, None, &exit, String::new());
    w.seen.learn(&w.want.clone(), Outcome::Exited("c".into(), ended), w.now);
    w.run(1);
    let terminated = &w.status("c")["state"]["terminated"];
    assert_eq!((&terminated["exitCode"], &terminated["startedAt"]), (&json!(1), &json!("1970-01-01T00:00:00Z")));
}

#[test]
fn the_generation_that_was_acted_on_is_told() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.run(1);
    w.want.metadata.generation = Some(7);
    w.run(2);
    let status = serde_json::to_value(&w.want.status).unwrap();
    assert_eq!(status["observedGeneration"], 7);
    let conditions = status["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|condition| condition["observedGeneration"] == 7), "{conditions:?}");
}

#[test]
fn back_off_doubles_and_says_so() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.script.insert("c".into(), vec![1; 20]);
    w.run(1000);
    let seconds: Vec<_> = w.starts["c"].iter().map(|t| t.as_second()).collect();
    assert_eq!(seconds, [0, 0, 10, 30, 70, 150, 310, 610, 910]);
    let status = w.status("c");
    assert_eq!(status["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(status["state"]["waiting"]["message"], "back-off 5m0s restarting failed container=c pod=p_ns(u)");
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(status["restartCount"], 8);
}

#[test]
fn a_failed_init_container_ends_the_pod() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "i"}],
        "containers": [{"name": "c", "image": "i"}]});
    let mut w = World::new(spec);
    w.script.insert("i".into(), vec![1]);
    w.run(10);
    assert_eq!(w.phase(), "Failed");
    assert!(!w.starts.contains_key("c"));
    assert_eq!(w.status("c")["state"]["waiting"]["reason"], "PodInitializing");
}

#[test]
fn a_container_whose_image_changes_runs_the_new_one() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.run(5);
    w.want.spec.as_mut().unwrap().containers[0].image = Some("j".into());
    w.run(60);
    let status = w.status("c");
    assert_eq!((&status["image"], &status["restartCount"]), (&json!("j"), &json!(1)));
    assert!(w.running("c"));
}

#[test]
fn a_deaf_container_is_killed_at_the_end_of_its_grace() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.deaf = true;
    w.run(5);
    w.delete(20);
    w.run(24);
    assert!(w.running("c"));
    w.run(26);
    assert!(w.seen.gone);
    assert_eq!(w.exits["c"].as_second(), 25);
}

#[test]
fn a_second_delete_without_grace_hurries() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.deaf = true;
    w.run(5);
    w.delete(600);
    w.run(10);
    w.delete(0);
    w.run(11);
    assert!(w.seen.gone);
    assert_eq!(w.exits["c"].as_second(), 10);
}

#[test]
fn a_second_delete_with_less_grace_hurries() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.deaf = true;
    w.run(5);
    w.delete(600);
    w.run(10);
    w.delete(20);
    w.run(30);
    assert!(w.seen.gone);
    assert_eq!(w.exits["c"].as_second(), 25, "20 seconds after the first");
}

#[test]
fn an_image_that_has_gone_is_pulled_again() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.run(5);
    let ended = Ended {
        at: w.now,
        code: Some(1),
        attempt: 0,
        since: None,
        signal: None,
        reason: String::new(),
        message: String::new(),
    };
    w.seen.learn(&w.want, Outcome::Exited("c".into(), ended), w.now);
    w.seen.begin(&Step::Start { container: "c".into(), attempt: 1 }, w.now);
    let gone = Failure { reason: "CreateContainerError", message: "gone".into() };
    w.seen.learn(&w.want, Outcome::NoImage("c".into(), 1, gone), w.now);
    let steps = decide::next(&w.want, &w.seen, w.now).steps;
    assert!(steps.contains(&Step::Pull { container: "c".into() }), "{steps:?}");
    w.run(60);
    assert!(w.running("c"));
}

#[test]
fn a_probe_that_could_not_be_made_says_nothing() {
    let probe = json!({"exec": {"command": ["x"]}, "failureThreshold": 1});
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i", "livenessProbe": probe}]}));
    w.run(5);
    w.seen.learn(&w.want, Outcome::Probed("c".into(), 0, pod::ProbeKind::Liveness, None), w.now);
    assert_eq!(w.seen.container("c").failing, None);
    w.seen.learn(&w.want, Outcome::Probed("c".into(), 0, pod::ProbeKind::Liveness, Some(false)), w.now);
    assert!(w.seen.container("c").failing.is_some());
}

#[test]
fn cleaning_waits_for_a_refresh_and_not_for_a_pull() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.run(5);
    assert!(w.seen.begin_refresh());
    w.seen.begin(&Step::Pull { container: "c".into() }, w.now);
    w.delete(30);
    w.run(20);
    assert!(!w.seen.cleaned && !w.seen.begin_refresh(), "one refresh at a time");
    w.pending.push(Outcome::Refreshed);
    w.run(30);
    assert!(w.seen.gone);
    assert!(!w.seen.begin_refresh(), "nothing is made where all was removed");
}

#[test]
fn probes_gate_and_kill() {
    let probe = json!({"exec": {"command": ["x"]}, "periodSeconds": 5, "failureThreshold": 3});
    let spec = json!({"containers": [{"name": "c", "image": "i", "startupProbe": probe,
        "livenessProbe": probe, "readinessProbe": probe}]});
    let mut w = World::new(spec.clone());
    w.run(1);
    assert_eq!((w.condition("Ready").as_str(), w.status("c")["started"].as_bool()), ("True", Some(true)));
    w.sick = vec![pod::ProbeKind::Readiness];
    w.run(30);
    assert_eq!((w.condition("Ready").as_str(), w.phase()), ("False", "Running"));
    assert_eq!(w.starts["c"].len(), 1, "an unready container is not restarted");
    w.sick = vec![pod::ProbeKind::Liveness];
    w.run(60);
    assert!(w.starts["c"].len() > 1, "a container that fails its liveness probe is");

    let mut w = World::new(spec);
    w.sick = vec![pod::ProbeKind::Startup];
    w.run(9);
    assert_eq!(w.status("c")["started"], false);
    assert!(!w.seen.container("c").probes.contains_key(&pod::ProbeKind::Readiness), "waits for the startup probe");
}

#[test]
fn a_deadline_and_an_eviction_end_the_pod() {
    let spec = json!({"activeDeadlineSeconds": 20, "containers": [{"name": "c", "image": "i"}]});
    let mut w = World::new(spec);
    w.run(19);
    assert_eq!(w.phase(), "Running");
    w.run(21);
    let status = w.want.status.as_ref().unwrap();
    assert_eq!((w.phase(), status.reason.as_deref()), ("Failed", Some("DeadlineExceeded")));

    let spec =
        json!({"activeDeadlineSeconds": 20, "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let mut w = World::new(spec);
    w.run(25);
    let reason = w.want.status.as_ref().unwrap().reason.as_deref();
    assert_eq!((w.phase(), reason), ("Failed", Some("DeadlineExceeded")), "its containers end, but not by themselves");

    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.run(5);
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi.".into();
    w.seen.evicted = Some(Failure { reason: "Evicted", message });
    w.run(6);
    let status = w.want.status.as_ref().unwrap();
    assert_eq!((w.phase(), status.reason.as_deref()), ("Failed", Some("Evicted")));
    assert!(status.message.as_ref().unwrap().contains("1Mi"));
    assert!(w.seen.cleaned && !w.seen.gone, "the object stays");
}

#[test]
fn pulls_back_off() {
    let mut w = World::new(json!({"containers": [{"name": "c", "image": "i"}]}));
    w.faults = vec![true; 2];
    w.faults.extend([false; 2]); // Popped from the end: sandbox and volumes succeed, then the pull fails.
    w.run(1);
    assert_eq!(w.status("c")["state"]["waiting"]["reason"], "ImagePullBackOff");
    assert_eq!(w.phase(), "Pending");
    w.run(100);
    assert_eq!(w.phase(), "Running");
}

#[test]
fn an_unknown_exit_code_is_not_invented() {
    let mut w = World::new(json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}));
    w.run(1);
    w.exit("c", 0, None);
    w.run(2);
    assert_eq!(w.status("c")["state"]["terminated"]["exitCode"], -1);
    assert_eq!(w.phase(), "Failed");
}

fn containers(prefix: &'static str, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Value>> {
    proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), count).prop_map(move |all| {
        let probe = json!({"exec": {"command": ["x"]}});
        let one = |(n, (sidecar, startup, hook)): (usize, &(bool, bool, bool))| {
            let mut c = json!({"name": format!("{prefix}{n}"), "image": "i"});
            if prefix == "i" && *sidecar {
                c["restartPolicy"] = "Always".into();
            }
            if *startup && (prefix == "c" || *sidecar) {
                c["startupProbe"] = probe.clone();
                c["readinessProbe"] = probe.clone();
            }
            if *hook && prefix == "c" {
                c["lifecycle"] = json!({"postStart": {"exec": {"command": ["x"]}}});
            }
            c
        };
        all.iter().enumerate().map(one).collect()
    })
}

fn world() -> impl Strategy<Value = World> {
    let codes = proptest::collection::vec(prop_oneof![Just(0), Just(1)], 0..4);
    let scripts = proptest::collection::vec(codes, 6);
    let policy = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    let luck = (proptest::collection::vec(any::<bool>(), 0..12), proptest::collection::vec(0..8usize, 0..60));
    (containers("i", 0..3), containers("c", 1..4), scripts, policy, luck, any::<bool>()).prop_map(
        |(init, main, scripts, policy, (faults, order), deaf)| {
            let names: Vec<String> =
                init.iter().chain(&main).map(|c| c["name"].as_str().unwrap().to_string()).collect();
            let sidecar = |name: &str| init.iter().any(|c| c["name"] == name && c["restartPolicy"] == "Always");
            let ends: Vec<bool> = names.iter().map(|n| n.starts_with('i') && !sidecar(n)).collect();
            let mut w = World::new(json!({"restartPolicy": policy, "initContainers": init, "containers": main}));
            // An init container has to end, or nothing after it is seen.
            for ((name, mut script), ends) in names.into_iter().zip(scripts).zip(ends) {
                if ends {
                    script.extend([0; 30]);
                }
                w.script.insert(name, script);
            }
            (w.faults, w.order, w.deaf) = (faults, order, deaf);
            w
        },
    )
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let spec = serde_json::to_string(&self.want.spec).unwrap_or_default();
        write!(f, "{spec} script {:?} faults {:?} order {:?}", self.script, self.faults, self.order)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever fails and in whatever order results come: in the end there is nothing left to do.
    #[test]
    fn settles(mut w in world()) {
        w.run(2_000);
        prop_assert_eq!(decide::next(&w.want, &w.seen, w.now).steps, vec![]);
        prop_assert!(w.phase() != "none");
        if matches!(w.phase(), "Succeeded" | "Failed") {
            prop_assert!(w.seen.cleaned);
        }
    }

    /// A pod deleted at any moment goes, and leaves nothing.
    #[test]
    fn deleted_at_any_moment(mut w in world(), steps in 0..60usize, grace in 0..40i64) {
        for _ in 0..steps {
            if !w.step() {
                break;
            }
        }
        w.delete(grace);
        w.run(w.now.as_second() + 1000);
        prop_assert!(w.seen.gone && w.seen.cleaned, "{:?}", w.seen);
    }
}
