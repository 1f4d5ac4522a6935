//! Service account tokens: JSON Web Tokens (RFC 7519, ES256) bound to an account and often to a pod.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::PublicKeyData;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    Identity,
    identity::AUTHENTICATED,
    pki::{self, Pki},
};

/// Who issues tokens, and the audience of those meant for the API server.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The key of [`Identity::extra`] that tells one credential from another.
pub(super) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// An object by name and uid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The namespace of all of them.
    pub namespace: String,
    /// The node that the pod runs on; told, not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The account.
    pub serviceaccount: Reference,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    pub nbf: i64,
    pub sub: String,
}

impl Claims {
    /// The service account.
    pub fn identity(&self) -> Identity {
        let namespace = &self.bound.namespace;
        let groups =
            ["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}"), AUTHENTICATED.into()];
        let mut extra = BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", self.jti)])]);
        for (what, reference) in [("pod", &self.bound.pod), ("node", &self.bound.node)] {
            if let Some(r) = reference {
                extra.insert(format!("authentication.kubernetes.io/{what}-name"), vec![r.name.clone()]);
                extra.insert(format!("authentication.kubernetes.io/{what}-uid"), vec![r.uid.clone()]);
            }
        }
        Identity { user: self.sub.clone(), uid: self.bound.serviceaccount.uid.clone(), groups: groups.into(), extra }
    }
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is not ours, or was changed.
    #[error("verify signature")]
    Signature(#[from] jsonwebtoken::errors::Error),
    /// It is another issuer's.
    #[error("its issuer is not this cluster")]
    Issuer,
    /// Its time is over, or has not come.
    #[error("it is valid from {from} to {to} (seconds since 1970)")]
    Time {
        /// First second.
        from: i64,
        /// The second it ends.
        to: i64,
    },
    /// It is meant for others.
    #[error("its audiences {0:?} are not asked for")]
    Audience(Vec<String>),
    /// It names an account in two ways.
    #[error("its subject is not the account that it is bound to")]
    Subject,
}

/// What a token is to be made of.
pub struct Issue {
    /// What it is bound to.
    pub bound: Bound,
    /// For whom; empty for the API server.
    pub audiences: Vec<String>,
    /// How long it is good.
    pub seconds: i64,
}

/// The key pair that signs and verifies.
pub struct Tokens {
    id: String,
    sign: EncodingKey,
    verify: DecodingKey,
    point: Vec<u8>,
}

impl Tokens {
    /// With the token key of `pki`.
    pub fn new(pki: &Pki) -> Result<Self, pki::Error> {
        let key = pki.token_key();
        let unusable = |e: jsonwebtoken::errors::Error| rustls::Error::General(format!("token key: {e}"));
        let point = key.der_bytes().to_vec();
        Ok(Self {
            id: BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&point)),
            sign: EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).map_err(unusable)?,
            verify: DecodingKey::from_ec_pem(key.public_key_pem().as_bytes()).map_err(unusable)?,
            point,
        })
    }

    /// A token and its end.
    pub fn issue(&self, issue: Issue, now: Timestamp) -> Result<(String, Timestamp), TokenError> {
        let from = now.as_second();
        let to = from.saturating_add(issue.seconds);
        let ends = Timestamp::from_second(to).map_err(|_| TokenError::Time { from, to })?;
        let audiences = if issue.audiences.is_empty() { vec![ISSUER.to_owned()] } else { issue.audiences };
        let account = &issue.bound.serviceaccount.name;
        let claims = Claims {
            aud: audiences,
            exp: to,
            iat: from,
            nbf: from,
            iss: ISSUER.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: format!("system:serviceaccount:{}:{account}", issue.bound.namespace),
            bound: issue.bound,
        };
        let header = Header { kid: Some(self.id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        Ok((jsonwebtoken::encode(&header, &claims, &self.sign)?, ends))
    }

    /// What a token says and which of `audiences` it is for (at least one). That its holders exist is not checked.
    pub fn verify(&self, token: &str, audiences: &[&str], now: Timestamp) -> Result<(Claims, Vec<String>), TokenError> {
        // Dates, audience and issuer are checked below, by our clock.
        let mut signature_only = Validation::new(Algorithm::ES256);
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        signature_only.required_spec_claims.clear();
        let claims: Claims = jsonwebtoken::decode(token, &self.verify, &signature_only)?.claims;
        if claims.iss != ISSUER {
            return Err(TokenError::Issuer);
        }
        if now.as_second() < claims.nbf || now.as_second() >= claims.exp {
            return Err(TokenError::Time { from: claims.nbf, to: claims.exp });
        }
        let matching: Vec<String> = claims.aud.iter().filter(|a| audiences.contains(&a.as_str())).cloned().collect();
        if matching.is_empty() {
            return Err(TokenError::Audience(claims.aud));
        }
        let bound = &claims.bound;
        if claims.sub != format!("system:serviceaccount:{}:{}", bound.namespace, bound.serviceaccount.name) {
            return Err(TokenError::Subject);
        }
        Ok((claims, matching))
    }

    /// The public key as a JSON Web Key Set (RFC 7517), for `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 4, then x and y of 32 bytes each.
        let part = |range| BASE64_URL_SAFE_NO_PAD.encode(self.point.get(range).unwrap_or_default());
        json!({"keys": [{
            "kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256", "kid": self.id,
            "x": part(1..33), "y": part(33..65),
        }]})
    }
}
