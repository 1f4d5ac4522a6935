//! `rast cloud inventory`: what a project holds, and whose it is.

use anyhow::Result;
use clap::{Args, ValueEnum};
use cloud::inventory::{self, Item};

use super::Which;
use crate::output;

/// Show what the project holds, by cluster; what belongs to no cluster is shown as such
#[derive(Args)]
pub struct Inventory {
    /// Only what belongs to this cluster
    #[arg(long, value_name = "NAME", value_parser = super::name, conflicts_with = "no_cluster")]
    cluster: Option<String>,
    /// Only what belongs to no cluster
    #[arg(long)]
    no_cluster: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// The forms of the answer.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Form {
    /// A table.
    #[default]
    Table,
    /// JSON.
    Json,
}

impl Inventory {
    /// Runs the verb.
    pub async fn run(self, which: &Which) -> Result<()> {
        let session = which.session().await?;
        let mut inventory = inventory::read(&session).await?;
        inventory.items.retain(|item| match (&self.cluster, self.no_cluster) {
            (Some(name), _) => item.clusters.contains(name),
            (None, true) => item.clusters.is_empty(),
            (None, false) => true,
        });
        if let Form::Json = self.output {
            return output::line(serde_json::to_string_pretty(&inventory)?);
        }
        let clusters = |item: &Item| match item.clusters.is_empty() {
            true => "-".to_owned(),
            false => item.clusters.join(","),
        };
        // Clusters by name, and what belongs to none at the end.
        inventory.items.sort_by_key(|item| (item.clusters.is_empty(), clusters(item)));
        let rows: Vec<Vec<String>> = inventory
            .items
            .iter()
            .map(|i| {
                let status = i.status.clone().unwrap_or_default();
                vec![clusters(i), i.kind.into(), i.name.clone(), status, i.id.clone()]
            })
            .collect();
        let heading = ["CLUSTER", "KIND", "NAME", "STATUS", "ID"].map(str::to_owned);
        output::table(&heading, &rows)?;
        for missing in &inventory.unlisted {
            output::line(format!("not listed: {}s: {}", missing.kind, missing.why))?;
        }
        Ok(())
    }
}
