//! A node writes about itself and its own pods only: what its authorisation cannot see in the path.

use serde_json::Value;

use super::Request;
use crate::{Result, rbac};

/// Labels with this prefix say where trusted pods may run: no node gives them to itself.
const RESERVED: &str = "node-restriction.kubernetes.io/";

/// Refuses a write by a node to what is not its own. Others pass.
pub(super) fn restrict(req: &Request<'_>, object: &Value) -> Result<()> {
    let Some(node) = rbac::node_name(req.identity) else { return Ok(()) };
    match (&*req.kind.group, &*req.kind.kind) {
        ("", "Pod") => match req.old {
            Some(old) if old["spec"]["nodeName"] == node => Ok(()),
            Some(_) => Err(req.refuse(&format!("node {node:?} may only write the pods that are bound to it"))),
            None => Err(req.refuse(&format!("node {node:?} may not create pods"))),
        },
        ("", "Node") if object["metadata"]["name"] != node => {
            Err(req.refuse(&format!("node {node:?} may only write its own Node")))
        }
        ("", "Node") => {
            let reserved = |object: &Value| -> Vec<(String, Value)> {
                let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
                labels.filter(|(k, _)| k.starts_with(RESERVED)).map(|(k, v)| (k.clone(), v.clone())).collect()
            };
            let taints = |object: &Value| object["spec"]["taints"].as_array().cloned().unwrap_or_default();
            if req.old.is_some_and(|old| taints(old) != taints(object)) {
                return Err(req.refuse(&format!("node {node:?} may not change its taints")));
            }
            if reserved(object) == req.old.map(reserved).unwrap_or_default() {
                return Ok(());
            }
            Err(req.refuse(&format!("node {node:?} may not change labels that begin with {RESERVED}")))
        }
        ("coordination.k8s.io", "Lease") if object["metadata"]["name"] != node => {
            Err(req.refuse(&format!("node {node:?} may only write its own Lease")))
        }
        _ => Ok(()),
    }
}
