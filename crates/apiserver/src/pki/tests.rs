use std::{os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn now() -> Timestamp {
    Timestamp::now()
}

fn client(ca: &Pki, with: Option<&Credentials>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.ca().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match with {
        None => config.with_no_client_auth(),
        Some(c) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(c.cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(c.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    }
}

/// A handshake in memory, and a byte each way: the peer certificate that the server saw.
async fn handshake(tls: &Tls, client: ClientConfig, name: &'static str) -> std::io::Result<Option<Vec<u8>>> {
    shake(tls.config(), client, name).await
}

async fn shake(
    server: Arc<ServerConfig>,
    client: ClientConfig,
    name: &'static str,
) -> std::io::Result<Option<Vec<u8>>> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let acceptor = tokio_rustls::TlsAcceptor::from(server);
    let server = async {
        let mut stream = acceptor.accept(far).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(stream.get_ref().1.peer_certificates().map(|c| c[0].to_vec()))
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let client = async {
        let mut stream = connector.connect(ServerName::try_from(name).unwrap(), near).await?;
        stream.read_u8().await
    };
    let (server, client): (std::io::Result<_>, _) = tokio::join!(server, client);
    client?;
    server
}

#[tokio::test]
async fn a_client_is_who_its_certificate_says() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), now()).unwrap();
    let names = Names { dns: vec!["node-1".into()], ips: vec!["10.1.2.3".parse().unwrap()] };
    let tls = Tls::new(&pki, &names, now()).unwrap();
    let admin = pki.admin(now()).unwrap();
    for name in ["localhost", "127.0.0.1", "::1", "kubernetes.default.svc", "node-1", "10.1.2.3"] {
        let seen = handshake(&tls, client(&pki, Some(&admin)), name).await.unwrap().unwrap();
        let (_, cert) = X509Certificate::from_der(&seen).unwrap();
        assert_eq!(cert.subject().to_string(), "CN=kubernetes-admin, O=system:masters");
    }
    assert_eq!(handshake(&tls, client(&pki, None), "localhost").await.unwrap(), None);
    assert!(handshake(&tls, client(&pki, None), "elsewhere").await.is_err(), "a name that is not the server's");
}

#[tokio::test]
async fn a_stranger_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pki = Pki::open(ours.path(), now()).unwrap();
    let other = Pki::open(theirs.path(), now()).unwrap();
    let tls = Tls::new(&pki, &Names::default(), now()).unwrap();
    let strangers = [
        other.admin(now()).unwrap(),
        pki.client("late", None, now() - LEAF_LIFE * 2).unwrap(),
        pki.server(&Names::default(), now()).unwrap(), // of our authority, but not for clients
    ];
    for stranger in strangers {
        assert!(handshake(&tls, client(&pki, Some(&stranger)), "localhost").await.is_err());
    }
    assert!(handshake(&tls, client(&other, None), "localhost").await.is_err(), "another cluster's server");
}

#[test]
fn what_lies_on_disk_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::open(dir.path(), now()).unwrap();
    let names = Names::default();
    let server = first.server(&names, now()).unwrap();
    let again = Pki::open(dir.path(), now()).unwrap();
    assert_eq!(again.ca(), first.ca());
    assert_eq!(again.token_key().serialize_pem(), first.token_key().serialize_pem());
    assert_eq!(again.server(&names, now()).unwrap().cert, server.cert);
    assert_ne!(again.server(&names, now() + LEAF_LIFE * 2 / 3).unwrap().cert, server.cert, "near its end");
    let more = Names { dns: vec!["api.web.rastos.internal".into()], ips: vec![] };
    let renamed = again.server(&more, now()).unwrap();
    assert_ne!(renamed.cert, server.cert);
    assert!(super::names(&renamed).unwrap().contains(&"api.web.rastos.internal".into()));
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_server_certificate_of_a_lost_authority_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let old = Pki::open(dir.path(), now()).unwrap().server(&Names::default(), now()).unwrap();
    std::fs::remove_file(dir.path().join("ca.pem")).unwrap();
    let new = Pki::open(dir.path(), now()).unwrap();
    assert_ne!(new.server(&Names::default(), now()).unwrap().cert, old.cert);
}

#[test]
fn a_broken_authority_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), "").unwrap();
    let error = Pki::open(dir.path(), now()).err().unwrap();
    assert!(error.to_string().contains("restore it from a backup"), "{error}");
}

