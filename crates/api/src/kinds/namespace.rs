//! Namespace: a tenant.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use crate::{
    columns::{AGE, NAME, column, text},
    registry::{Kind, Scope, Strategy, Subresource},
    typed::Typed,
};

/// The finalizer of a namespace: held until everything in it is gone.
pub const FINALIZER: &str = "kubernetes";

/// Namespace.
pub fn kind() -> Kind {
    let plain = Strategy::of::<Namespace>().with_status();
    Kind {
        short: &["ns"],
        subresources: &[Subresource::Status, Subresource::Finalize],
        columns: const { &[NAME, column("Status", |o, _| text(o, "/status/phase")), AGE] },
        strategy: Strategy {
            before_create: |new| {
                new["status"] = json!({"phase": "Active"});
                let finalizers = new["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
                if !finalizers.contains(&json!(FINALIZER)) {
                    new["spec"]["finalizers"] = finalizers.into_iter().chain([json!(FINALIZER)]).collect();
                }
            },
            before_update: |new, old| {
                crate::typed::keep(new, old, "status");
                crate::typed::keep(new, old, "spec"); // the finalizers go by `finalize` only
            },
            fields: |o| vec![("status.phase", o["status"]["phase"].as_str().unwrap_or_default().to_owned())],
            ..plain
        },
        ..Kind::of::<Namespace>("namespaces", Scope::Cluster)
    }
}

impl Typed for Namespace {
    fn default(&mut self) {
        if let Some(name) = self.metadata.name.clone() {
            self.metadata.labels.get_or_insert_default().insert("kubernetes.io/metadata.name".to_owned(), name);
        }
    }
}
