//! Cluster: what `rast cloud up` makes of an OpenStack project. Every field but the name has a default.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{API_VERSION, machine::Mirror};
use crate::{Faults, Path, Quantity, names, typed, unknown};

/// The port of the API.
pub const API_PORT: u16 = 6443;
const KIND: &str = "Cluster";
/// Where pods get their addresses from on every machine; a network of machines must lie elsewhere.
const POD_RANGE: &str = "10.42.0.0/16";
/// Stacks are called `rastos-NAME-state`, servers `NAME-0`, and hosts end in `.NAME.rastos.internal`.
const LONGEST_NAME: usize = 40;

/// A cluster of machines in one OpenStack project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Always `rastos.io/v1alpha1`.
    pub api_version: String,
    /// Always `Cluster`.
    pub kind: String,
    /// The cluster's name.
    pub metadata: Metadata,
    /// What it is to be.
    #[serde(default)]
    pub spec: Spec,
}

/// The cluster's name, unique in its project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// A DNS label of at most 40 bytes.
    pub name: String,
}

/// The parts of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// What a machine boots first. Later versions come by update of the running machine.
    pub image: Image,
    /// The flavor's name or id. None: the smallest that is large enough, and from then on what the server has.
    pub flavor: Option<String>,
    /// Where machines live.
    pub network: Network,
    /// The name or id of the network that floating IPs come from. None: the only external one.
    pub external_network: Option<String>,
    /// Who may reach which ports of the machines. It is never derived from what runs there.
    pub access: Vec<Access>,
    /// What outlives the machines.
    pub state: State,
    /// Nova's availability zone. None: the cloud chooses.
    pub zone: Option<String>,
    /// Where container images come from.
    pub registries: Registries,
}

/// The operating system's image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    /// The name or id of an image in Glance.
    pub name: Option<String>,
    /// A local qcow2 or raw file, uploaded unless the project can see the same bytes already.
    pub file: Option<String>,
}

/// A new network, or one that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// The range of the new network; 10.20.0.0/24 unless given.
    pub cidr: Option<IpNet>,
    /// The name or id of a network that is there; its router must lead to the external network.
    pub existing: Option<String>,
    /// The name servers of the new network. None: the cloud's own.
    pub nameservers: Vec<IpAddr>,
}

/// Ports, and from where they may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The port, or the first of several.
    pub port: u16,
    /// The last port.
    #[serde(default)]
    pub end_port: Option<u16>,
    /// TCP unless given.
    #[serde(default)]
    pub protocol: Protocol,
    /// From where; anywhere unless given.
    #[serde(default)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Its size, counted in whole GiB; 10Gi unless given.
    pub size: Option<String>,
    /// Cinder's volume type. None: the cloud's default.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// Registries, as the machines see them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Registries {
    /// Asked before a registry itself.
    pub mirrors: Vec<Mirror>,
    /// Further certificate authorities for registries, PEM.
    pub ca: Option<String>,
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
        let metadata = Metadata { name: name.into() };
        Self { api_version: API_VERSION.into(), kind: KIND.into(), metadata, spec: Spec::default() }
    }

    /// Decodes and judges a document.
    pub fn read(document: &Value) -> Result<Self, Faults> {
        let cluster: Self = typed::decode(document)?;
        let mut faults = Faults::default();
        for path in unknown::fields(document, &typed::encode(&cluster)) {
            faults.push(path, crate::Cause::NotSupported, "unknown field");
        }
        cluster.validate(&mut faults);
        if faults.is_empty() { Ok(cluster) } else { Err(faults) }
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.metadata.name
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

    fn validate(&self, bad: &mut Faults) {
        let root = Path::root();
        bad.one_of(root.field("apiVersion"), Some(&self.api_version), &[API_VERSION]);
        let name = root.field("metadata").field("name");
        bad.named(name.clone(), self.name(), names::label);
        bad.unless(self.name().len() <= LONGEST_NAME, name.clone(), "must be no more than 40 bytes");
        let own = !self.name().ends_with("-state");
        bad.unless(own, name, "must not end in -state: rastos-a-state is the stack of cluster a's state");
        let spec = root.field("spec");
        let image = &self.spec.image;
        let both = image.name.is_some() && image.file.is_some();
        bad.unless(!both, spec.field("image"), "give name (an image that is there) or file (one to upload), not both");
        for (field, text) in [("flavor", &self.spec.flavor), ("externalNetwork", &self.spec.external_network)] {
            bad.unless(text.as_deref() != Some(""), spec.field(field), "must not be empty; leave it out instead");
        }
        self.spec.network.validate(&spec.field("network"), bad);
        self.validate_access(&spec.field("access"), bad);
        self.spec.state.validate(&spec.field("state"), bad);
        self.spec.registries.validate(&spec.field("registries"), bad);
    }

    fn validate_access(&self, at: &Path, bad: &mut Faults) {
        for (i, access) in self.spec.access.iter().enumerate() {
            let at = at.index(i);
            bad.unless(access.port > 0, at.field("port"), "must be between 1 and 65535");
            if let Some(end) = access.end_port {
                bad.unless(end >= access.port, at.field("endPort"), format!("must not be below port {}", access.port));
            }
        }
        let api =
            |a: &Access| a.protocol == Protocol::Tcp && (a.port..=a.end_port.unwrap_or(a.port)).contains(&API_PORT);
        let message = "one entry must open TCP port 6443, the API, to where you are: rast cloud up needs it";
        bad.unless(self.spec.access.iter().any(api), at.clone(), message);
    }
}

