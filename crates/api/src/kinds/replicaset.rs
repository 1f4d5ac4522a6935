//! ReplicaSet: so many pods of one template.

use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::{
    columns::{AGE, NAME, integer, number, selector, wide},
    kinds::deployment::template,
    registry::{Kind, Scope, Strategy, Subresource},
    typed::Typed,
};

/// ReplicaSet.
pub fn kind() -> Kind {
    Kind {
        short: &["rs"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        columns: const {
            &[
                NAME,
                integer("Desired", |o, _| number(o, "/spec/replicas")),
                integer("Current", |o, _| number(o, "/status/replicas")),
                integer("Ready", |o, _| number(o, "/status/readyReplicas")),
                AGE,
                wide("Containers", |o, _| template(o, "name")),
                wide("Images", |o, _| template(o, "image")),
                wide("Selector", |o, _| selector(o, "/spec/selector")),
            ]
        },
        strategy: Strategy {
            fields: |o| vec![("status.replicas", number(o, "/status/replicas").to_string())],
            ..Strategy::of::<ReplicaSet>().with_status()
        },
        ..Kind::of::<ReplicaSet>("replicasets", Scope::Namespaced)
    }
}

impl Typed for ReplicaSet {}
