//! Ephemeral containers: as `kubectl debug` adds them.

use std::process::Stdio;

use serde_json::{Value, json};
use tests::registry;

use crate::{Place, has, image, object, pod, script, with};

/// A pod that runs, with a volume and these containers in it from now on.
fn debugged(place: &Place, containers: Vec<Value>) {
    let dir = json!([{"name": "dir", "emptyDir": {}}]);
    place.apply(vec![
        object("ConfigMap", "map", json!({"MAPPED": "yes"})),
        pod("broken", vec![script("main", "exec sleep 1000", json!({}))], json!({"volumes": dir})),
    ]);
    place.until_ready("broken");
    let patch = json!({"spec": {"ephemeralContainers": containers}}).to_string();
    place.kubectl.ok(&["patch", "pod", "broken", "--subresource=ephemeralcontainers", "-p", &patch]);
}

fn ended(place: &Place, container: &str, field: &str, value: &str) {
    let status = format!(".status.ephemeralContainerStatuses[?(@.name==\"{container}\")].state.{field}");
    place.until("pod/broken", &status, value);
}

#[test]
fn ephemeral_containers() {
    let place = Place::up();
    let absent =
        json!({"name": "absent", "image": format!("{}/busybox-zstd:1", registry()), "imagePullPolicy": "Never"});
    let looks = json!({"name": "looks", "image": image(), "command": ["sh", "-c"],
        "args": ["echo $SET $MAPPED; pwd; id -u; touch /dir/x && echo mounted; echo -n noted > /note"],
        "env": [{"name": "SET", "value": "set"}], "envFrom": [{"configMapRef": {"name": "map"}}], "workingDir": "/bin",
        "securityContext": {"runAsUser": 1234}, "terminationMessagePath": "/note",
        "volumeMounts": [{"name": "dir", "mountPath": "/dir"}]});
    let fails = script("fails", "echo last; exit 3", json!({"terminationMessagePolicy": "FallbackToLogsOnError"}));
    debugged(&place, vec![absent, looks, fails.clone()]);
    ended(&place, "looks", "terminated.exitCode", "0");
    let wrote = place.kubectl.ok(&["logs", "broken", "-c", "looks"]);
    has(&wrote, &["set yes", "/bin", "1234", "mounted"]);
    ended(&place, "looks", "terminated.message", "noted");
    ended(&place, "fails", "terminated.message", "last\n");
    ended(&place, "absent", "waiting.reason", "ErrImageNeverPull");
    place.until_ready("broken");
    let restarts = place.read("pod/broken", ".status.ephemeralContainerStatuses[*].restartCount");
    assert_eq!(restarts, "0 0 0", "none is started again");
    let change = with(fails, json!({"image": "other"}));
    let patch = json!({"spec": {"ephemeralContainers": [change]}}).to_string();
    let refused =
        place.kubectl.fails(1, &["patch", "pod", "broken", "--subresource=ephemeralcontainers", "-p", &patch]);
    assert!(refused.contains("spec.ephemeralContainers[2]"), "{refused}");
}

#[test]
fn ephemeral_streams() {
    let place = Place::up();
    let asks = "read line; echo got $line; read more || echo end";
    debugged(
        &place,
        vec![
            script("once", asks, json!({"stdin": true, "stdinOnce": true})),
            script("tty", "test -t 1 && echo terminal", json!({"tty": true})),
        ],
    );
    place.until("pod/broken", ".status.ephemeralContainerStatuses[?(@.name==\"once\")].started", "true");
    let mut once = place.kubectl.command(&["attach", "-i", "broken", "-c", "once"]);
    let mut once = once.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kubectl");
    std::io::Write::write_all(&mut once.stdin.take().expect("piped"), b"hello\n").expect("kubectl reads");
    ended(&place, "once", "terminated.exitCode", "0");
    assert_eq!(place.kubectl.ok(&["logs", "broken", "-c", "once"]), "got hello\nend\n");
    once.wait().expect("kubectl ends");
    ended(&place, "tty", "terminated.exitCode", "0");
    assert_eq!(place.kubectl.ok(&["logs", "broken", "-c", "tty"]).trim_end(), "terminal");
    // The whole way that a person goes, with what busybox answers.
    let debug = ["debug", "broken", "--image", &image(), "--profile=general", "--attach", "--", "echo", "by kubectl"];
    let said = place.kubectl.ok(&debug);
    assert!(said.contains("by kubectl"), "{said}");
}
