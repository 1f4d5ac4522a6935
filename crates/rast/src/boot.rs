//! The order in which an instance starts, and ends.

mod control;
mod enrol;
mod machine;
mod namespaces;
mod nodes;

use std::{path::PathBuf, sync::Arc, time::Duration};

use agent::{Agent, Capacity, Dns, Parts};
use anyhow::{Context as _, Result};
use images::Images;
use network::Routed;
use runtime::Keeper;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use volumes::Volumes;

use crate::{host::Host, output, settings::Settings, verbs::wait::node_ready};
use control::Control;

/// How long a node may take from its start until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts everything, runs until SIGTERM or SIGINT, and ends everything but the containers.
pub async fn run(host: &Host, settings: Settings) -> Result<()> {
    let stop = CancellationToken::new();
    let name = settings.node()?;
    settings.record(host)?;

    let control = Control::start(host, &settings, &name).await?;
    namespaces::ensure(control.client("masters")).await?;
    let controllers = tokio::spawn(controllers::run(
        control.client("controllers"),
        control.controllers(),
        stop.clone().cancelled_owned(),
    ));
    let scheduler = tokio::spawn(scheduler::run(control.client("kube-scheduler"), stop.clone().cancelled_owned()));
    let runtime = Keeper::start(keeper(host)).await.context("start the helper")?;
    let node = node(host, &settings, &name, &control, runtime.clone()).await?;
    control.nodes.join(node.router());
    let agent = tokio::spawn({
        let stop = stop.clone().cancelled_owned();
        async move { node.run(stop).await }
    });

    tokio::select! {
        ready = node_ready(control.client("masters"), &name, PATIENCE) => {
            ready?;
            let (url, kubeconfig) = (control.url(), host.kubeconfig());
            output::line(format!("rastOS is ready: API at {url}, kubeconfig {}", kubeconfig.display()))?;
            told_to_stop().await?;
        }
        told = told_to_stop() => told?,
    }
    stop.cancel();
    let _ended = tokio::join!(controllers, scheduler, agent);
    if settings.machine.is_some() {
        machine::end(runtime.as_ref()).await;
    }
    control.stop().await
}

/// The node of this host.
async fn node(host: &Host, settings: &Settings, name: &str, control: &Control, runtime: Arc<Keeper>) -> Result<Agent> {
    let state = host.state();
    let network = Routed::open(settings.network(host)).await.context("set the pods' network up")?;
    let images = Images::open(&state.join("images"), settings.images()).context("open the images")?;
    let volumes = Volumes::open(&state, &host.run()).context("open the volumes")?;
    let config = agent::Config {
        node_name: name.to_owned(),
        logs: host.logs(),
        addresses: vec![settings.address()],
        capacity: Capacity::of_host(&state, settings.max_pods),
        dns: Dns { servers: Vec::new(), domain: "cluster.local".to_owned() },
        api: Some((settings.address().to_string(), settings.api_port)),
        ca: Some(control.ca().to_owned()),
        pids: Some(settings.max_processes.into()),
        version: concat!("rastOS ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let parts = Parts { client: control.client("node"), runtime, network: Arc::new(network), images, volumes };
    Ok(Agent::new(config, parts))
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
