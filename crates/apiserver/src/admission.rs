//! Admission: what may be written, beyond what is valid in itself. One file a concern.

mod classes;
mod escalation;
mod namespace;
mod node;
mod pod_security;
mod service_account;
mod tolerations;

use std::sync::Arc;

use api::{Kind, Registry};
use serde_json::Value;
use store::Store;

use crate::{ApiError, Authorizer, Identity, Result, Warnings};

/// What admission looks at to decide.
pub struct Admission {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
}

impl Admission {
    /// An object as it is stored now.
    async fn stored(&self, key: &str) -> Result<Option<Value>> {
        let Some(entry) = self.store.get(key, None).await? else { return Ok(None) };
        serde_json::from_slice(&entry.value).map(Some).map_err(ApiError::internal)
    }
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

impl Request<'_> {
    fn refuse(&self, why: &str) -> ApiError {
        ApiError::refused(self.kind, self.name, why)
    }
}

/// Fills in and refuses. Called with defaults applied and before validation; for `delete`, `object` is the one
/// that goes.
pub async fn admit(ctx: &Admission, req: &Request<'_>, object: &mut Value) -> Result<()> {
    node::restrict(req, object)?;
    let create = req.old.is_none();
    match (&*req.kind.group, &*req.kind.kind, req.subresource, req.verb) {
        ("", "Namespace", "", "delete") => namespace::keep_system(req),
        (_, _, _, "delete") => Ok(()),
        ("", "Namespace", "", _) => namespace::guard_level(ctx, req, object),
        ("", "Pod", "", _) => {
            if create {
                if object["spec"]["ephemeralContainers"].as_array().is_some_and(|all| !all.is_empty()) {
                    return Err(req.refuse("spec.ephemeralContainers may only be added to a pod that runs"));
                }
                classes::find(req, object)?;
                service_account::fill(ctx, req, object).await?;
            }
            // Who writes a pod's tolerations anew does not know of these.
            tolerations::fill(object);
            pod_security::enforce(ctx, req, object).await
        }
        ("", "Pod", "ephemeralcontainers", _) => pod_security::enforce(ctx, req, object).await,
        ("apps" | "batch", _, "", _) => pod_security::warn(ctx, req, object).await,
        (crate::rbac::escalation::GROUP, _, "", _) => escalation::check(ctx, req, object).await,
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
