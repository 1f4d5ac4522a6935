//! `rast scale`: how many.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::{cli::Context, cluster::Cluster, complete, output, target::Address};

/// Set how many pods a workload has: `rast scale deployment/web --replicas 3`
#[derive(Args)]
pub struct Scale {
    /// KIND/NAME
    #[arg(add = complete::object_of(&["deployment", "replicaset"]))]
    target: String,
    /// How many
    #[arg(long)]
    replicas: u32,
}

impl Scale {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let cluster = Cluster::connect(context).await?;
        let at = Address::parse(&cluster, &self.target)?;
        cluster.merge(&(at.path() + "/scale"), &json!({"spec": {"replicas": self.replicas}})).await?;
        output::line(format!("{at} scaled"))
    }
}
