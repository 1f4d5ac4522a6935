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

use crate::{cli::Cli, exit::Exit};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        // Run by programs, not by people; the helper must be alone in its process, before any thread.
        Some("helper") => return runtime::helper::main(args),
        Some("cni") => return verbs::cni::main(),
        None if verbs::cni::called() => return verbs::cni::main(),
        _ => {}
    }
    complete::answer();
    let cli = Cli::parse();
    if let Err(error) = telemetry::init(&cli.log()) {
        eprintln!("rast: {error}");
        return Exit::Usage.into();
    }
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("rast: {}", exit::words(&error)));
            Exit::of(&error).into()
        }
    }
}
