//! Authentication: who stands behind a certificate or a bearer token.

use crate::{Identity, Result};

/// Turns credentials into an [`Identity`].
#[derive(Default)]
pub struct Authenticator {}

impl Authenticator {
    /// Checks what a client showed: the certificate of its TLS connection (DER) and its bearer token.
    /// `None` when it showed nothing; an error when what it showed is not valid.
    pub async fn authenticate(&self, _cert: Option<&[u8]>, _bearer: Option<&str>) -> Result<Option<Identity>> {
        Ok(None)
    }
}
