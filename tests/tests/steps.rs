//! `kill -9` of `rast` and of its helper at every step of starting and stopping pods: nothing acknowledged is lost, and
//! nothing leaks. A few steps, evenly spread; `RAST_TEST_STEPS` says how many (`make test-all`: 100 of each process).

use std::{io::Write as _, process::Stdio};

use serde_json::Value;
use tests::{
    Instance, eventually,
    host::mounts_below,
    pods::{config_map, container, documents, pod},
    steps::{Seen, Steps},
};

/// Which process is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Rast,
    Helper,
}

impl Victim {
    fn follow(self, instance: &Instance, fatal: Option<usize>) -> Steps {
        match self {
            Victim::Rast => Steps::follow(instance.pid() as i32, false, fatal),
            Victim::Helper => Steps::follow(instance.helper().pid, true, fatal),
        }
    }
}

#[test]
fn rast_killed_at_any_step_is_made_good() {
    at_each_step_of_starting_and_stopping(Victim::Rast);
}

#[test]
fn the_helper_killed_at_any_step_is_made_good() {
    at_each_step_of_starting_and_stopping(Victim::Helper);
}

fn at_each_step_of_starting_and_stopping(victim: Victim) {
    let rounds = std::env::var("RAST_TEST_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let mut instance = Instance::up();
    let idle = mounts_below(instance.root());
    let whole = |name: &str| {
        let steps = victim.follow(&instance, None);
        Round::new(name).run(&instance, &steps);
        steps.end().steps.len()
    };
    // The first pulls the image, the second shows how many steps there are.
    whole("first");
    let all = whole("second");
    assert!(all > 20, "only {all} steps");

    for round in 0..rounds {
        let fatal = 1 + round * all / rounds;
        let mut pod = Round::new(&format!("{round}-{fatal}"));
        let steps = victim.follow(&instance, Some(fatal));
        pod.run(&instance, &steps);
        let Seen { steps, killed } = steps.end();
        eprintln!("{victim:?}: step {fatal} of {all}: {:?}, killed: {killed}: {pod:?}", steps.last());
        if victim == Victim::Rast && killed {
            instance.kill();
            instance.start();
        }
        pod.holds(&instance, victim);
    }
    instance.nothing_of_pods_is_left(&idle);
}

/// One start and one stop of a pod, up to the moment the process is killed.
#[derive(Debug)]
struct Round {
    name: String,
    /// `KIND/NAME` of what the API said it has made.
    made: Vec<String>,
    /// Whether the API said that it would delete the pod; none if it was not asked.
    deleted: Option<bool>,
}

impl Round {
    fn new(name: &str) -> Self {
        Self { name: format!("pod-{name}"), made: Vec::new(), deleted: None }
    }

    fn run(&mut self, instance: &Instance, steps: &Steps) {
        let (rast, target) = (instance.rast(), format!("pod/{}", self.name));
        let mut apply = rast.command(&["apply", "-f", "-"]);
        let mut apply = apply.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("rast");
        let objects = [config_map(&self.name), pod(&self.name, "exec sleep 1000")];
        // It may have ended before it has read all.
        let _ended = apply.stdin.take().expect("piped").write_all(documents(&objects).as_bytes());
        let said = apply.wait_with_output().expect("it ends").stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        self.made = said.lines().filter_map(|line| line.strip_suffix(" created")).map(str::to_owned).collect();
        eventually("the pod is ready or the process dead", || {
            let answer = rast.run(&["get", &target, "-o", "json"]);
            let pod: Value = serde_json::from_str(&answer.out).unwrap_or_default();
            let over = steps.ended() || container(&pod)["ready"] == true;
            if over { Ok(()) } else { Err(format!("{}{}", pod["status"], answer.err)) }
        });
        if steps.ended() {
            return;
        }
        self.deleted = Some(rast.run(&["delete", &target, "--no-wait"]).code == 0);
        eventually("the pod is gone or the process dead", || {
            let over = steps.ended() || rast.run(&["get", &target]).code == 4;
            if over { Ok(()) } else { Err("there".to_owned()) }
        });
    }

    /// What was acknowledged holds, now that all run again.
    fn holds(&self, instance: &Instance, victim: Victim) {
        let target = format!("pod/{}", self.name);
        for made in self.made.iter().filter(|made| **made != target) {
            assert!(!instance.get(made).is_null(), "{made} is lost");
        }
        if self.made.contains(&target) && self.deleted.is_none() {
            let pod = instance.ready(&self.name);
            let restarts = container(&pod)["restartCount"].as_u64();
            assert!(victim == Victim::Helper || restarts == Some(0), "{target} was started again: {restarts:?}");
        }
        if self.deleted != Some(true) {
            let _never_made = instance.rast().run(&["delete", &target, "--no-wait"]);
        }
        eventually(&format!("{target} goes"), || match instance.get(&target) {
            Value::Null => Ok(()),
            left => Err(left["status"].to_string()),
        });
    }
}
