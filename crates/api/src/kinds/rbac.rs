//! Role, ClusterRole and their bindings.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use serde_json::Value;

use crate::{
    columns::{AGE, CREATED_AT, NAME, column, items, list, wide},
    faults::{Faults, Path},
    meta,
    names::{self, Rule},
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

const GROUP: &str = "rbac.authorization.k8s.io";

impl Typed for Role {
    const NAME: Option<Rule> = Some(names::path_segment);

    fn validate(&self, bad: &mut Faults) {
        rules(self.rules.as_deref(), true, bad);
    }
}

impl Typed for ClusterRole {
    const NAME: Option<Rule> = Some(names::path_segment);

    fn validate(&self, bad: &mut Faults) {
        rules(self.rules.as_deref(), false, bad);
        let Some(rule) = &self.aggregation_rule else { return };
        let at = Path::root().field("aggregationRule").field("clusterRoleSelectors");
        let selectors = rule.cluster_role_selectors.as_deref().unwrap_or_default();
        if selectors.is_empty() {
            bad.required(at.clone(), "must name the roles by at least one selector");
        }
        for (i, selector) in selectors.iter().enumerate() {
            meta::selector(selector, &at.index(i), bad);
        }
    }
}

impl Typed for RoleBinding {
    const NAME: Option<Rule> = Some(names::path_segment);

    fn default(&mut self) {
        default_binding(&mut self.role_ref, self.subjects.as_deref_mut());
    }

    fn validate(&self, bad: &mut Faults) {
        binding(&self.role_ref, &["Role", "ClusterRole"], self.subjects.as_deref(), bad);
    }

    fn validate_update(&self, old: &Self, bad: &mut Faults) {
        same_role(&self.role_ref, &old.role_ref, bad);
    }
}

impl Typed for ClusterRoleBinding {
    const NAME: Option<Rule> = Some(names::path_segment);

    fn default(&mut self) {
        default_binding(&mut self.role_ref, self.subjects.as_deref_mut());
    }

    fn validate(&self, bad: &mut Faults) {
        binding(&self.role_ref, &["ClusterRole"], self.subjects.as_deref(), bad);
    }

    fn validate_update(&self, old: &Self, bad: &mut Faults) {
        same_role(&self.role_ref, &old.role_ref, bad);
    }
}

fn rules(rules: Option<&[PolicyRule]>, namespaced: bool, bad: &mut Faults) {
    for (index, rule) in rules.unwrap_or_default().iter().enumerate() {
        let at = Path::root().field("rules").index(index);
        let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
        if rule.verbs.is_empty() {
            bad.required(at.field("verbs"), "must name at least one verb");
        }
        if given(&rule.non_resource_urls) {
            if namespaced {
                bad.forbidden(at.field("nonResourceURLs"), "a Role is about a namespace; use a ClusterRole");
            }
            if given(&rule.api_groups) || given(&rule.resources) || given(&rule.resource_names) {
                bad.forbidden(
                    at.field("nonResourceURLs"),
                    "must not stand beside resources: make it a rule of its own",
                );
            }
            for (index, url) in rule.non_resource_urls.iter().flatten().enumerate() {
                let good = url == "*" || (url.starts_with('/') && !url.trim_end_matches('*').contains('*'));
                let message = format!("{url:.80?} must be '*', or begin with '/' and have '*' at its end only");
                bad.unless(good, at.field("nonResourceURLs").index(index), message);
            }
            continue;
        }
        for (field, list) in [("apiGroups", &rule.api_groups), ("resources", &rule.resources)] {
            if !given(list) {
                bad.required(at.field(field), "must name at least one (\"\" is the core group, \"*\" is all)");
            }
        }
    }
}

fn default_binding(role: &mut RoleRef, subjects: Option<&mut [Subject]>) {
    if role.api_group.as_ref().is_none_or(String::is_empty) {
        role.api_group = Some(GROUP.to_owned());
    }
    for subject in subjects.unwrap_or_default() {
        if subject.api_group.as_ref().is_none_or(String::is_empty) && matches!(&*subject.kind, "User" | "Group") {
            subject.api_group = Some(GROUP.to_owned());
        }
    }
}

fn binding(role: &RoleRef, kinds: &[&str], subjects: Option<&[Subject]>, bad: &mut Faults) {
    let at = Path::root().field("roleRef");
    bad.one_of(at.field("apiGroup"), role.api_group.as_deref(), &[GROUP]);
    bad.one_of(at.field("kind"), Some(&role.kind), kinds);
    bad.named(at.field("name"), &role.name, names::path_segment);
    for (index, subject) in subjects.unwrap_or_default().iter().enumerate() {
        let at = Path::root().field("subjects").index(index);
        if subject.name.is_empty() {
            bad.required(at.field("name"), "must be given");
        }
        let group = subject.api_group.as_deref().unwrap_or_default();
        match &*subject.kind {
            "ServiceAccount" => {
                bad.ruled(at.field("name"), &subject.name, names::subdomain);
                bad.one_of(at.field("apiGroup"), Some(group), &[""]);
                if subject.namespace.as_ref().is_none_or(String::is_empty) {
                    bad.required(at.field("namespace"), "must be given for a ServiceAccount");
                }
            }
            "User" | "Group" => {
                bad.one_of(at.field("apiGroup"), Some(group), &[GROUP]);
                if subject.namespace.as_ref().is_some_and(|n| !n.is_empty()) {
                    bad.forbidden(at.field("namespace"), "users and groups are in no namespace");
                }
            }
            kind => bad.one_of(at.field("kind"), Some(kind), &["ServiceAccount", "User", "Group"]),
        }
    }
}

fn same_role(new: &RoleRef, old: &RoleRef, bad: &mut Faults) {
    if new != old {
        meta::immutable(Path::root().field("roleRef"), bad);
    }
}
