//! `rast cloud` against the real OpenStack of `make devcloud`. scripts/test-openstack runs these; without the cloud they
//! are left out by name, never green in silence.

mod faults;
mod plans;
mod together;

use tests::{
    cloud::{Project, page},
    eventually, machine,
};

const CLUSTER: &str = "
apiVersion: rastos.io/v1alpha1
kind: Cluster
metadata: {name: demo}
spec:
  image: {name: guest}
  flavor: r1.tiny
  state: {size: 1Gi}
";

const APP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: registry.example/web:1
          ports: [{containerPort: 8080, hostPort: 80}]
";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The machine is our own image, booted by BIOS in Nova; its container image comes from a registry of the cloud.
#[test]
fn a_file_becomes_an_app_that_answers_and_its_state_outlives_the_server() {
    let project = Project::new("whole");
    let image = machine::image().join("disk.qcow2");
    let spec =
        CLUSTER.replace("{name: guest}", &format!("{{file: {}}}", image.display())).replace("r1.tiny", "r1.medium")
            + "  access: [{port: 6443}, {port: 80}]\n"
            + "  registries: {mirrors: [{registry: registry.example, endpoint: \"http://172.24.4.1:5000\"}]}\n";
    let (cluster, app) = (project.file("cluster.yaml", &spec), project.file("app.yaml", APP));
    let before = project.inventory();

    let said = project.ok(&["up", "-f", &cluster, "-f", &app]);
    let address = said.split_once("demo is up at ").and_then(|(_, rest)| rest.split(' ').next()).expect("an address");
    eventually("the app answers at the floating IP", || page(address));

    let kubectl = |args: &[&str]| project.kubectl("demo", args);
    kubectl(&["create", "configmap", "kept", "--from-literal=key=value"]);
    kubectl(&["create", "secret", "generic", "kept", "--from-literal=key=secret"]);
    kubectl(&["scale", "deployment/web", "--replicas=2"]);
    let kept = ["get", "configmap/kept", "secret/kept", "-o", "jsonpath={.items[*].metadata.uid}{.items[*].data.key}"];
    let made = kubectl(&kept);
    project.openstack(&["server", "delete", "--wait", "demo-0"]);
    project.ok(&["up", "demo"]);
    assert_eq!(kubectl(&kept), made);
    assert_eq!(kubectl(&["get", "deployment/web", "-o", "jsonpath={.spec.replicas}"]), "2");
    eventually("the app answers again", || page(address));

    project.ok(&["down", "demo", "--yes"]);
    assert_eq!(project.inventory(), before);
}