impl Network {
    fn validate(&self, at: &Path, bad: &mut Faults) {
        if self.existing.is_some() {
            let message = "belongs to a new network, but spec.network.existing names one that is there";
            bad.unless(self.cidr.is_none(), at.field("cidr"), message);
            bad.unless(self.nameservers.is_empty(), at.field("nameservers"), message);
        }
        let Some(cidr) = self.cidr else { return };
        let at = at.field("cidr");
        bad.unless(matches!(cidr, IpNet::V4(_)), at.clone(), "must be an IPv4 range");
        bad.unless(cidr.addr() == cidr.network(), at.clone(), format!("must begin at its network, {}", cidr.trunc()));
        bad.unless(cidr.prefix_len() <= 29, at.clone(), "must hold at least 8 addresses: /29 or wider");
        let pods = POD_RANGE.parse::<IpNet>().is_ok_and(|pods| overlap(&pods, &cidr));
        bad.unless(!pods, at, format!("overlaps the pods' range {POD_RANGE}; choose another"));
    }
}

impl State {
    fn validate(&self, at: &Path, bad: &mut Faults) {
        let Some(size) = &self.size else { return };
        let at = at.field("size");
        match size.parse::<Quantity>() {
            Ok(size) => bad.unless(
                size >= Quantity::from_bytes(1 << 30) && size <= Quantity::from_bytes(16 << 40),
                at,
                "must be between 1Gi and 16Ti",
            ),
            Err(error) => bad.unless(false, at, error.to_string()),
        }
    }
}

impl Registries {
    fn validate(&self, at: &Path, bad: &mut Faults) {
        for (i, mirror) in self.mirrors.iter().enumerate() {
            let at = at.field("mirrors").index(i);
            let host = !mirror.registry.is_empty() && !mirror.registry.contains('/');
            bad.unless(host, at.field("registry"), "must be a host, as images name it: docker.io or HOST:PORT");
            let url = mirror.endpoint.strip_prefix("https://").or(mirror.endpoint.strip_prefix("http://"));
            bad.unless(url.is_some_and(|u| !u.is_empty()), at.field("endpoint"), "must be https://HOST or http://HOST");
        }
        if let Some(ca) = &self.ca {
            let pem = ca.contains("-----BEGIN CERTIFICATE-----");
            bad.unless(pem, at.field("ca"), "must be certificates in PEM");
            let key = ca.contains("PRIVATE KEY");
            bad.unless(!key, at.field("ca"), "holds a private key; give certificates only");
        }
    }
}

/// Whether two ranges have an address in common.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(spec: Value) -> Vec<String> {
        let cluster = json!({"apiVersion": API_VERSION, "kind": "Cluster", "metadata": {"name": "demo"}, "spec": spec});
        Cluster::read(&cluster).err().map(|f| f.0.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn a_name_is_enough() {
        let written = json!({"apiVersion": API_VERSION, "kind": "Cluster", "metadata": {"name": "demo"}});
        let read = Cluster::read(&written).unwrap();
        assert_eq!(read, Cluster::named("demo"));
        assert_eq!(read.state_gib(), 10);
        assert_eq!(read.new_network().map(|n| n.to_string()).as_deref(), Some("10.20.0.0/24"));
        assert_eq!(Cluster::read(&typed::encode(&read)).unwrap(), read);
    }

    #[test]
    fn what_is_wrong_is_named_where_it_stands() {
        for (spec, fault) in [
            (json!({"flavour": "m1"}), "spec.flavour: unknown field"),
            (json!({"network": {"cidr": "10.42.3.0/24"}}), "spec.network.cidr: overlaps the pods' range 10.42.0.0/16"),
            (json!({"network": {"cidr": "10.1.0.5/24"}}), "spec.network.cidr: must begin at its network, 10.1.0.0/24"),
            (json!({"network": {"cidr": "fd00::/64"}}), "spec.network.cidr: must be an IPv4 range"),
            (
                json!({"network": {"cidr": "10.1.0.0/24", "existing": "n"}}),
                "spec.network.cidr: belongs to a new network",
            ),
            (json!({"access": [{"port": 80}]}), "spec.access: one entry must open TCP port 6443"),
            (json!({"access": [{"port": 7000, "endPort": 6000}]}), "spec.access[0].endPort: must not be below"),
            (json!({"access": [{"port": 6443, "from": ["x"]}]}), "spec.access[0].from[0]: "),
            (json!({"access": [{"port": 65536}]}), "spec.access[0].port: "),
            (json!({"state": {"size": "lots"}}), "spec.state.size: must be a quantity"),
            (json!({"state": {"size": "1Mi"}}), "spec.state.size: must be between 1Gi and 16Ti"),
            (json!({"image": {"name": "a", "file": "b"}}), "spec.image: give name"),
            (json!({"registries": {"ca": "-----BEGIN PRIVATE KEY-----"}}), "spec.registries.ca: must be certificates"),
            (
                json!({"registries": {"mirrors": [{"registry": "a", "endpoint": "ftp://b"}]}}),
                "spec.registries.mirrors[0].endpoint: must be https",
            ),
        ] {
            let faults = faults(spec.clone());
            assert!(faults.iter().any(|f| f.starts_with(fault)), "{spec}: {faults:?}");
        }
    }

    #[test]
    fn sizes_count_in_whole_gibibytes() {
        let mut cluster = Cluster::named("demo");
        cluster.spec.state.size = Some("1500Mi".into());
        assert_eq!(cluster.state_gib(), 2);
    }
}
