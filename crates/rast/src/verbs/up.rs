//! `rast up`: control plane and node on this host.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use clap::Args;
use ipnet::IpNet;

use crate::{
    boot,
    cli::Context,
    exit::{Exit, Failure},
    lock::Lock,
    settings::Settings,
};

/// Turn this host into a place where containers run: API, controllers, scheduler and node in one process
#[derive(Args)]
pub struct Up {
    /// The port of the API
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// Where the API listens
    #[arg(long, value_name = "ADDRESS")]
    api_address: Option<IpAddr>,
    /// Where pods get their addresses from
    #[arg(long, value_name = "CIDR")]
    pod_range: Option<IpNet>,
    /// The node's name
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
}

impl Up {
    /// Runs the verb until it is told to stop. Containers go on running then; `rast down` ends them.
    pub fn run(self, context: &Context) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new(Exit::Denied, "rast up makes namespaces and mounts: run it as root").into());
        }
        let host = &context.host;
        let mut settings = Settings::read(&host.config())?;
        settings.api_port = self.api_port.unwrap_or(settings.api_port);
        settings.api_address = self.api_address.unwrap_or(settings.api_address);
        settings.pod_range = self.pod_range.unwrap_or(settings.pod_range);
        settings.node_name = self.node_name.or(settings.node_name);
        let _lock = Lock::take(&host.run())?;
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start the scheduler of tasks")?
            .block_on(boot::run(host, settings))
    }
}
