//! A long while of pods that come and go, with `rast` and its helper killed now and then: at the end nothing has leaked and
//! memory has not grown. `scripts/soak [SECONDS]` runs it; `make test-all` does, for five minutes.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{
    Instance, eventually,
    host::{end, mounts_below},
    pods::{config_map, container, pod},
};

/// What memory may grow by while nothing that is kept is added: the allocator's own ups and downs.
const SLACK_KIB: u64 = 6 << 10;

#[test]
#[ignore = "long: scripts/soak runs it"]
fn nothing_leaks_and_memory_is_flat() {
    let seconds = std::env::var("RAST_SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(300);
    let half = Duration::from_secs(seconds) / 2;
    let mut instance = Instance::up();
    let idle = mounts_below(instance.root());

    let (began, mut round) = (Instant::now(), 0);
    while began.elapsed() < half {
        round += 1;
        let names = come(&instance, round);
        match round % 3 {
            0 => {
                instance.kill();
                instance.start();
            }
            1 => end(instance.helper().pid),
            _ => {}
        }
        settle(&instance, &names, round);
        go(&instance, &names, round);
    }
    let killed = round;
    instance.nothing_of_pods_is_left(&idle);

    // From here on the same two processes do all of it.
    let (began, mut warm) = (Instant::now(), None);
    while began.elapsed() < half {
        round += 1;
        let names = come(&instance, round);
        settle(&instance, &names, round);
        go(&instance, &names, round);
        if warm.is_none() && began.elapsed() > half / 3 {
            instance.nothing_of_pods_is_left(&idle);
            warm = Some((round, resident(&instance)));
        }
    }
    instance.nothing_of_pods_is_left(&idle);
    let (warm, before) = warm.expect("there was time for it");
    let after = resident(&instance);
    eprintln!("{killed} rounds with kills; {before} KiB at round {warm}, {after} KiB at round {round}");
    assert!(after <= before + before / 10 + SLACK_KIB, "memory grows: {before} KiB, then {after} KiB");
    assert_eq!(instance.rast().ok(&["get", "pods", "-A", "-o", "name"]), "");
}

/// Pods, objects and a Deployment, in all of whose fields the round stands.
fn come(instance: &Instance, round: usize) -> Vec<String> {
    let names: Vec<String> = (0..3).map(|n| format!("pod-{round}-{n}")).collect();
    let mut objects: Vec<Value> =
        names.iter().map(|name| pod(name, "while :; do echo here; sleep 0.2; done")).collect();
    objects.push(config_map(&format!("map-{round}")));
    let template = pod("", "exec sleep 1000")["spec"].clone();
    objects.push(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("deployment-{round}")},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"round": round.to_string()}},
            "template": {"metadata": {"labels": {"round": round.to_string()}}, "spec": template},
        },
    }));
    instance.apply(&objects);
    names
}

fn settle(instance: &Instance, names: &[String], round: usize) {
    for name in names {
        let pod = instance.ready(name);
        assert_eq!(container(&pod)["restartCount"], 0, "{name}");
        eventually("a command runs in it", || {
            let answer = instance.rast().run(&["exec", name, "--", "echo", "here"]);
            if answer.out == "here\n" { Ok(()) } else { Err(answer.err) }
        });
        eventually("it has a log", || {
            let answer = instance.rast().run(&["logs", name, "--tail", "1"]);
            if answer.out == "here\n" { Ok(()) } else { Err(answer.err) }
        });
    }
    eventually("the Deployment is ready", || {
        let status = &instance.get(&format!("deployment/deployment-{round}"))["status"];
        if status["readyReplicas"] == 2 { Ok(()) } else { Err(status.to_string()) }
    });
}

fn go(instance: &Instance, names: &[String], round: usize) {
    let rast = instance.rast();
    let pods: Vec<String> = names.iter().map(|name| format!("pod/{name}")).collect();
    let others = [format!("deployment/deployment-{round}"), format!("configmap/map-{round}")];
    for target in pods.iter().chain(&others) {
        rast.ok(&["delete", target, "--no-wait"]);
    }
    eventually("all pods are gone", || {
        let left = rast.ok(&["get", "pods", "-o", "name"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

/// KiB that `rast` and its helper have for themselves, and their share of the rest.
fn resident(instance: &Instance) -> u64 {
    let of = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("the kernel tells");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    of(instance.pid() as i32) + of(instance.helper().pid)
}
