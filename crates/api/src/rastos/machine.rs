//! MachineConfig: everything one machine must be told at its first boot. It holds no secret: it travels through
//! user_data, which anything on the machine's network may read.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What one machine is to be. Unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineConfig {
    /// Always `rastos.io/v1alpha1`.
    pub api_version: String,
    /// Always `MachineConfig`.
    pub kind: String,
    /// The machine's name.
    pub metadata: Metadata,
    /// What it is to be.
    pub spec: Spec,
}

/// The machine's name, which is its host name and its Node's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label.
    pub name: String,
}

/// The parts of a machine's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// The cluster that the machine belongs to; none: a machine on its own.
    pub cluster: Option<ClusterIdentity>,
    /// Where CA, keys and store live.
    pub state: State,
    /// How the API is reached.
    pub api: Api,
    /// Whose certificate requests the machine signs.
    pub enrol: Enrol,
    /// Where images come from.
    pub images: Images,
}

/// A cluster's name, and the uid that tells it from earlier ones of that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterIdentity {
    /// A DNS label.
    pub name: String,
    /// A UUID. A state volume that carries another is refused.
    pub uid: String,
}

/// The filesystem that outlives the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct State {
    /// The serial of the disk that holds it (of a Cinder volume: the first 20 characters of its id). The machine
    /// waits for this disk and never uses another. None: a partition of the boot disk, as on a machine that is
    /// not OpenStack's.
    pub serial: Option<String>,
}

/// The API's names and addresses beyond those the machine finds by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Api {
    /// Further DNS names for the certificate. `api.NAME.rastos.internal` is always there.
    pub names: Vec<String>,
    /// Further addresses for the certificate, for instance the floating IP.
    pub addresses: Vec<IpAddr>,
}

/// Enrolment: a first client gets its certificate by proving that it holds the key whose hash stands here, or in
/// the server metadata under `rastos-enrol` (several, separated by commas).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Enrol {
    /// SHA-256, in hex, of the SubjectPublicKeyInfo (DER) of keys to be admitted as cluster administrators.
    pub keys: Vec<String>,
}

/// Registries, as seen from this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Images {
    /// Asked before a registry itself.
    pub mirrors: Vec<Mirror>,
    /// Further certificate authorities for registries, PEM.
    pub ca: Option<String>,
}

/// One registry's stand-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mirror {
    /// The registry's host as images name it, for instance `docker.io`.
    pub registry: String,
    /// Where to ask instead: `https://HOST[:PORT]`, or `http://…` for one that has no TLS.
    pub endpoint: String,
}
