//! The cluster as a thing of its own API, in the real OpenStack of `make devcloud`. scripts/test-openstack runs this.

use std::path::{Path, PathBuf};

use tests::{
    cloud::{Project, page},
    eventually, machine,
};

const CLUSTER: &str = "
apiVersion: rastos.io/v1alpha1
kind: Cluster
metadata: {name: demo, labels: {team: a}}
spec:
  image: {file: IMAGE}
  flavor: r1.medium
  state: {size: 1Gi}
  registries: {mirrors: [{registry: registry.example, endpoint: \"http://172.24.4.1:5000\"}]}
";

const APP: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: web
      image: registry.example/web:1
      ports: [{containerPort: 8080, hostPort: 80}]
";

/// What a laptop keeps of the cluster: its `key`, its `certificate`.
fn kept(home: &Path, what: &str) -> PathBuf {
    let all = std::fs::read_dir(home.join("rastos/demo")).expect("what is kept of the cluster");
    let mut all = all.map(|entry| entry.expect("an entry").path());
    all.find(|path| path.extension().is_some_and(|e| e == what)).expect("it is kept")
}

#[test]
fn a_cluster_lives_in_its_own_api() {
    let project = Project::new("cluster");
    let image = machine::image().join("disk.qcow2").display().to_string();
    let (cluster, app) =
        (project.file("cluster.yaml", &CLUSTER.replace("IMAGE", &image)), project.file("app.yaml", APP));
    let before = project.inventory();
    let said = project.ok(&["up", "-f", &cluster, "-f", &app]);
    let address = said.split_once("demo is up at ").and_then(|(_, rest)| rest.split(' ').next()).expect("an address");
    let kubectl = |args: &[&str]| project.kubectl("demo", args);

    // What up made stands there.
    let table = kubectl(&["get", "clusters"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row[..4], ["demo", address, "yes", env!("CARGO_PKG_VERSION")], "{table}");
    let shown = "jsonpath={.spec.flavor} {.spec.state.size} {.metadata.labels.team} {.status.machines[0].name} {.status.stacks}";
    let expected = "r1.medium 1Gi a demo-0 [\"rastos-demo-state\",\"rastos-demo\"]";
    assert_eq!(kubectl(&["get", "cluster/demo", "-o", shown]), expected);

    // Pods are refused the metadata service, from which the machine itself has its configuration.
    let out = kubectl(&["exec", "web", "--", "sh", "-c", "nc -w 3 169.254.169.254 80 </dev/null 2>&1; echo ended $?"]);
    assert!(out.contains("refused") && !out.contains("ended 0"), "{out}");

    // What is changed there is made by the next up that is given no file.
    assert!(page(address).is_err(), "only the API's port is open");
    kubectl(&[
        "patch",
        "cluster",
        "demo",
        "--type=merge",
        "-p",
        r#"{"spec": {"access": [{"port": 6443}, {"port": 80}]}}"#,
    ]);
    assert!(kubectl(&["get", "clusters"]).contains("awaits up"));
    project.ok(&["up", "demo"]);
    assert!(kubectl(&["get", "clusters"]).contains("yes"));
    eventually("the app answers at the port that was opened in the API", || page(address));

    // A second laptop knows the name only, and is given a certificate of its own.
    let second = tempfile::tempdir().expect("a directory");
    let (first, own) = (Path::new(&cluster).parent().expect("a home"), second.path());
    let laptop = project.laptop(own);
    laptop.ok(&["cloud", "kubeconfig", "demo"]);
    let key = |home| std::fs::read_to_string(kept(home, "key")).expect("a key");
    assert_ne!(key(first), key(own));
    let out = laptop.ok(&["cloud", "status", "demo"]);
    for part in ["stack", "server", "volume", "floating IP", "API", "node", "pod "] {
        assert!(out.lines().any(|line| line.starts_with(part)), "no {part} in\n{out}");
    }

    // A certificate that has ended is renewed for the same key by the authority that gave it.
    let file = kept(own, "certificate");
    let read = || -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(&file).expect("a certificate")).expect("JSON")
    };
    let mut admission = read();
    admission["certificate"] = "ended".into();
    std::fs::write(&file, admission.to_string()).expect("write it");
    laptop.ok(&["cloud", "kubeconfig", "demo"]);
    let after = read();
    assert!(after["certificate"].as_str().is_some_and(|c| c.starts_with("-----BEGIN CERTIFICATE-----")), "{after}");
    assert_eq!(after["ca"], admission["ca"]);

    // Whoever shows another authority than the one that was told is refused, and nothing of its answer is kept.
    let third = tempfile::tempdir().expect("a directory");
    let other = "ab".repeat(32);
    let err = project.laptop(third.path()).fails(1, &["cloud", "kubeconfig", "demo", "--ca-fingerprint", &other]);
    assert!(err.contains("is not the machine of this cluster"), "{err}");
    assert!(!third.path().join("rastos/demo/kubeconfig.yaml").exists());

    // Why leads from the pod to the server, and up makes it whole.
    assert_eq!(laptop.ok(&["why", "cluster/demo"]), "cluster/demo is whole in the cloud, and its API answers\n");
    project.openstack(&["server", "stop", "demo-0"]);
    eventually("the server is stopped", || {
        let status = project.openstack(&["server", "show", "demo-0", "-f", "value", "-c", "status"]);
        if status.trim() == "SHUTOFF" { Ok(()) } else { Err(status) }
    });
    let kubeconfig = own.join("rastos/demo/kubeconfig.yaml").display().to_string();
    let said = laptop.ok(&["why", "pod/web", "--kubeconfig", &kubeconfig]);
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(lines.first(), Some(&"pod/web cannot be looked at"), "{said}");
    let end =
        ["because cluster/demo is not whole", "because its server demo-0 is stopped", "to do: `rast cloud up demo`"];
    assert_eq!(lines[lines.len() - 3..], end, "{said}");
    project.ok(&["up", "demo"]);
    eventually("the app answers again", || page(address));

    project.ok(&["down", "demo", "--yes"]);
    assert_eq!(project.inventory(), before);
}
