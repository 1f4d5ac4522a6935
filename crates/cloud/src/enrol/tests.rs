use std::net::Ipv4Addr;

use rcgen::{BasicConstraints, IsCa, Issuer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// An authority with its certificate.
struct Authority {
    cert: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "rastos");
        let cert = params.self_signed(&key).unwrap();
        Self { cert, issuer: Issuer::new(params, key) }
    }

    fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(self.cert.der()))
    }

    /// A server that shows a certificate of this authority for `name` and answers every request with `status`
    /// and `body`.
    async fn serve(&self, name: &str, status: u16, body: String) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let mut seen = vec![0; 65536];
                let _ = tls.read(&mut seen).await;
                let head =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = tls.write_all((head + &body).as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        address
    }

    fn answer(&self) -> String {
        serde_json::json!({"certificate": "ours", "ca": self.cert.pem()}).to_string()
    }
}

async fn asked(address: SocketAddr, fingerprint: &str) -> Result<Admission, EnrolError> {
    ask_at("demo", address, fingerprint, &Key::new().unwrap()).await
}

#[tokio::test]
async fn the_machine_itself_is_believed() {
    let authority = Authority::new();
    let address = authority.serve("api.demo.rastos.internal", 200, authority.answer()).await;
    let admission = asked(address, &authority.fingerprint()).await.unwrap();
    assert_eq!(admission.certificate, "ours");
}

#[tokio::test]
async fn an_impostor_is_refused_whatever_it_answers() {
    let (real, other) = (Authority::new(), Authority::new());
    let good = "api.demo.rastos.internal";
    for (impostor, name, body) in [
        // Its own authority; the real one, which anybody can copy; a certificate of another cluster's name; nonsense.
        (&other, good, other.answer()),
        (&other, good, real.answer()),
        (&real, "api.else.rastos.internal", real.answer()),
        (&real, good, "{}".to_owned()),
    ] {
        let address = impostor.serve(name, 200, body).await;
        let error = asked(address, &real.fingerprint()).await.unwrap_err();
        assert!(matches!(error, EnrolError::Impostor { .. }) && !error.passes(), "{error}");
    }
}

#[tokio::test]
async fn a_machine_that_is_not_ready_is_asked_again() {
    let authority = Authority::new();
    let body = r#"{"message": "the key is not admitted"}"#.to_owned();
    let address = authority.serve("api.demo.rastos.internal", 403, body).await;
    let error = asked(address, &authority.fingerprint()).await.unwrap_err();
    assert!(error.passes() && error.to_string().contains("the key is not admitted (403)"), "{error}");
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    assert!(matches!(asked(free, "00").await.unwrap_err(), EnrolError::Silent { .. }));
}

#[test]
fn fingerprints_come_by_slot_and_console() {
    let print = "ab".repeat(32);
    assert_eq!(in_slot(&format!("rastos-ca-sha256:{print}")).as_deref(), Some(print.as_str()));
    assert_eq!(in_slot("c2VjcmV0"), None);
    let console = format!("x\r\n[  1.2] rastos: CA sha256 {}\r\nrastos: CA sha256 {print}\r\nlogin:", "00".repeat(32));
    assert_eq!(on_console(&console).as_deref(), Some(print.as_str()));
    assert_eq!(on_console("rastos: CA sha256 none"), None);
    let upper = print.to_uppercase();
    let colons = upper.as_bytes().chunks(2).map(|c| String::from_utf8_lossy(c).into_owned());
    assert_eq!(fingerprint(&colons.collect::<Vec<_>>().join(":")).as_deref(), Some(print.as_str()));
}

#[test]
fn a_kept_key_is_the_same_key() {
    let key = Key::new().unwrap();
    assert_eq!(Key::from_pem(&key.pem()).unwrap().hash(), key.hash());
    assert_eq!(key.hash().len(), 64);
}
