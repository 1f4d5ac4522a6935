//! `rast cloud`: a cluster of its own in an OpenStack project, a file for each verb.

mod down;
mod file;
mod inventory;
pub mod keep;
mod kubeconfig;
pub mod own;
mod plan;
mod status;
mod template;
pub mod trust;
mod up;

use anyhow::Result;
use api::rastos::cluster::name_rule;
use clap::{Args, Subcommand};
use cloud::{Config, Environment, Mark, Service, Session, seen::Seen};

use crate::{
    cli::Context,
    exit::{Exit, Failure},
};

/// Make, see and remove a cluster in an OpenStack project
#[derive(Args)]
pub struct Cloud {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Plan(plan::Plan),
    Up(up::Up),
    Status(status::Status),
    Down(down::Down),
    Kubeconfig(kubeconfig::Kubeconfig),
    Inventory(inventory::Inventory),
    Template(template::Template),
}

/// A cluster's name on the command line: it becomes part of paths, of addresses and of the names of stacks.
fn name(text: &str) -> Result<String, String> {
    match name_rule(text) {
        None => Ok(text.to_owned()),
        Some(why) => Err(why),
    }
}

/// The marks of a cluster that is there.
fn mark(seen: &Seen, name: &str) -> Result<Mark> {
    Ok(seen.mark().filter(|mark| mark.name == name).ok_or_else(|| absent(seen, name))?)
}

/// What is said of a cluster that was not seen: only Heat knows that there is none.
fn absent(seen: &Seen, name: &str) -> Failure {
    match seen.silence(Service::Orchestration) {
        None => Failure::new(Exit::NotFound, format!("there is no cluster {name} in this project")),
        Some(why) => Failure::new(Exit::Failed, format!("whether there is a cluster {name} is not known: {why}")),
    }
}

/// Which cloud.
#[derive(Args)]
pub struct Which {
    /// The cloud, as clouds.yaml names it
    #[arg(long, global = true, value_name = "NAME")]
    os_cloud: Option<String>,
    /// The region
    #[arg(long, global = true, value_name = "NAME")]
    os_region: Option<String>,
}

impl Which {
    /// Opens a session.
    pub async fn session(&self) -> Result<Session> {
        let mut config =
            Config::find(self.os_cloud.as_deref(), &Environment::of_process()).map_err(cloud::Error::from)?;
        config.region = self.os_region.clone().or(config.region);
        Ok(Session::open(config).await?)
    }
}

impl Cloud {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let which = self.which;
        match self.verb {
            Verb::Plan(verb) => verb.run(context, &which).await,
            Verb::Up(verb) => verb.run(context, &which).await,
            Verb::Status(verb) => verb.run(context, &which).await,
            Verb::Down(verb) => verb.run(&which).await,
            Verb::Kubeconfig(verb) => verb.run(context, &which).await,
            Verb::Inventory(verb) => verb.run(&which).await,
            Verb::Template(verb) => verb.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cloud_whose_heat_answers_says_that_there_is_no_cluster() {
        let mut seen = Seen::default();
        assert_eq!(absent(&seen, "demo").to_string(), "there is no cluster demo in this project");
        seen.lacking = vec![(Service::Orchestration, "find stack: no reason was given (503)".into())];
        let error = mark(&seen, "demo").unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Failed);
        let said = "whether there is a cluster demo is not known: find stack: no reason was given (503)";
        assert_eq!(error.to_string(), said);
    }
}
