//! Roles and bindings, by subject.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, PolicyRule, RoleBinding, Subject},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{Decision, rules};
use crate::{Attributes, Identity};

/// Below it lie roles and bindings of all four kinds.
pub(super) const PREFIX: &str = "/registry/rbac.authorization.k8s.io/";

/// A namespace (empty for what is of the cluster) and a name.
type Key = (String, String);

#[derive(Debug)]
struct Role {
    rules: Vec<PolicyRule>,
    labels: BTreeMap<String, String>,
    aggregates: Vec<LabelSelector>,
}

#[derive(Debug)]
struct Binding {
    role: Key,
    subjects: Vec<String>,
}

/// All roles and bindings of a cluster.
#[derive(Debug, Default)]
pub(super) struct Policy {
    roles: HashMap<Key, Role>,
    bindings: HashMap<Key, Binding>,
    by_subject: HashMap<String, BTreeSet<Key>>,
}

impl Policy {
    /// Takes in an object. One that cannot be read allows nothing.
    pub(super) fn put(&mut self, key: &str, value: &[u8]) {
        self.delete(key);
        let Some((plural, place)) = parse(key) else { return };
        let taken = match plural {
            // A Role is read as a ClusterRole that aggregates nothing, a ClusterRoleBinding as a RoleBinding.
            "roles" | "clusterroles" => serde_json::from_slice(value).map(|role| self.put_role(place, role)),
            _ => serde_json::from_slice(value).map(|binding| self.put_binding(place, binding)),
        };
        if let Err(error) = taken {
            tracing::error!("{key} is ignored by authorisation: {error}");
        }
    }

    fn put_role(&mut self, place: Key, Untyped(role): Untyped<ClusterRole>) {
        let aggregates = role.aggregation_rule.and_then(|rule| rule.cluster_role_selectors).unwrap_or_default();
        let labels = role.metadata.labels.unwrap_or_default();
        self.roles.insert(place, Role { rules: role.rules.unwrap_or_default(), labels, aggregates });
    }

    fn put_binding(&mut self, place: Key, Untyped(binding): Untyped<RoleBinding>) {
        let of_cluster = binding.role_ref.kind == "ClusterRole";
        let role = (if of_cluster { String::new() } else { place.0.clone() }, binding.role_ref.name);
        let subjects = binding.subjects.unwrap_or_default();
        let subjects: Vec<String> = subjects.iter().filter_map(|s| subject(s, &place.0)).collect();
        for subject in &subjects {
            self.by_subject.entry(subject.clone()).or_default().insert(place.clone());
        }
        self.bindings.insert(place, Binding { role, subjects });
    }

    /// Forgets an object.
    pub(super) fn delete(&mut self, key: &str) {
        let Some((plural, place)) = parse(key) else { return };
        if matches!(plural, "roles" | "clusterroles") {
            self.roles.remove(&place);
            return;
        }
        let Some(binding) = self.bindings.remove(&place) else { return };
        for subject in binding.subjects {
            if let Some(bound) = self.by_subject.get_mut(&subject) {
                bound.remove(&place);
                if bound.is_empty() {
                    self.by_subject.remove(&subject);
                }
            }
        }
    }

    /// Whether a role allows it, and which.
    pub(super) fn decide(&self, identity: &Identity, at: &Attributes) -> Decision {
        for (subject, place, binding) in self.bound(identity, &at.namespace) {
            if self.rules_of(&binding.role).iter().any(|rule| rules::allows(rule, at)) {
                let kind = |place: &Key, what| {
                    let scope = if place.0.is_empty() { "Cluster" } else { "" };
                    let name = if place.0.is_empty() { place.1.clone() } else { format!("{}/{}", place.0, place.1) };
                    format!("{scope}{what} {name:?}")
                };
                let (binding_, role) = (kind(place, "RoleBinding"), kind(&binding.role, "Role"));
                let (kind, name) = subject.split_once(' ').unwrap_or_default();
                return Decision::allowed(format!("RBAC: allowed by {binding_} of {role} to {kind} {name:?}"));
            }
        }
        Decision::refused("")
    }

