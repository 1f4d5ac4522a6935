//! The order in which an instance starts, and ends.

mod control;
mod nodes;

use std::{path::PathBuf, sync::Arc};

use agent::Agent;
use anyhow::{Context as _, Result};
use images::Images;
use network::Routed;
use runtime::Keeper;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use volumes::Volumes;

use crate::{host::Host, settings::Settings};
use control::Control;

/// Starts everything, runs until SIGTERM or SIGINT, and ends everything but the containers.
pub async fn run(host: &Host, settings: Settings) -> Result<()> {
    let stop = CancellationToken::new();
    let name = settings.node()?;
    settings.record(host)?;

    let control = Control::start(host, &settings, &name).await?;
    let agent = node(host, &settings, &name, &control).await?;
    control.nodes.join(agent.router());

    let client = control.client("controllers");
    let controllers = tokio::spawn(controllers::run(client, control.controllers(), stop.clone()));
    let scheduler = tokio::spawn(scheduler::run(control.client("scheduler"), stop.clone()));
    let agent = tokio::spawn(agent.run(stop.clone()));
    tracing::info!("rastOS {} on {}", env!("CARGO_PKG_VERSION"), control.url());

    told_to_stop().await?;
    stop.cancel();
    let _ended = tokio::join!(controllers, scheduler, agent);
    control.stop().await
}

/// The node of this host.
async fn node(host: &Host, settings: &Settings, name: &str, control: &Control) -> Result<Arc<Agent>> {
    let runtime = Keeper::start(keeper(host)).await.context("start the helper")?;
    let network = Arc::new(Routed::open(settings.network(host)).await.context("set the pods' network up")?);
    let images = Images::open(&host.state().join("images"), settings.images()).context("open the images")?;
    let volumes = Volumes::open(&host.state().join("volumes"), &host.run().join("volumes")).context("open the volumes")?;
    let config = agent::Config {
        node_name: name.to_owned(),
        instance: host.instance().to_owned(),
        addresses: vec![settings.address()],
        api: (settings.address().to_string(), settings.api_port),
        log_dir: host.logs(),
        state_dir: host.state().join("agent"),
        max_pods: settings.max_pods,
    };
    Ok(Agent::new(config, control.client("node"), runtime, network, images, volumes))
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