#[test]
fn a_crash_while_writing_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    write_private(&path, b"old").unwrap();
    std::fs::write(dir.path().join("x.new"), b"half").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    write_private(&path, b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert!(!dir.path().join("x.new").exists());
}

#[test]
fn the_kubeconfig_is_written_when_it_must() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(&dir.path().join("pki"), now()).unwrap();
    let path = dir.path().join("etc/kubeconfig.yaml");
    let written = |server, now| {
        pki.admin_kubeconfig(&path, server, now).unwrap();
        std::fs::read_to_string(&path).unwrap()
    };
    let first = written("https://127.0.0.1:6443", now());
    assert_eq!(written("https://127.0.0.1:6443", now()), first);
    assert_ne!(written("https://127.0.0.1:7443", now()), first);
    let first = written("https://127.0.0.1:6443", now());
    assert_ne!(written("https://127.0.0.1:6443", now() + LEAF_LIFE * 2 / 3), first);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let parsed: serde_json::Value = serde_saphyr::from_str(&first).unwrap();
    assert_eq!(parsed["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
    assert_eq!(parsed["contexts"][0]["context"]["user"], "admin");
}

/// A clock that stands.
#[derive(Debug)]
struct At(Timestamp);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.as_second().try_into().ok()?)))
    }
}

/// As a machine does it that runs for years: server, administrator and a client that renews when it is due.
#[tokio::test]
async fn nothing_ends_in_the_life_of_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let start = now();
    let pki = Pki::open(&dir.path().join("pki"), start).unwrap();
    let tls = Tls::new(&pki, &Names::default(), start).unwrap();
    let kubeconfig = dir.path().join("kubeconfig.yaml");
    let mut enrolled = pki.client("enrolled:ab", None, start).unwrap();
    let (mut servers, mut months) = (std::collections::BTreeSet::new(), 0);
    let last = start + CA_LIFE - LEAF_LIFE;
    while start + SignedDuration::from_hours(24 * 30 * months) < last {
        let at = start + SignedDuration::from_hours(24 * 30 * months);
        months += 1;
        tls.renew(&pki, &Names::default(), at).unwrap();
        pki.admin_kubeconfig(&kubeconfig, "https://127.0.0.1:6443", at).unwrap();
        if Validity::of(&enrolled.cert).unwrap().is_due(at) {
            enrolled = pki.client("enrolled:ab", None, at).unwrap();
        }
        let admin = kubeconfig::credentials(&std::fs::read_to_string(&kubeconfig).unwrap()).unwrap();
        for who in [&admin, &enrolled] {
            let mut client = client(&pki, Some(who));
            client.time_provider = Arc::new(At(at));
            let mut server = (*tls.config()).clone();
            server.time_provider = Arc::new(At(at));
            // The verifier of clients keeps no clock of its own: it is given the configuration's.
            let seen = shake(Arc::new(server), client, "localhost").await;
            assert!(seen.as_ref().is_ok_and(Option::is_some), "month {months}: {seen:?}");
        }
        servers.insert(pki.server(&Names::default(), at).unwrap().cert);
    }
    assert!((10..20).contains(&servers.len()), "{} certificates in nine years", servers.len());
}

#[tokio::test]
async fn a_renewal_drops_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), now()).unwrap();
    let tls = Tls::new(&pki, &Names::default(), now()).unwrap();
    let open = async {
        let (near, far) = tokio::io::duplex(1 << 16);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client(&pki, None)));
        let acceptor = tokio_rustls::TlsAcceptor::from(tls.config());
        let name = ServerName::try_from("localhost").unwrap();
        let (near, far) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        (near.unwrap(), far.unwrap())
    };
    let (mut near, mut far) = open.await;
    tls.renew(&pki, &Names::default(), now() + LEAF_LIFE * 2 / 3).unwrap();
    near.write_all(b"?").await.unwrap();
    near.flush().await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'?');
    far.write_all(b"!").await.unwrap();
    far.flush().await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), b'!');
    // The new one holds only from its own day on: today's client sees that it is another.
    let (near, far) = tokio::io::duplex(1 << 16);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client(&pki, None)));
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.config());
    let (refused, _) =
        tokio::join!(connector.connect(ServerName::try_from("localhost").unwrap(), near), acceptor.accept(far));
    assert!(refused.unwrap_err().to_string().contains("not valid yet"));
}
