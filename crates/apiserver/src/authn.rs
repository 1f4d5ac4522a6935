//! Authentication: who stands behind a certificate or a bearer token.

mod holders;
mod token;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    ApiError, Clock, Identity, Result,
    identity::AUTHENTICATED,
    pki::{self, Pki},
};

pub use holders::{Held, Holders, StoredHolders};
pub use token::{Bound, Claims, ISSUER, Issue, Reference, TokenError, Tokens};

/// How many certificates are remembered as verified.
const REMEMBERED: usize = 256;
/// A token outlives the deletion of its pod by this long, so that the pod can end in good order.
const AFTERLIFE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

/// Turns credentials into an [`Identity`]. The default one knows nobody.
#[derive(Default)]
pub struct Authenticator(Option<Inner>);

struct Inner {
    clients: Arc<dyn ClientCertVerifier>,
    tokens: Tokens,
    holders: Arc<dyn Holders>,
    clock: Clock,
    /// Certificates verified before, by digest: whom each names, and its end.
    verified: Mutex<HashMap<[u8; 32], (Identity, Timestamp)>>,
}

impl Authenticator {
    /// Trusts the certificates and tokens of `pki`, and of the tokens those whose holders still exist.
    pub fn new(pki: &Pki, holders: Arc<dyn Holders>, clock: Clock) -> std::result::Result<Self, pki::Error> {
        let verified = Mutex::default();
        Ok(Self(Some(Inner { clients: pki.client_verifier()?, tokens: Tokens::new(pki)?, holders, clock, verified })))
    }

    /// Checks what a client showed: the certificate of its TLS connection (DER) and its bearer token.
    /// `None` when it showed nothing; an error when what it showed is not valid. A valid certificate decides alone.
    pub async fn authenticate(&self, cert: Option<&[u8]>, bearer: Option<&str>) -> Result<Option<Identity>> {
        let inner = match &self.0 {
            Some(inner) => inner,
            None if cert.is_none() && bearer.is_none() => return Ok(None),
            None => return Err(ApiError::unauthorized()),
        };
        if let Some(cert) = cert {
            return inner.certificate(cert).map(Some);
        }
        match bearer {
            Some(token) => match inner.token(token, &[ISSUER]).await? {
                Some((identity, _)) => Ok(Some(identity)),
                None => Err(ApiError::unauthorized()),
            },
            None => Ok(None),
        }
    }

    /// For a TokenReview: whose token this is and which of `audiences` (none: the API server's own) it is for;
    /// `None` when it is not valid for any.
    pub async fn review(&self, token: &str, audiences: &[&str]) -> Result<Option<(Identity, Vec<String>)>> {
        let audiences = if audiences.is_empty() { &[ISSUER] } else { audiences };
        match &self.0 {
            Some(inner) => inner.token(token, audiences).await,
            None => Ok(None),
        }
    }

    /// The key that tokens are signed with; absent in the default authenticator.
    pub fn tokens(&self) -> Option<&Tokens> {
        self.0.as_ref().map(|inner| &inner.tokens)
    }
}

impl Inner {
    /// The TLS layer has checked the chain and that the client holds the key. The chain is checked here again, once
    /// for each certificate, and the dates with every request, for connections may live long.
    fn certificate(&self, der: &[u8]) -> Result<Identity> {
        let now = (self.clock)();
        let digest: [u8; 32] = Sha256::digest(der).into();
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((identity, ends)) = verified.get(&digest) {
            return if now < *ends { Ok(identity.clone()) } else { Err(ApiError::unauthorized()) };
        }
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second().max(0) as u64));
        let chain = self.clients.verify_client_cert(&CertificateDer::from(der), &[], time);
        chain.map_err(|_| ApiError::unauthorized())?;
        let (identity, ends) = named(der, &digest).ok_or_else(ApiError::unauthorized)?;
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(digest, (identity.clone(), ends));
        Ok(identity)
    }

    async fn token(&self, token: &str, audiences: &[&str]) -> Result<Option<(Identity, Vec<String>)>> {
        let now = (self.clock)();
        let (claims, audiences) = match self.tokens.verify(token, audiences, now) {
            Ok(found) => found,
            Err(why) => {
                tracing::debug!("bearer token refused: {why}");
                return Ok(None);
            }
        };
        let bound = &claims.bound;
        let account = ("serviceaccounts", Some(&bound.serviceaccount));
        for (plural, reference) in [account, ("pods", bound.pod.as_ref()), ("secrets", bound.secret.as_ref())] {
            let Some(reference) = reference else { continue };
            let held = self.holders.find(plural, &bound.namespace, &reference.name).await?;
            let alive = held.is_some_and(|held| {
                held.uid == reference.uid && held.deleted.is_none_or(|deleted| now < deleted + AFTERLIFE)
            });
            if !alive {
                tracing::debug!("bearer token refused: its {plural} {} is gone", reference.name);
                return Ok(None);
            }
        }
        Ok(Some((claims.identity(), audiences)))
    }
}

/// Whom a certificate names, and when it ends.
fn named(der: &[u8], digest: &[u8]) -> Option<(Identity, Timestamp)> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let subject = cert.subject();
    let user = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?;
    let groups = subject.iter_organization().map(|o| o.as_str().map(str::to_owned).ok());
    let groups: Option<Vec<String>> = groups.chain([Some(AUTHENTICATED.to_owned())]).collect();
    let id: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    let extra = BTreeMap::from([(token::CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={id}")])]);
    let ends = Timestamp::from_second(cert.validity().not_after.timestamp()).ok()?;
    Some((Identity { user: user.to_owned(), uid: String::new(), groups: groups?, extra }, ends))
}

#[cfg(test)]
mod tests;
