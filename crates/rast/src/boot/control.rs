//! The control plane: store, keys, API.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use apiserver::{
    Audit, Authenticator, Identity, Server,
    authn::StoredHolders,
    pki::{self, Names, Pki, Tls},
    rbac::{MASTERS, NODES, Rbac},
};
use jiff::Timestamp;
use store::{Embedded, Store};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{enrol, namespaces, nodes::Here};
use crate::{
    host::Host,
    settings::{self, Settings},
};

/// Bytes of an audit log before the next one is begun, and how many full ones are kept.
const AUDIT_SIZE: u64 = 64 << 20;
const AUDIT_KEPT: u32 = 4;

/// How often certificates are looked at: whether they are due, or the machine's addresses have changed.
const RENEWAL: Duration = Duration::from_secs(60);
/// How soon an API that was not ready, for it reads its store, is asked again.
const READY_AGAIN: Duration = Duration::from_millis(10);
/// How long after its last word a node counts as unreachable.
const NODE_GRACE: Duration = Duration::from_secs(40);

/// A running control plane.
pub struct Control {
    /// The way to the nodes.
    pub nodes: Arc<Here>,
    server: Server,
    node: String,
    ca: String,
    url: String,
    served: JoinHandle<std::io::Result<()>>,
    renewed: JoinHandle<()>,
}

impl Control {
    /// Opens the store, makes what is missing of the keys, and serves.
    pub async fn start(host: &Host, settings: &Settings, node: &str) -> Result<Self> {
        let now = Timestamp::now();
        let clock: apiserver::Clock = Arc::new(Timestamp::now);
        std::fs::create_dir_all(host.state()).with_context(|| format!("make {}", host.state().display()))?;
        let store: Arc<dyn Store> = Arc::new(Embedded::open(host.state().join("store"))?);
        let pki = Arc::new(Pki::open(&host.state().join("pki"), now)?);
        let tls = Tls::new(&pki, &names(settings, node), now)?;
        let registry = Arc::new(api::builtin());
        let nodes = Arc::new(Here::new(node));
        let server = Server::new(apiserver::Config {
            authenticator: Arc::new(Authenticator::new(&pki, Arc::new(StoredHolders(store.clone())), clock.clone())?),
            authorizer: Rbac::open(store.clone(), now).await?,
            audit: Arc::new(audit(host)?),
            nodes: nodes.clone(),
            doors: settings.machine.iter().map(|machine| enrol::door(pki.clone(), &machine.enrol)).collect(),
            version: version(),
            store,
            registry,
            clock,
        });
        // Before anybody is told that the API is ready.
        namespaces::ensure(client(&server, node, "masters")).await?;
        let address = SocketAddr::new(settings.api_address, settings.api_port);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}; choose another port with --api-port"))?;
        let url = format!("https://127.0.0.1:{}", settings.api_port);
        let served = tokio::spawn({
            let (server, tls) = (server.clone(), tls.config());
            async move { server.serve(listener, tls).await }
        });
        let kept =
            Kept { pki, tls, settings: settings.clone(), node: node.to_owned(), kubeconfig: host.kubeconfig(), url };
        kept.renew(now)?;
        let (ca, url) = (kept.pki.ca().to_owned(), kept.url.clone());
        let renewed = tokio::spawn(kept.renew_for_ever());
        Ok(Self { nodes, server, node: node.to_owned(), ca, url, served, renewed })
    }

    /// Asks the API until it is ready, and then says so to who has started this process, if that one wants to know: PID 1 of a
    /// machine, or systemd.
    pub fn announce(&self) {
        let client = self.client("masters");
        tokio::spawn(async move {
            while let Err(error) = ready(&client).await {
                tracing::debug!("the API is not ready: {error:#}");
                tokio::time::sleep(READY_AGAIN).await;
            }
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                tracing::warn!("say that the API is ready, to NOTIFY_SOCKET: {error}");
            }
        });
    }

    /// Where the API is, for this host.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The API for a component of this process, with the component's own rights.
    pub fn client(&self, component: &str) -> kube::Client {
        client(&self.server, &self.node, component)
    }

    /// The certificate authority of the API, in PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// What the controllers are told.
    pub fn controllers(&self) -> controllers::Config {
        controllers::Config {
            registry: self.server.config().registry.clone(),
            authority: self.ca.clone(),
            grace: NODE_GRACE,
        }
    }

    /// Ends the API: open requests first.
    pub async fn stop(self) -> Result<()> {
        self.renewed.abort();
        self.server.stop();
        Ok(self.served.await??)
    }
}

async fn ready(client: &kube::Client) -> Result<()> {
    client.request_text(http::Request::get("/readyz").body(Vec::new())?).await?;
    Ok(())
}

fn client(server: &Server, node: &str, component: &str) -> kube::Client {
    let identity = match component {
        "node" => Identity::system(&format!("node:{node}"), &[NODES]),
        "masters" => Identity::system("rast", &[MASTERS]),
        other => Identity::system(other, &[]),
    };
    kube::Client::new(server.local(identity), "default")
}

/// The certificates that this process keeps from ending: the server's, and the administrator's on this host.
struct Kept {
    pki: Arc<Pki>,
    tls: Tls,
    settings: Settings,
    node: String,
    kubeconfig: PathBuf,
    url: String,
}

impl Kept {
    /// Makes anew what is due.
    fn renew(&self, now: Timestamp) -> Result<(), pki::Error> {
        self.tls.renew(&self.pki, &names(&self.settings, &self.node), now)?;
        self.pki.admin_kubeconfig(&self.kubeconfig, &self.url, now)
    }

    async fn renew_for_ever(self) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if let Err(error) = self.renew(Timestamp::now()) {
                tracing::error!("renew certificates: {error}; the next try is in {RENEWAL:?}");
            }
        }
    }
}

fn audit(host: &Host) -> Result<Audit> {
    let dir = host.audit();
    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let path = dir.join("audit.log");
    Audit::open(&path, AUDIT_SIZE, AUDIT_KEPT).with_context(|| format!("open {}", path.display()))
}

fn names(settings: &Settings, node: &str) -> Names {
    let mut names = Names { dns: vec![node.to_owned()], ips: vec![settings.address()] };
    if let Some(machine) = &settings.machine {
        names.dns.extend(machine.names.iter().cloned());
        names.ips.extend(&machine.addresses);
        names.ips.extend(settings::own_addresses());
    }
    names
}

fn version() -> apiserver::Version {
    let kubernetes = apiserver::Version::default();
    let git_version = format!("{}+rastos-{}", kubernetes.git_version, env!("CARGO_PKG_VERSION"));
    apiserver::Version { git_version, ..kubernetes }
}
