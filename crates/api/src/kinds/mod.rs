//! The kinds that are built in: one file each, listed once, here.

use crate::registry::{Kind, Registry};

pub mod cluster;
pub mod configmap;
pub mod deployment;
pub mod event;
pub mod lease;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod podtemplate;
pub mod rbac;
pub mod replicaset;
pub mod review;
pub mod secret;
pub mod serviceaccount;

/// Every kind that is built in, in the order of discovery.
pub const ALL: &[fn() -> Kind] = &[
    namespace::kind,
    node::kind,
    pod::kind,
    podtemplate::kind,
    configmap::kind,
    secret::kind,
    event::kind,
    serviceaccount::kind,
    deployment::kind,
    replicaset::kind,
    lease::kind,
    event::renamed,
    rbac::role,
    rbac::role_binding,
    rbac::cluster_role,
    rbac::cluster_role_binding,
    review::self_subject_access,
    review::self_subject_rules,
    review::subject_access,
    review::local_subject_access,
    review::self_subject,
    review::token,
    cluster::kind,
];

/// A registry of all kinds that are built in.
pub fn builtin() -> Registry {
    Registry::new(ALL.iter().map(|kind| kind()))
}
