//! Getting a certificate from a machine that has made its own authority, without trusting whoever answers first.
//!
//! The key is made here and never leaves. Its hash goes into the server's metadata, so that the machine signs this
//! request and no other. The authority's fingerprint comes by a way that only the machine and Nova can write. Whoever
//! answers at the floating IP must show a certificate of that authority on the very connection over which the
//! certificate came; else nothing of its answer is used.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::rastos::cluster::API_PORT;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// How Nova's password slot begins.
const SLOT: &str = "rastos-ca-sha256:";
/// How the console's line begins.
const LINE: &str = "rastos: CA sha256 ";
const PATIENCE: Duration = Duration::from_secs(30);

/// A key that was made here.
pub struct Key {
    pair: KeyPair,
}

/// What a machine gave us.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Admission {
    /// Our certificate, PEM.
    pub certificate: String,
    /// The cluster's authority, PEM.
    pub ca: String,
}

impl Admission {
    /// The authority's fingerprint: whom it was got from, and who alone may renew it.
    pub fn authority(&self) -> Option<String> {
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).ok()?;
        Some(hex::encode(Sha256::digest(&ca)))
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A key cannot be made or read.
    #[error("make a key")]
    Key(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
    /// Nobody answers, yet.
    #[error("the API at {address} does not answer: {why}")]
    Silent {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// It answers and does not sign.
    #[error("the API at {address} does not admit our key: {why}")]
    Denied {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// Somebody else answers.
    #[error(
        "whoever answers at {address} is not the machine of this cluster: {why}. Nothing of its answer was used. If the \
         machine was made anew with another state volume, its fingerprint is on its console"
    )]
    Impostor {
        /// Where.
        address: SocketAddr,
        /// How it is known.
        why: String,
    },
}

impl EnrolError {
    /// Whether it may pass by itself: a machine that is starting.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Denied { .. })
    }
}

impl Key {
    /// A new key.
    pub fn new() -> Result<Self, EnrolError> {
        Ok(Self { pair: KeyPair::generate()? })
    }

    /// A key that was kept.
    pub fn from_pem(pem: &str) -> Result<Self, EnrolError> {
        Ok(Self { pair: KeyPair::from_pem(pem)? })
    }

    /// To be kept, for its owner alone.
    pub fn pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// SHA-256 of its SubjectPublicKeyInfo, in hex.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&self.pair)))
    }

    /// The request for a certificate, PEM.
    fn request(&self) -> Result<String, EnrolError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "admin");
        Ok(params.serialize_request(&self.pair)?.pem()?)
    }
}

/// The name that the API's certificate always carries.
pub fn api_name(cluster: &str) -> String {
    format!("api.{cluster}.rastos.internal")
}

/// The authority's fingerprint out of Nova's password slot.
pub fn in_slot(password: &str) -> Option<String> {
    password.trim().strip_prefix(SLOT).and_then(fingerprint)
}

/// The authority's fingerprint out of a console: the last one said.
pub fn on_console(console: &str) -> Option<String> {
    console.lines().rev().find_map(|line| fingerprint(line.trim_start().strip_prefix(LINE)?.split_whitespace().next()?))
}

/// A SHA-256 in hex, with or without colons.
pub fn fingerprint(text: &str) -> Option<String> {
    let plain = text.trim().replace(':', "").to_ascii_lowercase();
    (plain.len() == 64 && plain.bytes().all(|b| b.is_ascii_hexdigit())).then_some(plain)
}

/// Asks the machine at `address` for a certificate, and believes it only if it is of the authority with this
/// fingerprint.
pub async fn ask(cluster: &str, address: IpAddr, fingerprint: &str, key: &Key) -> Result<Admission, EnrolError> {
    ask_at(cluster, SocketAddr::new(address, API_PORT), fingerprint, key).await
}

async fn ask_at(cluster: &str, address: SocketAddr, fingerprint: &str, key: &Key) -> Result<Admission, EnrolError> {
    let name = api_name(cluster);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let witness = Arc::new(Witness { provider: provider.clone(), shown: Mutex::default() });
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    let silent = |e: reqwest::Error| {
        let mut why = e.to_string();
        let mut cause = std::error::Error::source(&e);
        while let Some(next) = cause {
            why = next.to_string();
            cause = next.source();
        }
        EnrolError::Silent { address, why }
    };
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .resolve(&name, address)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(PATIENCE)
        .build()
        .map_err(silent)?;
    let post = http.post(format!("https://{name}:{}/enrol", address.port()));
    let post = post.header("content-type", "application/x-pem-file").body(key.request()?);
    let response = post.send().await.map_err(silent)?;
    let status = response.status();
    let body = response.bytes().await.map_err(silent)?;
    if !status.is_success() {
        return Err(EnrolError::Denied {
            address,
            why: crate::error::message(&body) + &format!(" ({})", status.as_u16()),
        });
    }
    let impostor = |why: &str| EnrolError::Impostor { address, why: why.to_owned() };
    let admission: Admission = serde_json::from_slice(&body).map_err(|_| impostor("its answer is no certificate"))?;
    let ca = CertificateDer::from_pem_slice(admission.ca.as_bytes())
        .map_err(|_| impostor("its authority is no certificate"))?;
    if hex::encode(Sha256::digest(&ca)) != fingerprint {
        return Err(impostor("its authority has another fingerprint"));
    }
    witness.belongs_to(ca, &name).map_err(|e| impostor(&format!("it cannot prove to be of its authority ({e})")))?;
    Ok(admission)
}

/// Lets a handshake pass, remembers which certificate was shown, and judges it when the authority is known.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    shown: Mutex<Option<CertificateDer<'static>>>,
}

impl Witness {
    fn belongs_to(&self, ca: CertificateDer<'static>, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(ca)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let name = ServerName::try_from(name.to_owned()).map_err(|e| rustls::Error::General(e.to_string()))?;
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let shown = shown.ok_or(CertificateError::UnknownIssuer)?;
        verifier.verify_server_cert(&shown, &[], &name, &[], UnixTime::now()).map(drop)
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // What is sent is a public request; what is answered is used only after `belongs_to`.
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "enrol/tests.rs"]
mod tests;
