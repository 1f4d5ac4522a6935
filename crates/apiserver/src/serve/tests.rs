use std::{path::Path, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    Server,
    authn::{Authenticator, StoredHolders},
    pki::{Names, Pki, Tls},
    testing::{self, Fixture},
};

/// A server on a port of loopback, and the kubeconfig text of a certificate's user.
async fn listening(dir: &Path, user: &str) -> (Server, tokio::task::JoinHandle<std::io::Result<()>>, String) {
    let now = jiff::Timestamp::now();
    let pki = Pki::open(&dir.join("pki"), now).unwrap();
    let store: Arc<dyn store::Store> = Arc::new(store::Embedded::open(dir.join("store")).unwrap());
    let clock: crate::Clock = Arc::new(jiff::Timestamp::now);
    let authenticator = Authenticator::new(&pki, Arc::new(StoredHolders(store.clone())), clock.clone()).unwrap();
    let server = Server::new(crate::Config { authenticator: Arc::new(authenticator), ..testing::config(store, clock) });
    let tls = Tls::new(&pki, &Names::default(), now).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let kubeconfig = pki.kubeconfig(&url, user, &pki.client(user, None, now).unwrap());
    let serving = server.clone();
    let task = tokio::spawn(async move { serving.serve(listener, tls.config()).await });
    (server, task, kubeconfig)
}

async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn a_certificate_is_who_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let (server, task, kubeconfig) = listening(dir.path(), "alice").await;
    server.ready().await;
    let alice = client(&kubeconfig).await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(alice.clone());
    let default = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    namespaces.create(&PostParams::default(), &default).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(alice);
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
    let (_, _, stranger) = listening(tempfile::tempdir().unwrap().path(), "mallory").await;
    // A certificate of another authority does not get past the handshake.
    let mut foreign = Kubeconfig::from_yaml(&stranger).unwrap();
    foreign.clusters = Kubeconfig::from_yaml(&kubeconfig).unwrap().clusters;
    let config = Config::from_custom_kubeconfig(foreign, &KubeConfigOptions::default()).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config).unwrap());
    assert!(maps.list(&ListParams::default()).await.is_err());
    server.stop();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_local_service_needs_no_certificate() {
    let f = Fixture::new().await;
    let nobody = crate::Identity::anonymous();
    let mut local = f.server.local(nobody);
    let request = http::Request::get("/version").body(axum::body::Body::empty()).unwrap();
    assert_eq!(tower::Service::call(&mut local, request).await.unwrap().status(), 200);
}
