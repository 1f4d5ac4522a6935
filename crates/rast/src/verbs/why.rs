//! `rast why`: what stops an object, in plain words. Where the answer lies in the cloud that holds the cluster, it is
//! followed there.

use std::time::Duration;

use anyhow::Result;
use api::rastos::cluster::name_rule;
use clap::Args;
use http::Request;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::Value;

use crate::{
    cli::Context,
    cluster::{self, Cluster, Query, Refused, uri},
    complete,
    exit::{self, Exit, Failure},
    output,
    target::Address,
    verbs::{
        apply::current,
        cloud::{Which, keep, own, trust},
        describe::events,
    },
    why::{Cause, Chain, cloud, pod, workload},
};

/// How long the API may take to answer before it is called silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many last lines a crash is shown with.
const LINES: &str = "5";

/// Explain what stops an object: `rast why pod/web`, `rast why deployment/web`, `rast why cluster/demo`
#[derive(Args)]
pub struct Why {
    /// POD or KIND/NAME
    #[arg(add = complete::pod())]
    target: String,
    #[command(flatten)]
    which: Which,
}

impl Why {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let word = if self.target.contains('/') { self.target.clone() } else { format!("pod/{}", self.target) };
        if let Some(name) = cluster_named(&word) {
            return output::line(self.of_cluster(context, name).await?.to_string().trim_end());
        }
        let cluster = Cluster::connect(context).await?;
        let at = Address::parse(&cluster, &word)?;
        // A machine that is gone answers nothing, not even that it is gone.
        let found = tokio::time::timeout(PATIENCE, explain(&cluster, &at)).await;
        let own = own_cloud(context);
        let silence = || format!("no answer in {PATIENCE:?}");
        let chain = match (found, &own) {
            (Ok(Err(error)), Some(_)) if error.downcast_ref::<Refused>().is_none() => {
                unanswered(&at, &exit::words(&error))
            }
            (Err(_), Some(_)) => unanswered(&at, &silence()),
            (Err(_), None) => {
                let message = format!("the API does not answer for {at}: {}", silence());
                return Err(Failure::new(Exit::TimedOut, message).into());
            }
            (Ok(found), _) => found?,
        };
        let chain = match own {
            Some(name) if matches!(chain.cause, Cause::NodeDown | Cause::Silent) => {
                self.go_on(context, chain, &name).await
            }
            _ => chain,
        };
        output::line(chain.to_string().trim_end())
    }

    /// Follows a chain that ends with a machine into the cloud, if the cloud can be asked and has something to say.
    async fn go_on(&self, context: &Context, chain: Chain, name: &str) -> Chain {
        match self.of_cluster(context, name).await {
            Ok(further) if further.cause != Cause::Fine => chain.because(further),
            Ok(_) => chain,
            Err(error) => chain.quoting([format!("its cloud was not asked: {}", exit::words(&error))]),
        }
    }

    /// The chain of a cluster: what its cloud says, and whether its API answers.
    async fn of_cluster(&self, context: &Context, name: &str) -> Result<Chain> {
        if let Some(why) = name_rule(name) {
            return Err(Failure::new(Exit::Usage, format!("cluster {name:?}: {why}")).into());
        }
        let session = self.which.session().await?;
        let (account, api) = futures::join!(::cloud::account::read(&session, name), api(context, name));
        Ok(cloud::explain(&cloud::Evidence { name: name.to_owned(), account: account?, api: api? }))
    }
}

/// Whether a cluster's API answers.
async fn api(context: &Context, name: &str) -> Result<cloud::Api> {
    let path = keep::kubeconfig_path(context, name)?;
    if !path.exists() {
        return Ok(cloud::Api::Unasked);
    }
    let asked = tokio::time::timeout(PATIENCE, async {
        let at = Cluster::connect(&trust::at(context, &path)).await?;
        own::kept(&at, name).await
    });
    Ok(match asked.await {
        Ok(Ok(kept)) => cloud::Api::Answers { awaits_up: kept.is_some_and(|kept| kept.awaits_up()) },
        Ok(Err(error)) => cloud::Api::Silent(exit::words(&error)),
        Err(_) => cloud::Api::Silent(format!("no answer in {PATIENCE:?}")),
    })
}

/// The name in `cluster/NAME`.
fn cluster_named(word: &str) -> Option<&str> {
    let (kind, name) = word.split_once('/')?;
    api::builtin().named(kind).is_some_and(|kind| kind.kind == "Cluster").then_some(name)
}

/// The cluster that this kubeconfig leads to, if `rast cloud` made it.
fn own_cloud(context: &Context) -> Option<String> {
    let config = cluster::kubeconfig(context).ok()?;
    let current = config.contexts.iter().find(|c| Some(&c.name) == config.current_context.as_ref())?;
    let name = &current.context.as_ref()?.cluster;
    let server = config.clusters.iter().find(|c| &c.name == name)?.cluster.as_ref()?;
    (server.tls_server_name.as_ref()? == &::cloud::enrol::api_name(name)).then(|| name.clone())
}

fn unanswered(at: &Address, why: &str) -> Chain {
    Chain::new(Cause::Silent, format!("the API does not answer: {why}")).because_of(format!("{at} cannot be looked at"))
}

/// The chain of an object, by what its API says.
async fn explain(cluster: &Cluster, at: &Address) -> Result<Chain> {
    let Some(object) = current(cluster, at).await? else {
        let chain = Chain::new(Cause::Absent, format!("{at} does not exist in namespace {}", at.namespace))
            .advise("`rast apply` it; `rast get -A` shows other namespaces");
        return Ok(chain);
    };
    Ok(match &*at.kind.kind {
        "Pod" => pod::explain(&evidence(cluster, at, serde_json::from_value(object)?).await?),
        "Deployment" | "ReplicaSet" => workload::explain(pods(cluster, at, object).await?),
        _ => other(at, &object),
    })
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
