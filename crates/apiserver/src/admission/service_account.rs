//! The account that a pod runs as, and its token.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use store::Event;

use super::{Admission, Request};
use crate::Result;

/// Where clients in pods look for their token.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds that a pod's token is good; it is renewed before. The odd number tells them from tokens asked for by hand.
const TOKEN_LIFE: i64 = 3607;
/// How long a pod waits for the account `default` of a namespace that was made a moment ago.
const PATIENCE: Duration = Duration::from_secs(2);

/// Names the account, makes sure that it exists, mounts its token and takes over its pull secrets.
pub(super) async fn fill(ctx: &Admission, req: &Request<'_>, pod: &mut Value) -> Result<()> {
    let spec = &mut pod["spec"];
    // What this function serves by itself; the rest is the agent's, which forgets for itself.
    #[cfg(feature = "mutate")]
    if api::mutate::drops("io.k8s.api.core.v1.PodSpec", "automountServiceAccountToken") {
        api::mutate::forget("io.k8s.api.core.v1.PodSpec", spec);
    }
    let given = |field: &str| spec[field].as_str().filter(|name| !name.is_empty());
    let name = given("serviceAccountName").or(given("serviceAccount")).unwrap_or("default").to_owned();
    let Some(account) = find(ctx, req.namespace, &name).await? else {
        let hint = if name == "default" {
            "it is made shortly after its namespace; try again"
        } else {
            "create it first, or name another one in spec.serviceAccountName"
        };
        let why = format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found: {hint}",
            req.namespace
        );
        return Err(req.refuse(&why));
    };
    spec["serviceAccountName"] = json!(name);
    spec["serviceAccount"] = json!(name);
    let wanted = spec["automountServiceAccountToken"].as_bool().or(account["automountServiceAccountToken"].as_bool());
    if wanted.unwrap_or(true) {
        mount_token(spec);
    }
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    if empty(&spec["imagePullSecrets"]) && !empty(&account["imagePullSecrets"]) {
        spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    Ok(())
}

async fn find(ctx: &Admission, namespace: &str, name: &str) -> Result<Option<Value>> {
    let key = format!("/registry/core/serviceaccounts/{namespace}/{name}");
    if let Some(account) = ctx.stored(&key).await? {
        return Ok(Some(account));
    }
    if name != "default" {
        return Ok(None);
    }
    let from = ctx.store.revision().await?;
    if let Some(account) = ctx.stored(&key).await? {
        return Ok(Some(account));
    }
    let mut events = ctx.store.watch(&key, from).await?;
    let made = async {
        while let Some(Ok(event)) = events.next().await {
            if matches!(&event, Event::Put(entry) if entry.key == key) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, made).await;
    ctx.stored(&key).await
}

/// Adds the volume of the token, the cluster's CA and the namespace, and mounts it wherever nothing else is.
fn mount_token(spec: &mut Value) {
    let suffix: String =
        (0..5).map(|_| char::from(b"bcdfghjklmnpqrstvwxz2456789"[rand::random_range(0..27)])).collect();
    let volume = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|c| c.is_object()) {
            let mounts = &mut container["volumeMounts"];
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT) {
                continue;
            }
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT}));
            mounted = true;
        }
    }
    if !mounted {
        return;
    }
    if spec["volumes"].is_null() {
        spec["volumes"] = json!([]);
    }
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.push(json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_LIFE, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ]}}));
    }
}
