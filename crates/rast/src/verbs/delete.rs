//! `rast delete`: takes objects away.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::{
    cli::Context,
    cluster::{Cluster, Query},
    complete,
    exit::{Exit, Failure},
    manifest, output,
    target::{Address, Target},
    until::until,
};

/// Delete objects: `rast delete pod/web`, `rast delete -f app.yaml`
#[derive(Args)]
pub struct Delete {
    /// KIND NAME… or KIND/NAME…
    #[arg(value_name = "TARGET", required_unless_present = "file", add = complete::targets())]
    targets: Vec<String>,
    /// The objects of these YAML files (- for standard input)
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Only objects whose labels match
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// Seconds that a pod has to end
    #[arg(long)]
    grace_period: Option<u32>,
    /// Do not wait until they are gone
    #[arg(long)]
    no_wait: bool,
    /// Seconds to wait until they are gone
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

impl Delete {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let cluster = Cluster::connect(context).await?;
        let mut addresses = Vec::new();
        for object in manifest::read_all(&self.file)? {
            addresses.push(Address::of(&cluster, &object)?);
        }
        for target in if self.targets.is_empty() { Vec::new() } else { Target::parse(&cluster, &self.targets)? } {
            if target.name.is_none() && self.selector.is_none() && !self.all {
                let why = format!("name the {} to delete, or say --all or -l", target.kind.plural);
                return Err(Failure::new(Exit::Usage, why).into());
            }
            let selected = Query::default().maybe("labelSelector", self.selector.as_deref());
            addresses.extend(target.addresses(&cluster, selected).await?);
        }
        let grace = self.grace_period.map(|s| s.to_string());
        for at in &addresses {
            let query =
                Query::default().with("propagationPolicy", "Background").maybe("gracePeriodSeconds", grace.as_deref());
            cluster.delete(&at.path(), query).await?;
            output::line(format!("{at} deleted"))?;
        }
        if self.no_wait {
            return Ok(());
        }
        let end = Instant::now() + Duration::from_secs(self.timeout);
        for at in &addresses {
            let told = |_: Option<&Value>| format!("{at} is not gone yet; ask `rast why {at}`");
            until(&cluster, at, end.saturating_duration_since(Instant::now()), |o| Ok(o.is_none()), told).await?;
        }
        Ok(())
    }
}
