//! What the scheduler writes: bindings, conditions, events.

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{queue::Pending, run::NAME, wire::Pod};

/// Binds a pod to a node.
pub async fn bind(client: &Client, pod: &Pending, node: &str) -> Result<(), kube::Error> {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    pods.create_subresource::<Value, Value>("binding", &pod.name, &PostParams::default(), &body).await.map(drop)
}

/// Says in the pod's status why it has no node. `since`: when it was first said, if it was.
pub async fn unscheduled(client: &Client, pod: &Pending, message: &str, since: Timestamp) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let patch = json!({
        "metadata": {"uid": pod.uid},
        "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]},
    });
    pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

/// Records an event about a pod.
pub async fn event(
    client: &Client,
    pod: &Pending,
    kind: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": pod.namespace, "name": format!("{}.{:x}", pod.name, now.as_nanosecond())},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": NAME},
        "reportingComponent": NAME,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    });
    let path = format!("/api/v1/namespaces/{}/events", pod.namespace);
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(event.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}
