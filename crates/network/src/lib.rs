//! Pod networks: addresses, links, routes, packet filter, CNI.
//!
//! Every pod has its own address, a /32 routed to its own veth (no bridge, so no limit of 1,023 ports). What is
//! attached stands in one small file each, written first and removed last: whoever is killed in between leaves
//! nothing that [`Network::collect`] does not find. Knows nothing of the API.

pub mod addresses;
pub mod cni;
mod config;
mod conntrack;
mod forwarding;
pub mod host;
mod ledger;
mod link;
mod netlink;
mod nft;
mod policy;
mod ports;
mod routed;

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use async_trait::async_trait;

pub use crate::{config::Config, routed::Routed};

/// A transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct HostPort {
    /// The host's address; unspecified for all.
    pub address: IpAddr,
    /// The host's port.
    pub host: u16,
    /// The pod's port.
    pub pod: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// What a pod asks of the network.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// The sandbox's id.
    pub id: String,
    /// The pinned network namespace.
    pub netns: PathBuf,
    /// Ports of the host that lead to it.
    pub host_ports: Vec<HostPort>,
}

/// What a pod got.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// What it asked for.
    pub request: Request,
    /// Its addresses; the first is the primary one.
    pub addresses: Vec<IpAddr>,
    /// The host's end of the veth.
    pub link: String,
}

/// What the network could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address is left.
    #[error("no free address in {range}: {used} in use; widen the pod range in config.yaml")]
    Exhausted {
        /// The pod range.
        range: String,
        /// Addresses in use.
        used: usize,
    },
    /// A port of the host is taken.
    #[error("host port {port}/{protocol:?} is taken by {holder}")]
    PortTaken {
        /// The host's port.
        port: u16,
        /// The protocol.
        protocol: Protocol,
        /// The sandbox, or the process, that holds it.
        holder: String,
    },
    /// The pod has no attachment.
    #[error("{0} is not attached")]
    NotFound(String),
    /// A value of the configuration is refused.
    #[error("{field}: {why}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel or the packet filter refused.
    #[error("{doing}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), why: why.into() }
    }

    /// For `map_err`: names what was being done.
    pub(crate) fn io<E>(doing: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let doing = doing.into();
        move |source| Self::Io { doing, source: source.into() }
    }
}

/// The result of a network operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Connects sandboxes. All operations are safe to repeat.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Gives a sandbox its address and ports; the same answer for one that is attached already.
    async fn attach(&self, request: &Request) -> Result<Attachment>;
    /// Takes all of it back; absent is done.
    async fn detach(&self, id: &str) -> Result<()>;
    /// All attachments.
    async fn attachments(&self) -> Result<Vec<Attachment>>;
    /// Detaches all but `live`, and repairs what these lack: to be called at every start, before anything is attached.
    async fn collect(&self, live: &BTreeSet<String>) -> Result<()>;
    /// Removes everything this instance made on the host.
    async fn teardown(&self) -> Result<()>;
}
