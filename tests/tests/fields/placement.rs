//! Where pods go, and what they may pull there.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use serde_json::{Value, json};
use tests::{eventually, registry};

use crate::{Place, object, pod, script};

#[test]
fn nodes() {
    let place = Place::up();
    let node = place.read("nodes", ".items[0].metadata.name");
    place.kubectl.ok(&["taint", "node", &node, "keep=out:NoSchedule"]);
    let asks = |name: &str, more: Value| {
        let tolerated = json!([{"key": "keep", "operator": "Equal", "value": "out", "effect": "NoSchedule"}]);
        let mut pod = pod(name, vec![script("main", "true", json!({}))], more);
        if pod["spec"]["tolerations"].is_null() {
            pod["spec"]["tolerations"] = tolerated;
        }
        pod
    };
    let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let linux = json!({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]});
    let other = json!({"key": "kubernetes.io/os", "operator": "In", "values": ["other"]});
    place.apply(vec![
        asks("elsewhere", json!({"schedulerName": "nobody"})),
        asks("tainted", json!({"tolerations": [{"key": "other", "operator": "Exists"}]})),
        asks("endures", json!({"tolerations": [{"key": "keep", "operator": "Exists", "effect": "NoExecute"}]})),
        asks("selects", json!({"nodeSelector": {"no": "such"}})),
        asks("repels", required(json!([{"matchExpressions": [other]}]))),
        asks(
            "names",
            required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["none"]}],
            "matchExpressions": [linux]}])),
        ),
    ]);
    for pod in ["tainted", "selects", "repels", "names", "endures"] {
        place.until(&format!("pod/{pod}"), ".status.conditions[?(@.type==\"PodScheduled\")].reason", "Unschedulable");
    }
    let placed = json!({"nodeName": node, "tolerations": [{"key": "other", "operator": "Exists"}]});
    place.apply(vec![asks("placed", placed)]);
    place.wrote("placed", "main");
    place.apply(vec![
        asks("fits", required(json!([{"matchExpressions": [linux]}]))),
        asks("whatever", json!({"tolerations": [{"key": "keep", "operator": "Exists"}]})),
    ]);
    place.wrote("fits", "main");
    place.wrote("whatever", "main");
    let tried = place.kubectl.ok(&["get", "events", "--field-selector=involvedObject.name=placed", "-o", "wide"]);
    assert!(!tried.contains("FailedScheduling"), "it has its place: {tried}");
    assert_eq!(place.read("pod/elsewhere", ".spec.nodeName"), "", "nobody places it");
}

#[test]
fn eviction() {
    let place = Place::up();
    let node = place.read("nodes", ".items[0].metadata.name");
    let tolerates = |name: &str, seconds: Value| {
        let toleration =
            json!({"key": "end", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        pod(name, vec![script("main", "exec sleep 1000", json!({}))], json!({"tolerations": [toleration]}))
    };
    let mut goes = tolerates("goes", json!(null));
    goes["spec"]["tolerations"] = json!([]);
    place.apply(vec![
        tolerates("stays", json!(null)),
        tolerates("lasts", json!(3000)),
        tolerates("leaves", json!(1)),
        goes,
    ]);
    for name in ["stays", "lasts", "leaves", "goes"] {
        place.until_ready(name);
    }
    place.kubectl.ok(&["taint", "node", &node, "end=now:NoExecute"]);
    for name in ["goes", "leaves"] {
        place.kubectl.ok(&["wait", "--for=delete", &format!("pod/{name}"), "--timeout=20s"]);
    }
    place.told("Marking for deletion Pod fields/leaves");
    let left = place.kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
    assert_eq!(left, "lasts stays");
}

/// A node that nobody runs, with less room than any host. It lives as long as its lease, which is long.
fn lesser_node(place: &Place, name: &str) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"size": "small"}}});
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"renewTime": "2999-01-01T00:00:00.000000Z"}});
    let status = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"},
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let kubectl = place.instance.kubectl("1.36");
    kubectl.clone().input(tests::pods::documents(&[node, lease])).ok(&["apply", "-f", "-"]);
    kubectl.ok(&["patch", "node", name, "--subresource=status", "-p", &status.to_string()]);
}

