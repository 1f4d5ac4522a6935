//! Nobody gives away rights that he does not have.

use api::Kind;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::{Authorizer, rules};
use crate::{ApiError, Attributes, Identity, Result};

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// How many combinations of verb, group, resource and name are checked at a time.
const MAX_PARTS: usize = 10_000;
/// How many of the rights that are not held are told of.
const MAX_SHOWN: usize = 10;

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

/// Whether a verb of its own on a role is allowed: `escalate`, `bind`.
pub(crate) fn may(
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

/// Refuses to give rules away that the giver does not hold.
pub(crate) fn check(
    authorizer: &dyn Authorizer,
    identity: &Identity,
    kind: &Kind,
    (namespace, name): (&str, &str),
    wanted: &[PolicyRule],
) -> Result<()> {
    let held = authorizer.rules(identity, namespace);
    let parts = rules::parts(&held, wanted);
    if parts > MAX_PARTS {
        let why = format!(
            "its rules combine verbs, groups, resources and names in {parts} ways; at most {MAX_PARTS} are checked at a \
             time: split them among several roles"
        );
        return Err(ApiError::refused(kind, name, &why));
    }
    let mut missing = rules::missing(&held, wanted);
    let mut shown: Vec<String> = missing.by_ref().take(MAX_SHOWN).map(|rule| rules::shown(&rule)).collect();
    if shown.is_empty() {
        return Ok(());
    }
    if missing.next().is_some() {
        shown.push("and more".to_owned());
    }
    let why = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        identity.user,
        identity.groups,
        shown.join("\n")
    );
    Err(ApiError::refused(kind, name, &why))
}
