//! The order in which an instance starts, and ends.

mod control;
mod namespaces;
mod nodes;

use std::path::PathBuf;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::{host::Host, settings::Settings};
use control::Control;

/// Starts everything, runs until SIGTERM or SIGINT, and ends everything but the containers.
pub async fn run(host: &Host, settings: Settings) -> Result<()> {
    let name = settings.node()?;
    settings.record(host)?;
    let control = Control::start(host, &settings, &name).await?;
    namespaces::ensure(control.client("masters")).await?;
    tracing::info!("rastOS {} on {}", env!("CARGO_PKG_VERSION"), control.url());
    told_to_stop().await?;
    control.stop().await
}

/// How the helper of this instance is found and started.
pub fn keeper(host: &Host) -> runtime::Config {
    runtime::Config {
        run_dir: host.run().join("runtime"),
        instance: host.instance().to_owned(),
        program: PathBuf::from("/proc/self/exe"),
        args: vec!["helper".to_owned()],
    }
}

async fn told_to_stop() -> Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => eprintln!("rast: containers go on running; `rast up` takes them back, `rast down` ends them"),
    }
    Ok(())
}
