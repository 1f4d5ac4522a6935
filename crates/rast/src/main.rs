//! The rast program: operating system, container runtime, container manager and API at once.

mod cli;
mod cluster;
mod exit;
mod host;
mod manifest;
mod output;
mod target;
mod terminal;
mod until;
mod verbs;
mod why;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{cli::Cli, exit::Exit};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = telemetry::init(&cli.log()) {
        eprintln!("rast: {error}");
        return Exit::Usage.into();
    }
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rast: {}", exit::words(&error));
            Exit::of(&error).into()
        }
    }
}
