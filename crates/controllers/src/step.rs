//! What controllers do, as values: plans are made of these and decide everything; carrying them out decides nothing.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::object::Object;

/// A kind by its plural and group: `pods`, `deployments.apps`.
pub type Kind = Cow<'static, str>;

pub const PODS: Kind = Cow::Borrowed("pods");
pub const REPLICASETS: Kind = Cow::Borrowed("replicasets.apps");
pub const DEPLOYMENTS: Kind = Cow::Borrowed("deployments.apps");
pub const NAMESPACES: Kind = Cow::Borrowed("namespaces");
pub const NODES: Kind = Cow::Borrowed("nodes");
pub const LEASES: Kind = Cow::Borrowed("leases.coordination.k8s.io");
pub const CONFIGMAPS: Kind = Cow::Borrowed("configmaps");
pub const SERVICEACCOUNTS: Kind = Cow::Borrowed("serviceaccounts");

/// An object's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub kind: Kind,
    /// Empty for kinds outside namespaces.
    pub namespace: String,
    pub name: String,
}

impl Id {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub fn of(kind: Kind, object: &Object) -> Self {
        Self::new(kind, object.namespace(), object.name())
    }
}

/// How a patch is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// RFC 7386.
    Json,
    /// Lists are merged by their keys.
    Strategic,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Creates an object; fails if its name is taken.
    Create { kind: Kind, namespace: String, object: Value },
    /// Patches an object.
    Patch { id: Id, merge: Merge, patch: Value },
    /// Patches a ReplicaSet that has `from` replicas so that it has another number.
    Scale { id: Id, from: i64, patch: Value },
    /// Patches an object's status.
    Status { id: Id, merge: Merge, patch: Value },
    /// Deletes this very object.
    Delete { id: Id, uid: String, propagation: &'static str },
    /// Deletes this very pod without waiting for its node.
    Finish { id: Id, uid: String },
    /// Deletes this very object unless one of these owners turns out to exist.
    Collect { id: Id, uid: String, owners: Vec<OwnerReference>, propagation: &'static str },
    /// Deletes what is left in a namespace, and lets the namespace go once nothing is; tells at which time it was seen.
    Empty { namespace: String, now: Timestamp },
    /// Looks at the same thing again after this time, if nothing happens before.
    Again(Duration),
}

/// A patch that sets an object's owners, provided that it is still what was seen.
pub fn set_owners(kind: Kind, object: &Object, owners: &[OwnerReference]) -> Step {
    let owners = if owners.is_empty() { Value::Null } else { json!(owners) };
    let patch = json!({"metadata": {
        "uid": object.uid(),
        "resourceVersion": object.meta.resource_version,
        "ownerReferences": owners,
    }});
    Step::Patch { id: Id::of(kind, object), merge: Merge::Json, patch }
}

/// A patch that takes a finalizer away, provided that the object is still what was seen.
pub fn remove_finalizer(id: Id, object: &Object, finalizer: &str) -> Step {
    let left: Vec<_> = object.meta.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
    let left = if left.is_empty() { Value::Null } else { json!(left) };
    let patch = json!({"metadata": {
        "uid": object.uid(),
        "resourceVersion": object.meta.resource_version,
        "finalizers": left,
    }});
    Step::Patch { id, merge: Merge::Json, patch }
}
