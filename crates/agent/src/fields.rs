//! The downward API: fields of the pod and resources of its containers, as text.

use std::net::IpAddr;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::{
    config::Capacity,
    pod::{self},
};

/// What the downward API may tell beyond the object itself.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its addresses.
    pub ips: &'a [IpAddr],
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// The node's name.
    pub node: &'a str,
    /// What a container without a limit may use.
    pub capacity: Capacity,
}

/// A field by its path, e.g. `metadata.labels['app']`; `None` when it is no such field.
pub fn field(facts: &Facts<'_>, path: &str) -> Option<String> {
    let (meta, spec) = (&facts.pod.metadata, pod::spec(facts.pod));
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let map = |map: &Option<std::collections::BTreeMap<String, String>>, key: Option<&str>| match key {
        Some(key) => map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default(),
        None => map.iter().flatten().map(|(k, v)| format!("{k}={}", quoted(v))).collect::<Vec<_>>().join("\n"),
    };
    if let Some((base, key)) = subscript(path) {
        return match base {
            "metadata.labels" => Some(map(&meta.labels, Some(key))),
            "metadata.annotations" => Some(map(&meta.annotations, Some(key))),
            _ => None,
        };
    }
    Some(match path {
        "metadata.name" => pod::name(facts.pod).into(),
        "metadata.namespace" => pod::namespace(facts.pod).into(),
        "metadata.uid" => pod::uid(facts.pod).into(),
        "metadata.labels" => map(&meta.labels, None),
        "metadata.annotations" => map(&meta.annotations, None),
        "spec.nodeName" => facts.node.into(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_else(|| "default".into()),
        "status.hostIP" => join(&facts.host_ips[..facts.host_ips.len().min(1)]),
        "status.hostIPs" => join(facts.host_ips),
        "status.podIP" => join(&facts.ips[..facts.ips.len().min(1)]),
        "status.podIPs" => join(facts.ips),
        _ => return None,
    })
}

/// `metadata.labels['app']` -> (`metadata.labels`, `app`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (base, rest) = path.split_once("['")?;
    Some((base, rest.strip_suffix("']")?))
}

/// As Go quotes a string, as far as labels and annotations need it.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// A resource of a container, divided; what has no limit has the node's.
pub fn resource(facts: &Facts<'_>, own: Option<&Container>, selector: &ResourceFieldSelector) -> Option<String> {
    let container = match selector.container_name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => pod::container(facts.pod, name)?.1,
        None => own?,
    };
    let (kind, resource) = selector.resource.split_once('.')?;
    let limit = match kind {
        "limits" => true,
        "requests" => false,
        _ => return None,
    };
    let node = match resource {
        "cpu" => Quantity::from_millis(i64::try_from(facts.capacity.cpu_millis).ok()?),
        "memory" => Quantity::from_bytes(i64::try_from(facts.capacity.memory).ok()?),
        "ephemeral-storage" => Quantity::from_bytes(i64::try_from(facts.capacity.storage).ok()?),
        _ => return None,
    };
    let value = pod::amount(container, resource, limit);
    let value = value.unwrap_or(if limit { node } else { Quantity::ZERO });
    let one = Quantity::from_units(1);
    let divisor = selector.divisor.as_ref().and_then(pod::quantity).filter(|q| !q.is_zero()).unwrap_or(one);
    let (value, divisor) = match resource {
        "cpu" => (value.millis(), divisor.millis()),
        _ => (value.units(), divisor.units()),
    };
    let divisor = divisor.max(1);
    Some((value / divisor + i64::from(value % divisor != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with<T>(test: impl FnOnce(&Facts<'_>) -> T) -> T {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b": "x\"y"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]}}))
        .unwrap();
        let capacity = Capacity { cpu_millis: 2000, memory: 1 << 30, ..Capacity::default() };
        let ip = ["10.0.0.1".parse().unwrap()];
        test(&Facts { pod: &pod, ips: &ip, host_ips: &ip, node: "node", capacity })
    }

    #[test]
    fn fields() {
        with(|f| {
            for (path, text) in [
                ("metadata.labels['a']", Some("1")),
                ("metadata.labels['none']", Some("")),
                ("metadata.labels", Some("a=\"1\"\nb=\"x\\\"y\"")),
                ("status.podIP", Some("10.0.0.1")),
                ("spec.nodeName", Some("node")),
                ("spec.containers", None),
                ("metadata.labels['a", None),
            ] {
                assert_eq!(field(f, path).as_deref(), text, "{path}");
            }
        });
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        with(|f| {
            for (name, divisor, text) in [
                ("limits.cpu", "0", Some("2")),
                ("limits.cpu", "1m", Some("1500")),
                ("limits.memory", "1Mi", Some("64")),
                ("requests.memory", "1", Some("0")),
                ("limits.ephemeral-storage", "1", Some("0")),
                ("limits.gpu", "1", None),
                ("cpu", "1", None),
            ] {
                let selector = serde_json::from_value(json!({"resource": name, "divisor": divisor})).unwrap();
                let own = &pod::spec(f.pod).containers[0];
                assert_eq!(resource(f, Some(own), &selector).as_deref(), text, "{name} / {divisor}");
            }
        });
    }
}
