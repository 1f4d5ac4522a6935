//! The namespaces that every cluster has.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::PostParams};
use serde_json::json;

const SYSTEM: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates those that are missing.
pub async fn ensure(client: Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client);
    for name in SYSTEM {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        match namespaces.create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other.with_context(|| format!("create namespace {name}"))?),
        }
    }
    Ok(())
}