#[test]
fn preferences() {
    let place = Place::up();
    let node = place.read("nodes", ".items[0].metadata.name");
    lesser_node(&place, "lesser");
    let prefers = |name: &str, terms: Value| {
        let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}});
        pod(name, vec![script("main", "true", json!({}))], json!({"affinity": affinity}))
    };
    let term = |weight: u32, key: &str, value: &str| {
        json!({"weight": weight,
        "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}})
    };
    let (small, host) =
        (|weight| term(weight, "size", "small"), |weight| term(weight, "kubernetes.io/hostname", &node));
    place.apply(vec![
        prefers("indifferent", json!([])),
        prefers("small", json!([small(1)])),
        prefers("rather", json!([small(90), host(10)])),
    ]);
    place.until("pod/indifferent", ".spec.nodeName", &node);
    place.until("pod/small", ".spec.nodeName", "lesser");
    place.until("pod/rather", ".spec.nodeName", "lesser");
    let silent = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}).to_string();
    place.instance.kubectl("1.36").ok(&["patch", "node", "lesser", "--subresource=status", "-p", &silent]);
    let why = place.instance.rast().arg("-n").arg("fields").ok(&["why", "small"]);
    assert!(why.contains("because its node lesser does not answer"), "{why}");
}

/// The registry of the tests behind a password, `user:pass`.
fn guarded() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || pass(stream));
        }
    });
    port
}

fn pass(mut client: TcpStream) -> io::Result<()> {
    let lines = BufReader::new(client.try_clone()?).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    if !head
        .iter()
        .any(|line| line.to_lowercase().starts_with("authorization:") && line.ends_with("Basic dXNlcjpwYXNz"))
    {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(refusal.as_bytes());
    }
    let mut behind = TcpStream::connect(registry())?;
    for line in head.iter().filter(|line| !line.to_lowercase().starts_with("connection:")) {
        write!(behind, "{line}\r\n")?;
    }
    behind.write_all(b"Connection: close\r\n\r\n")?;
    io::copy(&mut behind, &mut client).map(drop)
}

#[test]
fn pull_secrets() {
    let place = Place::up();
    let host = format!("127.0.0.1:{}", guarded());
    let login = json!({"auths": {&host: {"auth": "dXNlcjpwYXNz"}}}).to_string();
    let mut secret = object("Secret", "login", json!({".dockerconfigjson": login}));
    secret["type"] = json!("kubernetes.io/dockerconfigjson");
    let image = format!("{host}/busybox:1");
    let main = json!({"name": "main", "image": image, "command": ["echo", "pulled"]});
    let rast = place.instance.rast().arg("-n").arg("fields");
    place.apply(vec![pod("denied", vec![main.clone()], json!({}))]);
    eventually("the denial is told", || match rast.ok(&["why", "denied"]) {
        why if why.contains(&format!("the registry refuses access to {image}")) => Ok(()),
        why => Err(why),
    });
    place.apply(vec![secret, pod("private", vec![main.clone()], json!({"imagePullSecrets": [{"name": "login"}]}))]);
    assert_eq!(place.wrote("private", "main"), "pulled\n");
    // A secret of the older form, which the pod's account has; the registry is asked again.
    let login = json!({&host: {"auth": "dXNlcjpwYXNz"}}).to_string();
    let mut secret = object("Secret", "older", json!({".dockercfg": login}));
    secret["type"] = json!("kubernetes.io/dockercfg");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "puller"},
        "imagePullSecrets": [{"name": "older"}]});
    let mut again = main;
    again["imagePullPolicy"] = json!("Always");
    place.apply(vec![secret, account, pod("by-account", vec![again.clone()], json!({"serviceAccountName": "puller"}))]);
    assert_eq!(place.wrote("by-account", "main"), "pulled\n");
    place.apply(vec![pod("without", vec![again], json!({}))]);
    eventually("it is denied what others have pulled", || match rast.ok(&["why", "without"]) {
        why if why.contains(&format!("the registry refuses access to {image}")) => Ok(()),
        why => Err(why),
    });
}
