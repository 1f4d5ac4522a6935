//! Namespace: a tenant.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use crate::{
    columns::{AGE, NAME, column, text},
    faults::{Cause, Faults, Path},
    names::{self, Rule},
    registry::{Kind, Scope, Strategy, Subresource},
    security::{ENFORCE, Level},
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
    const NAME: Option<Rule> = Some(names::label);

    fn default(&mut self) {
        if let Some(name) = self.metadata.name.clone() {
            self.metadata.labels.get_or_insert_default().insert("kubernetes.io/metadata.name".to_owned(), name);
        }
    }

    fn validate(&self, bad: &mut Faults) {
        let at = Path::root().field("metadata").field("labels").key(ENFORCE);
        if let Some(level) = self.metadata.labels.as_ref().and_then(|l| l.get(ENFORCE))
            && Level::parse(level).is_none()
        {
            bad.push(at, Cause::NotSupported, format!("{level:?} must be one of privileged, baseline, restricted"));
        }
    }
}
