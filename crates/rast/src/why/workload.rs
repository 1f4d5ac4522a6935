//! Why a Deployment or ReplicaSet does not have the pods it wants.

use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use super::{Cause, Chain};

/// What is known of a workload.
pub struct Evidence {
    /// `deployment.apps/web`.
    pub shown: String,
    /// The Deployment or ReplicaSet.
    pub object: Value,
    /// What happened to it and to what it owns, oldest first.
    pub events: Vec<Event>,
    /// The chains of its pods.
    pub pods: Vec<Chain>,
}

/// The chain of a workload.
pub fn explain(evidence: Evidence) -> Chain {
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let (spec, status) = (&evidence.object["spec"], &evidence.object["status"]);
    let (wanted, ready) = (spec["replicas"].as_i64().unwrap_or(1), number(&status["readyReplicas"]));
    let updated = status["updatedReplicas"].as_i64().unwrap_or(wanted);
    let shown = evidence.shown;
    if wanted == 0 {
        return Chain::new(Cause::Held, format!("{shown} is wanted to have no pods"))
            .advise(format!("`rast scale {shown} --replicas N`"));
    }
    if ready >= wanted && updated >= wanted {
        return Chain::new(Cause::Fine, format!("{shown} has all its {wanted} pods, and they are ready"));
    }
    let head = format!("{shown}: {ready} of {wanted} pods are ready");
    if spec["paused"] == true {
        return Chain::new(Cause::Held, "it is paused")
            .advise(format!("`rast rollout resume {shown}`"))
            .because_of(head);
    }
    let mut pods = evidence.pods;
    pods.sort_by_key(|chain| (matches!(chain.cause, Cause::Fine), chain.cause == Cause::OnItsWay));
    match pods.into_iter().find(|chain| chain.cause != Cause::Fine) {
        Some(chain) => chain.because_of(head),
        None => uncreated(&evidence.events).because_of(head),
    }
}

/// No pod is there: what the newest refusal says.
fn uncreated(events: &[Event]) -> Chain {
    let failed = events.iter().rev().find(|e| e.reason.as_deref() == Some("FailedCreate"));
    let Some(message) = failed.and_then(|e| e.message.clone()) else {
        return Chain::new(Cause::OnItsWay, "its pods are still to be made");
    };
    if message.contains("serviceaccount") || message.contains("service account") {
        Chain::new(Cause::NoAccount, "its pods name a service account that does not exist")
            .quoting([message])
            .advise("create the ServiceAccount, or name another in spec.template.spec.serviceAccountName")
    } else {
        Chain::new(Cause::Forbidden, "its pods are refused")
            .quoting([message])
            .advise("change the template, or have a cluster-admin change the namespace's pod-security label")
    }
}
