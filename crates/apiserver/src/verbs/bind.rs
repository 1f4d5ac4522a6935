//! A pod bound to a node.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::write::{Part, Tracking, modify};
use crate::{
    ApiError, Result,
    call::{Call, json_response},
};

/// Binds the pod as the Binding in the body says; a pod is bound once.
pub(super) async fn run(call: &Call) -> Result<Response> {
    let binding = call.object()?;
    let node = binding["target"]["name"].as_str().filter(|n| !n.is_empty());
    let node = node.ok_or_else(|| ApiError::bad_request("target.name of the binding must name a node"))?;
    if !matches!(binding["target"]["kind"].as_str(), None | Some("" | "Node")) {
        return Err(ApiError::bad_request("target.kind of the binding must be Node"));
    }
    modify(call, &call.at.name, Part::Binding, Tracking::Update, |old| bound(call, old, &binding, node)).await?;
    Ok(json_response(StatusCode::CREATED, success().to_string().into()))
}

fn bound(call: &Call, pod: &Value, binding: &Value, node: &str) -> Result<Value> {
    let conflict = |why: String| Err(ApiError::conflict(&call.kind, &call.at.name, &why));
    if let Some(taken) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return conflict(format!("pod {} is already assigned to node {taken:?}", call.at.name));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return conflict(format!("pod {} is being deleted, cannot be assigned to a host", call.at.name));
    }
    let mut new = pod.clone();
    new["spec"]["nodeName"] = json!(node);
    for field in ["labels", "annotations"] {
        let added = binding["metadata"][field].as_object().filter(|m| m.values().all(Value::is_string));
        if let Some(added) = added.filter(|m| !m.is_empty()) {
            let mut all = pod["metadata"][field].as_object().cloned().unwrap_or_default();
            all.extend(added.clone());
            new["metadata"][field] = Value::Object(all);
        }
    }
    if let Some(uid) = binding["metadata"]["uid"].as_str().filter(|u| !u.is_empty()) {
        new["metadata"]["uid"] = json!(uid);
    }
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|c| c["type"] != "PodScheduled");
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": call.now_text()}));
    new["status"]["conditions"] = Value::Array(conditions);
    Ok(new)
}

/// `metav1.Status` of a success without more to say.
pub(super) fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}
