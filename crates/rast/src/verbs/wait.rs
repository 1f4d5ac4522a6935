//! `rast wait`: until an object is as wanted.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::{
    cli::Context,
    cluster::{Cluster, Query},
    complete,
    exit::{Exit, Failure},
    output,
    target::{Address, Target},
    until::until,
};

/// Wait until objects are as wanted: `rast wait --for condition=Ready pod/web`, `--for delete`
#[derive(Args)]
pub struct Wait {
    /// KIND NAME… or KIND/NAME…
    #[arg(required = true, value_name = "TARGET", add = complete::targets())]
    targets: Vec<String>,
    /// Of all objects of the kind
    #[arg(long)]
    all: bool,
    /// Of the objects whose labels match
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// condition=TYPE[=STATUS], delete, or create
    #[arg(long = "for", value_name = "WHAT")]
    wanted: String,
    /// Seconds to wait
    #[arg(long, default_value_t = 30)]
    timeout: u64,
}

enum Wanted {
    Created,
    Deleted,
    Condition { kind: String, status: String },
}

impl Wait {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let wanted = parse(&self.wanted)?;
        let cluster = Cluster::connect(context).await?;
        let mut addresses = Vec::new();
        for target in Target::parse(&cluster, &self.targets)? {
            if target.name.is_none() && !self.all && self.selector.is_none() {
                return Err(Failure::new(Exit::Usage, "name the object to wait for, or say --all or -l").into());
            }
            let selected = Query::default().maybe("labelSelector", self.selector.as_deref());
            addresses.extend(target.addresses(&cluster, selected).await?);
        }
        if addresses.is_empty() {
            return Err(Failure::new(Exit::NotFound, "nothing to wait for").into());
        }
        let end = Instant::now() + Duration::from_secs(self.timeout);
        for at in addresses {
            let holds = |object: Option<&Value>| met(&wanted, object, &at);
            let told = |object: Option<&Value>| match object {
                Some(_) => format!("{at} is not {} yet; ask `rast why {at}`", self.wanted),
                None => format!("{at} does not exist"),
            };
            until(&cluster, &at, end.saturating_duration_since(Instant::now()), holds, told).await?;
            output::line(format!("{at} {}", self.wanted))?;
        }
        Ok(())
    }
}

/// Waits until a node is ready.
pub async fn node_ready(client: kube::Client, name: &str, limit: Duration) -> Result<()> {
    let cluster = Cluster::within(client);
    let at = Address::parse(&cluster, &format!("node/{name}"))?;
    let ready = Wanted::Condition { kind: "Ready".into(), status: "True".into() };
    let holds = |object: Option<&Value>| object.map_or(Ok(false), |_| met(&ready, object, &at));
    until(&cluster, &at, limit, holds, |_| format!("{at} is not ready")).await
}

/// Waits until a pod is ready.
pub async fn pod_ready(cluster: &Cluster, at: &Address, limit: Duration) -> Result<()> {
    let ready = Wanted::Condition { kind: "Ready".into(), status: "True".into() };
    let holds = |object: Option<&Value>| object.map_or(Ok(false), |_| met(&ready, object, at));
    until(cluster, at, limit, holds, |_| format!("{at} is not ready; ask `rast why {at}`")).await
}

fn parse(text: &str) -> Result<Wanted> {
    let words: Vec<&str> = text.splitn(3, '=').collect();
    match words.as_slice() {
        ["delete"] => Ok(Wanted::Deleted),
        ["create"] => Ok(Wanted::Created),
        ["condition", kind] => Ok(Wanted::Condition { kind: (*kind).into(), status: "True".into() }),
        ["condition", kind, status] => Ok(Wanted::Condition { kind: (*kind).into(), status: (*status).into() }),
        _ => Err(Failure::new(Exit::Usage, format!("--for {text}: write condition=TYPE, delete or create")).into()),
    }
}

fn met(wanted: &Wanted, object: Option<&Value>, at: &Address) -> Result<bool> {
    match (wanted, object) {
        (Wanted::Deleted, object) => Ok(object.is_none()),
        (Wanted::Created, object) => Ok(object.is_some()),
        (Wanted::Condition { .. }, None) => Err(Failure::new(Exit::NotFound, format!("{at} does not exist")).into()),
        (Wanted::Condition { kind, status }, Some(object)) => {
            let conditions = object["status"]["conditions"].as_array();
            let found = conditions.into_iter().flatten().find(|c| same(&c["type"], kind));
            Ok(found.is_some_and(|c| same(&c["status"], status)))
        }
    }
}

fn same(value: &Value, text: &str) -> bool {
    value.as_str().is_some_and(|v| v.eq_ignore_ascii_case(text))
}
