//! What a pod shares with its host, and what it is called.

use std::fs;

use serde_json::json;

use crate::{Place, has, pod, script};

#[test]
fn namespaces() {
    let place = Place::up();
    let main = script("main", "for n in net pid ipc; do echo $n $(readlink /proc/self/ns/$n); done", json!({}));
    place.apply(vec![
        pod("own", vec![main.clone()], json!({})),
        pod("host", vec![main], json!({"hostNetwork": true, "hostPID": true, "hostIPC": true})),
    ]);
    let (own, host) = (place.wrote("own", "main"), place.wrote("host", "main"));
    for name in ["net", "pid", "ipc"] {
        let ours = fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
        let line = format!("{name} {}", ours.display());
        has(&host, &[&line]);
        assert!(!own.contains(&line), "{own}");
    }
}

#[test]
fn names() {
    let place = Place::up();
    let main = script("main", "hostname; cat /etc/hosts; echo --; cat /etc/resolv.conf", json!({}));
    place.apply(vec![pod("names", vec![main], json!({
        "hostname": "named", "hostAliases": [{"ip": "10.9.8.7", "hostnames": ["friend", "pal"]}], "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.1.2.3"], "searches": ["example.test"], "options": [{"name": "ndots", "value": "3"}]},
    }))]);
    let wrote = place.wrote("names", "main");
    has(&wrote, &["named", "10.9.8.7\tfriend\tpal"]);
    assert!(wrote.ends_with("--\nsearch example.test\nnameserver 10.1.2.3\noptions ndots:3\n"), "{wrote}");
}
