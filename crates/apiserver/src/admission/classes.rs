//! Classes that a pod names. None of their kinds is served, so none is found; upstream answers the same.

use serde_json::{Value, json};

use super::Request;
use crate::Result;

/// Refuses a pod of a class.
pub(super) fn find(req: &Request<'_>, pod: &Value) -> Result<()> {
    for (field, kind) in [("runtimeClassName", "RuntimeClass"), ("priorityClassName", "PriorityClass")] {
        if let Some(name) = pod["spec"][field].as_str().filter(|name| !name.is_empty()) {
            let why = format!("pod rejected: {kind} {name:.80?} not found");
            let mut error = req.refuse(&why);
            let cause = json!({"reason": "FieldValueNotSupported", "field": format!("spec.{field}"), "message": why});
            error.details["causes"] = json!([cause]);
            return Err(error);
        }
    }
    Ok(())
}
