//! Nobody gives away rights that he does not have.

use api::Kind;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::{Authorizer, rules};
use crate::{ApiError, Attributes, Identity, Result};

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role that allows more than its author may do, unless he has the verb `escalate` on it. `old` is the
/// role before; an update that leaves the rules alone passes.
pub(crate) fn role(
    authorizer: &dyn Authorizer,
    identity: &Identity,
    kind: &Kind,
    place: (&str, &str),
    old: Option<&Value>,
    new: &Value,
) -> Result<()> {
    let (namespace, name) = place;
    let same = |field: &str| old.is_some_and(|old| old[field] == new[field]);
    if same("rules") && same("aggregationRule") || may(authorizer, identity, "escalate", &kind.plural, namespace, name)
    {
        return Ok(());
    }
    let mut wanted: Vec<PolicyRule> = serde_json::from_value(new["rules"].clone()).unwrap_or_default();
    if !new["aggregationRule"].is_null() && !same("aggregationRule") {
        // Whatever may be aggregated one day.
        wanted = super::defaults::everything();
    }
    check(authorizer, identity, kind, place, &wanted)
}

/// Refuses a binding to a role that allows more than its author may do, unless he has the verb `bind` on the role.
/// `stored` is the role's own rules as they are in the store now, which the authoriser may not know yet.
pub(crate) fn binding(
    authorizer: &dyn Authorizer,
    identity: &Identity,
    kind: &Kind,
    place: (&str, &str),
    new: &Value,
    stored: Vec<PolicyRule>,
) -> Result<()> {
    let namespace = place.0;
    let (of_cluster, name) =
        (new["roleRef"]["kind"] == "ClusterRole", new["roleRef"]["name"].as_str().unwrap_or_default());
    let plural = if of_cluster { "clusterroles" } else { "roles" };
    if may(authorizer, identity, "bind", plural, namespace, name) {
        return Ok(());
    }
    let mut wanted = stored;
    wanted.extend(authorizer.role(if of_cluster { "" } else { namespace }, name));
    check(authorizer, identity, kind, place, &wanted)
}

fn may(
    authorizer: &dyn Authorizer,
    identity: &Identity,
    verb: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> bool {
    let attributes = Attributes {
        verb: verb.into(),
        group: GROUP.into(),
        version: "v1".into(),
        resource: plural.into(),
        namespace: namespace.into(),
        name: name.into(),
        is_resource: true,
        ..Attributes::default()
    };
    authorizer.decide(identity, &attributes).allowed
}

fn check(
    authorizer: &dyn Authorizer,
    identity: &Identity,
    kind: &Kind,
    (namespace, name): (&str, &str),
    wanted: &[PolicyRule],
) -> Result<()> {
    let missing = rules::missing(&authorizer.rules(identity, namespace), wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = missing.iter().map(rules::shown).collect();
    let why = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        identity.user,
        identity.groups,
        missing.join("\n")
    );
    Err(ApiError::refused(kind, name, &why))
}
