//! Namespaces: those that must stay, and who says what their pods may ask of the host.

use api::security::{ENFORCE, Level};
use serde_json::Value;

use super::{Admission, Request};
use crate::{Attributes, Identity, Result};

/// What every cluster has.
const SYSTEM: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// Refuses to delete a namespace that the cluster itself needs.
pub(super) fn keep_system(req: &Request<'_>) -> Result<()> {
    if SYSTEM.contains(&req.name) { Err(req.refuse("this namespace may not be deleted")) } else { Ok(()) }
}

/// The level of a namespace is a right to the host: only who may do everything gives or takes it.
pub(super) fn guard_level(ctx: &Admission, req: &Request<'_>, object: &Value) -> Result<()> {
    let level = |object: &Value| object["metadata"]["labels"][ENFORCE].as_str().map(str::to_owned);
    let (old, new) = (req.old.and_then(level), level(object));
    if old == new {
        return Ok(());
    }
    if !is_almighty(ctx, req.identity) {
        let why = format!(
            "only a cluster-admin may set, change or remove the label {ENFORCE}: it says what pods may ask of the host"
        );
        return Err(req.refuse(&why));
    }
    match new {
        Some(level) if Level::parse(&level).is_none() => {
            Err(req.refuse(&format!("the label {ENFORCE} must be privileged, baseline or restricted, not {level:?}")))
        }
        _ => Ok(()),
    }
}

/// Whether a role allows all verbs on all resources of all groups.
fn is_almighty(ctx: &Admission, identity: &Identity) -> bool {
    let all = Attributes {
        verb: "*".into(),
        group: "*".into(),
        version: "*".into(),
        resource: "*".into(),
        is_resource: true,
        ..Attributes::default()
    };
    ctx.authorizer.decide(identity, &all).allowed
}
