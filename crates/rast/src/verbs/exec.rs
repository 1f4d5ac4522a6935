//! `rast exec`: one more process inside a container.

use std::io::IsTerminal as _;

use anyhow::Result;
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::AttachParams};

use crate::{cli::Context, cluster::Cluster, complete, terminal, verbs::logs::pod_of};

/// Run a command inside a container: `rast exec -it web -- sh`
#[derive(Args)]
pub struct Exec {
    /// POD or pod/POD; deployment/NAME takes its first pod
    #[arg(add = complete::pod())]
    target: String,
    /// The container, when the pod has several
    #[arg(short, long, add = complete::container())]
    container: Option<String>,
    /// Connect standard input
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Exec {
    /// Runs the verb; ends with the command's own exit code.
    pub async fn run(self, context: &Context) -> Result<()> {
        let cluster = Cluster::connect(context).await?;
        let pod = pod_of(&cluster, &self.target).await?;
        let tty = self.tty && std::io::stdin().is_terminal();
        let params = AttachParams {
            container: self.container,
            stdin: self.stdin,
            stdout: true,
            stderr: !tty,
            tty,
            ..AttachParams::default()
        };
        let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), cluster.namespace());
        let process = pods.exec(&pod, self.command, &params).await?;
        terminal::join(process, tty).await
    }
}
