//! The command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{complete, host::Host, verbs};

/// Containers described in YAML, run on this host: operating system, runtime, manager and API in one program.
#[derive(Parser)]
#[command(name = "rast", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// Keep everything of this instance below DIR instead of /
    #[arg(long, global = true, value_name = "DIR", default_value = "/", env = "RAST_ROOT")]
    root: PathBuf,
    /// Connect with this kubeconfig instead of the instance's own
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace to work in
    #[arg(short, long, global = true, value_name = "NAME", add = complete::namespace())]
    namespace: Option<String>,
    /// What rastOS logs, e.g. info or agent=debug,info
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// Log as JSON lines
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb is told.
pub struct Context {
    /// The instance.
    pub host: Host,
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--namespace`.
    pub namespace: Option<String>,
}

#[derive(Subcommand)]
enum Verb {
    Up(verbs::up::Up),
    Down(verbs::down::Down),
    Apply(verbs::apply::Apply),
    Plan(verbs::plan::Plan),
    Get(verbs::get::Get),
    Describe(verbs::describe::Describe),
    Delete(verbs::delete::Delete),
    Scale(verbs::scale::Scale),
    Rollout(verbs::rollout::Rollout),
    Wait(verbs::wait::Wait),
    Logs(verbs::logs::Logs),
    Exec(verbs::exec::Exec),
    Images(verbs::images::Images),
    Pull(verbs::pull::Pull),
    Run(verbs::run::Run),
    Os(verbs::os::Os),
    Why(verbs::why::Why),
    Cloud(verbs::cloud::Cloud),
    Completion(verbs::completion::Completion),
}

impl Cli {
    /// How to log.
    pub fn log(&self) -> telemetry::Log {
        telemetry::Log { filter: self.log.clone(), json: self.log_json }
    }

    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        let context = Context { host: Host::below(&self.root), kubeconfig: self.kubeconfig, namespace: self.namespace };
        match self.verb {
            Verb::Up(verb) => verb.run(&context),
            Verb::Down(verb) => wait(verb.run(&context)),
            Verb::Apply(verb) => wait(verb.run(&context)),
            Verb::Plan(verb) => wait(verb.run(&context)),
            Verb::Get(verb) => wait(verb.run(&context)),
            Verb::Describe(verb) => wait(verb.run(&context)),
            Verb::Delete(verb) => wait(verb.run(&context)),
            Verb::Scale(verb) => wait(verb.run(&context)),
            Verb::Rollout(verb) => wait(verb.run(&context)),
            Verb::Wait(verb) => wait(verb.run(&context)),
            Verb::Logs(verb) => wait(verb.run(&context)),
            Verb::Exec(verb) => wait(verb.run(&context)),
            Verb::Images(verb) => wait(verb.run(&context)),
            Verb::Pull(verb) => wait(verb.run(&context)),
            Verb::Run(verb) => wait(verb.run(&context)),
            Verb::Why(verb) => wait(verb.run(&context)),
            Verb::Os(verb) => verb.run(),
            Verb::Cloud(verb) => wait(verb.run(&context)),
            Verb::Completion(verb) => verb.run(),
        }
    }
}

/// Runs a verb that only talks to the API: one thread is enough.
fn wait(verb: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(verb)
}
