//! The cluster's own certificate authority, made at first start, and the key that signs tokens.
//!
//! Each identity lies in one file (certificate and key together), written whole or not at all, readable by its
//! owner alone. A missing file is made anew; a broken one is an error, for a new CA would lock out every client.

mod files;
mod kubeconfig;
mod request;
mod tls;
mod validity;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

pub use files::write_private;
pub use request::Request;
pub use tls::Tls;
pub use validity::Validity;

const CA_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);
const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);
/// For clocks that are a little behind ours.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Why the cluster's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what this program wrote.
    #[error("{path} holds no usable certificate and key ({why}); restore it from a backup, or remove it to start anew")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate cannot be made of these names.
    #[error("issue certificate")]
    Issue(#[from] rcgen::Error),
    /// What should be a certificate request is none, or is not signed by its own key.
    #[error("not a certificate request signed by its own key: {0}")]
    Request(String),
    /// TLS cannot be set up with what was made.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
}

/// A certificate and its private key, both in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate.
    pub cert: String,
    /// The key (PKCS #8).
    pub key: String,
}

impl Credentials {
    /// Whether it is still good for a while.
    fn fresh(&self, now: Timestamp) -> bool {
        Validity::of(&self.cert).is_some_and(|validity| !validity.is_due(now))
    }

    /// Both in one text, as they lie on disk.
    fn bundle(&self) -> String {
        format!("{}{}", self.cert, self.key)
    }

    fn unbundle(text: &str) -> Option<Self> {
        let at = text.find("-----BEGIN PRIVATE KEY-----")?;
        Some(Self { cert: text[..at].to_owned(), key: text[at..].to_owned() })
    }
}

/// By which names the server is reached, beside those that every cluster's server has (localhost, kubernetes,
/// kubernetes.default.svc.cluster.local …).
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The node's name and any other DNS names.
    pub dns: Vec<String>,
    /// The host's addresses and the cluster address of the service `kubernetes`.
    pub ips: Vec<IpAddr>,
}

