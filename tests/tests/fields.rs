//! Every served field, seen from inside its pod. `api::support` names these tests by field, and `make test-fields`
//! requires each of them to fail when the field is ignored.

#[path = "fields/debugging.rs"]
mod debugging;
#[path = "fields/environment.rs"]
mod environment;
#[path = "fields/host.rs"]
mod host;
#[path = "fields/lifetime.rs"]
mod lifetime;
#[path = "fields/placement.rs"]
mod placement;
#[path = "fields/probes.rs"]
mod probes;
#[path = "fields/process.rs"]
mod process;
#[path = "fields/security.rs"]
mod security;
#[path = "fields/volumes.rs"]
mod volumes;
#[path = "fields/workloads.rs"]
mod workloads;

use serde_json::{Value, json};
use tests::{Client, Instance, eventually, registry};

/// An instance with a namespace where everything is allowed.
struct Place {
    kubectl: Client,
    instance: Instance,
}

impl Place {
    fn up() -> Self {
        let instance = Instance::up();
        let kubectl = instance.kubectl("1.36");
        kubectl.ok(&["create", "namespace", "fields"]);
        kubectl.ok(&["label", "namespace", "fields", "pod-security.kubernetes.io/enforce=privileged"]);
        Self { kubectl: kubectl.arg("--namespace").arg("fields"), instance }
    }

    #[track_caller]
    fn apply(&self, objects: Vec<Value>) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl.clone().input(list.to_string()).ok(&["apply", "-f", "-"]);
    }

    /// What a JSONPath gives of an object, e.g. `pod/a` and `.status.phase`.
    fn read(&self, object: &str, path: &str) -> String {
        self.kubectl.run(&["get", object, "-o", &format!("jsonpath={{{path}}}")]).out
    }

    /// Waits until a JSONPath gives this.
    #[track_caller]
    fn until(&self, object: &str, path: &str, value: &str) {
        eventually(&format!("{object} {path} is {value}"), || {
            let now = self.read(object, path);
            if now == value { Ok(()) } else { Err(now) }
        });
    }

    fn until_ready(&self, pod: &str) {
        self.until(&format!("pod/{pod}"), ".status.conditions[?(@.type==\"Ready\")].status", "True");
    }

    /// What a container of a pod wrote, once the pod succeeded.
    #[track_caller]
    fn wrote(&self, pod: &str, container: &str) -> String {
        self.until(&format!("pod/{pod}"), ".status.phase", "Succeeded");
        self.kubectl.ok(&["logs", pod, "-c", container])
    }

    /// Waits for an event that contains this.
    #[track_caller]
    fn told(&self, text: &str) {
        eventually(&format!("an event with {text:?}"), || {
            let events = self.kubectl.ok(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
            if events.contains(text) { Ok(()) } else { Err(events) }
        });
    }
}

fn image() -> String {
    format!("{}/busybox:1", registry())
}

/// A container that runs a shell script.
fn script(name: &str, text: &str, more: Value) -> Value {
    with(json!({"name": name, "image": image(), "command": ["sh", "-c", text]}), more)
}

/// A pod that is not started again, unless `more` says so.
fn pod(name: &str, containers: Vec<Value>, more: Value) -> Value {
    let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": containers});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": with(spec, more)})
}

fn object(kind: &str, name: &str, data: Value) -> Value {
    let field = if kind == "Secret" { "stringData" } else { "data" };
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, field: data})
}

fn with(mut object: Value, more: Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

/// A place on this host where nobody listens, for a moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

#[track_caller]
fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "no line {line:?} in:\n{text}");
    }
}

#[test]
fn named_tests_exist() {
    let this = Client::new(std::env::current_exe().expect("a test has a path"));
    let list = this.ok(&["--list"]);
    for (definition, fields) in api::support::tables() {
        for (field, support) in *fields {
            if let api::support::Support::Served(test) = support {
                let line = format!("{test}: test");
                assert!(list.lines().any(|l| l == line), "{definition}.{field} names {test}, which does not exist");
            }
        }
    }
}
