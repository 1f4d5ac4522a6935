//! `serviceaccounts/NAME/token`: tokens for those who may ask for them.

use http::StatusCode;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest};
use serde_json::{Value, json};

use crate::{
    ApiError, Identity, Result, Server,
    authn::{Bound, Issue, Reference},
    rbac,
};

/// What a request without a duration gets, in seconds; the least and the most there is.
const USUAL: i64 = 3600;
const LEAST: i64 = 600;
const MOST: i64 = 365 * 24 * 3600;

/// Answers a TokenRequest for an account that exists.
pub(crate) async fn token(server: &Server, identity: &Identity, account: &Value, request: Value) -> Result<Value> {
    let unreadable = |e: serde_json::Error| ApiError::bad_request(format!("TokenRequest cannot be decoded: {e}"));
    let mut request = request;
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["kind"] = json!("TokenRequest");
    let spec = serde_json::from_value::<TokenRequest>(request).map_err(unreadable)?.spec.unwrap_or_default();
    let asked = spec.expiration_seconds.unwrap_or(USUAL);
    if asked < LEAST {
        let why =
            format!("spec.expirationSeconds: Invalid value: {asked}: may not specify a duration less than 10 minutes");
        return Err(invalid(why));
    }
    let seconds = asked.min(MOST);
    let text = |field: &str| account["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (name, namespace) = (text("name"), text("namespace"));
    let mut bound = Bound {
        namespace: namespace.clone(),
        node: None,
        pod: None,
        secret: None,
        serviceaccount: Reference { name: name.clone(), uid: text("uid") },
    };
    let holder = spec.bound_object_ref.as_ref();
    bind(server, &mut bound, holder).await?;
    if let Some(node) = rbac::node_name(identity)
        && !(bound.pod.is_some() && bound.node.as_ref().is_some_and(|n| n.name == node))
    {
        let why = format!("node {node:?} gets tokens for its own pods only: give spec.boundObjectRef of one of them");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", why));
    }
    let tokens = server.config().authenticator.tokens();
    let tokens = tokens.ok_or_else(|| ApiError::unavailable("this server has no key to sign tokens with"))?;
    let now = (server.config().clock)();
    let mut audiences = spec.audiences.unwrap_or_default();
    if audiences.is_empty() {
        audiences.push(crate::authn::ISSUER.to_owned());
    }
    let issue = Issue { bound, audiences: audiences.clone(), seconds };
    let (token, ends) = tokens.issue(issue, now).map_err(ApiError::internal)?;
    let time = |t: jiff::Timestamp| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut spec = json!({"audiences": audiences, "expirationSeconds": seconds});
    if let Some(holder) = holder {
        spec["boundObjectRef"] = json!(holder);
    }
    Ok(json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": time(now)},
        "spec": spec, "status": {"token": token, "expirationTimestamp": time(ends)},
    }))
}

/// Binds the token to the pod or secret that it is asked for.
async fn bind(server: &Server, bound: &mut Bound, holder: Option<&BoundObjectReference>) -> Result<()> {
    let Some(holder) = holder else { return Ok(()) };
    let (kind, name) = (holder.kind.as_deref().unwrap_or_default(), holder.name.as_deref().unwrap_or_default());
    let plural = match kind {
        "Pod" => "pods",
        "Secret" => "secrets",
        _ => return Err(invalid(format!("spec.boundObjectRef.kind: {kind:?} is not supported: use Pod or Secret"))),
    };
    let object = get(server, &format!("{plural}/{}/{name}", bound.namespace)).await?;
    let object = object.ok_or_else(|| {
        let message = format!("{plural} {name:?} not found, so no token can be bound to it");
        ApiError::new(StatusCode::NOT_FOUND, "NotFound", message)
    })?;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    if holder.uid.as_ref().is_some_and(|asked| *asked != uid) {
        let message = format!("the UID in spec.boundObjectRef is not that of {plural} {name:?} ({uid})");
        return Err(ApiError::new(StatusCode::CONFLICT, "Conflict", message));
    }
    let reference = Some(Reference { name: name.to_owned(), uid });
    if kind == "Secret" {
        bound.secret = reference;
        return Ok(());
    }
    let runs_as = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    if runs_as != bound.serviceaccount.name {
        return Err(ApiError::bad_request(format!("pod {name:?} runs as service account {runs_as:?}")));
    }
    if let Some(node) = object["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        let stored = get(server, &format!("nodes/{node}")).await?.unwrap_or_default();
        let uid = stored["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        bound.node = Some(Reference { name: node.to_owned(), uid });
    }
    bound.pod = reference;
    Ok(())
}

async fn get(server: &Server, place: &str) -> Result<Option<Value>> {
    let Some(entry) = server.config().store.get(&format!("/registry/core/{place}"), None).await? else {
        return Ok(None);
    };
    serde_json::from_slice(&entry.value).map(Some).map_err(ApiError::internal)
}

fn invalid(why: String) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", format!("TokenRequest is invalid: {why}"))
}