impl Names {
    fn all(&self) -> Result<Vec<SanType>, rcgen::Error> {
        let fixed = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let fixed = fixed.into_iter().chain(["kubernetes.default.svc.cluster.local"]);
        let mut dns: Vec<&str> = fixed.chain(self.dns.iter().map(String::as_str)).collect();
        let mut ips = self.ips.clone();
        ips.extend([IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
        dns.sort_unstable();
        dns.dedup();
        ips.sort_unstable();
        ips.dedup();
        let dns = dns.into_iter().map(|name| Ok(SanType::DnsName(name.try_into()?)));
        dns.chain(ips.into_iter().map(|ip| Ok(SanType::IpAddress(ip)))).collect()
    }
}

/// The certificate authority and the token key of one cluster.
pub struct Pki {
    dir: PathBuf,
    ca: String,
    issuer: Issuer<'static, KeyPair>,
    token_key: KeyPair,
}

impl Pki {
    /// Opens what lies in `dir`, or makes it (ECDSA P-256: a millisecond each). After `Ok` it survives power loss.
    pub fn open(dir: &Path, now: Timestamp) -> Result<Self, Error> {
        files::private_dir(dir)?;
        let path = dir.join("ca.pem");
        let ca = match files::read(&path)? {
            Some(text) => Credentials::unbundle(&text)
                .ok_or_else(|| Error::Broken { path: path.clone(), why: "a part is missing".into() })?,
            None => {
                let ca = authority(now)?;
                write_private(&path, ca.bundle().as_bytes())?;
                ca
            }
        };
        let broken = |why: rcgen::Error| Error::Broken { path: path.clone(), why: why.to_string() };
        let key = KeyPair::from_pem(&ca.key).map_err(broken)?;
        let issuer = Issuer::from_ca_cert_pem(&ca.cert, key).map_err(broken)?;
        let path = dir.join("token.pem");
        let token_key = match files::read(&path)? {
            Some(text) => KeyPair::from_pem(&text).map_err(|why| Error::Broken { path, why: why.to_string() })?,
            None => {
                let key = KeyPair::generate()?;
                write_private(&path, key.serialize_pem().as_bytes())?;
                key
            }
        };
        Ok(Self { dir: dir.to_owned(), ca: ca.cert, issuer, token_key })
    }

    /// The authority's certificate (PEM): what clients trust, also as `kube-root-ca.crt`.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// The key that signs service account tokens.
    pub(crate) fn token_key(&self) -> &KeyPair {
        &self.token_key
    }

    /// The server's certificate: the one on disk while it has these names and is not due.
    pub fn server(&self, names: &Names, now: Timestamp) -> Result<Credentials, Error> {
        let path = self.dir.join("server.pem");
        let names = names.all()?;
        if let Some(old) = files::read(&path)?.as_deref().and_then(Credentials::unbundle)
            && old.fresh(now)
            && self.issued(&old)
            && self::names(&old).is_some_and(|have| have == listed(&names))
        {
            return Ok(old);
        }
        let mut params = leaf("kubernetes", None, now)?;
        params.subject_alt_names = names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let made = self.issue(params)?;
        write_private(&path, made.bundle().as_bytes())?;
        Ok(made)
    }

    /// A client certificate, good for a year: `user` as common name, `group` as organisation. Not kept.
    pub fn client(&self, user: &str, group: Option<&str>, now: Timestamp) -> Result<Credentials, Error> {
        let mut params = leaf(user, group, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// The certificate of a cluster's administrator (`system:masters`).
    pub fn admin(&self, now: Timestamp) -> Result<Credentials, Error> {
        self.client("kubernetes-admin", Some(crate::rbac::MASTERS), now)
    }

    /// The certificate of a node's agent.
    pub fn node(&self, node: &str, now: Timestamp) -> Result<Credentials, Error> {
        self.client(&format!("system:node:{node}"), Some(crate::rbac::NODES), now)
    }

    fn issue(&self, params: CertificateParams) -> Result<Credentials, Error> {
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Credentials { cert, key: key.serialize_pem() })
    }

    /// Whether this authority's key signed it, told by the key's identifier.
    fn issued(&self, leaf: &Credentials) -> bool {
        let ca = read(&self.ca, |cert| {
            cert.iter_extensions().find_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
        });
        let signer = read(&leaf.cert, |cert| {
            cert.iter_extensions().find_map(|e| match e.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref()?.0.to_vec()),
                _ => None,
            })
        });
        ca.is_some() && ca == signer
    }
}

/// Looks into a certificate in PEM.
fn read<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> Option<T>) -> Option<T> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, cert) = X509Certificate::from_der(&der).ok()?;
    look(&cert)
}

/// The names in a certificate, in its order.
fn names(cert: &Credentials) -> Option<Vec<String>> {
    read(&cert.cert, |cert| {
        let names = &cert.subject_alternative_name().ok()??.value.general_names;
        let text = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(ip) => match ip.len() {
                4 => Some(IpAddr::from(<[u8; 4]>::try_from(*ip).ok()?).to_string()),
                _ => Some(IpAddr::from(<[u8; 16]>::try_from(*ip).ok()?).to_string()),
            },
            _ => None,
        };
        names.iter().map(text).collect()
    })
}

fn listed(names: &[SanType]) -> Vec<String> {
    let text = |name: &SanType| match name {
        SanType::DnsName(name) => name.as_str().to_owned(),
        SanType::IpAddress(ip) => ip.to_string(),
        _ => String::new(),
    };
    names.iter().map(text).collect()
}

fn authority(now: Timestamp) -> Result<Credentials, Error> {
    let mut params = blank("rastos", now, CA_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    Ok(Credentials { cert: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

fn leaf(user: &str, group: Option<&str>, now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = blank(user, now, LEAF_LIFE)?;
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn blank(user: &str, now: Timestamp, life: SignedDuration) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    let at = |t: Timestamp| time::OffsetDateTime::from_unix_timestamp(t.as_second()).map_err(|_| rcgen::Error::Time);
    params.not_before = at(now - SKEW)?;
    params.not_after = at(now + life)?;
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and never short
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    Ok(params)
}

#[cfg(test)]
mod tests;
