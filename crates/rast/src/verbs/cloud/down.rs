//! `rast cloud down`: nothing of the cluster is left, from its name alone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::Result;
use clap::Args;
use cloud::{
    down::{self, Left},
    inventory::Item,
};

use super::{
    Which, keep,
    up::{explained, reporter},
};
use crate::{
    exit::{Exit, Failure},
    output,
};

/// Remove a cluster from the project, completely
#[derive(Args)]
pub struct Down {
    /// The cluster's name
    #[arg(value_parser = super::name)]
    name: String,
    /// Keep the state volume and the floating IP; a later up takes them again
    #[arg(long)]
    keep_state: bool,
    /// Do not ask before data is lost
    #[arg(short, long)]
    yes: bool,
}

impl Down {
    /// Runs the verb. Repeating it is safe; a cluster that is not there is down.
    pub async fn run(self, which: &Which) -> Result<()> {
        let session = which.session().await?;
        let left = down::look(&session, &self.name).await?;
        let marks = [&left.state, &left.machines].into_iter().flatten().filter_map(|m| m.stack.mark());
        let uids: Vec<String> = marks.filter(|m| m.name == self.name).map(|m| m.uid).collect();
        let marked = left.inventory.items.iter().any(|i| i.clusters.contains(&self.name));
        if uids.is_empty() && !marked {
            if let Some(unseen) = left.unseen(&self.name) {
                return Err(unseen.into());
            }
            return output::line(format!("there is no cluster {} in this project", self.name));
        }
        if !self.keep_state && !self.yes {
            self.ask(&left)?;
        }
        let report = reporter();
        down::run(&session, &self.name, self.keep_state, &report).await.map_err(explained)?;
        if !self.keep_state {
            keep::forget(&self.name, &uids)?;
        }
        for unseen in left.inventory.unlisted.iter().filter(|u| u.denied) {
            output::note(format!("{}s were not looked for: {}", unseen.kind, unseen.why));
        }
        let kept = if self.keep_state { "; its state volume and floating IP are kept" } else { "" };
        output::line(format!("{} is down ({} API calls){kept}", self.name, session.calls()))
    }

    fn ask(&self, left: &Left) -> Result<()> {
        let volume = left.state.as_ref().and_then(|m| m.object("state"));
        // Left without their stack, volumes hold data all the same.
        let marked = |i: &&Item| i.kind.starts_with("volume") && !i.uids.is_empty() && i.clusters.contains(&self.name);
        let volume = volume.or_else(|| Some(left.inventory.items.iter().find(marked)?.id.as_str()));
        let Some(volume) = volume else { return Ok(()) };
        if !io::stdin().is_terminal() {
            let message = format!(
                "the state volume {volume} of {} goes too, with everything in it: say --yes, or --keep-state",
                self.name
            );
            return Err(Failure::new(Exit::Usage, message).into());
        }
        eprint!(
            "The state volume {volume} of {} goes too, with everything in it. Type the cluster's name: ",
            self.name
        );
        io::stderr().flush()?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        match line.trim() == self.name {
            true => Ok(()),
            false => Err(Failure::new(Exit::Failed, "nothing was changed").into()),
        }
    }
}
