//! Cluster: what `rast cloud up` makes of an OpenStack project. Every field but the name has a default.

mod rules;

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{API_VERSION, machine::Mirror};
use crate::{Faults, Quantity, kinds, typed};

pub use rules::{POD_RANGE, meets_pods, name_rule};

/// The port of the API.
pub const API_PORT: u16 = 6443;
const KIND: &str = "Cluster";

/// A cluster of machines in one OpenStack project, made and changed by `rast cloud up`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rastos.v1alpha1.Cluster")]
pub struct Cluster {
    /// Always `rastos.io/v1alpha1`.
    #[serde(default = "version")]
    pub api_version: String,
    /// Always `Cluster`.
    #[serde(default = "kind")]
    pub kind: String,
    /// The cluster's name, unique in its project: a DNS label of at most 40 bytes.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it is to be.
    #[serde(default)]
    pub spec: Spec,
    /// What the last `up` made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// The parts of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.rastos.v1alpha1.ClusterSpec")]
pub struct Spec {
    /// What a machine boots first. Later versions come by update of the running machine.
    pub image: Image,
    /// The flavor's name or id. None: the smallest that is large enough, and from then on what the server has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// Where machines live.
    pub network: Network,
    /// The name or id of the network that floating IPs come from. None: the only external one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_network: Option<String>,
    /// Who may reach which ports of the machines. It is never derived from what runs there.
    pub access: Vec<Access>,
    /// What outlives the machines.
    pub state: State,
    /// Nova's availability zone. None: the cloud chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Where container images come from.
    pub registries: Registries,
}

/// The operating system's image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.rastos.v1alpha1.ClusterImage")]
pub struct Image {
    /// The name or id of an image in Glance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A local qcow2 or raw file, uploaded unless the project can see the same bytes already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A new network, or one that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.rastos.v1alpha1.ClusterNetwork")]
pub struct Network {
    /// The range of the new network; 10.20.0.0/24 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub cidr: Option<IpNet>,
    /// The name or id of a network that is there; its router must lead to the external network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing: Option<String>,
    /// The name servers of the new network. None: the cloud's own.
    pub nameservers: Vec<IpAddr>,
}

/// Ports, and from where they may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rastos.v1alpha1.ClusterAccess")]
pub struct Access {
    /// The port, or the first of several.
    pub port: u16,
    /// The last port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
    /// TCP unless given.
    #[serde(default)]
    #[schemars(with = "String")]
    pub protocol: Protocol,
    /// From where; anywhere unless given.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub from: Vec<IpNet>,
}

/// A transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
}

/// The volume that holds the cluster's keys and store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.rastos.v1alpha1.ClusterState")]
pub struct State {
    /// Its size, counted in whole GiB; 10Gi unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Cinder's volume type. None: the cloud's default.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// Registries, as the machines see them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.rastos.v1alpha1.ClusterRegistries")]
pub struct Registries {
    /// Asked before a registry itself.
    pub mirrors: Vec<Mirror>,
    /// Further certificate authorities for registries, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// What the last `up` made of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.rastos.v1alpha1.ClusterStatus")]
pub struct Status {
    /// The generation of the spec that was made. A later one waits for the next `rast cloud up NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What tells this cluster from earlier ones of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The id of the OpenStack project that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The floating IP at which API and pods are reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The Heat stacks, the one that outlives machines first.
    pub stacks: Vec<String>,
    /// The id of the Cinder volume that holds keys and store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Its machines.
    pub machines: Vec<MachineStatus>,
    /// The version of the `rast` that made it last. What runs on a machine stands in its Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// One machine of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.rastos.v1alpha1.ClusterMachineStatus")]
pub struct MachineStatus {
    /// Its name: the server's, and the Node's.
    pub name: String,
    /// The id of the Nova server.
    pub server: String,
}

fn version() -> String {
    API_VERSION.to_owned()
}

fn kind() -> String {
    KIND.to_owned()
}

impl Default for Spec {
    /// The API from anywhere; all else is the cloud's choice.
    fn default() -> Self {
        let api = Access { port: API_PORT, end_port: None, protocol: Protocol::Tcp, from: Vec::new() };
        Self {
            image: Image::default(),
            flavor: None,
            network: Network::default(),
            external_network: None,
            access: vec![api],
            state: State::default(),
            zone: None,
            registries: Registries::default(),
        }
    }
}

impl Cluster {
    /// Whether a document is meant to be one.
    pub fn is(document: &Value) -> bool {
        document["kind"] == KIND && document["apiVersion"].as_str().is_some_and(|v| v.starts_with("rastos.io/"))
    }

    /// A cluster of this name, all else by default.
    pub fn named(name: &str) -> Self {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        Self { api_version: version(), kind: kind(), metadata, spec: Spec::default(), status: None }
    }

    /// Decodes and judges a document, as the API does.
    pub fn read(document: &Value) -> Result<Self, Faults> {
        typed::decode(&kinds::cluster::kind().complete(document)?)
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Name and spec alone: what is asked for, without what the API adds.
    pub fn wish(&self) -> Self {
        Self { spec: self.spec.clone(), ..Self::named(self.name()) }
    }

    /// Whether its spec was changed since the last `up` made it.
    pub fn awaits_up(&self) -> bool {
        let made = self.status.as_ref().and_then(|status| status.observed_generation);
        self.metadata.generation.is_some() && made != self.metadata.generation
    }

    /// The range of the network to be made; none where one exists.
    pub fn new_network(&self) -> Option<IpNet> {
        let range = || self.spec.network.cidr.unwrap_or(IpNet::new_assert([10, 20, 0, 0].into(), 24));
        self.spec.network.existing.is_none().then(range)
    }

    /// The state volume's size in GiB.
    pub fn state_gib(&self) -> u64 {
        const GIB: u64 = 1 << 30;
        let size = self.spec.state.size.as_deref().and_then(|s| s.parse::<Quantity>().ok());
        size.and_then(|q| u64::try_from(q.units()).ok()).map_or(10, |bytes| bytes.div_ceil(GIB))
    }
}

/// Whether two ranges have an address in common.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}
