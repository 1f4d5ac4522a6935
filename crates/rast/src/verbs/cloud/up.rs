//! `rast cloud up`: from an empty project, or a broken cluster, to the application's answer.

use std::{
    io::IsTerminal as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use cloud::{
    Mark, Session, plan, seen,
    template::machine_name,
    up::{self, Progress, Ready, Report, UpError},
};

use super::{Which, file, keep::Keep, own, plan::tell_problems, trust};
use crate::{
    cli::Context,
    cluster::{Cluster, Query},
    exit::{Exit, Failure},
    manifest::Object,
    output,
    target::Address,
    verbs::{apply, rollout, wait},
};

/// How often the API is asked whether it is there.
const POLL: Duration = Duration::from_secs(2);

/// Make a cluster, or make it whole again; then run what the files say on it
#[derive(Args)]
pub struct Up {
    /// The cluster's name, when it is there already and no file is at hand
    #[arg(value_name = "NAME", value_parser = super::name)]
    name: Option<String>,
    /// The file of the Cluster, and files of what is to run there
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// SHA-256 of the cluster's certificate authority, when neither console nor password slot tell it
    #[arg(long, value_name = "HEX")]
    ca_fingerprint: Option<String>,
    /// Make the cloud's objects only; do not wait for the machine
    #[arg(long)]
    no_wait: bool,
    /// Seconds to wait for the machine and for each workload
    #[arg(long, default_value_t = 900)]
    timeout: u64,
}

impl Up {
    /// Runs the verb. Whatever ends it, the next run goes on from what it finds.
    pub async fn run(self, context: &Context, which: &Which) -> Result<()> {
        let begun = Instant::now();
        let files = file::read(&self.file)?;
        let session = which.session().await?;
        let mut cluster = match (&files.cluster, &self.name) {
            (Some(cluster), None) => cluster.clone(),
            (Some(cluster), Some(name)) if cluster.name() == name => cluster.clone(),
            (Some(cluster), Some(name)) => {
                let message = format!("the file's cluster is {}, not {name}", cluster.name());
                return Err(Failure::new(Exit::Usage, message).into());
            }
            (None, Some(name)) => {
                let seen = seen::read(&session, name).await?;
                plan::journaled(&seen).ok_or_else(|| super::absent(&seen, name))?
            }
            (None, None) => return Err(file::no_cluster()),
        };
        let local = match files.cluster {
            Some(_) => file::local_image(&cluster, files.dir()).await?,
            // The image named in the project's file lies on another machine: a server that lives needs it no more.
            None => None,
        };
        let report = reporter();
        let enrol = |mark: &Mark| Ok(Keep::of(mark)?.key()?.hash());
        let (ready, kubeconfig, at) = loop {
            let ready = up::run(&session, &cluster, local.as_ref(), &enrol, &report).await.map_err(explained)?;
            report(Progress::Doing(format!("the cloud's part is done after {:.1} s", begun.elapsed().as_secs_f64())));
            if self.no_wait {
                return output::line(format!("{}: {}", cluster.name(), ready.address));
            }
            report(Progress::Doing("waiting for the machine's first word".into()));
            let (kubeconfig, at) = self.reach(context, &session, &ready).await?;
            match own::settle(&at, session.project(), &cluster, &ready, files.cluster.is_some()).await? {
                None => break (ready, kubeconfig, at),
                Some(wish) => {
                    report(Progress::Doing(format!("cluster/{} was changed in its API: making that", cluster.name())));
                    cluster = wish;
                }
            }
        };
        deploy(&at, &files.app, self.limit()).await?;
        output::line(format!(
            "{} is up at {} after {:.1} s ({} API calls)\nexport KUBECONFIG={}",
            cluster.name(),
            ready.address,
            begun.elapsed().as_secs_f64(),
            session.calls(),
            kubeconfig.display()
        ))
    }

    /// Waits until the machine has said who it is, answers and is ready; the kubeconfig, and its API.
    async fn reach(&self, context: &Context, session: &Session, ready: &Ready) -> Result<(PathBuf, Cluster)> {
        let (given, limit) = (self.ca_fingerprint.as_deref(), self.limit());
        let kubeconfig = trust::kubeconfig(context, session, ready, given, limit).await?;
        let at = Cluster::connect(&trust::at(context, &kubeconfig)).await?;
        answering(&at, Instant::now() + limit).await?;
        wait::node_ready(at.client().clone(), &machine_name(&ready.mark.name, 0), limit).await?;
        Ok((kubeconfig, at))
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// Waits until the API answers: a machine that was made again, or started, is known and not yet there.
async fn answering(cluster: &Cluster, end: Instant) -> Result<()> {
    loop {
        match cluster.get("/version", Query::default()).await {
            Err(error) if Exit::of(&error) == Exit::Failed && Instant::now() < end => tokio::time::sleep(POLL).await,
            other => return other.map(drop),
        }
    }
}

/// Applies objects and waits until they run.
async fn deploy(cluster: &Cluster, objects: &[Object], limit: Duration) -> Result<()> {
    for object in objects {
        let (at, change) = apply::one(cluster, object, false).await.map_err(|e| object.point(e))?;
        output::line(format!("{at} {change}"))?;
    }
    for object in objects {
        let at = Address::of(cluster, object)?;
        match at.kind.kind.as_ref() {
            "Deployment" => rollout::rolled_out(cluster, &at, limit).await?,
            "Pod" => wait::pod_ready(cluster, &at, limit).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Tells what goes on, a line for each change, on standard error.
pub fn reporter() -> Report {
    let begun = Instant::now();
    let shown = Mutex::new(0);
    let terminal = std::io::stderr().is_terminal();
    Arc::new(move |progress| {
        let at = begun.elapsed().as_secs_f64();
        match progress {
            Progress::Doing(what) => output::note(format!("{at:7.1}s {what}")),
            Progress::Resource { stack, name, status } => output::note(format!("{at:7.1}s   {stack} {name}: {status}")),
            Progress::Sent { sent, total } => {
                let percent = (sent * 100).checked_div(total).unwrap_or(100);
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                let step = if terminal { 5 } else { 25 };
                if percent >= *shown + step || (percent == 100 && *shown < 100) {
                    *shown = percent;
                    eprintln!("{at:7.1}s   {percent} % of {} MiB", total >> 20);
                }
            }
        }
    })
}

/// What ended a run, with what the plan had to say.
pub fn explained(error: UpError) -> anyhow::Error {
    match error {
        UpError::Refused(plan) => {
            let _reader_gone = tell_problems(&plan);
            super::plan::refusal()
        }
        UpError::Stuck { .. } => Failure::new(Exit::TimedOut, error.to_string()).into(),
        UpError::Failed(failed) => Failure::new(Exit::Failed, failed.to_string()).into(),
        UpError::Cloud(error) => error.into(),
        UpError::Local(_) => error.into(),
    }
}
