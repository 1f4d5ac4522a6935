//! What a node may do: report on itself and on its pods, and read what those pods need. A node that is taken over
//! must not reach beyond them (Kubernetes: node authoriser and NodeRestriction). What everyone may who is known, such as
//! discovery, roles give it.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::Value;

use super::{Decision, NODES};
use crate::{Attributes, Identity};

/// Below it lie the pods.
pub(super) const PREFIX: &str = "/registry/core/pods/";

/// The node that an identity is; `None` for everyone else.
pub(crate) fn name(identity: &Identity) -> Option<&str> {
    identity.user.strip_prefix("system:node:").filter(|_| identity.is_in(NODES))
}

/// Whether the node may. Writes to pods are checked once more by admission, which sees the pod.
pub(super) fn decide(node: &str, at: &Attributes, placed: &Placed) -> Decision {
    let reads = matches!(at.verb.as_str(), "get" | "list" | "watch");
    let writes = matches!(at.verb.as_str(), "update" | "patch");
    let own = at.name == node;
    let allowed = match (at.group.as_str(), at.resource.as_str(), at.subresource.as_str()) {
        _ if !at.is_resource => false,
        ("", "nodes", "") => at.verb == "create" || own && (reads || writes),
        ("", "nodes", "status") => own && writes,
        ("coordination.k8s.io", "leases", "") => {
            at.namespace == "kube-node-lease"
                && (at.verb == "create" || own && (writes || at.verb == "get" || at.verb == "delete"))
        }
        ("", "pods", "") if reads => at.verb != "get" && at.node == node || placed.holds(node, &at.namespace, &at.name),
        ("", "pods", "") => at.verb == "delete",
        ("", "pods", "status") => writes,
        ("", "pods", "eviction") => at.verb == "create",
        ("", "services", "") => reads,
        ("", "events", "") | ("events.k8s.io", "events", "") => at.verb == "create" || writes,
        ("", "secrets" | "configmaps", "") => reads && placed.needs(node, &at.resource, &at.namespace, &at.name),
        ("", "persistentvolumeclaims", "") => {
            at.verb == "get" && placed.needs(node, &at.resource, &at.namespace, &at.name)
        }
        ("", "serviceaccounts", "") => {
            at.verb == "get" && placed.needs(node, "serviceaccounts", &at.namespace, &at.name)
        }
        ("", "serviceaccounts", "token") => {
            at.verb == "create" && placed.needs(node, "serviceaccounts", &at.namespace, &at.name)
        }
        ("authentication.k8s.io", "tokenreviews", "") | ("authorization.k8s.io", "subjectaccessreviews", "") => {
            at.verb == "create"
        }
        _ => false,
    };
    if allowed {
        Decision::allowed("node: allowed")
    } else {
        Decision::refused(format!("node {node:?} has no pod that needs this and no business with it"))
    }
}

/// The pods of each node and the objects that they name. About 200 bytes a pod.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pods: HashMap<String, Pod>,
    nodes: HashMap<String, BTreeSet<String>>,
}

#[derive(Debug)]
struct Pod {
    node: String,
    needs: Box<[(Needed, Box<str>)]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Needed {
    Secret,
    ConfigMap,
    Claim,
    Account,
}

impl Placed {
    pub(super) fn put(&mut self, key: &str, value: &[u8]) {
        self.delete(key);
        #[derive(Deserialize)]
        struct Stored {
            spec: Value,
        }
        let Ok(Stored { spec }) = serde_json::from_slice(value) else {
            return tracing::error!("{key} cannot be read: its node gets none of the objects that it names");
        };
        let Some(node) = spec["nodeName"].as_str().filter(|node| !node.is_empty()) else { return };
        let mut needs = BTreeSet::new();
        gather(&spec, &mut needs);
        let needs = needs.into_iter().map(|(kind, name)| (kind, Box::from(name))).collect();
        self.nodes.entry(node.to_owned()).or_default().insert(key.to_owned());
        self.pods.insert(key.to_owned(), Pod { node: node.to_owned(), needs });
    }

    pub(super) fn delete(&mut self, key: &str) {
        let Some(pod) = self.pods.remove(key) else { return };
        if let Some(pods) = self.nodes.get_mut(&pod.node) {
            pods.remove(key);
            if pods.is_empty() {
                self.nodes.remove(&pod.node);
            }
        }
    }

    /// Whether this pod is bound to `node`.
    fn holds(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.pods.get(&format!("{PREFIX}{namespace}/{name}")).is_some_and(|pod| pod.node == node)
    }

    /// Whether a pod in `namespace` that is bound to `node` names this object.
    fn needs(&self, node: &str, plural: &str, namespace: &str, name: &str) -> bool {
        let kind = match plural {
            "secrets" => Needed::Secret,
            "configmaps" => Needed::ConfigMap,
            "persistentvolumeclaims" => Needed::Claim,
            _ => Needed::Account,
        };
        let prefix = format!("{PREFIX}{namespace}/");
        let Some(pods) = self.nodes.get(node) else { return false };
        let here = pods.range(prefix.clone()..).take_while(|key| key.starts_with(&prefix));
        let mut here = here.filter_map(|key| self.pods.get(key));
        here.any(|pod| pod.needs.iter().any(|(k, n)| *k == kind && **n == *name))
    }
}

/// Every object that a pod's spec names, wherever it does.
fn gather<'a>(value: &'a Value, needs: &mut BTreeSet<(Needed, &'a str)>) {
    let Value::Object(fields) = value else {
        return value.as_array().into_iter().flatten().for_each(|item| gather(item, needs));
    };
    for (field, inner) in fields {
        let named = |at: &str| inner[at].as_str();
        let found = match field.as_str() {
            "serviceAccountName" => inner.as_str().map(|name| (Needed::Account, name)),
            "secret" => named("secretName").or(named("name")).map(|name| (Needed::Secret, name)),
            "secretRef" | "secretKeyRef" => named("name").map(|name| (Needed::Secret, name)),
            "configMap" | "configMapRef" | "configMapKeyRef" => named("name").map(|name| (Needed::ConfigMap, name)),
            "persistentVolumeClaim" => named("claimName").map(|name| (Needed::Claim, name)),
            "imagePullSecrets" => {
                let names = inner.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str());
                needs.extend(names.map(|name| (Needed::Secret, name)));
                None
            }
            _ => None,
        };
        needs.extend(found);
        gather(inner, needs);
    }
}
