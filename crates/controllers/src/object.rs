//! Objects as controllers hold them: of each kind only what decisions need.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::{ApiResource, DynamicResourceScope};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

pub use crate::{
    deployment::Deployment,
    node::{Lease, Node},
    replicaset::{Pod, ReplicaSet},
};

/// An object as it is received, whole but for `managedFields`; it lives only until it is [lifted](Object::lift).
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct Wire {
    pub metadata: ObjectMeta,
    pub spec: Value,
    pub status: Value,
    pub data: Value,
}

impl kube::Resource for Wire {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;
    fn kind(dt: &ApiResource) -> Cow<'_, str> {
        dt.kind.as_str().into()
    }
    fn group(dt: &ApiResource) -> Cow<'_, str> {
        dt.group.as_str().into()
    }
    fn version(dt: &ApiResource) -> Cow<'_, str> {
        dt.version.as_str().into()
    }
    fn plural(dt: &ApiResource) -> Cow<'_, str> {
        dt.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is particular to a kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Only metadata matters.
    Bare,
    Pod(Pod),
    ReplicaSet(Box<ReplicaSet>),
    Deployment(Box<Deployment>),
    /// `spec.finalizers`.
    Namespace(Vec<String>),
    Node(Box<Node>),
    Lease(Lease),
    /// The certificate authority in a `kube-root-ca.crt`.
    Authority(String),
}

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub meta: ObjectMeta,
    pub body: Body,
}

impl Object {
    /// Keeps what decisions need. `kind` is the plural with its group: `deployments.apps`.
    ///
    /// A body that does not parse is one the API server would not have stored; it counts as empty.
    pub fn lift(kind: &str, #[cfg_attr(not(feature = "mutate"), allow(unused_mut))] mut wire: Wire) -> Self {
        #[cfg(feature = "mutate")]
        match kind {
            "pods" => api::mutate::forget("io.k8s.api.core.v1.PodSpec", &mut wire.spec),
            "replicasets.apps" => api::mutate::forget("io.k8s.api.apps.v1.ReplicaSetSpec", &mut wire.spec),
            "deployments.apps" => api::mutate::forget("io.k8s.api.apps.v1.DeploymentSpec", &mut wire.spec),
            _ => {}
        }
        let mut meta = wire.metadata;
        meta.managed_fields = None;
        let body = match kind {
            "pods" => Body::Pod(Pod::lift(&wire.spec, &wire.status)),
            "replicasets.apps" => Body::ReplicaSet(Box::new(ReplicaSet::lift(wire.spec, wire.status))),
            "deployments.apps" => Body::Deployment(Box::new(Deployment::lift(wire.spec, wire.status))),
            "namespaces" => Body::Namespace(parse(wire.spec["finalizers"].clone())),
            "nodes" => Body::Node(Box::new(Node::lift(wire.spec, &wire.status))),
            "leases.coordination.k8s.io" => Body::Lease(Lease::lift(&wire.spec)),
            "configmaps" if meta.name.as_deref() == Some(crate::account::AUTHORITY) => {
                Body::Authority(wire.data["ca.crt"].as_str().unwrap_or_default().to_owned())
            }
            _ => Body::Bare,
        };
        if !matches!(body, Body::ReplicaSet(_) | Body::Deployment(_)) {
            // Only these two pass annotations on; a pod's say how dear it is.
            if let Some(annotations) = &mut meta.annotations {
                annotations.retain(|key, _| key == crate::replicaset::DELETION_COST);
            }
        }
        Self { meta, body }
    }

    pub fn name(&self) -> &str {
        self.meta.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.meta.namespace.as_deref().unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    /// The revision of the store that wrote it.
    pub fn revision(&self) -> u64 {
        self.meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
    }

    pub fn deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }

    pub fn owners(&self) -> &[OwnerReference] {
        self.meta.owner_references.as_deref().unwrap_or_default()
    }

    /// The owner that manages it.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owners().iter().find(|o| o.controller == Some(true))
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.meta.finalizers.iter().flatten().any(|f| f == name)
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.meta.labels.as_ref().unwrap_or(&NONE)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.meta.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub fn created(&self) -> Option<Timestamp> {
        self.meta.creation_timestamp.as_ref().map(|t| t.0)
    }
}

/// A value of a type, or the type's default.
pub fn parse<T: DeserializeOwned + Default>(value: Value) -> T {
    serde_json::from_value(value).unwrap_or_default()
}

/// A moment as Kubernetes writes it.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
