//! `autoscaling/v1` Scale of anything that has `spec.replicas`.

use api::{Cause, Faults, Path, Verb};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    patch::Patch,
    write::{Part, Tracking, modify},
};
use crate::{
    ApiError, Result,
    call::{Call, json_response},
};

/// The scale of the object.
pub(super) async fn get(call: &Call) -> Result<Response> {
    let object = call.current(&call.at.name).await?.object();
    Ok(json_response(StatusCode::OK, scale(&object).to_string().into()))
}

/// Sets `spec.replicas` by a Scale or a patch of one.
pub(super) async fn set(call: &Call, verb: Verb) -> Result<Response> {
    let body = if verb == Verb::Update { Some(call.object()?) } else { None };
    let patch = if verb == Verb::Patch { Some(Patch::decode(call)?) } else { None };
    let change = |old: &Value| {
        let wanted = match (&body, &patch) {
            (_, Some(Patch::Apply(config))) => config.clone(),
            (_, Some(patch)) => patch.on(call, &scale(old))?,
            (Some(body), None) => body.clone(),
            (None, None) => scale(old),
        };
        let replicas = replicas(call, &wanted)?;
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(replicas);
        for field in ["resourceVersion", "uid"] {
            if let Some(value) = wanted["metadata"][field].as_str().filter(|v| !v.is_empty()) {
                new["metadata"][field] = json!(value);
            }
        }
        Ok(new)
    };
    let object = modify(call, &call.at.name, Part::Main, Tracking::Update, change).await?;
    Ok(json_response(StatusCode::OK, scale(&object).to_string().into()))
}

fn scale(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {},
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector(object)},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(field) {
            scale["metadata"][field] = value.clone();
        }
    }
    scale
}

/// `spec.selector` in the form of a query.
fn selector(object: &Value) -> String {
    let selector = &object["spec"]["selector"];
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut terms: Vec<String> = labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    for term in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = term["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = term["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        terms.push(match term["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

fn replicas(call: &Call, scale: &Value) -> Result<i32> {
    let given = &scale["spec"]["replicas"];
    let number = if given.is_null() { Some(0) } else { given.as_i64() };
    number.and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0).ok_or_else(|| {
        let mut faults = Faults::default();
        let at = Path::root().field("spec").field("replicas");
        faults.push(at, Cause::Invalid, format!("{given} must be a number from 0 to {}", i32::MAX));
        ApiError::invalid(&call.kind, &call.at.name, &faults)
    })
}
