mod hostile;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    Door, Server,
    authn::{Authenticator, StoredHolders},
    limits::{Shares, Turns},
    pki::{Names, Pki, Tls},
    testing::{self, Fixture},
};

/// A server on a port of loopback.
struct Port {
    server: Server,
    pki: Pki,
    address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

async fn listening(dir: &Path, doors: Vec<Door>, places: Arc<Shares>) -> Port {
    listening_by_turns(dir, doors, places, Turns::new(Duration::ZERO, 1)).await
}

async fn listening_by_turns(dir: &Path, doors: Vec<Door>, places: Arc<Shares>, turns: Turns) -> Port {
    let now = jiff::Timestamp::now();
    let pki = Pki::open(&dir.join("pki"), now).unwrap();
    let store: Arc<dyn store::Store> = Arc::new(store::Embedded::open(dir.join("store")).unwrap());
    let clock: crate::Clock = Arc::new(jiff::Timestamp::now);
    let authenticator = Authenticator::new(&pki, Arc::new(StoredHolders(store.clone())), clock.clone()).unwrap();
    let config = testing::config(store, clock);
    let server = Server::new(crate::Config { authenticator: Arc::new(authenticator), doors, ..config });
    let tls = Tls::new(&pki, &Names::default(), now).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = server.clone();
    let task = tokio::spawn(async move { serving.serve_within(listener, tls.config(), places, turns).await });
    Port { server, pki, address, task }
}

impl Port {
    /// The kubeconfig of a certificate's user.
    fn kubeconfig(&self, user: &str) -> Kubeconfig {
        let credentials = self.pki.client(user, None, jiff::Timestamp::now()).unwrap();
        Kubeconfig::from_yaml(&self.pki.kubeconfig(&format!("https://{}", self.address), user, &credentials)).unwrap()
    }
}

async fn client(kubeconfig: Kubeconfig) -> Client {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn a_certificate_is_who_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let port = listening(dir.path(), vec![], Shares::new(10, 10)).await;
    port.server.ready().await;
    let alice = client(port.kubeconfig("alice")).await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(alice.clone());
    let default = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    namespaces.create(&PostParams::default(), &default).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(alice);
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
    let other = tempfile::tempdir().unwrap();
    let mut foreign = listening(other.path(), vec![], Shares::new(1, 1)).await.kubeconfig("mallory");
    // A certificate of another authority does not get past the handshake.
    foreign.clusters = port.kubeconfig("alice").clusters;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(foreign).await);
    assert!(maps.list(&ListParams::default()).await.is_err());
    port.server.stop();
    port.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_local_service_needs_no_certificate() {
    let f = Fixture::new().await;
    let nobody = crate::Identity::anonymous();
    let mut local = f.server.local(nobody);
    let request = http::Request::get("/version").body(axum::body::Body::empty()).unwrap();
    assert_eq!(tower::Service::call(&mut local, request).await.unwrap().status(), 200);
}
