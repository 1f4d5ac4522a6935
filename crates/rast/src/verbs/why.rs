//! `rast why`: what stops an object, in plain words.

use anyhow::Result;
use clap::Args;
use http::Request;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::Value;

use crate::{
    cli::Context,
    cluster::{Cluster, Query, uri},
    output,
    target::Address,
    verbs::{apply::current, describe::events},
    why::{Cause, Chain, pod, workload},
};

/// How many last lines a crash is shown with.
const LINES: &str = "5";

/// Explain what stops an object: `rast why pod/web`, `rast why deployment/web`
#[derive(Args)]
pub struct Why {
    /// POD or KIND/NAME
    target: String,
}

impl Why {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let cluster = Cluster::connect(context).await?;
        let word = if self.target.contains('/') { self.target.clone() } else { format!("pod/{}", self.target) };
        let at = Address::parse(&cluster, &word)?;
        let Some(object) = current(&cluster, &at).await? else {
            let chain = Chain::new(Cause::Absent, format!("{at} does not exist in namespace {}", at.namespace))
                .advise("`rast apply` it; `rast get -A` shows other namespaces");
            return output::line(chain.to_string().trim_end());
        };
        let chain = match &*at.kind.kind {
            "Pod" => pod::explain(&evidence(&cluster, &at, serde_json::from_value(object)?).await?),
            "Deployment" | "ReplicaSet" => workload::explain(pods(&cluster, &at, object).await?),
            _ => other(&at, &object),
        };
        output::line(chain.to_string().trim_end())
    }
}

/// A kind that nothing has to be done for: it is there, or on its way out.
fn other(at: &Address, object: &Value) -> Chain {
    if object["metadata"]["deletionTimestamp"].is_null() {
        return Chain::new(Cause::Fine, format!("{at} is there"));
    }
    let finalizers = [&object["metadata"]["finalizers"], &object["spec"]["finalizers"]];
    let names: Vec<&str> = finalizers.iter().flat_map(|f| f.as_array()).flatten().filter_map(Value::as_str).collect();
    Chain::new(Cause::Leaving, format!("these finalizers hold it: {}", names.join(", ")))
        .because_of(format!("{at} is being deleted"))
}

async fn evidence(cluster: &Cluster, at: &Address, pod: Pod) -> Result<pod::Evidence> {
    let events = typed(events(cluster, at).await?)?;
    let mut logs = Vec::new();
    for container in restarted(&pod) {
        logs.push((container.clone(), last_lines(cluster, at, &container).await));
    }
    let node_ready = match pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) {
        Some(node) => Some(node_ready(cluster, node).await?),
        None => None,
    };
    Ok(pod::Evidence { pod, events, logs, node_ready })
}

fn typed(events: Vec<Value>) -> Result<Vec<Event>> {
    events.into_iter().map(|event| Ok(serde_json::from_value(event)?)).collect()
}

/// The containers that ended at least once.
fn restarted(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let ended = |c: &&k8s_openapi::api::core::v1::ContainerStatus| {
        c.restart_count > 0 || c.state.as_ref().is_some_and(|s| s.terminated.is_some())
    };
    all.filter(ended).map(|c| c.name.clone()).collect()
}

/// What the run that ended printed last; nothing when the log is gone.
async fn last_lines(cluster: &Cluster, at: &Address, container: &str) -> Vec<String> {
    for previous in ["true", "false"] {
        let query = Query::default().with("container", container).with("tailLines", LINES).with("previous", previous);
        let Ok(request) = Request::get(uri(&(at.path() + "/log"), &query)).body(Vec::new()) else { continue };
        if let Ok(text) = cluster.client().request_text(request).await {
            return text.lines().map(str::to_owned).collect();
        }
    }
    Vec::new()
}

async fn node_ready(cluster: &Cluster, name: &str) -> Result<bool> {
    let at = Address::parse(cluster, &format!("node/{name}"))?;
    let node = current(cluster, &at).await?.unwrap_or_default();
    let conditions = node["status"]["conditions"].as_array();
    Ok(conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

async fn pods(cluster: &Cluster, at: &Address, object: Value) -> Result<workload::Evidence> {
    let mut about = typed(events(cluster, at).await?)?;
    let mut owners = vec![object["metadata"]["uid"].clone()];
    let path = Cluster::path(&*cluster.kind("replicasets")?, Some(&at.namespace), None);
    let sets = cluster.get(&path, Query::default()).await?;
    for set in owned(&sets, &owners) {
        // Only the newest version is what is wanted; older ones are on their way out.
        if set["spec"]["replicas"] != 0 {
            owners.push(set["metadata"]["uid"].clone());
            let name = set["metadata"]["name"].as_str().unwrap_or("");
            about.extend(typed(events(cluster, &Address::parse(cluster, &format!("replicaset/{name}"))?).await?)?);
        }
    }
    let path = Cluster::path(&*cluster.kind("pods")?, Some(&at.namespace), None);
    let mut chains = Vec::new();
    for pod in owned(&cluster.get(&path, Query::default()).await?, &owners) {
        let pod: Pod = serde_json::from_value(pod)?;
        let name = pod.metadata.name.clone().unwrap_or_default();
        let at = Address { kind: cluster.kind("pods")?, namespace: at.namespace.clone(), name };
        chains.push(pod::explain(&evidence(cluster, &at, pod).await?));
    }
    Ok(workload::Evidence { shown: at.to_string(), object, events: about, pods: chains })
}

fn owned(list: &Value, owners: &[Value]) -> Vec<Value> {
    let is_owned = |object: &&Value| {
        let references = object["metadata"]["ownerReferences"].as_array();
        references.into_iter().flatten().any(|reference| owners.contains(&reference["uid"]))
    };
    list["items"].as_array().into_iter().flatten().filter(is_owned).cloned().collect()
}
