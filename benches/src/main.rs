//! Prints every promised figure beside its peers: `scripts/bench [--check] [FIGURE…]` sets things up and runs this.
//!
//! The machines are shared and noisy, so peers are measured in the same run, interleaved where they are short; read
//! ratios. `--check` exits 1 when a figure misses its target. No test depends on any of this.

#![allow(clippy::print_stdout)]

mod burst;
mod cloud;
mod cluster;
mod commits;
mod creates;
mod figure;
mod idle;
mod machine;
mod memory;
mod peers;
mod pull;
mod start;

use std::process::ExitCode;

use anyhow::{Result, bail};
use futures::future::LocalBoxFuture;

use figure::Row;

/// A figure's name and how it is measured, shortest first.
type Figure = (&'static str, fn() -> LocalBoxFuture<'static, Result<Vec<Row>>>);

const FIGURES: [Figure; 8] = [
    ("start", || Box::pin(start::measure())),
    ("pull", || Box::pin(pull::measure())),
    ("commits", || Box::pin(commits::measure())),
    ("creates", || Box::pin(creates::measure())),
    ("idle", || Box::pin(idle::measure())),
    ("burst", || Box::pin(burst::measure())),
    ("machine", || Box::pin(machine::measure())),
    ("cloud", || Box::pin(cloud::measure())),
];

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let (options, names): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|arg| arg.starts_with('-'));
    let check = match options.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => bail!("usage: bench [--check] [FIGURE…]; got {options:?}"),
    };
    if let Some(unknown) = names.iter().find(|name| FIGURES.iter().all(|(known, _)| known != name)) {
        bail!("no figure is called {unknown:?}; there are {}", FIGURES.map(|(name, _)| name).join(", "));
    }
    let _installed_once = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let mut rows = Vec::new();
    for (name, measure) in FIGURES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            eprintln!("bench: {name}");
            rows.extend(measure().await.unwrap_or_else(|error| vec![Row::broken(name, &error)]));
        }
    }
    figure::print(&rows);
    Ok(if check && rows.iter().any(Row::fails) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
