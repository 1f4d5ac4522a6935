//! What processes may do and use.

use std::fs;

use serde_json::{Value, json};

use crate::{Place, has, pod, script};

const STATUS: &str = "echo uid=$(id -u); echo gid=$(id -g); echo groups=$(id -G); \
    grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; \
    touch /x 2>/dev/null && echo writable; echo masked=$(grep -c ' /proc/' /proc/mounts)";

fn shows(name: &str, context: Value) -> Value {
    script(name, STATUS, json!({"securityContext": context}))
}

#[test]
fn containers() {
    let place = Place::up();
    let profiles = place.instance.root().join("etc/rastos/seccomp");
    fs::create_dir(&profiles).expect("a directory");
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
    fs::write(profiles.join("present.json"), profile.to_string()).expect("a file");
    let localhost = |file: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": file}});
    place.apply(vec![
        pod(
            "rights",
            vec![
                shows("plain", json!({})),
                shows("user", json!({"runAsUser": 1234, "runAsGroup": 2345})),
                shows(
                    "caps",
                    json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}, "readOnlyRootFilesystem": true}),
                ),
                shows("less", json!({"allowPrivilegeEscalation": true, "seccompProfile": {"type": "Unconfined"}})),
                shows("all", json!({"privileged": true})),
                shows("proc", json!({"procMount": "Unmasked"})),
            ],
            json!({}),
        ),
        pod("root", vec![shows("main", json!({"runAsNonRoot": true}))], json!({})),
        pod("profile", vec![shows("main", localhost("absent.json"))], json!({})),
        pod(
            "profiled",
            vec![script("main", "mkdir /x || echo denied", json!({"securityContext": localhost("present.json")}))],
            json!({}),
        ),
    ]);
    let wrote = |name: &str| place.wrote("rights", name);
    let plain = wrote("plain");
    has(&plain, &["uid=0", "NoNewPrivs:1", "Seccomp:2", "writable"]);
    assert!(!plain.contains("masked=0"), "{plain}");
    has(&wrote("user"), &["uid=1234", "gid=2345"]);
    let caps = wrote("caps");
    has(&caps, &["CapBnd:0000000000001000"]);
    assert!(!caps.contains("writable"), "{caps}");
    has(&wrote("less"), &["NoNewPrivs:0", "Seccomp:0"]);
    has(&wrote("all"), &["NoNewPrivs:0", "Seccomp:0", "masked=0"]);
    has(&wrote("proc"), &["NoNewPrivs:1", "masked=0"]);
    place.until("pod/root", ".status.containerStatuses[0].state.waiting.reason", "CreateContainerConfigError");
    place.told("absent.json");
    has(&place.wrote("profiled", "main"), &["denied"]);
}

#[test]
fn pods() {
    let place = Place::up();
    let text = format!("{STATUS}; stat -c fs=%g /dir; echo start=$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)");
    let main = script("main", &text, json!({"volumeMounts": [{"name": "dir", "mountPath": "/dir"}]}));
    place.apply(vec![
        pod(
            "shared",
            vec![main],
            json!({"volumes": [{"name": "dir", "emptyDir": {}}], "securityContext": {
            "runAsUser": 1234, "runAsGroup": 2345, "supplementalGroups": [3456], "fsGroup": 4567,
            "seccompProfile": {"type": "Unconfined"},
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "99"}]}}),
        ),
        pod("root", vec![script("main", "true", json!({}))], json!({"securityContext": {"runAsNonRoot": true}})),
    ]);
    has(
        &place.wrote("shared", "main"),
        &["uid=1234", "gid=2345", "groups=2345 3456 4567", "Seccomp:0", "fs=4567", "start=99"],
    );
    place.until("pod/root", ".status.containerStatuses[0].state.waiting.reason", "CreateContainerConfigError");
}

#[test]
fn resources() {
    let place = Place::up();
    let text = "cd /sys/fs/cgroup; for f in memory.max memory/memory.limit_in_bytes; do test -e $f && echo memory=$(cat $f); done; \
        for f in cpu/cpu.cfs_quota_us cpu.max; do test -e $f && echo quota=$(cat $f | cut -d' ' -f1); done; \
        for f in cpu/cpu.shares cpu.weight; do test -e $f && echo $f=$(cat $f); done; true";
    let main = script(
        "main",
        text,
        json!({"resources": {
        "requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}}),
    );
    place.apply(vec![pod("limited", vec![main], json!({}))]);
    let wrote = place.wrote("limited", "main");
    has(&wrote, &["memory=67108864", "quota=50000"]);
    assert!(wrote.contains("cpu.shares=256") || wrote.contains("cpu.weight=10"), "{wrote}");
}
