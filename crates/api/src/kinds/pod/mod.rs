//! Pod: containers that share a host, an address and volumes.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{
    columns::{AGE, NAME, column, text_or_none, wide},
    faults::{Faults, Path},
    registry::{Kind, Scope, Strategy, Subresource},
    typed::{Typed, decode},
};

mod container;
mod context;
mod default;
mod ephemeral;
mod probe;
mod row;
mod source;
mod spec;
mod status;
mod update;
mod volume;

pub use context::{CAPABILITIES, effective};
pub(crate) use default::spec as default_spec;
pub use ephemeral::{as_container, validate_added};
pub use source::entry;
pub(crate) use spec::{Owner, validate as validate_spec};
pub use status::{
    Amounts, active, available, condition, ended, is_sidecar, limits, limits_of, phase, qos, ready, requests,
};

/// Pod.
pub fn kind() -> Kind {
    Kind {
        short: &["po"],
        categories: &["all"],
        returns_deleted: true,
        subresources: &[
            Subresource::Status,
            Subresource::Log,
            Subresource::Exec,
            Subresource::Attach,
            Subresource::PortForward,
            Subresource::Proxy,
            Subresource::Binding,
            Subresource::Eviction,
            Subresource::EphemeralContainers,
        ],
        columns: const {
            &[
                NAME,
                column("Ready", |o, _| row::of(o).ready().into()),
                column("Status", |o, _| row::of(o).reason.into()),
                column("Restarts", |o, now| row::of(o).restarts(now).into()),
                AGE,
                wide("IP", |o, _| text_or_none(o, "/status/podIPs/0/ip")),
                wide("Node", |o, _| text_or_none(o, "/spec/nodeName")),
                wide("Nominated Node", |o, _| text_or_none(o, "/status/nominatedNodeName")),
                wide("Readiness Gates", |o, _| row::gates(o).into()),
            ]
        },
        strategy: Strategy {
            before_create: |new| {
                new["metadata"]["generation"] = json!(1);
                new["status"] = json!({"phase": "Pending"});
                if let Some(spec) = decode::<Pod>(new).ok().and_then(|pod| pod.spec) {
                    new["status"]["qosClass"] = qos(&spec).into();
                }
            },
            fields,
            grace: |pod, asked| grace(pod, asked),
            ..Strategy::of::<Pod>().with_status()
        },
        ..Kind::of::<Pod>("pods", Scope::Namespaced)
    }
}

/// A pod that no node has, or that has ended, is gone at once.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let phase = pod["status"]["phase"].as_str();
    if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) || matches!(phase, Some("Failed" | "Succeeded")) {
        return 0;
    }
    asked.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30).max(0)
}

fn fields(pod: &Value) -> Vec<(&'static str, String)> {
    let value = |pointer| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    vec![
        ("spec.nodeName", value("/spec/nodeName")),
        ("spec.restartPolicy", value("/spec/restartPolicy")),
        ("spec.schedulerName", value("/spec/schedulerName")),
        ("spec.serviceAccountName", value("/spec/serviceAccountName")),
        ("spec.hostNetwork", (pod["spec"]["hostNetwork"] == true).to_string()),
        ("status.phase", value("/status/phase")),
        ("status.podIP", value("/status/podIP")),
        ("status.nominatedNodeName", value("/status/nominatedNodeName")),
    ]
}

impl Typed for Pod {
    fn default(&mut self) {
        default::pod(self);
    }

    fn validate(&self, bad: &mut Faults) {
        let at = Path::root().field("spec");
        match &self.spec {
            Some(spec) => validate_spec(spec, Owner::Pod, &at, bad),
            None => bad.required(at, "must be given"),
        }
    }

    fn validate_update(&self, old: &Self, bad: &mut Faults) {
        update::validate(self, old, bad);
    }
}
