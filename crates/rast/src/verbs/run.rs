//! `rast run`: one container from an image and a command.

use std::{io::IsTerminal as _, time::Duration};

use anyhow::Result;
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::AttachParams};
use serde_json::{Value, json};

use crate::{
    cli::Context,
    cluster::{Cluster, Query},
    exit::{Exit, Failure},
    output,
    target::Address,
    terminal,
    until::until,
    verbs::logs,
};

/// Run one container: `rast run web --image registry/app:1`, `rast run -it sh --image busybox -- sh`
#[derive(Args)]
pub struct Run {
    /// The pod's name
    name: String,
    /// The image
    #[arg(long)]
    image: String,
    /// NAME=VALUE in its environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A port that it listens on
    #[arg(short, long)]
    port: Option<u16>,
    /// Stay with it: print what it prints, end with its exit code
    #[arg(short, long)]
    attach: bool,
    /// Connect standard input; implies --attach
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal; implies --attach
    #[arg(short, long)]
    tty: bool,
    /// Delete it when it has ended; needs --attach
    #[arg(long)]
    rm: bool,
    /// Seconds to wait until it runs
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// The command; the image's own when absent
    #[arg(last = true)]
    command: Vec<String>,
}

impl Run {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let attach = self.attach || self.stdin || self.tty;
        if self.rm && !attach {
            return Err(Failure::new(Exit::Usage, "--rm needs --attach").into());
        }
        let cluster = Cluster::connect(context).await?;
        let at =
            Address { kind: cluster.kind("pods")?, namespace: cluster.namespace().to_owned(), name: self.name.clone() };
        cluster.create(&Cluster::path(&at.kind, Some(&at.namespace), None), &self.pod(attach)?).await?;
        if !attach {
            return output::line(format!("{at} created"));
        }
        let ended = self.stay(&cluster, &at).await;
        if self.rm {
            cluster.delete(&at.path(), Query::default().with("gracePeriodSeconds", "0")).await?;
        }
        match ended? {
            0 => Ok(()),
            code => std::process::exit(code),
        }
    }

    fn pod(&self, attach: bool) -> Result<Value> {
        let env: Vec<Value> = self
            .env
            .iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) => Ok(json!({"name": name, "value": value})),
                None => Err(Failure::new(Exit::Usage, format!("--env {pair}: write NAME=VALUE"))),
            })
            .collect::<Result<_, _>>()?;
        let mut container = json!({"name": self.name, "image": self.image, "env": env});
        if !self.command.is_empty() {
            container["args"] = json!(self.command);
        }
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if self.stdin {
            container["stdin"] = json!(true);
            container["stdinOnce"] = json!(true);
        }
        container["tty"] = json!(self.tty);
        Ok(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "labels": {"run": self.name}},
            "spec": {"restartPolicy": if attach { "Never" } else { "Always" }, "containers": [container]},
        }))
    }

    /// Stays with the pod until it ends; its exit code.
    async fn stay(&self, cluster: &Cluster, at: &Address) -> Result<i32> {
        let limit = Duration::from_secs(self.timeout);
        let phase = |object: Option<&Value>| object.and_then(|o| o["status"]["phase"].as_str()).map(str::to_owned);
        let told = |_: Option<&Value>| format!("{at} does not run yet; ask `rast why {at}`");
        let starts = |o: Option<&Value>| Ok(phase(o).is_none_or(|p| p != "Pending"));
        until(cluster, at, limit, starts, told).await?;
        if self.stdin || self.tty {
            let tty = self.tty && std::io::stdin().is_terminal();
            let params = AttachParams { stdin: self.stdin, stderr: !tty, tty, ..AttachParams::default() };
            let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), &at.namespace);
            match pods.attach(&at.name, &params).await {
                Ok(process) => drop(terminal::stream(process, tty).await?),
                // It has ended already: what it printed is in its log.
                Err(_) => logs::print(cluster, at, Query::default()).await?,
            }
        } else {
            logs::print(cluster, at, Query::default().with("follow", "true")).await?;
        }
        let mut code = 0;
        let ends = |object: Option<&Value>| {
            let Some(object) = object else {
                return Err(Failure::new(Exit::NotFound, format!("{at} was deleted")).into());
            };
            let state = &object["status"]["containerStatuses"][0]["state"]["terminated"];
            code = state["exitCode"].as_i64().and_then(|c| i32::try_from(c).ok()).unwrap_or(code);
            Ok(matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")))
        };
        until(cluster, at, limit, ends, |_| format!("{at} has not ended")).await?;
        Ok(code)
    }
}
