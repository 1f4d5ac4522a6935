//! The server: what it is made of, and the ways into it.

use std::sync::Arc;

use api::Registry;
use axum::Router;
use store::Store;

use crate::{Admission, Audit, Authenticator, Authorizer, Nodes, openapi};

/// Tells the time of day.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// What `/version` tells.
#[derive(Clone, Debug)]
pub struct Version {
    /// E.g. `1`.
    pub major: String,
    /// E.g. `36`.
    pub minor: String,
    /// E.g. `v1.36.0+rastos-0.1.0`.
    pub git_version: String,
    /// The commit, or empty.
    pub git_commit: String,
    /// RFC 3339, or empty.
    pub build_date: String,
}

/// What a server is made of.
pub struct Config {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// What is served.
    pub registry: Arc<Registry>,
    /// Who is who.
    pub authenticator: Arc<Authenticator>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Where requests are written down.
    pub audit: Arc<Audit>,
    /// The way to the nodes.
    pub nodes: Arc<dyn Nodes>,
    /// What `/version` tells.
    pub version: Version,
    /// The time.
    pub clock: Clock,
}

/// The API server: a cheap handle.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    #[allow(dead_code)]
    pub(crate) admission: Admission,
}

impl Server {
    /// A server that begins to follow the store.
    pub fn new(config: Config) -> Self {
        let admission = Admission {
            store: config.store.clone(),
            registry: config.registry.clone(),
            authorizer: config.authorizer.clone(),
        };
        Self(Arc::new(Inner { config, admission }))
    }

    /// The whole API behind its filters.
    pub fn router(&self) -> Router {
        Router::new().merge(openapi::routes()).with_state(self.clone())
    }

    /// What the server was made of.
    pub fn config(&self) -> &Config {
        &self.0.config
    }
}
