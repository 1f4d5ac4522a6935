//! ReplicaSet: so many pods of one template.

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::json;

use crate::{
    columns::{AGE, NAME, integer, number, selector, wide},
    faults::{Faults, Path},
    kinds::{
        deployment::{not_negative, selects, template},
        pod::default_spec,
    },
    meta,
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
            before_create: |new| {
                new["status"] = json!({"replicas": 0});
                new["metadata"]["generation"] = json!(1);
            },
            fields: |o| vec![("status.replicas", number(o, "/status/replicas").to_string())],
            ..Strategy::of::<ReplicaSet>().with_status()
        },
        ..Kind::of::<ReplicaSet>("replicasets", Scope::Namespaced)
    }
}

impl Typed for ReplicaSet {
    fn default(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        spec.replicas.get_or_insert(1);
        spec.template.iter_mut().filter_map(|t| t.spec.as_mut()).for_each(default_spec);
    }

    fn validate(&self, bad: &mut Faults) {
        let at = Path::root().field("spec");
        let Some(spec) = &self.spec else { return bad.required(at, "must be given") };
        not_negative(spec.replicas, at.field("replicas"), bad);
        not_negative(spec.min_ready_seconds, at.field("minReadySeconds"), bad);
        selects(&spec.selector, spec.template.as_ref(), &at, bad);
    }

    fn validate_update(&self, old: &Self, bad: &mut Faults) {
        if let (Some(new), Some(old)) = (&self.spec, &old.spec)
            && new.selector != old.selector
        {
            meta::immutable(Path::root().field("spec").field("selector"), bad);
        }
    }
}
