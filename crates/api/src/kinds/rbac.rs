//! Role, ClusterRole and their bindings.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::Value;

use crate::{
    columns::{AGE, CREATED_AT, NAME, column, items, list, wide},
    registry::{Column, Kind, Scope},
    typed::Typed,
};

const ROLE: &[Column] = &[NAME, CREATED_AT];
const BINDING: &[Column] = &[
    NAME,
    column("Role", |o, _| role_of(o).into()),
    AGE,
    wide("Users", |o, _| subjects(o, "User")),
    wide("Groups", |o, _| subjects(o, "Group")),
    wide("ServiceAccounts", |o, _| subjects(o, "ServiceAccount")),
];

/// Role.
pub fn role() -> Kind {
    Kind { columns: ROLE, ..Kind::of::<Role>("roles", Scope::Namespaced) }
}

/// ClusterRole.
pub fn cluster_role() -> Kind {
    Kind { columns: ROLE, ..Kind::of::<ClusterRole>("clusterroles", Scope::Cluster) }
}

/// RoleBinding.
pub fn role_binding() -> Kind {
    Kind { columns: BINDING, ..Kind::of::<RoleBinding>("rolebindings", Scope::Namespaced) }
}

/// ClusterRoleBinding.
pub fn cluster_role_binding() -> Kind {
    Kind { columns: BINDING, ..Kind::of::<ClusterRoleBinding>("clusterrolebindings", Scope::Cluster) }
}

fn role_of(binding: &Value) -> String {
    let role = &binding["roleRef"];
    format!("{}/{}", role["kind"].as_str().unwrap_or_default(), role["name"].as_str().unwrap_or_default())
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let those = items(binding, "/subjects").iter().filter(|s| s["kind"] == kind);
    let names: Vec<String> = those
        .map(|s| match (kind, s["namespace"].as_str(), s["name"].as_str().unwrap_or_default()) {
            ("ServiceAccount", Some(namespace), name) => format!("{namespace}/{name}"),
            (_, _, name) => name.to_owned(),
        })
        .collect();
    if names.is_empty() { "".into() } else { list([names.join(", ")]) }
}

impl Typed for Role {}
impl Typed for ClusterRole {}
impl Typed for RoleBinding {}
impl Typed for ClusterRoleBinding {}
