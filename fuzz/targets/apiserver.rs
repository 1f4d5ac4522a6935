//! What clients send.
#![no_main]

use std::sync::LazyLock;

use serde_json::{Value, json};

fuzz::program!(&[
    ("json", |bytes| body("application/json", bytes)),
    ("yaml", |bytes| body("application/yaml", bytes)),
    ("protobuf", |bytes| body("application/vnd.kubernetes.protobuf", bytes)),
    ("patch", |bytes| drop(serde_json::from_slice(bytes).map(|with| patch(&with)))),
    ("managed", |bytes| drop(serde_json::from_slice(bytes).map(|value| apiserver::fuzzing::managed(&value)))),
    ("selector", |bytes| fuzz::text(bytes, |text| {
        let (labels, fields) = text.split_once('\n').unwrap_or((text, text));
        apiserver::fuzzing::selectors(labels, fields);
    })),
    ("request", |bytes| fuzz::text(bytes, |text| {
        let (uri, accept) = text.split_once('\n').unwrap_or((text, text));
        apiserver::fuzzing::request(uri, accept);
    })),
    ("certificate", apiserver::fuzzing::certificate_request),
]);

fn body(media: &str, bytes: &[u8]) {
    if let Some(object) = apiserver::fuzzing::body(media, bytes) {
        fuzz::judge(&object);
    }
}

/// A Deployment that others have written to.
static LIVE: LazyLock<Value> = LazyLock::new(|| {
    let owned = json!({"f:spec": {"f:replicas": {}, "f:strategy": {"f:rollingUpdate": {"f:maxSurge": {}}}}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "a", "labels": {"a": "b"}, "finalizers": ["x", "y"],
            "managedFields": [{"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": owned}],
        },
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [
                    {"name": "a", "image": "i", "ports": [{"containerPort": 1}], "env": [{"name": "A", "value": "1"}]},
                ],
            }},
        },
    })
});

fn patch(with: &Value) {
    let kind = fuzz::KINDS.object("apps/v1", "Deployment").expect("built in");
    for object in apiserver::fuzzing::patched(kind, &LIVE, with) {
        fuzz::judge(&object);
    }
}
