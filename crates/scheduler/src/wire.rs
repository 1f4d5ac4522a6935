//! Pods and nodes as the API sends them: only what placement needs is read, the rest never takes memory.

use std::{borrow::Cow, collections::BTreeMap};

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    api::core::v1::{Affinity, PodSchedulingGate, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::view::{self, Demand, HostPort, Resources, View, Wish};

type Amounts = BTreeMap<String, String>;

/// Takes null for absent, as the API does.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A spec without the field that RAST_DROP_FIELD names.
#[cfg(feature = "mutate")]
fn forgetful<'de, D: Deserializer<'de>>(from: D) -> Result<PodSpec, D::Error> {
    let mut spec = serde_json::Value::deserialize(from)?;
    api::mutate::forget("io.k8s.api.core.v1.PodSpec", &mut spec);
    present(spec).map_err(serde::de::Error::custom)
}

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Its name, uid and age.
    pub metadata: ObjectMeta,
    /// What bears on placement.
    #[cfg_attr(not(feature = "mutate"), serde(deserialize_with = "present"))]
    #[cfg_attr(feature = "mutate", serde(deserialize_with = "forgetful"))]
    pub spec: PodSpec,
    /// What was said of placement so far.
    #[serde(deserialize_with = "present")]
    pub(crate) status: PodStatus,
}

/// What bears on the placement of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    pub(crate) node_name: Option<String>,
    pub(crate) scheduler_name: Option<String>,
    #[serde(deserialize_with = "present")]
    pub(crate) priority: i32,
    #[serde(deserialize_with = "present")]
    pub(crate) scheduling_gates: Vec<PodSchedulingGate>,
    #[serde(deserialize_with = "present")]
    node_selector: BTreeMap<String, String>,
    affinity: Option<Affinity>,
    #[serde(deserialize_with = "present")]
    tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "present")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "present")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "present")]
    overhead: Amounts,
    #[serde(deserialize_with = "present")]
    resources: Requirements,
    #[serde(deserialize_with = "present")]
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    #[serde(deserialize_with = "present")]
    resources: Requirements,
    #[serde(deserialize_with = "present")]
    ports: Vec<Port>,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Requirements {
    #[serde(deserialize_with = "present")]
    requests: Amounts,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Port {
    #[serde(deserialize_with = "present")]
    container_port: i32,
    #[serde(deserialize_with = "present")]
    host_port: i32,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodStatus {
    pub phase: Option<String>,
    #[serde(deserialize_with = "present")]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type", deserialize_with = "present")]
    pub kind: String,
    #[serde(deserialize_with = "present")]
    pub status: String,
    pub message: Option<String>,
    pub last_transition_time: Option<Timestamp>,
}

impl Pod {
    /// Whether it holds or wants room: it has not run to its end.
    pub fn lives(&self) -> bool {
        !matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// What it asks of a node.
    pub fn wish(&self) -> Wish {
        let node = self.spec.affinity.as_ref().and_then(|a| a.node_affinity.clone()).unwrap_or_default();
        Wish {
            demand: self.spec.demand(),
            selector: self.spec.node_selector.clone(),
            required: node.required_during_scheduling_ignored_during_execution.map(|s| s.node_selector_terms),
            preferred: node.preferred_during_scheduling_ignored_during_execution.unwrap_or_default(),
            tolerations: self.spec.tolerations.clone(),
        }
    }
}

impl PodSpec {
    /// What it takes of its node: all containers and sidecars together, or what an init container needs beside
    /// the sidecars started before it if that is more.
    pub fn demand(&self) -> Demand {
        let mut requests = Resources::default();
        for container in &self.containers {
            requests.add(&resources(&container.resources.requests), 1);
        }
        let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
        for container in &self.init_containers {
            let mut need = resources(&container.resources.requests);
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&need, 1);
                need = Resources::default();
            }
            need.add(&sidecars, 1);
            peak = peak.max(&need);
        }
        requests.add(&sidecars, 1);
        let mut requests = requests.max(&peak);
        let whole = resources(&self.resources.requests);
        if self.resources.requests.contains_key("cpu") {
            requests.cpu = whole.cpu;
        }
        if self.resources.requests.contains_key("memory") {
            requests.memory = whole.memory;
        }
        requests.add(&resources(&self.overhead), 1);
        requests.pods = 1;
        let all = self.containers.iter().chain(&self.init_containers).flat_map(|c| &c.ports);
        Demand { requests, ports: all.filter_map(|p| self.host_port(p)).collect() }
    }

    fn host_port(&self, port: &Port) -> Option<HostPort> {
        let number = if self.host_network && port.host_port == 0 { port.container_port } else { port.host_port };
        (number > 0).then(|| HostPort {
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            address: port.host_ip.clone().filter(|a| !a.is_empty()).unwrap_or_else(|| "0.0.0.0".into()),
            port: number,
        })
    }
}

/// Amounts that are no quantities count as nothing: the API server refuses them.
fn resources(amounts: &Amounts) -> Resources {
    let mut found = Resources::default();
    for (name, amount) in amounts {
        let amount: Quantity = amount.parse().unwrap_or(Quantity::ZERO);
        match name.as_str() {
            "cpu" => found.cpu = amount.millis(),
            "memory" => found.memory = amount.units(),
            "ephemeral-storage" => found.storage = amount.units(),
            "pods" => found.pods = amount.units(),
            other => drop(found.other.insert(other.to_owned(), amount.units())),
        }
    }
    found
}

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "present")]
    spec: NodeSpec,
    #[serde(deserialize_with = "present")]
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(deserialize_with = "present")]
    unschedulable: bool,
    #[serde(deserialize_with = "present")]
    taints: Vec<Taint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    #[serde(deserialize_with = "present")]
    allocatable: Amounts,
    #[serde(deserialize_with = "present")]
    conditions: Vec<Condition>,
}

impl View {
    /// The cluster as lists of the API tell it, in JSON: its nodes, and what the pods that are bound to them take.
    pub fn read(nodes: &[Value], pods: &[Value]) -> Result<Self, serde_json::Error> {
        let mut view = Self::default();
        for node in nodes {
            let node = Node::deserialize(node)?;
            view.set_node(&node.metadata.name.clone().unwrap_or_default(), node.view());
        }
        for pod in pods {
            let pod = Pod::deserialize(pod)?;
            let node = pod.spec.node_name.as_deref().filter(|node| pod.lives() && !node.is_empty());
            if let (Some(node), Some(uid)) = (node, &pod.metadata.uid) {
                view.place(uid, node, pod.spec.demand());
            }
        }
        Ok(view)
    }
}

impl Node {
    pub fn view(self) -> view::Node {
        view::Node {
            labels: self.metadata.labels.unwrap_or_default(),
            taints: self.spec.taints,
            unschedulable: self.spec.unschedulable,
            ready: self.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True"),
            allocatable: resources(&self.status.allocatable),
        }
    }
}

macro_rules! resource {
    ($type:ty, $kind:literal, $plural:literal, $scope:ty) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = $scope;
            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }
            fn group((): &()) -> Cow<'_, str> {
                "".into()
            }
            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }
            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Pod, "Pod", "pods", NamespaceResourceScope);
resource!(Node, "Node", "nodes", ClusterResourceScope);
