//! TLS of the API's port.

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use super::{Credentials, Error, Names, Pki};

/// The server's side of TLS. Clients may show a certificate; one that is not of the cluster's authority, or not
/// for clients, or out of date, ends the handshake. Whoever shows none is let in as nobody.
pub struct Tls {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
}

impl Tls {
    /// With the server's certificate for these names.
    pub fn new(pki: &Pki, names: &Names, now: Timestamp) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = certified(&pki.server(names, now)?, &provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(key))));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(pki.client_verifier()?)
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), current })
    }

    /// For the listener.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Takes a new certificate for new connections once the old one is due or has other names; those that are open go
    /// on as they are. To be called daily at least, and when the names may have changed.
    pub fn renew(&self, pki: &Pki, names: &Names, now: Timestamp) -> Result<(), Error> {
        let key = certified(&pki.server(names, now)?, self.config.crypto_provider())?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        Ok(())
    }
}

impl Pki {
    /// Tells whether a client's certificate is of this authority, for clients, and in date.
    pub fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca().as_bytes()).map_err(pem)?)?;
        WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::new(aws_lc_rs::default_provider()))
            .allow_unauthenticated()
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()).into())
    }
}

fn certified(credentials: &Credentials, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let cert = CertificateDer::from_pem_slice(credentials.cert.as_bytes()).map_err(pem)?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).map_err(pem)?;
    Ok(CertifiedKey::from_der(vec![cert], key, provider)?)
}

fn pem(error: rustls::pki_types::pem::Error) -> rustls::Error {
    rustls::Error::General(format!("PEM: {error}"))
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
