//! `rast down`: ends the instance and everything it runs, and puts the host back as it was.

use std::{collections::BTreeSet, fs, io, path::Path};

use anyhow::{Context as _, Result};
use clap::Args;
use images::Images;
use network::{Network as _, Routed};
use runtime::{Keeper, Runtime as _};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use volumes::Volumes;

use crate::{
    boot,
    cli::Context,
    exit::{Exit, Failure},
    host::Host,
    lock::{self, Lock},
    settings::Settings,
};

/// How long the instance may take to end by itself.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// Stop everything that runs here and leave the host as it was
#[derive(Args)]
pub struct Down {
    /// Delete the state too: store, keys, images, volumes
    #[arg(long)]
    purge: bool,
}

impl Down {
    /// Runs the verb. Goes on after a failure, so that as much as possible is gone; repeating it is safe.
    pub async fn run(self, context: &Context) -> Result<()> {
        let host = &context.host;
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new(Exit::Denied, "rast down takes namespaces and mounts away: run it as root").into());
        }
        stop(host)?;
        if !host.run().exists() && !host.state().exists() {
            return Ok(());
        }
        let lock = Lock::take(&host.run())?;
        let mut failures = Failures::default();
        failures.note("end the containers", containers(host).await);
        failures.note("take the network down", network(host).await);
        failures.note("take the volumes away", volumes(host));
        failures.note("discard the containers' layers", layers(host).await);
        // What did not end may still have its files open or mounted: they stay for the next try.
        if failures.0.is_empty() {
            for dir in [host.kubeconfig(), host.logs(), host.audit()] {
                failures.note("clean up", remove(&dir));
            }
            if self.purge {
                for dir in [host.state(), host.etc()] {
                    failures.note("purge", remove(&dir));
                }
            }
            failures.note("clean up", remove(&host.run()));
        }
        drop(lock);
        failures.into_result()
    }
}

/// What went wrong so far.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn note(&mut self, doing: &str, result: Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{doing}: {error:#}"));
        }
    }

    fn into_result(self) -> Result<()> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(Exit::Failed, self.0.join("\n      ")).into()),
        }
    }
}

/// Ends the running instance.
fn stop(host: &Host) -> Result<()> {
    let Some(pid) = lock::holder(&host.run())?.and_then(Pid::from_raw) else { return Ok(()) };
    let process = pidfd_open(pid, PidfdFlags::empty()).context("find the running instance")?;
    for signal in [Signal::TERM, Signal::KILL] {
        match pidfd_send_signal(&process, signal) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            other => other.context("end the running instance")?,
        }
        // A pidfd becomes readable when its process ends.
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        if poll(&mut ended, Some(&PATIENCE)).context("wait for the running instance")? > 0 {
            return Ok(());
        }
    }
    Err(Failure::new(Exit::TimedOut, format!("process {} does not end", pid.as_raw_nonzero())).into())
}

async fn containers(host: &Host) -> Result<()> {
    let keeper = Keeper::start(boot::keeper(host)).await?;
    for sandbox in keeper.sandboxes().await? {
        keeper.remove_sandbox(&sandbox.spec.id).await?;
    }
    for container in keeper.list().await? {
        keeper.remove(&container.spec.id).await?;
    }
    Ok(keeper.stop().await?)
}

async fn network(host: &Host) -> Result<()> {
    let Some(settings) = Settings::recorded(host)? else { return Ok(()) };
    Ok(Routed::open(settings.network(host)).await?.teardown().await?)
}

fn volumes(host: &Host) -> Result<()> {
    let volumes = Volumes::open(&host.state(), &host.run())?;
    volumes.collect(BTreeSet::new)?;
    Ok(volumes.close()?)
}

async fn layers(host: &Host) -> Result<()> {
    let dir = host.state().join("images");
    if !dir.exists() {
        return Ok(());
    }
    let images = Images::open(&dir, images::Config::default())?;
    for id in images.snapshots().await? {
        images.discard(&id).await?;
    }
    Ok(())
}

/// Removes a file or a directory with what is in it; absent is done.
fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| format!("remove {}", path.display())),
        _ => Ok(()),
    }
}
