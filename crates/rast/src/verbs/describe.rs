//! `rast describe`: an object with what happened to it.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::{
    cli::Context,
    cluster::{Cluster, Query},
    complete, output,
    target::{Address, Target},
};

/// Show an object in full, with its events
#[derive(Args)]
pub struct Describe {
    /// KIND, KIND NAME… or KIND/NAME…
    #[arg(required = true, value_name = "TARGET", add = complete::targets())]
    targets: Vec<String>,
}

impl Describe {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let cluster = Cluster::connect(context).await?;
        for target in Target::parse(&cluster, &self.targets)? {
            for at in target.addresses(&cluster, Query::default()).await? {
                describe(&cluster, &at).await?;
            }
        }
        Ok(())
    }
}

async fn describe(cluster: &Cluster, at: &Address) -> Result<()> {
    let mut object = cluster.get(&at.path(), Query::default()).await?;
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.remove("managedFields");
        meta.get_mut("annotations")
            .and_then(Value::as_object_mut)
            .map(|a| a.remove("kubectl.kubernetes.io/last-applied-configuration"));
    }
    if at.kind.kind == "Secret" {
        conceal(&mut object);
    }
    output::object(&object, output::Output::Yaml)?;
    let events = events(cluster, at).await?;
    if events.is_empty() {
        return output::line("events: none\n");
    }
    output::line("events:")?;
    let rows: Vec<Vec<String>> = events.iter().map(row).collect();
    output::table(&["  LAST".into(), "TYPE".into(), "REASON".into(), "COUNT".into(), "MESSAGE".into()], &rows)?;
    output::line("")
}

/// A secret's values are shown by their size only.
fn conceal(secret: &mut Value) {
    for value in secret["data"].as_object_mut().into_iter().flat_map(|data| data.values_mut()) {
        let size = value.as_str().map_or(0, |v| v.trim_end_matches('=').len() * 3 / 4);
        *value = Value::String(format!("{size} bytes"));
    }
}

/// The events about an object, oldest first.
pub async fn events(cluster: &Cluster, at: &Address) -> Result<Vec<Value>> {
    let path = Cluster::path(&*cluster.kind("events")?, Some(&at.namespace), None);
    let about = format!("involvedObject.kind={},involvedObject.name={}", at.kind.kind, at.name);
    let list = cluster.get(&path, Query::default().with("fieldSelector", about)).await?;
    let mut events: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default();
    events.sort_by_key(|event| last(event).to_owned());
    Ok(events)
}

fn last(event: &Value) -> &str {
    let times = [&event["lastTimestamp"], &event["eventTime"], &event["metadata"]["creationTimestamp"]];
    times.into_iter().find_map(Value::as_str).unwrap_or("")
}

fn row(event: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    vec![
        format!("  {}", last(event)),
        text(&event["type"]),
        text(&event["reason"]),
        event["count"].as_i64().unwrap_or(1).to_string(),
        text(&event["message"]),
    ]
}
