//! `rast images`: the images on this host.

use std::{collections::HashSet, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use images::Images as Store;

use crate::{
    cli::Context,
    exit::{Exit, Failure},
    output,
};

/// Show, load and remove the images on this host
#[derive(Args)]
pub struct Images {
    #[command(subcommand)]
    act: Option<Act>,
}

#[derive(Subcommand)]
enum Act {
    /// Show the images (the default)
    List,
    /// Load an OCI or Docker archive
    Load {
        /// The archive
        archive: PathBuf,
    },
    /// Remove images by name or id
    Remove {
        /// Their names or ids
        #[arg(required = true)]
        names: Vec<String>,
    },
}

impl Images {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let store = open(context)?;
        match self.act.unwrap_or(Act::List) {
            Act::List => list(&store).await,
            Act::Load { archive } => {
                let loaded = store.load(&archive).await.with_context(|| format!("load {}", archive.display()))?;
                loaded.iter().try_for_each(|image| {
                    let names = if image.names.is_empty() { image.id.clone() } else { image.names.join(", ") };
                    output::line(format!("loaded {names}"))
                })
            }
            Act::Remove { names } => {
                for name in names {
                    if !store.remove(&name).await? {
                        return Err(Failure::new(Exit::NotFound, format!("no image {name} on this host")).into());
                    }
                    output::line(format!("removed {name}"))?;
                }
                // Images that pods use stay: their snapshots hold the layers.
                store.collect(images::Policy::default(), HashSet::new()).await?;
                Ok(())
            }
        }
    }
}

/// The image store of this instance.
pub fn open(context: &Context) -> Result<Store> {
    let dir = context.host.state().join("images");
    Ok(Store::open(&dir, images::Config::default())?)
}

async fn list(store: &Store) -> Result<()> {
    let mut rows = Vec::new();
    for image in store.list().await? {
        let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        let size = indicatif::HumanBytes(image.size).to_string();
        let names = if image.names.is_empty() { vec!["<none>".to_owned()] } else { image.names };
        rows.extend(names.into_iter().map(|name| vec![name, id.clone(), size.clone()]));
    }
    output::table(&["NAME".into(), "ID".into(), "SIZE".into()], &rows)
}
