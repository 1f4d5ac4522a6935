//! `rast cloud kubeconfig`: a certificate of one's own for a cluster that is there.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use cloud::{seen, up::Ready};

use super::{Which, trust};
use crate::{
    cli::Context,
    exit::{Exit, Failure},
    output,
};

/// Get a certificate for a cluster that is up, and write a kubeconfig (to --kubeconfig, or the cluster's place)
#[derive(Args)]
pub struct Kubeconfig {
    /// The cluster's name
    #[arg(value_parser = super::name)]
    name: String,
    /// SHA-256 of the cluster's certificate authority, when neither console nor password slot tell it
    #[arg(long, value_name = "HEX")]
    ca_fingerprint: Option<String>,
    /// Seconds to wait for the machine
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

impl Kubeconfig {
    /// Runs the verb.
    pub async fn run(self, context: &Context, which: &Which) -> Result<()> {
        let session = which.session().await?;
        let ready = ready(&seen::read(&session, &self.name).await?, &self.name)?;
        let limit = Duration::from_secs(self.timeout);
        let path = trust::kubeconfig(context, &session, &ready, self.ca_fingerprint.as_deref(), limit).await?;
        output::line(format!("export KUBECONFIG={}", path.display()))
    }
}

/// A cluster that is there, by its name.
pub fn ready(seen: &seen::Seen, name: &str) -> Result<Ready> {
    let mark = super::mark(seen, name)?;
    let server = seen.machines.as_ref().and_then(|m| m.object("server_0"));
    let address = seen.state.as_ref().and_then(|m| m.stack.output("address"));
    match (server, address) {
        (Some(server), Some(address)) => {
            let (server, address) = (server.to_owned(), address.to_owned());
            Ok(Ready { mark, server, address, volume: seen.state_volume() })
        }
        _ => {
            let message = format!("{name} has no machine or no address: rast cloud up {name} makes it whole");
            Err(Failure::new(Exit::Failed, message).into())
        }
    }
}
