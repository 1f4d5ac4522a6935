//! How long a pod stays on a node that is not ready or cannot be reached.

use serde_json::{Value, json};

const SECONDS: i64 = 300;

/// Adds what the pod does not say itself.
pub(super) fn fill(pod: &mut Value) {
    let tolerations = &mut pod["spec"]["tolerations"];
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let says = |t: &Value| {
            let (its, effect) = (t["key"].as_str().unwrap_or_default(), t["effect"].as_str().unwrap_or_default());
            (its.is_empty() || its == key) && (effect.is_empty() || effect == "NoExecute")
        };
        if !tolerations.iter().any(says) {
            tolerations
                .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
}
