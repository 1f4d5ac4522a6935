//! The order in which an instance starts, and ends.

mod control;
mod enrol;
mod machine;
mod namespaces;
mod nodes;

use std::{path::PathBuf, sync::Arc, time::Duration};

use agent::{Agent, Capacity, Dns, Parts, Rounds};
use anyhow::{Context as _, Result, anyhow};
use futures::FutureExt as _;
use images::Images;
use network::Routed;
use runtime::{Backend, Keeper};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use volumes::Volumes;

use crate::{host::Host, output, settings::Settings, verbs::wait::node_ready};
use control::Control;

/// How long a node may take from its start until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same on a machine of its own, where nobody waits who could do better than to go on.
const LONG_PATIENCE: Duration = Duration::from_secs(3600);

/// Starts everything, runs until SIGTERM or SIGINT, and ends everything but the containers (a machine's end too).
pub async fn run(host: &Host, settings: Settings) -> Result<()> {
    let mut told = Told::listen()?;
    // What was begun when the word comes is left as a kill would leave it: the next start, or `rast down`, copes.
    let mut instance = tokio::select! {
        biased;
        () = told.stopped() => return Ok(()),
        instance = Instance::start(host, &settings) => instance?,
    };
    let patience = if instance.ending.is_some() { LONG_PATIENCE } else { PATIENCE };
    let Instance { control, name, parts, .. } = &mut instance;
    let serve = async {
        node_ready(control.client("masters"), name, patience).await?;
        let (url, kubeconfig) = (control.url(), host.kubeconfig());
        output::line(format!("rastOS is ready: API at {url}, kubeconfig {}", kubeconfig.display()))?;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        () = told.stopped() => {}
        broken = fault(parts) => return Err(broken),
        failed = serve => return failed,
    }
    instance.stop().await
}

/// Everything that runs in this process.
struct Instance {
    name: String,
    control: Control,
    /// Ends the parts.
    stop: CancellationToken,
    parts: JoinSet<&'static str>,
    /// Whose containers end with it: those of a machine, which is about to go down.
    ending: Option<Arc<Keeper>>,
}

impl Instance {
    async fn start(host: &Host, settings: &Settings) -> Result<Self> {
        let stop = CancellationToken::new();
        let stopped = || stop.clone().cancelled_owned();
        let name = settings.node()?;
        let backend = settings.runtime.find()?;
        settings.record(host)?;

        let control = Control::start(host, settings, &name).await?;
        control.announce();
        let controllers = controllers::run(control.client("controllers"), control.controllers(), stopped());
        let scheduler = scheduler::run(control.client("kube-scheduler"), stopped());
        let mut parts = JoinSet::new();
        parts.spawn(controllers.map(|()| "controllers"));
        parts.spawn(scheduler.map(|()| "scheduler"));
        if settings.machine.is_some() {
            machine::prepare().await;
        }
        let runtime = Keeper::start(runtime::Config { backend, ..keeper(host) }).await.context("start the helper")?;
        let ending = settings.machine.is_some().then(|| runtime.clone());
        let node = node(host, settings, &name, &control, runtime).await?;
        control.nodes.join(node.router());
        let stopped = stopped();
        parts.spawn(async move { node.run(stopped).map(|()| "agent").await });
        Ok(Self { name, control, parts, stop, ending })
    }

    async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        while self.parts.join_next().await.is_some() {}
        if let Some(runtime) = self.ending {
            let graces = machine::graces(self.control.client("masters")).await.unwrap_or_default();
            machine::end(runtime.as_ref(), &graces).await;
        }
        self.control.stop().await
    }
}

/// Waits for a part to end, which none does before it is told to. Without it the process would be there and do nothing.
async fn fault(parts: &mut JoinSet<&'static str>) -> anyhow::Error {
    match parts.join_next().await {
        Some(Ok(part)) => anyhow!("{part}: ended before its time"),
        Some(Err(e)) => anyhow!(e).context("a part of this process broke"),
        None => std::future::pending().await,
    }
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
        seccomp: host.etc().join("seccomp"),
        addresses: vec![settings.address()],
        capacity: Capacity::of_host(&state, settings.max_pods),
        dns: Dns { servers: Vec::new(), domain: "cluster.local".to_owned() },
        api: Some((settings.address().to_string(), settings.api_port)),
        ca: Some(control.ca().to_owned()),
        pids: Some(settings.max_processes.into()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rounds: Rounds::default(),
    };
    let parts = Parts { client: control.client("node"), runtime, network: Arc::new(network), images, volumes };
    Ok(Agent::new(config, parts))
}

/// How the helper of this instance is found and started, for one that starts no containers itself.
pub fn keeper(host: &Host) -> runtime::Config {
    runtime::Config {
        run_dir: host.run().join("runtime"),
        instance: host.instance().to_owned(),
        program: PathBuf::from("/proc/self/exe"),
        args: vec!["helper".to_owned()],
        backend: Backend::default(),
    }
}

/// The signals that end an instance, heard from the first moment on.
struct Told {
    term: Signal,
    int: Signal,
}

impl Told {
    fn listen() -> Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn stopped(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => eprintln!("rast: containers go on running; `rast up` takes them back, `rast down` ends them"),
        }
    }
}
