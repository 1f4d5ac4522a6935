//! Node: a host that runs pods.

use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use crate::{
    columns::{AGE, NAME, NONE, column, items, list, text, wide},
    registry::{Kind, Scope, Strategy, Subresource},
    typed::Typed,
};

/// Node.
pub fn kind() -> Kind {
    Kind {
        short: &["no"],
        subresources: &[Subresource::Status],
        columns: const {
            &[
                NAME,
                column("Status", |o, _| status(o).into()),
                column("Roles", |o, _| roles(o)),
                AGE,
                column("Version", |o, _| text(o, "/status/nodeInfo/kubeletVersion")),
                wide("Internal-IP", |o, _| address(o, "InternalIP").into()),
                wide("External-IP", |o, _| address(o, "ExternalIP").into()),
                wide("OS-Image", |o, _| known(o, "/status/nodeInfo/osImage")),
                wide("Kernel-Version", |o, _| known(o, "/status/nodeInfo/kernelVersion")),
                wide("Container-Runtime", |o, _| known(o, "/status/nodeInfo/containerRuntimeVersion")),
            ]
        },
        strategy: Strategy {
            fields: |o| vec![("spec.unschedulable", (o["spec"]["unschedulable"] == Value::Bool(true)).to_string())],
            before_create: |_| {}, // a node reports its status with its first write
            ..Strategy::of::<Node>().with_status()
        },
        ..Kind::of::<Node>("nodes", Scope::Cluster)
    }
}

fn status(node: &Value) -> String {
    let ready = items(node, "/status/conditions").iter().find(|c| c["type"] == "Ready");
    let mut words = vec![match ready.map(|c| c["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }];
    if node["spec"]["unschedulable"] == true {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(node: &Value) -> Value {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let mut roles: Vec<String> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role.to_owned()),
            _ => (key == "kubernetes.io/role").then(|| value.as_str().map(str::to_owned)).flatten(),
        })
        .collect();
    roles.sort();
    list(roles)
}

fn address<'a>(node: &'a Value, sort: &str) -> &'a str {
    let address = items(node, "/status/addresses").iter().find(|a| a["type"] == sort);
    address.and_then(|a| a["address"].as_str()).unwrap_or(NONE)
}

fn known(node: &Value, pointer: &str) -> Value {
    node.pointer(pointer).and_then(Value::as_str).filter(|s| !s.is_empty()).unwrap_or("<unknown>").into()
}

impl Typed for Node {}
