//! Roles and bindings: nobody gives away rights that he does not have.

use serde_json::Value;

use super::{Admission, Request};
use crate::{Result, rbac::escalation};

pub(super) async fn check(ctx: &Admission, req: &Request<'_>, object: &Value) -> Result<()> {
    let (authorizer, place) = (ctx.authorizer.as_ref(), (req.namespace, req.name));
    if req.kind.kind.ends_with("Role") {
        return escalation::role(authorizer, req.identity, req.kind, place, req.old, object);
    }
    if req.old.is_some_and(|old| old["roleRef"] == object["roleRef"] && old["subjects"] == object["subjects"]) {
        return Ok(());
    }
    let role = object["roleRef"]["name"].as_str().unwrap_or_default();
    let key = match object["roleRef"]["kind"].as_str() {
        Some("ClusterRole") => format!("/registry/{}/clusterroles/{role}", escalation::GROUP),
        _ => format!("/registry/{}/roles/{}/{role}", escalation::GROUP, req.namespace),
    };
    let stored = ctx.stored(&key).await?.unwrap_or_default();
    let stored = serde_json::from_value(stored["rules"].clone()).unwrap_or_default();
    escalation::binding(authorizer, req.identity, req.kind, place, object, stored)
}
