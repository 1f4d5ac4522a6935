//! PodTemplate: a pod's spec, kept for whoever makes pods of it.

use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;

use crate::{
    columns::{AGE, NAME, column, items, list},
    faults::{Faults, Path},
    kinds::pod::{Owner, default_spec, validate_spec},
    meta,
    registry::{Kind, Scope},
    typed::Typed,
};

/// PodTemplate.
pub fn kind() -> Kind {
    Kind {
        columns: const {
            &[
                NAME,
                column("Containers", |o, _| containers(o, "name")),
                column("Images", |o, _| containers(o, "image")),
                column("Pod Labels", |o, _| labels(o)),
                AGE,
            ]
        },
        ..Kind::of::<PodTemplate>("podtemplates", Scope::Namespaced)
    }
}

/// One field of every container.
fn containers(object: &Value, field: &str) -> Value {
    list(items(object, "/template/spec/containers").iter().filter_map(|c| c[field].as_str().map(str::to_owned)))
}

fn labels(object: &Value) -> Value {
    let labels = object["template"]["metadata"]["labels"].as_object().into_iter().flatten();
    list(labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())))
}

impl Typed for PodTemplate {
    fn default(&mut self) {
        self.template.iter_mut().filter_map(|t| t.spec.as_mut()).for_each(default_spec);
    }

    fn validate(&self, bad: &mut Faults) {
        let at = Path::root().field("template");
        let Some(template) = &self.template else { return bad.required(at, "must be given") };
        if let Some(metadata) = &template.metadata {
            meta::validate_labels(metadata, &at.field("metadata"), bad);
        }
        match &template.spec {
            // Of a pod that may end: no controller says how often it runs.
            Some(spec) => validate_spec(spec, Owner::Pod, &at.field("spec"), bad),
            None => bad.required(at.field("spec"), "must be given"),
        }
    }
}
