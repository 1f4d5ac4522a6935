//! `rast cloud template`: the stacks as plain HOT files.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use cloud::{
    Mark,
    heat::Wanted,
    template::{self, Machine, Networks, State},
};

use super::file;
use crate::output;

/// Write the two stacks as Heat templates, for those who drive Heat themselves
#[derive(Args)]
pub struct Template {
    /// The file of the Cluster
    #[arg(short, long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Where to write them
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The cluster's uid; a new one unless given
    #[arg(long, value_name = "UUID")]
    uid: Option<String>,
}

impl Template {
    /// Runs the verb. Asks no cloud.
    pub fn run(self) -> Result<()> {
        let (cluster, _) = file::read(&self.file)?.only_cluster()?;
        let uid = self.uid.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let mark = Mark { name: cluster.name().to_owned(), uid };
        let networks = Networks { external: String::new(), existing: cluster.spec.network.existing.clone() };
        let machine = Machine { name: template::machine_name(cluster.name(), 0), flavor: String::new(), birth: None };
        let state = template::state(&cluster, &mark, &networks);
        let machines = template::machines(&cluster, &mark, &networks, &State::default(), &[machine]);
        self.write(&state)?;
        self.write(&machines)
    }

    fn write(&self, stack: &Wanted) -> Result<()> {
        let path = self.dir.join(format!("{}.yaml", stack.name));
        let text = serde_saphyr::to_string(&stack.template)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        let tags = stack.tags.join(",");
        output::line(format!("{}: openstack stack create -t {0} --tags {tags} {}", path.display(), stack.name))
    }
}