    /// All rules that hold for an identity in a namespace (empty: everywhere).
    pub(super) fn rules(&self, identity: &Identity, namespace: &str) -> Vec<PolicyRule> {
        let bound = self.bound(identity, namespace);
        bound.flat_map(|(_, _, binding)| self.rules_of(&binding.role)).cloned().collect()
    }

    /// The rules of one role.
    pub(super) fn role(&self, namespace: &str, name: &str) -> Vec<PolicyRule> {
        self.rules_of(&(namespace.to_owned(), name.to_owned())).into_iter().cloned().collect()
    }

    /// The bindings that name the identity or one of its groups: those of the cluster and of the namespace.
    fn bound<'a>(
        &'a self,
        identity: &Identity,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Key, &'a Binding)> {
        let groups = identity.groups.iter().map(|group| format!("Group {group}"));
        let subjects: Vec<_> = std::iter::once(format!("User {}", identity.user))
            .chain(groups)
            .filter_map(|subject| self.by_subject.get_key_value(&subject))
            .collect();
        subjects.into_iter().flat_map(move |(subject, places)| {
            let here = places.iter().filter(move |(ns, _)| ns.is_empty() || ns == namespace);
            here.filter_map(move |place| Some((subject.as_str(), place, self.bindings.get(place)?)))
        })
    }

    /// A role's own rules and those of all roles that it aggregates, directly or through others.
    fn rules_of(&self, role: &Key) -> Vec<&PolicyRule> {
        let Some(first) = self.roles.get_key_value(role) else { return vec![] };
        let (mut found, mut seen, mut next) = (vec![], BTreeSet::from([first.0]), vec![first.1]);
        while let Some(role) = next.pop() {
            found.extend(&role.rules);
            if role.aggregates.is_empty() {
                continue;
            }
            for (place, other) in self.roles.iter().filter(|(place, _)| place.0.is_empty()) {
                if role.aggregates.iter().any(|s| selects(s, &other.labels)) && seen.insert(place) {
                    next.push(other);
                }
            }
        }
        found
    }
}

/// Objects in the store may come without the `kind` that the typed form asks for, and a Role with another one.
struct Untyped<T>(T);

impl<'de, T: serde::de::DeserializeOwned + k8s_openapi::Resource> serde::Deserialize<'de> for Untyped<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = serde_json::Value::deserialize(deserializer)?;
        object["apiVersion"] = T::API_VERSION.into();
        object["kind"] = T::KIND.into();
        serde_json::from_value(object).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Plural and place of a store key.
fn parse(key: &str) -> Option<(&str, Key)> {
    let mut parts = key.strip_prefix(PREFIX)?.split('/');
    let plural = parts.next()?;
    let (first, second) = (parts.next()?, parts.next());
    Some((
        plural,
        match second {
            Some(name) => (first.to_owned(), name.to_owned()),
            None => (String::new(), first.to_owned()),
        },
    ))
}

/// `User NAME` or `Group NAME`; a service account is a user.
fn subject(subject: &Subject, binding_namespace: &str) -> Option<String> {
    match subject.kind.as_str() {
        "User" | "Group" => Some(format!("{} {}", subject.kind, subject.name)),
        "ServiceAccount" => {
            let namespace = subject.namespace.as_deref().filter(|ns| !ns.is_empty()).unwrap_or(binding_namespace);
            Some(format!("User system:serviceaccount:{namespace}:{}", subject.name))
        }
        _ => None,
    }
}

/// Whether a label selector selects these labels; one that says nothing selects all.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    equal
        && selector.match_expressions.iter().flatten().all(|e| {
            let value = labels.get(&e.key);
            let listed = value.is_some_and(|v| e.values.iter().flatten().any(|w| w == v));
            match e.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
