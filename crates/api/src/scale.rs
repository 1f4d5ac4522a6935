//! The `scale` subresource: `autoscaling/v1` Scale of a Deployment or ReplicaSet.

use k8s_openapi::{
    api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use serde_json::{Value, json};

use crate::{
    columns,
    faults::{Cause, Faults, Path},
    typed::{decode, encode},
};

/// The Scale of an object that has `spec.replicas`, `spec.selector` and `status.replicas`.
pub fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let text = |name: &str| metadata[name].as_str().map(str::to_owned);
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
    let selector = columns::selector(object, "/spec/selector");
    encode(&Scale {
        metadata: ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            creation_timestamp: serde_json::from_value(metadata["creationTimestamp"].clone()).unwrap_or_default(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(count("/spec/replicas").unwrap_or(1)) }),
        status: Some(ScaleStatus {
            replicas: count("/status/replicas").unwrap_or(0),
            selector: selector.as_str().filter(|s| *s != columns::NONE).map(str::to_owned),
        }),
    })
}

/// Writes a Scale back into its object: only the number of replicas, and the revision it was read at (if given).
pub fn apply_scale(object: &mut Value, scale: &Value) -> Result<(), Faults> {
    let scale: Scale = decode(scale)?;
    let replicas = scale.spec.and_then(|s| s.replicas).unwrap_or(0);
    if replicas < 0 {
        let mut bad = Faults::default();
        bad.push(Path::root().field("spec").field("replicas"), Cause::Invalid, "must not be negative");
        return Err(bad);
    }
    object["spec"]["replicas"] = json!(replicas);
    if let Some(revision) = scale.metadata.resource_version {
        object["metadata"]["resourceVersion"] = json!(revision);
    }
    Ok(())
}

/// A label selector struct in the form of a query, e.g. `app=web,tier in (a,b)`; empty if it selects everything.
pub fn selector_text(selector: &LabelSelector) -> String {
    let text = columns::selector(&json!({"s": encode(selector)}), "/s");
    text.as_str().filter(|s| *s != columns::NONE).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_scales_by_its_scale() {
        let mut web = json!({"metadata": {"name": "web", "namespace": "n", "uid": "u", "resourceVersion": "7"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web", "a": "b"}}, "template": {}},
            "status": {"replicas": 1}});
        let mut scale = scale_of(&web);
        assert_eq!(scale["kind"], "Scale");
        assert_eq!(scale["spec"], json!({"replicas": 2}));
        assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b,app=web"}));
        scale["spec"]["replicas"] = json!(5);
        apply_scale(&mut web, &scale).unwrap();
        assert_eq!((&web["spec"]["replicas"], &web["metadata"]["name"]), (&json!(5), &json!("web")));
        scale["spec"]["replicas"] = json!(-1);
        assert_eq!(apply_scale(&mut web, &scale).unwrap_err().0[0].path.to_string(), "spec.replicas");
        scale["spec"]["replicas"] = json!("two");
        assert!(apply_scale(&mut web, &scale).is_err());
    }
}
