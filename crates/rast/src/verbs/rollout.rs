//! `rast rollout`: how a Deployment changes, and back.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    cli::Context,
    cluster::{Cluster, Query},
    complete,
    exit::{Exit, Failure},
    output,
    target::Address,
    until::until,
};

const REVISION: &str = "deployment.kubernetes.io/revision";

/// Follow, pause, restart or undo the change of a Deployment
#[derive(Args)]
pub struct Rollout {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Wait until the newest version runs
    Status {
        /// deployment/NAME
        #[arg(add = complete::object_of(&["deployment"]))]
        target: String,
        /// Seconds to wait
        #[arg(long, default_value_t = 600)]
        timeout: u64,
    },
    /// Replace all pods, one after the other
    Restart {
        /// deployment/NAME
        #[arg(add = complete::object_of(&["deployment"]))]
        target: String,
    },
    /// Go back to an earlier version
    Undo {
        /// deployment/NAME
        #[arg(add = complete::object_of(&["deployment"]))]
        target: String,
        /// The version; the one before when absent
        #[arg(long)]
        to_revision: Option<i64>,
    },
    /// List the versions that are kept
    History {
        /// deployment/NAME
        #[arg(add = complete::object_of(&["deployment"]))]
        target: String,
    },
    /// Hold changes back
    Pause {
        /// deployment/NAME
        #[arg(add = complete::object_of(&["deployment"]))]
        target: String,
    },
    /// Let changes through again
    Resume {
        /// deployment/NAME
        #[arg(add = complete::object_of(&["deployment"]))]
        target: String,
    },
}

impl Rollout {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let cluster = Cluster::connect(context).await?;
        match self.act {
            Act::Status { target, timeout } => status(&cluster, &target, timeout).await,
            Act::Restart { target } => {
                let at = jiff::Timestamp::now().to_string();
                let restarted = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": at}}});
                change(&cluster, &target, &json!({"spec": {"template": restarted}}), "restarted").await
            }
            Act::Pause { target } => change(&cluster, &target, &json!({"spec": {"paused": true}}), "paused").await,
            Act::Resume { target } => change(&cluster, &target, &json!({"spec": {"paused": null}}), "resumed").await,
            Act::History { target } => {
                let rows: Vec<Vec<String>> = versions(&cluster, &target)
                    .await?
                    .iter()
                    .map(|(revision, set)| vec![revision.to_string(), text(&set["metadata"]["name"]), images(set)])
                    .collect();
                output::table(&["REVISION".into(), "REPLICASET".into(), "IMAGES".into()], &rows)
            }
            Act::Undo { target, to_revision } => undo(&cluster, &target, to_revision).await,
        }
    }
}

async fn status(cluster: &Cluster, word: &str, timeout: u64) -> Result<()> {
    rolled_out(cluster, &deployment(cluster, word)?, Duration::from_secs(timeout)).await
}

/// Waits until a Deployment's newest version runs.
pub async fn rolled_out(cluster: &Cluster, at: &Address, limit: Duration) -> Result<()> {
    let word = at.to_string();
    let mut said = String::new();
    let done = |object: Option<&Value>| {
        let deployment = object.ok_or_else(|| Failure::new(Exit::NotFound, format!("{word} does not exist")))?;
        match progress(deployment) {
            Progress::Done => Ok(true),
            Progress::Failed(why) => Err(Failure::new(Exit::Failed, why).into()),
            Progress::Waiting(why) => {
                if why != said {
                    output::note(format!("waiting: {why}"));
                    said = why;
                }
                Ok(false)
            }
        }
    };
    let told = |_: Option<&Value>| format!("{word} is not rolled out; ask `rast why {word}`");
    until(cluster, at, limit, done, told).await?;
    output::line(format!("{word} successfully rolled out"))
}

enum Progress {
    Done,
    Waiting(String),
    Failed(String),
}

fn progress(deployment: &Value) -> Progress {
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (all, updated) = (number(&status["replicas"]), number(&status["updatedReplicas"]));
    let available = number(&status["availableReplicas"]);
    let late = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded");
    if number(&status["observedGeneration"]) < number(&deployment["metadata"]["generation"]) {
        Progress::Waiting("the change has not been seen yet".into())
    } else if let Some(late) = late {
        Progress::Failed(text(&late["message"]))
    } else if updated < wanted {
        Progress::Waiting(format!("{updated} of {wanted} new pods are there"))
    } else if all > updated {
        Progress::Waiting(format!("{} old pods are still there", all - updated))
    } else if available < updated {
        Progress::Waiting(format!("{available} of {updated} new pods are available"))
    } else {
        Progress::Done
    }
}

async fn change(cluster: &Cluster, word: &str, part: &Value, done: &str) -> Result<()> {
    let at = deployment(cluster, word)?;
    cluster.merge(&at.path(), part).await?;
    output::line(format!("{} {done}", at))
}

async fn undo(cluster: &Cluster, word: &str, to: Option<i64>) -> Result<()> {
    let versions = versions(cluster, word).await?;
    let chosen = match to {
        Some(revision) => versions.iter().find(|(r, _)| *r == revision),
        None => versions.iter().rev().nth(1),
    };
    let Some((revision, set)) = chosen else {
        return Err(Failure::new(Exit::NotFound, format!("{word} has no such earlier version")).into());
    };
    let at = deployment(cluster, word)?;
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    let path = at.path();
    let mut deployment = cluster.get(&path, Query::default()).await?;
    deployment["spec"]["template"] = template;
    cluster.replace(&path, &deployment).await?;
    output::line(format!("{} rolled back to revision {revision}", at))
}

/// The ReplicaSets that a Deployment owns, oldest version first.
async fn versions(cluster: &Cluster, word: &str) -> Result<Vec<(i64, Value)>> {
    let at = deployment(cluster, word)?;
    let deployment = cluster.get(&at.path(), Query::default()).await?;
    let uid = &deployment["metadata"]["uid"];
    let sets = Cluster::path(&*cluster.kind("replicasets")?, Some(cluster.namespace()), None);
    let sets = cluster.get(&sets, Query::default()).await?;
    let owned = |set: &&Value| {
        set["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| &owner["uid"] == uid)
    };
    let revision = |set: &Value| set["metadata"]["annotations"][REVISION].as_str().and_then(|r| r.parse().ok());
    let mut versions: Vec<(i64, Value)> = sets["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(owned)
        .map(|set| (revision(set).unwrap_or(0), set.clone()))
        .collect();
    versions.sort_by_key(|(revision, _)| *revision);
    Ok(versions)
}

fn deployment(cluster: &Cluster, word: &str) -> Result<Address> {
    let at = Address::parse(cluster, word)?;
    if at.kind.kind != "Deployment" {
        return Err(Failure::new(Exit::Usage, format!("{word:?}: rollout works on deployment/NAME")).into());
    }
    Ok(at)
}

fn images(set: &Value) -> String {
    let containers = set["spec"]["template"]["spec"]["containers"].as_array();
    containers.into_iter().flatten().map(|c| text(&c["image"])).collect::<Vec<_>>().join(",")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}
