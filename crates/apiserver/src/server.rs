//! The server: what it is made of, and the ways into it.

use std::sync::{Arc, OnceLock};

use api::{Kind, Registry, Scope};
use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::{
    Admission, ApiError, Attributes, Audit, Authenticator, Authorizer, Identity, Nodes, Result, Warnings, attributes,
    cache::Cache, call::Call, discovery, filters, limits::Shares, oidc, openapi, tasks, verbs, wire::body,
};

/// Requests that are answered at a time, besides watches and streams: all of them, and those of one user.
const IN_FLIGHT: (usize, usize) = (400, 100);
/// Watches and streams of an HTTP body that are open at a time. One that upgrades (exec, attach, port-forward) gives its
/// place back when it begins.
const LONG: (usize, usize) = (20_000, 2_000);

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

impl Default for Version {
    /// Of the Kubernetes whose API is served.
    fn default() -> Self {
        Self {
            major: "1".into(),
            minor: "36".into(),
            git_version: "v1.36.0".into(),
            git_commit: String::new(),
            build_date: String::new(),
        }
    }
}

/// A path that judges its callers itself: neither authentication nor authorisation stands before it. It is audited,
/// and bounded in time and number, like any other.
#[derive(Clone)]
pub struct Door {
    /// Where.
    pub path: &'static str,
    /// What answers there; with [`ApiError`] when it refuses.
    pub answers: MethodRouter,
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
    /// Paths of the embedding program's own.
    pub doors: Vec<Door>,
    /// What `/version` tells.
    pub version: Version,
    /// The time.
    pub clock: Clock,
}

/// The API server: a cheap handle.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    config: Config,
    admission: Admission,
    cache: Arc<Cache>,
    bodies: Arc<Shares>,
    in_flight: Arc<Shares>,
    long: Arc<Shares>,
    stop: CancellationToken,
}

impl Server {
    /// A server that begins to follow the store, within a tokio runtime. It ends with [`Server::stop`].
    pub fn new(config: Config) -> Self {
        let admission = Admission {
            store: config.store.clone(),
            registry: config.registry.clone(),
            authorizer: config.authorizer.clone(),
        };
        let cache = Cache::new(config.store.clone(), &config.registry);
        let server = Self(Arc::new(Inner {
            config,
            admission,
            cache,
            bodies: Shares::new(IN_FLIGHT.0, IN_FLIGHT.1),
            in_flight: Shares::new(IN_FLIGHT.0, IN_FLIGHT.1),
            long: Shares::new(LONG.0, LONG.1),
            stop: CancellationToken::new(),
        }));
        tasks::start(&server);
        server
    }

    /// The whole API behind its filters.
    pub fn router(&self) -> Router {
        let doors = self.config().doors.iter();
        let doors = doors.fold(Router::new(), |all, door| all.route(door.path, door.answers.clone()));
        Router::new()
            .merge(discovery::routes())
            .merge(oidc::routes())
            .merge(openapi::routes())
            .merge(doors.with_state(()))
            .fallback(dispatch)
            .layer(middleware::from_fn_with_state(self.clone(), filters::chain))
            .with_state(self.clone())
    }

    /// The API without a socket, for a component of this process: every request is made by `identity`, and
    /// authorised and audited like any other. `kube::Client::new` takes it.
    pub fn local(&self, identity: Identity) -> crate::serve::LocalService {
        crate::serve::LocalService::new(self.router(), identity)
    }

    /// Waits until the store has been read once: what `/readyz` tells. Requests before that wait a little.
    pub async fn ready(&self) {
        self.0.cache.ready().await;
    }

    /// Ends watches and tasks, and lets [`Server::serve`] return once its connections are done.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// What the server was made of.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Waits for [`Server::stop`].
    pub(crate) async fn stopping(&self) {
        self.0.stop.cancelled().await;
    }

    pub(crate) fn stop_token(&self) -> &CancellationToken {
        &self.0.stop
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.0.admission
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.0.cache
    }

    /// Places for requests whose bodies are still to come: as many as for those that are being answered.
    pub(crate) fn bodies(&self) -> &Arc<Shares> {
        &self.0.bodies
    }

    pub(crate) fn in_flight(&self) -> &Arc<Shares> {
        &self.0.in_flight
    }

    pub(crate) fn long(&self) -> &Arc<Shares> {
        &self.0.long
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        (self.0.config.clock)()
    }
}

/// Everything that is no fixed path: resources.
async fn dispatch(
    State(server): State<Server>,
    Extension(identity): Extension<Identity>,
    Extension(warnings): Extension<Arc<Warnings>>,
    Extension(at): Extension<Attributes>,
    request: Request,
) -> Response {
    match answer(server, identity, warnings, at, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(
    server: Server,
    identity: Identity,
    warnings: Arc<Warnings>,
    at: Attributes,
    request: Request,
) -> Result<Response> {
    let kind = kind(&server, &at)?;
    let (parts, body) = request.into_parts();
    let call = Call {
        query: attributes::pairs(&parts.uri).collect(),
        body: body::collect(body).await?,
        now: server.now(),
        headers: parts.headers,
        method: parts.method,
        twice: OnceLock::new(),
        extensions: parts.extensions,
        server,
        kind,
        at,
        identity,
        warnings,
    };
    verbs::run(call).await
}

/// The kind that a path names, in a scope where it can be.
fn kind(server: &Server, at: &Attributes) -> Result<Arc<Kind>> {
    let kind = server.config().registry.resource(&at.group, &at.version, &at.resource);
    let kind = kind.filter(|_| at.is_resource).ok_or_else(ApiError::no_route)?;
    // A Namespace is asked for in itself; nothing else of the cluster's, nor another Namespace, in any.
    let itself = kind.plural == "namespaces" && kind.group.is_empty() && at.namespace == at.name;
    match kind.scope {
        Scope::Cluster if !at.namespace.is_empty() && !itself => Err(ApiError::no_route()),
        Scope::Namespaced if at.namespace.is_empty() && !matches!(at.verb.as_str(), "list" | "watch") => {
            Err(ApiError::method_not_allowed(&at.verb, &format!("{} of all namespaces", at.resource)))
        }
        _ => Ok(kind.clone()),
    }
}
