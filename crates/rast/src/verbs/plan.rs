//! `rast plan`: what an apply would change, and what would not fit, before anything changes.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::{
    cli::Context,
    cluster::{Cluster, Query},
    exit::{Exit, Failure, words},
    manifest::{self, Object},
    output, room,
    target::Address,
    verbs::apply::current,
};

/// Show what `rast apply` of these files would change, and what would not fit
#[derive(Args)]
pub struct Plan {
    /// The files (- for standard input)
    #[arg(short, long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
}

impl Plan {
    /// Runs the verb. Changes nothing; fails when an apply would.
    pub async fn run(self, context: &Context) -> Result<()> {
        let objects = manifest::checked(&self.file, &api::builtin())?;
        let cluster = Cluster::connect(context).await?;
        let mut refused = 0;
        for object in &objects {
            let at = Address::of(&cluster, object)?;
            match step(&cluster, &objects, object, &at).await {
                Ok(step) => output::line(step.trim_end())?,
                Err(error) => {
                    refused += 1;
                    output::line(format!("! {at} would be refused: {}", words(&object.point(error))))?;
                }
            }
        }
        let short = room::shortage(&cluster, &objects).await?;
        for line in &short {
            output::line(format!("! {line}"))?;
        }
        match refused + short.len() {
            0 => Ok(()),
            _ => Err(Failure::new(Exit::Invalid, "an apply would not succeed as it stands").into()),
        }
    }
}

async fn step(cluster: &Cluster, all: &[Object], object: &Object, at: &Address) -> Result<String> {
    let before = current(cluster, at).await?;
    let to_come = |o: &Object| o.value["kind"] == "Namespace" && o.name() == at.namespace;
    // Into a namespace that the same files make, the server cannot try it yet; the kind's own rules have judged it.
    if before.is_none() && at.kind.scope == api::Scope::Namespaced && all.iter().any(to_come) {
        return Ok(format!("+ {at} would be created, in the new namespace {}", at.namespace));
    }
    let after = cluster.apply(&at.path(), &object.value, Query::default().with("dryRun", "All")).await?;
    let Some(before) = before else { return Ok(format!("+ {at} would be created")) };
    let mut changes = String::new();
    differences("", &shown(&before), &shown(&after), &mut changes);
    Ok(if changes.is_empty() { format!("= {at} is as wanted") } else { format!("~ {at} would change\n{changes}") })
}

/// An object without what the server keeps for itself.
fn shown(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    if let Some(meta) = object["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"] {
            meta.remove(field);
        }
    }
    object
}

fn differences(path: &str, before: &Value, after: &Value, out: &mut String) {
    match (before, after) {
        (Value::Object(b), Value::Object(a)) => {
            let keys: std::collections::BTreeSet<&String> = b.keys().chain(a.keys()).collect();
            for key in keys {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differences(&at, b.get(key).unwrap_or(&Value::Null), a.get(key).unwrap_or(&Value::Null), out);
            }
        }
        (Value::Array(b), Value::Array(a)) if b.len() == a.len() => {
            for (i, (b, a)) in b.iter().zip(a).enumerate() {
                differences(&format!("{path}[{i}]"), b, a, out);
            }
        }
        _ if before == after => {}
        (Value::Null, after) => *out += &format!("    + {path}: {after}\n"),
        (before, Value::Null) => *out += &format!("    - {path}: {before}\n"),
        (before, after) => *out += &format!("    ~ {path}: {before} -> {after}\n"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_names_the_field() {
        let mut out = String::new();
        let before = json!({"spec": {"replicas": 1, "list": [{"image": "a"}], "gone": true}});
        let after = json!({"spec": {"replicas": 2, "list": [{"image": "b"}], "new": "x"}});
        differences("", &before, &after, &mut out);
        let lines: Vec<&str> = out.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "- spec.gone: true",
                "~ spec.list[0].image: \"a\" -> \"b\"",
                "+ spec.new: \"x\"",
                "~ spec.replicas: 1 -> 2"
            ]
        );
    }
}
