//! `rast apply`: makes it so.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::{
    cli::Context,
    cluster::{Cluster, Query},
    exit::Exit,
    manifest::{self, Object},
    output,
    target::Address,
};

/// Make objects what YAML files say: `rast apply -f app.yaml`
#[derive(Args)]
pub struct Apply {
    /// The files (- for standard input)
    #[arg(short, long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Let the server check everything and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Apply {
    /// Runs the verb. Nothing is sent while a file is faulty; then every object is tried, and the last failure
    /// decides the exit code.
    pub async fn run(self, context: &Context) -> Result<()> {
        let objects = manifest::checked(&self.file, &api::builtin())?;
        let cluster = Cluster::connect(context).await?;
        let mut failed = None;
        for object in &objects {
            match one(&cluster, object, self.dry_run).await {
                Ok((at, change)) => output::line(format!("{at} {change}"))?,
                Err(error) => {
                    let error = object.point(error);
                    if let Some(first) = failed.replace(error) {
                        output::note(format!("rast: {}", crate::exit::words(&first)));
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Applies one object; where it is and what that changed.
pub async fn one(cluster: &Cluster, object: &Object, dry_run: bool) -> Result<(Address, &'static str)> {
    let at = Address::of(cluster, object)?;
    let query = Query::default().maybe("dryRun", dry_run.then_some("All"));
    let before = current(cluster, &at).await?;
    let after = cluster.apply(&at.path(), &object.value, query).await?;
    Ok((at, change(before.as_ref(), &after)))
}

/// The object as it stands; `None` when there is none.
pub async fn current(cluster: &Cluster, at: &Address) -> Result<Option<Value>> {
    match cluster.get(&at.path(), Query::default()).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if Exit::of(&error) == Exit::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn change(before: Option<&Value>, after: &Value) -> &'static str {
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    match before {
        None => "created",
        Some(before) if version(before) == version(after) => "unchanged",
        Some(_) => "configured",
    }
}
