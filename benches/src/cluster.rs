//! A fresh instance as a client sees it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{Stream, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tests::Instance;

/// How long anything may take before a figure counts as broken.
const PATIENCE: Duration = Duration::from_secs(300);

/// An administrator's client.
pub async fn client(instance: &Instance) -> Result<Client> {
    let config = Kubeconfig::read_from(instance.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// A bare pod of the busybox image, which is kept on the node once pulled.
pub fn pod(name: &str, command: &[&str]) -> Result<Pod> {
    let image = format!("{}/busybox:1", tests::registry());
    let spec: Value = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": command}]},
    });
    Ok(serde_json::from_value(spec)?)
}

/// Events of all pods from now on.
pub async fn watch(pods: &Api<Pod>) -> Result<impl Stream<Item = kube::Result<WatchEvent<Pod>>> + use<>> {
    let now = pods.list(&ListParams::default()).await?.metadata.resource_version.context("a list has a revision")?;
    Ok(Box::pin(pods.watch(&WatchParams::default(), &now).await?))
}

/// The next change of a pod for which `wanted` gives something.
pub async fn next<T>(
    events: &mut (impl Stream<Item = kube::Result<WatchEvent<Pod>>> + Unpin),
    mut wanted: impl FnMut(&WatchEvent<Pod>) -> Option<T>,
) -> Result<T> {
    let found = async {
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Error(status) = &event {
                bail!("the watch ended: {status:?}");
            }
            if let Some(found) = wanted(&event) {
                return Ok(found);
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(PATIENCE, found).await.context("nothing came of it")?
}

/// A pod's phase.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Deletes all pods and waits until they are gone. The watch is read meanwhile: who does not read falls behind what the
/// API keeps for watchers.
pub async fn clear(pods: &Api<Pod>) -> Result<()> {
    let mut events = watch(pods).await?;
    let left = pods.list_metadata(&ListParams::default()).await?.items.len();
    let deleted = async { anyhow::Ok(pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await?) };
    let gone = async {
        for _ in 0..left {
            next(&mut events, |event| matches!(event, WatchEvent::Deleted(_)).then_some(())).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(deleted, gone)?;
    Ok(())
}
