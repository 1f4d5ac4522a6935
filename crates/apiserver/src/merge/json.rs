//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386), bounded.

use std::slice;

use api::read::{depth, weight};
use json_patch::PatchOperation;
use serde_json::Value;

use crate::{ApiError, Result};

/// Operations in one JSON patch.
const MAX_OPERATIONS: usize = 10_000;
/// How deep a patched object may nest: whoever walks it, does so on the stack.
const MAX_DEPTH: usize = 100;
/// The weight of all that a patch copies and moves: copies grow the object, and both have to be walked. What else it
/// brings lies in its body.
const MAX_CARRIED: usize = 4 << 20;

/// Applies a JSON patch to a copy of `object`.
pub(crate) fn patch(object: &Value, patch: &Value) -> Result<Value> {
    let operations: Vec<PatchOperation> = serde::Deserialize::deserialize(patch)
        .map_err(|e| ApiError::bad_request(format!("the JSON patch cannot be decoded: {e}")))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(ApiError::bad_request(format!("the JSON patch has more than {MAX_OPERATIONS} operations")));
    }
    let (mut result, mut carried) = (object.clone(), 0);
    for (index, operation) in operations.iter().enumerate() {
        let refused = |why: &str| {
            let (message, path) = ("the server rejected our request due to an error in our request", operation.path());
            let message = format!("{message}: operation '/{index}' failed at path '{path}': {why}");
            ApiError::new(http::StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
        };
        // Also keeps `-` from what is taken away: the crate would take the last item, and panic where there is none.
        let found = |at: &json_patch::jsonptr::Pointer, why| result.pointer(at.as_str()).ok_or_else(|| refused(why));
        let placed = match operation {
            PatchOperation::Add(add) => Some(&add.value),
            PatchOperation::Replace(replace) => Some(&replace.value),
            PatchOperation::Move(from) => Some(found(&from.from, "\"from\" path is invalid")?),
            PatchOperation::Copy(from) => Some(found(&from.from, "\"from\" path is invalid")?),
            PatchOperation::Remove(gone) => found(&gone.path, "path is invalid").map(|_| None)?,
            PatchOperation::Test(_) => None,
        };
        if let (PatchOperation::Copy(_) | PatchOperation::Move(_), Some(value)) = (operation, placed) {
            carried += weight(value);
        }
        if carried > MAX_CARRIED {
            let why = format!("the JSON patch copies and moves more than {MAX_CARRIED} bytes");
            return Err(ApiError::bad_request(why));
        }
        if placed.is_some_and(|value| operation.path().count() + depth(value) > MAX_DEPTH) {
            return Err(ApiError::bad_request(format!("the patched object would nest deeper than {MAX_DEPTH}")));
        }
        json_patch::patch_unsafe(&mut result, slice::from_ref(operation)).map_err(|e| refused(&e.kind.to_string()))?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches() {
        let object = json!({"a": {"b": 1}, "l": [1, 2]});
        let ops = json!([{"op": "replace", "path": "/a/b", "value": 2}, {"op": "remove", "path": "/l/0"}]);
        assert_eq!(patch(&object, &ops).unwrap(), json!({"a": {"b": 2}, "l": [2]}));
        let ops = json!([{"op": "move", "from": "/l/1", "path": "/m"}, {"op": "copy", "from": "/a", "path": "/l/-"}]);
        assert_eq!(patch(&object, &ops).unwrap(), json!({"a": {"b": 1}, "l": [1, {"b": 1}], "m": 2}));
        assert!(patch(&object, &json!([{"op": "test", "path": "/a/b", "value": 9}])).is_err());
        let error = patch(&object, &json!([{"op": "remove", "path": "/l/0"}, {"op": "remove", "path": "/nope"}]));
        assert!(error.unwrap_err().message.contains("operation '/1' failed at path '/nope'"));
        assert!(patch(&object, &json!({"op": "remove"})).is_err());
        assert_eq!(merge(&object, &json!({"a": null, "l": 1})).unwrap(), json!({"l": 1}));
        assert!(merge(&object, &json!([1])).is_err());
    }

    #[test]
    fn what_is_not_there_is_not_taken_away() {
        for operation in [json!({"op": "remove", "path": "/l/-"}), json!({"op": "move", "from": "/l/-", "path": "/a"})]
        {
            assert!(patch(&json!({"l": []}), &json!([operation])).is_err(), "{operation}");
        }
    }

    #[test]
    fn nothing_nests_without_end() {
        let copied: Vec<Value> = (0..99).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/a"})).collect();
        // Each pair puts all that there is one deeper; so would one that takes the last item of a list.
        let moved = (0..9_998).map(|i| match i % 2 {
            0 => json!({"op": "move", "from": "/a", "path": "/b"}),
            _ => json!([{"op": "add", "path": "/a", "value": {}}, {"op": "move", "from": "/b", "path": "/a/a"}]),
        });
        let moved = moved.flat_map(|op| if let Value::Array(ops) = op { ops } else { vec![op] });
        let moved: Vec<Value> = moved.take(MAX_OPERATIONS).collect();
        let long = "/a".repeat(MAX_DEPTH);
        let deep = long.split('/').skip(1).fold(json!({}), |inner, name| json!({name: inner}));
        let added = vec![json!({"op": "add", "path": "/a", "value": deep})];
        for operations in [copied, moved, added] {
            let error = patch(&json!({"a": {"a": {}}}), &Value::Array(operations)).unwrap_err();
            assert!(error.message.contains("nest"), "{error}");
        }
    }

    #[test]
    fn copies_do_not_grow_without_end() {
        let (long, keyed) = (json!({"a": "x".repeat(1 << 16)}), json!({"a": {"x".repeat(1 << 16): 1}}));
        for object in [long, keyed, json!({"a": vec![0; 2_000]})] {
            let many: Vec<Value> =
                (0..99).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/b{i}")})).collect();
            let error = patch(&object, &Value::Array(many)).unwrap_err();
            assert!(error.message.contains("copies and moves more"), "{error}");
        }
        let doubled: Vec<Value> =
            (0..40).map(|i| json!({"op": "copy", "from": "", "path": format!("/x{i}")})).collect();
        assert!(patch(&json!({"a": 1}), &Value::Array(doubled)).is_err());
    }

    #[test]
    fn what_is_wide_is_not_moved_to_and_fro() {
        let there_and_back = |i| {
            let (from, path) = if i % 2 == 0 { ("/a", "/b") } else { ("/b", "/a") };
            json!({"op": "move", "from": from, "path": path})
        };
        let wide = json!({"a": vec![0; 10_000]});
        let error = patch(&wide, &(0..MAX_OPERATIONS).map(there_and_back).collect()).unwrap_err();
        assert!(error.message.contains("copies and moves more"), "{error}");
        assert_eq!(patch(&wide, &(0..2).map(there_and_back).collect()).unwrap(), wide);
    }
}
