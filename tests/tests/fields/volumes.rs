//! Every kind of volume, and how it is mounted.

use std::fs;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use tests::eventually;

use crate::{Place, has, object, pod, script};

/// Prints mode and content of every file below these directories.
const SHOW: &str = "for d in $0 $@; do find -L $d -type f ! -path '*/..*' | sort | while read f; do \
    echo $f $(stat -L -c %a $f) $(cat $f); done; done";

fn shown(volumes: Vec<Value>) -> Value {
    let names: Vec<String> = volumes.iter().map(|v| format!("/v/{}", v["name"].as_str().expect("named"))).collect();
    let mounts: Vec<Value> = volumes
        .iter()
        .map(|v| json!({"name": v["name"], "mountPath": format!("/v/{}", v["name"].as_str().expect("named"))}))
        .collect();
    let main = script(
        "main",
        SHOW,
        json!({"args": names, "volumeMounts": mounts,
        "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}}}),
    );
    let other = script("other", "true", json!({"resources": {"limits": {"cpu": "300m", "memory": "64Mi"}}}));
    pod("show", vec![main, other], json!({"volumes": volumes, "automountServiceAccountToken": false}))
}

#[test]
fn projections() {
    let place = Place::up();
    let items = json!([{"key": "a", "path": "x/a", "mode": 0o400}, {"key": "b", "path": "y"}]);
    let cpu = json!({"containerName": "other", "resource": "limits.cpu", "divisor": "1m"});
    let told = json!([{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "cpu", "mode": 0o400, "resourceFieldRef": cpu}]);
    place.apply(vec![
        object("ConfigMap", "map", json!({"a": "ma", "b": "mb", "c": "mc"})),
        object("Secret", "secret", json!({"a": "sa", "b": "sb", "c": "sc"})),
        shown(vec![
            json!({"name": "map", "configMap": {"name": "map", "items": items, "defaultMode": 0o440}}),
            json!({"name": "nomap", "configMap": {"name": "none", "optional": true}}),
            json!({"name": "secret", "secret": {"secretName": "secret", "items": items, "defaultMode": 0o440}}),
            json!({"name": "nosecret", "secret": {"secretName": "none", "optional": true}}),
            json!({"name": "told", "downwardAPI": {"items": told, "defaultMode": 0o440}}),
            json!({"name": "all", "projected": {"defaultMode": 0o440, "sources": [
                {"configMap": {"name": "map", "items": [{"key": "a", "path": "m"}]}},
                {"configMap": {"name": "none", "optional": true}},
                {"secret": {"name": "secret", "items": [{"key": "a", "path": "s"}]}},
                {"secret": {"name": "none", "optional": true}},
                {"downwardAPI": {"items": [{"path": "d", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}),
        ]),
    ]);
    let wrote = place.wrote("show", "main");
    let want = [
        "/v/map/x/a 400 ma",
        "/v/map/y 440 mb",
        "/v/secret/x/a 400 sa",
        "/v/secret/y 440 sb",
        "/v/told/cpu 400 300",
        "/v/told/name 440 show",
        "/v/all/d 440 show",
        "/v/all/m 440 ma",
        "/v/all/s 440 sa",
    ];
    assert_eq!(wrote.lines().collect::<Vec<_>>(), want);
}

#[test]
fn tokens() {
    let place = Place::up();
    place.kubectl.ok(&["create", "serviceaccount", "robot"]);
    let token = json!({"path": "token", "audience": "vault", "expirationSeconds": 700});
    let read = "echo; cut -d. -f2 /t/token | tr '_-' '/+' | base64 -d || true";
    let main = script("main", read, json!({"volumeMounts": [{"name": "t", "mountPath": "/t"}]}));
    let looks = script("main", "ls /var/run/secrets/kubernetes.io/serviceaccount 2>/dev/null || echo none", json!({}));
    place.apply(vec![
        pod(
            "token",
            vec![main],
            json!({"serviceAccountName": "robot",
            "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": token}]}}]}),
        ),
        pod("with", vec![looks.clone()], json!({"serviceAccount": "robot"})),
        pod("without", vec![looks], json!({"automountServiceAccountToken": false})),
    ]);
    let claims = place.wrote("token", "main");
    assert!(claims.contains("vault") && claims.contains("system:serviceaccount:fields:robot"), "{claims}");
    let number = |key: &str| -> i64 {
        let from = claims.split(&format!("\"{key}\":")).nth(1).unwrap_or_else(|| panic!("no {key} in {claims}"));
        from.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
    };
    assert_eq!(number("exp") - number("iat"), 700);
    has(&place.wrote("with", "main"), &["token", "ca.crt", "namespace"]);
    assert_eq!(place.read("pod/with", ".spec.serviceAccountName"), "robot", "its old name");
    assert!(place.wrote("without", "main").ends_with("none\n"));
}

#[test]
fn mounts() {
    let place = Place::up();
    let shared = place.instance.root().join("shared");
    let made = place.instance.root().join("made");
    fs::create_dir(&shared).expect("a directory");
    let none: Option<&str> = None;
    mount(Some(&shared), &shared, none, MsFlags::MS_BIND, none).expect("bind");
    mount(none, &shared, none, MsFlags::MS_SHARED, none).expect("share");
    let text = "touch /ro/x 2>/dev/null || echo read-only; echo one > /sub/f; echo two > /expr/f; \
        cat /dir/part/f /dir/mounts/f; mount | grep ' /mem ' | grep -o size=[0-9]*k; \
        touch /made/x; until test -e /shared/in/new; do sleep 0.1; done; echo seen";
    let main = script(
        "main",
        text,
        json!({
        "env": [{"name": "SELF", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": [
            {"name": "dir", "mountPath": "/dir"}, {"name": "dir", "mountPath": "/ro", "readOnly": true},
            {"name": "dir", "mountPath": "/sub", "subPath": "part"},
            {"name": "dir", "mountPath": "/expr", "subPathExpr": "$(SELF)"},
            {"name": "mem", "mountPath": "/mem"}, {"name": "made", "mountPath": "/made"},
            {"name": "shared", "mountPath": "/shared", "mountPropagation": "HostToContainer"}]}),
    );
    place.apply(vec![pod(
        "mounts",
        vec![main],
        json!({"volumes": [
            {"name": "dir", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "made", "hostPath": {"path": made, "type": "DirectoryOrCreate"}},
            {"name": "shared", "hostPath": {"path": shared}}]}),
    )]);
    let up = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(
            "the pod wrote to the host",
            || if made.join("x").exists() { Ok(()) } else { Err("nothing".into()) },
        );
        fs::create_dir(shared.join("in")).expect("a directory");
        mount(Some("new"), &shared.join("in"), Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
        fs::write(shared.join("in/new"), "").expect("a file");
        place.wrote("mounts", "main")
    }));
    let _not_mounted = umount2(&shared.join("in"), MntFlags::MNT_DETACH);
    umount2(&shared, MntFlags::MNT_DETACH).expect("unmount");
    match up {
        Ok(wrote) => assert_eq!(wrote, "read-only\none\ntwo\nsize=1024k\nseen\n"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
