//! The plugin as a CNI runtime calls it: operation in the environment, configuration on standard input.

mod common;

use common::*;
use network::{
    Network,
    cni::{self, Environment, Output},
};
use serde_json::{Value, json};

/// A runtime that knows one container, as `cnitool` does.
struct Runtime {
    config: Value,
    environment: Environment,
}

impl Runtime {
    fn new(dir: &std::path::Path, pod: &Namespace) -> Self {
        let list = cni::conflist("pods", &config(dir, "t", "10.77.0.0/24"));
        let mut config = list["plugins"][0].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        config["name"] = list["name"].clone();
        let environment = [
            ("CNI_CONTAINERID", "cnitool-1".to_owned()),
            ("CNI_NETNS", pod.path().display().to_string()),
            ("CNI_IFNAME", "net1".to_owned()),
            ("CNI_PATH", "/opt/cni/bin".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        Self { config, environment }
    }

    fn call(&self, command: &str, also: Value) -> Output {
        let mut environment = self.environment.clone();
        environment.insert("CNI_COMMAND".into(), command.into());
        let mut config = self.config.clone();
        config.as_object_mut().unwrap().extend(also.as_object().unwrap().clone());
        cni::main(&environment, config.to_string().as_bytes())
    }

    fn ok(&self, command: &str, also: Value) -> Value {
        let output = self.call(command, also);
        assert_eq!(output.code, 0, "{command}: {}", output.stdout);
        if output.stdout.is_empty() { Value::Null } else { serde_json::from_str(&output.stdout).unwrap() }
    }

    fn fails(&self, command: &str, also: Value, code: u64) -> String {
        error(self.call(command, also), code)
    }
}

fn error(output: Output, code: u64) -> String {
    let answer: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((output.code, answer["code"].as_u64()), (1, Some(code)), "{answer}");
    assert!(["1.0.0", "1.1.0"].contains(&answer["cniVersion"].as_str().unwrap()));
    answer["msg"].as_str().unwrap().to_owned()
}

#[test]
fn add_check_del() {
    host(async |world| {
        let dir = tempfile::tempdir().unwrap();
        let pod = Namespace::new();
        let runtime = Runtime::new(dir.path(), &pod);
        let ports =
            json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
        let result = runtime.ok("ADD", ports.clone());
        assert_eq!(result["cniVersion"], "1.1.0");
        assert_eq!(result["interfaces"][1]["name"], "net1");
        assert_eq!(result["interfaces"][1]["sandbox"], pod.path().display().to_string());
        assert_eq!(result["ips"], json!([{"interface": 1, "address": "10.77.0.1/32", "gateway": "169.254.1.1"}]));
        assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]));
        let shown: Value = serde_json::from_str(&pod.within(|| run("ip", "-j link show net1"))).unwrap();
        assert_eq!(shown[0]["address"], result["interfaces"][1]["mac"]);
        pod.serve("0.0.0.0:80");
        assert_eq!(world.ask(&format!("{NODE}:8080")).unwrap(), WORLD);

        runtime.ok("CHECK", json!({"prevResult": result}));
        runtime.fails("CHECK", json!({}), 7);
        let mut other = result.clone();
        other["ips"][0]["address"] = "10.77.0.9/32".into();
        runtime.fails("CHECK", json!({"prevResult": other}), 102);
        ip("route del 10.77.0.1");
        runtime.fails("CHECK", json!({"prevResult": result}), 5);
        assert_eq!(runtime.ok("ADD", ports), result, "again is the same answer, and repairs");
        runtime.ok("CHECK", json!({"prevResult": result}));
        pod.within(|| ip("addr flush dev net1"));
        runtime.fails("CHECK", json!({"prevResult": result}), 5);

        // A call in process sees what the plugin did.
        let network = network::Routed::open(config(dir.path(), "t", "10.77.0.0/24")).await.unwrap();
        assert_eq!(network.attachments().await.unwrap()[0].request.id, "cnitool-1");
        assert_eq!(runtime.ok("DEL", json!({"prevResult": result})), Value::Null);
        runtime.ok("DEL", json!({}));
        assert!(network.attachments().await.unwrap().is_empty());
        runtime.fails("CHECK", json!({"prevResult": result}), 3);
        network.teardown().await.unwrap();
    });
}

