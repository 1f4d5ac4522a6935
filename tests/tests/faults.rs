//! What may happen to a host at any moment, and what must not come of it.

use std::{io::Write as _, process::Stdio, thread, time::Duration};

use nix::{
    sys::{
        prctl::set_child_subreaper,
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};
use serde_json::{Value, json};
use tests::{
    Dice, Instance, eventually,
    host::{alive, end, mounts_below},
    pods::{config_map, container, documents, pod},
};

/// Prints 1, 2, 3 and so on, so that a lost or repeated line shows.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";

/// Ends with 7 once told to.
const END_WITH_7: &str = "until [ -e /tmp/end ]; do sleep 0.1; done; exit 7";

/// What the API says of an exit code that the kernel no longer tells.
const UNKNOWN: i64 = -1;

fn counted(instance: &Instance) -> usize {
    let log = instance.rast().ok(&["logs", "count"]);
    for (number, line) in (1..).zip(log.lines()) {
        assert_eq!(line, number.to_string(), "a line is lost or repeated");
    }
    log.lines().count()
}

/// The pod `count` is what it was: same process, never restarted, its log goes on, commands run in it.
fn goes_on(instance: &Instance, process: i32, printed: usize) -> usize {
    eventually("a command runs in it", || {
        let answer = instance.rast().run(&["exec", "count", "--", "echo", "here"]);
        if answer.out == "here\n" { Ok(()) } else { Err(answer.err) }
    });
    let pod = instance.ready("count");
    assert_eq!(instance.first_process(&pod), process);
    assert_eq!(container(&pod)["restartCount"], 0);
    eventually("its log goes on", || {
        let now = counted(instance);
        if now > printed { Ok(now) } else { Err(format!("{now} lines")) }
    })
}

fn exit_code(instance: &Instance, name: &str) -> i64 {
    eventually(&format!("{name} has ended"), || {
        let pod = instance.get(&format!("pod/{name}"));
        container(&pod)["state"]["terminated"]["exitCode"].as_i64().ok_or_else(|| pod["status"].to_string())
    })
}

#[test]
fn containers_outlive_rast_and_its_helper() {
    let mut instance = Instance::up();
    let mut ends = pod("ends", END_WITH_7);
    ends["spec"]["restartPolicy"] = json!("Never");
    let mut unseen = ends.clone();
    unseen["metadata"]["name"] = json!("unseen");
    instance.apply(&[pod("count", COUNT), ends]);
    let process = instance.first_process(&instance.ready("count"));
    instance.ready("ends");
    let printed = goes_on(&instance, process, 0);

    let second = instance.command().output().expect("rast starts");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {}", instance.pid())), "{said}");

    instance.kill();
    assert!(alive(process));
    instance.start();
    let printed = goes_on(&instance, process, printed);

    let helper = instance.helper();
    end(helper.pid);
    assert!(alive(process));
    let printed = goes_on(&instance, process, printed);
    assert_ne!(instance.helper().pid, helper.pid);
    instance.rast().ok(&["exec", "ends", "--", "touch", "/tmp/end"]);
    let code = exit_code(&instance, "ends");
    assert!([7, UNKNOWN].contains(&code), "the exit code {code} is invented");

    instance.apply(&[unseen]);
    let ended = instance.first_process(&instance.ready("unseen"));
    let helper = instance.helper().pid;
    // Orphans come to us, so that we know when the kernel has forgotten one.
    set_child_subreaper(true).expect("we may");
    instance.kill();
    [helper, ended].into_iter().for_each(end);
    waitpid(Pid::from_raw(ended), None).expect("it is ours");
    instance.start();
    goes_on(&instance, process, printed);
    assert_eq!(exit_code(&instance, "unseen"), UNKNOWN, "nobody can know the exit code");
}

#[test]
fn a_reboot_starts_again_what_shall_run_always() {
    let mut instance = Instance::up();
    let mut once = pod("once", "sleep 1000");
    once["spec"]["restartPolicy"] = json!("Never");
    let maps: Vec<Value> = (0..10).map(|n| config_map(&format!("map-{n}"))).collect();
    instance.apply(&[&[pod("always", "sleep 1000"), once], maps.as_slice()].concat());
    for name in ["always", "once"] {
        instance.ready(name);
    }

    instance.reboot();
    instance.start();
    eventually("what shall always run has started again", || {
        // Until the node looks, the API tells what was before.
        let again = instance.ready("always");
        if container(&again)["restartCount"] == 1 { Ok(()) } else { Err(again["status"].to_string()) }
    });
    let lost = exit_code(&instance, "once");
    assert_eq!(lost, UNKNOWN, "nobody can know the exit code");
    assert_eq!(instance.get("pod/once")["status"]["phase"], "Failed");
    for map in maps {
        let name = map["metadata"]["name"].as_str().expect("a name");
        assert_eq!(instance.get(&format!("configmap/{name}"))["data"], map["data"]);
    }
}

#[test]
fn ctrl_c_at_any_moment_is_made_good_by_the_next_start() {
    let mut instance = Instance::prepared();
    // At once; when its run directory is there; when it has begun; when the API serves; while pods start.
    for (moment, signal) in [
        ("", Signal::SIGINT),
        ("run/rastos", Signal::SIGTERM),
        ("run/rastos/settings.json", Signal::SIGTERM),
        ("etc/rastos/kubeconfig.yaml", Signal::SIGINT),
    ] {
        let place = instance.root().join(moment);
        let _from_before = std::fs::remove_file(&place);
        let mut child = instance.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("rast starts");
        eventually("the moment comes", || match place.exists() {
            true => Ok(()),
            false => Err(moment.to_owned()),
        });
        kill(Pid::from_raw(child.id() as i32), signal).expect("it runs");
        let ended = child.wait().expect("it ends");
        // Before it has begun it may be ended by the signal itself.
        assert!(ended.success() || !moment.contains('.'), "{ended} at {moment}");
    }
    instance.start();
    let idle = mounts_below(instance.root());
    let names = ["a", "b", "c", "d"];
    instance.apply(&names.map(|name| pod(name, "sleep 1000")));
    kill(Pid::from_raw(instance.pid() as i32), Signal::SIGINT).expect("it runs");
    instance.wait();
    instance.start();
    for name in names {
        instance.ready(name);
    }
    instance.rast().ok(&["delete", "pod", "--all"]);
    instance.nothing_of_pods_is_left(&idle);
}

#[test]
fn twenty_kills_at_random_lose_nothing_acknowledged() {
    let mut dice = Dice::seeded();
    let mut instance = Instance::up();
    let idle = mounts_below(instance.root());
    let (mut made, mut deleted) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let objects = [config_map(&format!("map-{round}")), pod(&format!("pod-{round}"), "sleep 1000")];
        let mut apply = instance.rast().command(&["apply", "-f", "-"]);
        let mut apply = apply.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("rast");
        let mut input = apply.stdin.take().expect("piped");
        input.write_all(documents(&objects).as_bytes()).expect("it reads");
        drop(input);
        let leaving = made.iter().find(|target: &&String| target.starts_with("pod/")).cloned();
        let delete = leaving.map(|target| {
            let mut delete = instance.rast().command(&["delete", &target, "--no-wait"]);
            made.retain(|other| *other != target);
            (target, delete.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("rast"))
        });
        let moment = Duration::from_millis(dice.below(1000));
        #[expect(clippy::disallowed_methods, reason = "waits for nothing: the moment of the kill is what is tried")]
        thread::sleep(moment);
        instance.kill();
        let out = apply.wait_with_output().expect("it ends").stdout;
        let acknowledged = String::from_utf8_lossy(&out).into_owned();
        made.extend(acknowledged.lines().filter_map(|line| line.strip_suffix(" created")).map(str::to_owned));
        if let Some((target, mut delete)) = delete
            && delete.wait().expect("it ends").success()
        {
            deleted.push(target);
        }
        instance.start();
    }
    eprintln!("acknowledged: {made:?}; deleted: {deleted:?}");
    for target in &made {
        match target.strip_prefix("pod/") {
            Some(name) => assert_eq!(container(&instance.ready(name))["restartCount"], 0, "{name}"),
            None => assert!(!instance.get(target).is_null(), "{target} is lost"),
        }
    }
    for target in &deleted {
        eventually("what was deleted goes", || match instance.get(target) {
            Value::Null => Ok(()),
            left => Err(left.to_string()),
        });
    }
    instance.rast().ok(&["delete", "pod", "--all"]);
    instance.nothing_of_pods_is_left(&idle);
}
