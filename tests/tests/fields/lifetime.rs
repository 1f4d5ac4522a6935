//! When containers start, end and start again.

use serde_json::json;
use tests::eventually;

use crate::{Place, pod, script};

#[test]
fn order_and_end() {
    let place = Place::up();
    let mounts = json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]});
    let always = json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}], "restartPolicy": "Always"});
    let dir = json!([{"name": "d", "emptyDir": {}}]);
    place.apply(vec![
        pod(
            "order",
            vec![script("main", "cat /d/log", mounts.clone())],
            json!({"volumes": dir, "initContainers": [
            script("first", "echo first >> /d/log", mounts.clone()),
            script("beside", "echo beside >> /d/log; while :; do sleep 0.1; done", always),
            script("last", "until grep -q beside /d/log; do sleep 0.1; done; echo last >> /d/log", mounts)]}),
        ),
        pod("fails", vec![script("main", "exit 3", json!({}))], json!({})),
        pod("late", vec![script("main", "exec sleep 1000", json!({}))], json!({"activeDeadlineSeconds": 2})),
        pod(
            "stubborn",
            vec![script(
                "main",
                "trap '' TERM; while :; do sleep 0.1; done",
                json!({"livenessProbe":
            {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}}),
            )],
            json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 1}),
        ),
        pod(
            "gentle",
            vec![script(
                "main",
                "trap 'exit 5' TERM; while :; do sleep 0.1; done",
                json!({"livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 3}}),
            )],
            json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 60}),
        ),
    ]);
    assert_eq!(place.wrote("order", "main"), "first\nbeside\nlast\n");
    place.until("pod/fails", ".status.phase", "Failed");
    place.until("pod/late", ".status.reason", "DeadlineExceeded");
    let restarts = || place.read("pod/stubborn", ".status.containerStatuses[0].restartCount");
    eventually("it is started again", || match restarts().as_str() {
        "" | "0" => Err("none".to_string()),
        _ => Ok(()),
    });
    let ran = |at: &str| place.read("pod/stubborn", &format!(".status.containerStatuses[0].lastState.terminated.{at}"));
    assert_eq!(ran("exitCode"), "137");
    let seconds = |at: &str| -> i64 {
        let time: String = ran(at).chars().filter(char::is_ascii_digit).collect();
        let [hours, minutes, seconds] = [8..10, 10..12, 12..14].map(|r| time[r].parse::<i64>().expect("digits"));
        (hours * 60 + minutes) * 60 + seconds
    };
    let told = ".status.containerStatuses[0].lastState.terminated.exitCode";
    place.until("pod/gentle", told, "5"); // it was asked before it would have been killed
    let took = (seconds("finishedAt") - seconds("startedAt")).rem_euclid(86_400);
    assert!(took < 20, "it took {took} s");
}
