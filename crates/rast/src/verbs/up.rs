//! `rast up`: control plane and node on this host.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::IpAddr,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use clap::Args;
use ipnet::IpNet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    boot,
    cli::Context,
    exit::{Exit, Failure},
    host::Host,
    lock::Lock,
    output,
    settings::{Runtime, Settings},
};

/// Turn this host into a place where containers run: API, controllers, scheduler and node in one process
#[derive(Args, Default)]
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
    /// What makes containers
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<Runtime>,
    /// Go on in the background, and return when pods can run
    #[arg(short, long)]
    detach: bool,
}

impl Up {
    /// Runs the verb until it is told to stop. Containers go on running then; `rast down` ends them.
    pub fn run(self, context: &Context) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new(Exit::Denied, "rast up makes namespaces and mounts: run it as root").into());
        }
        let host = &context.host;
        if self.detach {
            return detach(host);
        }
        let mut settings = Settings::read(&host.config())?;
        settings.api_port = self.api_port.unwrap_or(settings.api_port);
        settings.api_address = self.api_address.unwrap_or(settings.api_address);
        settings.pod_range = self.pod_range.unwrap_or(settings.pod_range);
        settings.node_name = self.node_name.or(settings.node_name);
        settings.runtime = self.runtime.unwrap_or(settings.runtime);
        let _lock = Lock::take(&host.run())?;
        raise_file_limit();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start the scheduler of tasks")?
            .block_on(boot::run(host, settings))
    }
}

/// `rast up` as PID 1 of a machine runs it: what it is to know stands in its file.
pub fn on_machine() -> Result<()> {
    Up::default().run(&Context { host: Host::below(Path::new("/")), kubeconfig: None, namespace: None })
}

/// Connections to the API and streams of containers: the usual soft limit of 1024 is meant for users of `select`.
fn raise_file_limit() {
    let held = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: held.maximum, ..held });
}

/// Starts this program again with the same words, in the background, until it says that it is ready.
fn detach(host: &Host) -> Result<()> {
    let log = host.audit().join("rast.log");
    fs::create_dir_all(host.audit()).with_context(|| format!("make {}", host.audit().display()))?;
    let file = fs::File::options().create(true).append(true).open(&log);
    let file = file.with_context(|| format!("open {}", log.display()))?;
    let mut child = Command::new("/proc/self/exe")
        .args(env::args_os().skip(1).filter(|word| word != "--detach" && word != "-d"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        // Ctrl-C in this terminal is not meant for it.
        .process_group(0)
        .spawn()
        .context("start in the background")?;
    let said = child.stdout.take().map(|out| BufReader::new(out).lines().next());
    match said.flatten().transpose()? {
        Some(ready) => output::line(format!("{ready} (process {}, logs to {})", child.id(), log.display())),
        None => {
            let status = child.wait()?;
            let last = fs::read_to_string(&log).unwrap_or_default();
            let last = last.trim_end().lines().last().unwrap_or_default().trim_start_matches("rast: ").to_owned();
            let exit = status.code().and_then(Exit::from_code).unwrap_or(Exit::Failed);
            Err(Failure::new(exit, format!("{last} ({} says more)", log.display())).into())
        }
    }
}
