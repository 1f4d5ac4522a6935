//! Node: a host that runs pods.

use std::collections::HashSet;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use crate::{
    columns::{AGE, NAME, NONE, column, items, list, text, wide},
    faults::{Cause, Faults, Path},
    meta, names,
    quantity::Quantity,
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

impl Typed for Node {
    fn validate(&self, bad: &mut Faults) {
        let at = Path::root().field("spec");
        let spec = self.spec.clone().unwrap_or_default();
        let mut seen = HashSet::new();
        for (index, taint) in spec.taints.iter().flatten().enumerate() {
            let at = at.field("taints").index(index);
            bad.named(at.field("key"), &taint.key, names::qualified);
            bad.ruled(at.field("value"), taint.value.as_deref().unwrap_or_default(), names::label_value);
            bad.one_of(at.field("effect"), Some(&taint.effect), &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
            if !seen.insert((&taint.key, &taint.effect)) {
                bad.duplicate(at, format!("{}:{}", taint.key, taint.effect));
            }
        }
        cidrs(spec.pod_cidrs.as_deref().unwrap_or_default(), &at.field("podCIDRs"), bad);
        if let (Some(one), Some([first, ..])) = (&spec.pod_cidr, spec.pod_cidrs.as_deref()) {
            bad.unless(one == first, at.field("podCIDR"), "must be the first of podCIDRs");
        }
        let status = self.status.clone().unwrap_or_default();
        let at = Path::root().field("status");
        for (field, list) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
            for (name, amount) in list.iter().flatten() {
                let good = amount.0.parse::<Quantity>().is_ok_and(|q| !q.is_negative());
                bad.unless(good, at.field(field).key(name), format!("{:.80?} must be a quantity", amount.0));
            }
        }
    }

    fn validate_update(&self, old: &Self, bad: &mut Faults) {
        let of = |node: &Self| node.spec.as_ref().and_then(|s| s.pod_cidrs.clone()).unwrap_or_default();
        if !of(old).is_empty() && of(self) != of(old) {
            meta::immutable(Path::root().field("spec").field("podCIDRs"), bad);
        }
    }
}

/// Networks, none of which lies in another.
fn cidrs(cidrs: &[String], at: &Path, bad: &mut Faults) {
    let mut seen: Vec<IpNet> = Vec::new();
    for (index, text) in cidrs.iter().enumerate() {
        let at = at.index(index);
        match text.parse::<IpNet>() {
            Ok(network) if network != network.trunc() => {
                bad.push(at, Cause::Invalid, format!("{text} has bits beside its prefix; write {}", network.trunc()));
            }
            Ok(network) => {
                if let Some(other) = seen.iter().find(|o| o.contains(&network) || network.contains(*o)) {
                    bad.push(at, Cause::Invalid, format!("{text} overlaps {other}"));
                }
                seen.push(network);
            }
            Err(_) => bad.push(at, Cause::Invalid, format!("{text:.80?} must be a network such as 10.64.0.0/24")),
        }
    }
}
