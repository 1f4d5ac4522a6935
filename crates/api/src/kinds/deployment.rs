//! Deployment: a template of pods, rolled out.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;

use crate::{
    columns::{AGE, NAME, column, integer, items, number, selector, wide},
    registry::{Kind, Scope, Strategy, Subresource},
    typed::{Typed, count_generation, keep},
};

/// Deployment.
pub fn kind() -> Kind {
    Kind {
        short: &["deploy"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        columns: const {
            &[
                NAME,
                column("Ready", |o, _| {
                    format!("{}/{}", number(o, "/status/readyReplicas"), number(o, "/spec/replicas")).into()
                }),
                integer("Up-to-date", |o, _| number(o, "/status/updatedReplicas")),
                integer("Available", |o, _| number(o, "/status/availableReplicas")),
                AGE,
                wide("Containers", |o, _| template(o, "name")),
                wide("Images", |o, _| template(o, "image")),
                wide("Selector", |o, _| selector(o, "/spec/selector")),
            ]
        },
        strategy: Strategy {
            before_update: |new, old| {
                keep(new, old, "status");
                // Annotations count too: `kubernetes.io/change-cause` belongs to a revision.
                let changed =
                    new["spec"] != old["spec"] || new["metadata"]["annotations"] != old["metadata"]["annotations"];
                count_generation(new, old, changed);
            },
            ..Strategy::of::<Deployment>().with_status()
        },
        ..Kind::of::<Deployment>("deployments", Scope::Namespaced)
    }
}

/// One field of every container of the pod template, joined by commas.
pub(crate) fn template(object: &Value, field: &str) -> Value {
    let containers = items(object, "/spec/template/spec/containers");
    let values: Vec<&str> = containers.iter().filter_map(|c| c[field].as_str()).collect();
    values.join(",").into()
}

impl Typed for Deployment {}
