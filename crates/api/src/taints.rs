//! Taints of nodes and the tolerations of pods.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    fn text(field: &Option<String>) -> &str {
        field.as_deref().unwrap_or_default()
    }
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    let (have, want) = (text(&taint.value), text(&toleration.value));
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match text(&toleration.operator) {
            "Exists" => true,
            "" | "Equal" => !key.is_empty() && want == have,
            "Lt" => number(have).zip(number(want)).is_some_and(|(have, want)| have < want),
            "Gt" => number(have).zip(number(want)).is_some_and(|(have, want)| have > want),
            _ => false,
        }
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}
