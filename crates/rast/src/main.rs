//! The rast program: operating system, container runtime, container manager and API at once.

mod boot;
mod cli;
mod cluster;
mod complete;
mod exit;
mod host;
mod lock;
mod manifest;
mod output;
mod room;
mod settings;
mod target;
mod terminal;
mod until;
mod verbs;
mod why;

use std::process::ExitCode;

use clap::Parser as _;
use telemetry::Log;

use crate::{cli::Cli, exit::Exit};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        // Run by programs, not by people; the helper must be alone in its process, before any thread.
        Some("helper") => return runtime::helper::main(args),
        Some("cni") => return verbs::cni::main(),
        None if verbs::cni::called() => return verbs::cni::main(),
        // A machine's own two. Its first second is too short to learn all the verbs there are.
        Some("init") => return run(&Log::default(), verbs::init::run),
        Some("machine") => return run(&Log::default(), verbs::up::on_machine),
        _ => {}
    }
    complete::answer();
    let cli = Cli::parse();
    run(&cli.log(), || cli.run())
}

fn run(log: &Log, work: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    if let Err(error) = telemetry::init(log) {
        eprintln!("rast: {error}");
        return Exit::Usage.into();
    }
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("rast: {}", exit::words(&error)));
            Exit::of(&error).into()
        }
    }
}
