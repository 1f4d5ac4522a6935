//! Admission: what may be written, beyond what is valid in itself.

use std::sync::Arc;

use api::{Kind, Registry};
use serde_json::Value;
use store::Store;

use crate::{Authorizer, Identity, Result, Warnings};

/// What admission looks at to decide.
pub struct Admission {
    #[allow(dead_code)]
    pub(crate) store: Arc<dyn Store>,
    #[allow(dead_code)]
    pub(crate) registry: Arc<Registry>,
    #[allow(dead_code)]
    pub(crate) authorizer: Arc<dyn Authorizer>,
}

/// A write that asks to be admitted.
pub struct Request<'a> {
    /// The kind of the object at the address.
    pub kind: &'a Kind,
    /// `create`, `update`, `patch`, `delete`.
    pub verb: &'a str,
    /// E.g. `status` or `binding`; empty for the object itself.
    pub subresource: &'a str,
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// The object's name; empty while a name is yet to be generated.
    pub name: &'a str,
    /// Who asks.
    pub identity: &'a Identity,
    /// The object as it stands; absent on create.
    pub old: Option<&'a Value>,
    /// Nothing will be written.
    pub dry_run: bool,
    /// Told to the client in `Warning` headers.
    pub warnings: &'a Warnings,
}

/// Fills in and refuses. Called with defaults applied and before validation; for `delete`, `object` is the one
/// that goes.
pub async fn admit(_ctx: &Admission, _req: &Request<'_>, _object: &mut Value) -> Result<()> {
    Ok(())
}
