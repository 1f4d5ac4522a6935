//! `rast get`: what there is.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::Context,
    cluster::{Cluster, Query},
    complete,
    output::{self, Output},
    target::{Address, Target},
};

/// Show objects: `rast get pods`, `rast get deployment/web -o yaml`
#[derive(Args)]
pub struct Get {
    /// KIND, KIND NAME… or KIND/NAME…
    #[arg(required = true, value_name = "TARGET", add = complete::targets())]
    targets: Vec<String>,
    /// Only objects whose labels match
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Only objects whose fields match, e.g. status.phase=Running
    #[arg(long)]
    field_selector: Option<String>,
    /// In every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Get {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let cluster = Cluster::connect(context).await?;
        let targets = Target::parse(&cluster, &self.targets)?;
        let several = targets.len() > 1;
        let mut objects = Vec::new();
        for target in targets {
            let namespace = (!self.all_namespaces).then(|| cluster.namespace());
            let path = Cluster::path(&target.kind, namespace, target.name.as_deref());
            let query = Query::default()
                .maybe("labelSelector", self.selector.as_deref())
                .maybe("fieldSelector", self.field_selector.as_deref());
            match self.output {
                Output::Table | Output::Wide => {
                    let table = cluster.table(&path, query).await?;
                    self.print_table(&table, &target, several)?;
                }
                _ => objects.extend(items(cluster.get(&path, query).await?, &target)),
            }
        }
        match (self.output, objects.as_slice()) {
            (Output::Table | Output::Wide, _) => Ok(()),
            (Output::Name, objects) => objects.iter().try_for_each(|o| output::line(name(&cluster, o)?)),
            (form, [one]) if self.targets.iter().any(|t| t.contains('/')) || self.targets.len() == 2 => {
                output::object(one, form)
            }
            (form, all) => output::object(&json!({"apiVersion": "v1", "kind": "List", "items": all}), form),
        }
    }

    fn print_table(&self, table: &Value, target: &Target, several: bool) -> Result<()> {
        let (mut heading, mut rows) = output::rows(table, self.output == Output::Wide);
        if rows.is_empty() {
            eprintln!("no {} found", target.kind.plural);
            return Ok(());
        }
        if self.all_namespaces && target.kind.scope == api::Scope::Namespaced {
            heading.insert(0, "NAMESPACE".to_owned());
            for (row, from) in rows.iter_mut().zip(table["rows"].as_array().into_iter().flatten()) {
                row.insert(0, from["object"]["metadata"]["namespace"].as_str().unwrap_or("").to_owned());
            }
        }
        if several {
            let shown =
                |name: &str| Address { kind: target.kind.clone(), namespace: String::new(), name: name.to_owned() };
            rows.iter_mut().for_each(|row| row[0] = shown(&row[0]).to_string());
        }
        output::table(&heading, &rows)
    }
}

/// The items of a list, each with the kind that lists leave out; or the one object.
fn items(answer: Value, target: &Target) -> Vec<Value> {
    match answer {
        Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) => {
            let Some(Value::Array(items)) = list.remove("items") else { return Vec::new() };
            let named = |mut item: Value| {
                item["apiVersion"] = json!(target.kind.api_version());
                item["kind"] = json!(target.kind.kind);
                item
            };
            items.into_iter().map(named).collect()
        }
        one => vec![one],
    }
}

fn name(cluster: &Cluster, object: &Value) -> Result<String> {
    let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
    Ok(Address { kind: cluster.kind_of(object)?, namespace: String::new(), name }.to_string())
}
