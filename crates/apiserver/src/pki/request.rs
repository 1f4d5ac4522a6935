//! Certificate requests (PKCS #10): a client keeps its key and is given a certificate for it.

use jiff::Timestamp;
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::{Error, Pki, leaf};

/// A request whose sender holds the key: its signature is verified.
pub struct Request {
    asked: CertificateSigningRequestParams,
    key: [u8; 32],
}

impl Request {
    /// Reads PEM.
    pub fn read(pem: &[u8]) -> Result<Self, Error> {
        let refuse = |why: &dyn std::fmt::Display| Error::Request(why.to_string());
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|e| refuse(&e))?;
        let asked = CertificateSigningRequestParams::from_der(&der).map_err(|e| refuse(&e))?;
        let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| refuse(&e))?;
        let key = Sha256::digest(request.certification_request_info.subject_pki.raw).into();
        Ok(Self { asked, key })
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo (DER).
    pub fn key(&self) -> [u8; 32] {
        self.key
    }
}

impl Pki {
    /// A client certificate for the request's key, good for a year. Whatever else the request asks for is passed over.
    pub fn sign(&self, request: Request, user: &str, group: &str, now: Timestamp) -> Result<String, Error> {
        let mut params = leaf(user, Some(group), now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let granted = CertificateSigningRequestParams { params, public_key: request.asked.public_key };
        Ok(granted.signed_by(&self.issuer)?.pem())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;
    use crate::pki::read;

    fn request(key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "somebody else");
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn only_the_key_is_taken_from_a_request() {
        let dir = tempfile::tempdir().unwrap();
        let (pki, now) = (Pki::open(dir.path(), Timestamp::now()).unwrap(), Timestamp::now());
        let key = KeyPair::generate().unwrap();
        let asked = Request::read(request(&key).as_bytes()).unwrap();
        assert_eq!(asked.key(), <[u8; 32]>::from(Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key))));
        let cert = pki.sign(asked, "enrolled:ab", "system:masters", now).unwrap();
        let subject = read(&cert, |cert| Some(cert.subject().to_string())).unwrap();
        assert_eq!(subject, "CN=enrolled:ab, O=system:masters");
    }

    #[test]
    fn a_request_for_another_s_key_is_refused() {
        let (mine, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let der = |key: &KeyPair| CertificateParams::default().serialize_request(key).unwrap().der().to_vec();
        // Theirs in form, mine in its signature.
        let (ours, mut forged) = (der(&mine), der(&theirs));
        let signature = forged.len() - 16;
        forged[signature..].copy_from_slice(&ours[ours.len() - 16..]);
        let pem = |der: &[u8]| {
            use base64::{Engine as _, prelude::BASE64_STANDARD};
            let (head, foot) = ("-----BEGIN CERTIFICATE REQUEST-----", "-----END CERTIFICATE REQUEST-----");
            format!("{head}\n{}\n{foot}\n", BASE64_STANDARD.encode(der))
        };
        Request::read(pem(&ours).as_bytes()).unwrap();
        assert!(matches!(Request::read(pem(&forged).as_bytes()), Err(Error::Request(_))));
        assert!(Request::read(b"nonsense").is_err());
    }
}
