//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386), bounded.

use serde_json::Value;

use crate::{ApiError, Result};

/// Operations in one JSON patch, and how many of them may copy.
const MAX_OPERATIONS: usize = 10_000;
const MAX_COPIES: usize = 100;
/// Values in a patched object, and how deep they may lie: `copy` could grow both without end.
const MAX_VALUES: usize = 200_000;
const MAX_DEPTH: usize = 100;

/// Applies a JSON patch to a copy of `object`.
pub(crate) fn patch(object: &Value, patch: &Value) -> Result<Value> {
    let operations: Vec<json_patch::PatchOperation> = serde::Deserialize::deserialize(patch)
        .map_err(|e| ApiError::bad_request(format!("the JSON patch cannot be decoded: {e}")))?;
    let copies = operations.iter().filter(|o| matches!(o, json_patch::PatchOperation::Copy(_))).count();
    if operations.len() > MAX_OPERATIONS || copies > MAX_COPIES {
        let message = format!("the JSON patch has more than {MAX_OPERATIONS} operations or {MAX_COPIES} copies");
        return Err(ApiError::bad_request(message));
    }
    let mut result = object.clone();
    for operation in operations.chunk_by(|a, _| !matches!(a, json_patch::PatchOperation::Copy(_))) {
        json_patch::patch_unsafe(&mut result, operation).map_err(|e| {
            ApiError::new(
                http::StatusCode::UNPROCESSABLE_ENTITY,
                "Invalid",
                format!("the server rejected our request due to an error in our request: {e}"),
            )
        })?;
        if !fits(&result, MAX_DEPTH, &mut { MAX_VALUES }) {
            return Err(ApiError::bad_request("the patched object would be too large or too deep"));
        }
    }
    Ok(result)
}

/// Applies a JSON merge patch to a copy of `object`.
pub(crate) fn merge(object: &Value, patch: &Value) -> Result<Value> {
    if !patch.is_object() {
        return Err(ApiError::bad_request("a merge patch must be an object"));
    }
    let mut result = object.clone();
    json_patch::merge(&mut result, patch);
    Ok(result)
}

fn fits(value: &Value, depth: usize, values: &mut usize) -> bool {
    *values = values.saturating_sub(1);
    if depth == 0 || *values == 0 {
        return false;
    }
    match value {
        Value::Array(items) => items.iter().all(|v| fits(v, depth - 1, values)),
        Value::Object(map) => map.values().all(|v| fits(v, depth - 1, values)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches() {
        let object = json!({"a": {"b": 1}, "l": [1, 2]});
        let ops = json!([{"op": "replace", "path": "/a/b", "value": 2}, {"op": "remove", "path": "/l/0"}]);
        assert_eq!(patch(&object, &ops).unwrap(), json!({"a": {"b": 2}, "l": [2]}));
        assert!(patch(&object, &json!([{"op": "test", "path": "/a/b", "value": 9}])).is_err());
        assert!(patch(&object, &json!([{"op": "remove", "path": "/nope"}])).is_err());
        assert!(patch(&object, &json!({"op": "remove"})).is_err());
        assert_eq!(merge(&object, &json!({"a": null, "l": 1})).unwrap(), json!({"l": 1}));
        assert!(merge(&object, &json!([1])).is_err());
    }

    #[test]
    fn copies_that_grow_without_end_are_refused() {
        let wide: Vec<Value> = (0..40).map(|i| json!({"op": "copy", "from": "", "path": format!("/x{i}")})).collect();
        assert!(patch(&json!({"a": 1}), &Value::Array(wide)).is_err());
        let deep: Vec<Value> = (0..99).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/a"})).collect();
        assert!(patch(&json!({"a": {"a": {}}}), &Value::Array(deep)).is_err());
        let many: Vec<Value> = (0..101).map(|_| json!({"op": "copy", "from": "/a", "path": "/b"})).collect();
        assert!(patch(&json!({"a": 1}), &Value::Array(many)).is_err());
    }
}
