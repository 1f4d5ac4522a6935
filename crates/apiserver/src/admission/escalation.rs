//! Roles and bindings: nobody gives away rights that he does not have.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::{Admission, Request};
use crate::{ApiError, Result, rbac::escalation};

pub(super) async fn check(ctx: &Admission, req: &Request<'_>, object: &Value) -> Result<()> {
    let (authorizer, place) = (ctx.authorizer.as_ref(), (req.namespace, req.name));
    if req.kind.kind.ends_with("Role") {
        return escalation::role(authorizer, req.identity, req.kind, place, req.old, object);
    }
    if req.old.is_some_and(|old| old["roleRef"] == object["roleRef"] && old["subjects"] == object["subjects"]) {
        return Ok(());
    }
    let of_cluster = object["roleRef"]["kind"] == "ClusterRole";
    let (plural, namespace) = if of_cluster { ("clusterroles", "") } else { ("roles", req.namespace) };
    let name = object["roleRef"]["name"].as_str().unwrap_or_default();
    if escalation::may(authorizer, req.identity, "bind", plural, req.namespace, name) {
        return Ok(());
    }
    // A role that is made one day could allow anything: only who may bind it anyway may do so beforehand.
    let kind = ctx.registry.resource(escalation::GROUP, "v1", plural).ok_or_else(ApiError::no_route)?;
    let stored = ctx.stored(&kind.key(namespace, name)).await?.ok_or_else(|| ApiError::not_found(kind, name))?;
    // Its own rules as they are now, which the authoriser may not know yet, and those that it aggregates.
    let own: Option<Vec<PolicyRule>> = serde_json::from_value(stored["rules"].clone()).map_err(ApiError::internal)?;
    let mut wanted = own.unwrap_or_default();
    wanted.extend(authorizer.role(namespace, name));
    escalation::check(authorizer, req.identity, req.kind, place, &wanted)
}