#[test]
fn del_without_namespace() {
    host(async |_| {
        let dir = tempfile::tempdir().unwrap();
        let pod = Namespace::new();
        let mut runtime = Runtime::new(dir.path(), &pod);
        runtime.ok("ADD", json!({}));
        drop(pod);
        runtime.environment.remove("CNI_NETNS");
        runtime.ok("DEL", json!({}));
        assert!(!run("ip", "-o link").contains("t_"));
    });
}

#[test]
fn gc_keeps_the_valid() {
    host(async |_| {
        let dir = tempfile::tempdir().unwrap();
        let pods = [Namespace::new(), Namespace::new()];
        let mut runtimes = pods.each_ref().map(|pod| Runtime::new(dir.path(), pod));
        runtimes[1].environment.insert("CNI_CONTAINERID".into(), "cnitool-2".into());
        runtimes.iter().for_each(|runtime| drop(runtime.ok("ADD", json!({}))));
        let valid = json!({"cni.dev/valid-attachments": [
            {"containerID": "cnitool-2", "ifname": "net1"},
            {"containerID": "cnitool-1", "ifname": "net2"},
            {"containerID": "never", "ifname": "net1"},
        ]});
        runtimes[0].ok("GC", valid);
        let network = network::Routed::open(config(dir.path(), "t", "10.77.0.0/24")).await.unwrap();
        let left = network.attachments().await.unwrap();
        assert_eq!(left.iter().map(|a| a.request.id.as_str()).collect::<Vec<_>>(), ["cnitool-2"]);
        runtimes[0].fails("GC", json!({}), 7);
    });
}

#[test]
fn status_says_when_there_is_no_room() {
    host(async |_| {
        let dir = tempfile::tempdir().unwrap();
        let pod = Namespace::new();
        let mut runtime = Runtime::new(dir.path(), &pod);
        runtime.config["podRanges"] = json!(["10.77.0.5/32"]);
        runtime.ok("STATUS", json!({}));
        runtime.ok("ADD", json!({}));
        runtime.fails("STATUS", json!({}), 50);
        runtime.environment.insert("CNI_CONTAINERID".into(), "other".into());
        runtime.fails("ADD", json!({}), 100);
    });
}

#[test]
fn errors_have_their_codes() {
    host(async |_| {
        let dir = tempfile::tempdir().unwrap();
        let pod = Namespace::new();
        let runtime = Runtime::new(dir.path(), &pod);
        let before = host_state();
        assert!(runtime.fails("ADD", json!({"cniVersion": "0.2.0"}), 1).contains("0.2.0"));
        runtime.fails("ADD", json!({"podRanges": "x"}), 6);
        assert!(runtime.fails("ADD", json!({"podRanges": []}), 7).starts_with("podRanges"));
        runtime.fails("NONE", json!({}), 4);
        error(cni::main(&runtime.environment, b"{}"), 4);
        let add = Environment::from([("CNI_COMMAND".to_owned(), "ADD".to_owned())]);
        error(cni::main(&add, b"{"), 6);
        let mut other = Runtime::new(dir.path(), &pod);
        for (name, value) in [("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "a/b"), ("CNI_IFNAME", "")] {
            let kept = other.environment.insert(name.into(), value.into()).unwrap();
            other.fails("ADD", json!({}), 4);
            other.environment.insert(name.into(), kept);
        }
        let port = |port: Value| json!({"runtimeConfig": {"portMappings": [port]}});
        runtime.fails("ADD", port(json!({"hostPort": 1, "containerPort": 1, "protocol": "sctp"})), 7);
        runtime.fails("ADD", port(json!({"hostPort": 1, "containerPort": 1, "hostIP": "127.0.0.1"})), 7);
        network::Routed::open(config(dir.path(), "t", "10.77.0.0/24")).await.unwrap().teardown().await.unwrap();
        assert_as_before(&before);
    });
}

#[test]
fn version_needs_no_configuration() {
    let environment = Environment::from([("CNI_COMMAND".to_owned(), "VERSION".to_owned())]);
    let output = cni::main(&environment, br#"{"cniVersion": "1.0.0"}"#);
    let answer: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(answer, json!({"cniVersion": "1.0.0", "supportedVersions": ["1.0.0", "1.1.0"]}));
}
