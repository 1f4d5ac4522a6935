//! Questions that are answered and forgotten: access and token reviews, and service account tokens.

mod token;

use api::Kind;
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, ResourceAttributes};
use serde_json::{Value, json};

use crate::{ApiError, Attributes, Identity, Result, Server};

pub(crate) use token::token;

/// Answers a create of a kind that is not stored; the object is decoded and has its defaults.
pub(crate) async fn answer(
    server: &Server,
    identity: &Identity,
    kind: &Kind,
    namespace: &str,
    mut object: Value,
) -> Result<Value> {
    let spec = &object["spec"];
    object["status"] = match &*kind.kind {
        "SelfSubjectAccessReview" => access(server, identity, spec)?,
        "SubjectAccessReview" => access(server, &subject(spec), spec)?,
        "LocalSubjectAccessReview" => {
            if spec["resourceAttributes"]["namespace"] != namespace {
                return Err(ApiError::bad_request(
                    "spec.resourceAttributes.namespace must be the namespace of the request",
                ));
            }
            access(server, &subject(spec), spec)?
        }
        "SelfSubjectRulesReview" => rules(server, identity, spec),
        "SelfSubjectReview" => json!({"userInfo": identity}),
        "TokenReview" => whose(server, spec).await?,
        _ => return Err(ApiError::method_not_allowed("create", &kind.plural)),
    };
    Ok(object)
}

/// Whether `identity` may do what a review asks about.
fn access(server: &Server, identity: &Identity, spec: &Value) -> Result<Value> {
    let read = |e: serde_json::Error| ApiError::bad_request(format!("spec: {e}"));
    let at = match (&spec["resourceAttributes"], &spec["nonResourceAttributes"]) {
        (Value::Null, Value::Null) => {
            return Err(ApiError::bad_request("spec: give resourceAttributes or nonResourceAttributes"));
        }
        (resource, Value::Null) => {
            let asked: ResourceAttributes = serde_json::from_value(resource.clone()).map_err(read)?;
            Attributes {
                verb: asked.verb.unwrap_or_default(),
                group: asked.group.unwrap_or_default(),
                version: asked.version.unwrap_or_default(),
                resource: asked.resource.unwrap_or_default(),
                subresource: asked.subresource.unwrap_or_default(),
                namespace: asked.namespace.unwrap_or_default(),
                name: asked.name.unwrap_or_default(),
                is_resource: true,
                ..Attributes::default()
            }
        }
        (Value::Null, path) => {
            let asked: NonResourceAttributes = serde_json::from_value(path.clone()).map_err(read)?;
            let (verb, path) = (asked.verb.unwrap_or_default(), asked.path.unwrap_or_default());
            Attributes { verb, path, ..Attributes::default() }
        }
        _ => return Err(ApiError::bad_request("spec: give resourceAttributes or nonResourceAttributes, not both")),
    };
    let decision = server.config().authorizer.decide(identity, &at);
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = json!(decision.reason);
    }
    Ok(status)
}

/// The user that a SubjectAccessReview asks about.
fn subject(spec: &Value) -> Identity {
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    Identity {
        user: text("user"),
        uid: text("uid"),
        groups: serde_json::from_value(spec["groups"].clone()).unwrap_or_default(),
        extra: serde_json::from_value(spec["extra"].clone()).unwrap_or_default(),
    }
}

/// All that roles allow.
fn rules(server: &Server, identity: &Identity, spec: &Value) -> Value {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in server.config().authorizer.rules(identity, namespace) {
        if rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
        if rule.resources.as_ref().is_some_and(|resources| !resources.is_empty()) {
            let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
            if let Some(names) = rule.resource_names {
                shown["resourceNames"] = json!(names);
            }
            resources.push(shown);
        }
    }
    // A node's rights come from its pods, not from rules.
    let incomplete = crate::rbac::node_name(identity).is_some();
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete})
}

/// Whose token it is.
async fn whose(server: &Server, spec: &Value) -> Result<Value> {
    let audiences: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let token = spec["token"].as_str().unwrap_or_default();
    Ok(match server.config().authenticator.review(token, &audiences).await? {
        Some((user, audiences)) => json!({"authenticated": true, "user": user, "audiences": audiences}),
        None => json!({"authenticated": false, "user": {}, "error": "the token is not valid for these audiences"}),
    })
}

#[cfg(test)]
mod tests;
