//! MachineConfig: everything one machine must be told at its first boot. It holds no secret: it travels through
//! user_data, which anything on the machine's network may read.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    faults::{Faults, Path},
    names, read, typed,
};

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
    #[serde(default)]
    pub spec: Spec,
}

impl MachineConfig {
    /// Reads one document of YAML or JSON and judges it.
    ///
    /// # Errors
    /// Everything that is wrong with it, a line each: `line 7: spec.state.serial: must be …`.
    pub fn read(text: &str) -> Result<Self, Vec<String>> {
        let documents = read::manifest(text).map_err(|e| vec![e.to_string()])?;
        let mut documents = documents.into_iter().filter(|d| !d.value.is_null());
        let document = documents.next().ok_or_else(|| vec!["there is no document in it".to_owned()])?;
        if documents.next().is_some() {
            return Err(vec!["there is more than one document in it".to_owned()]);
        }
        let place = |path: &Path, message: &str| {
            let field = if *path == Path::root() { String::new() } else { format!("{path}: ") };
            match document.spans.find(path) {
                Some(at) => format!("line {}: {field}{message}", at.line),
                None => format!("{field}{message}"),
            }
        };
        if !document.duplicates.is_empty() {
            let twice = |(path, at): &(Path, read::Position)| format!("line {}: {path}: is given twice", at.line);
            return Err(document.duplicates.iter().map(twice).collect());
        }
        let judged = typed::decode::<Self>(&document.value).and_then(|config| match config.validate() {
            faults if faults.is_empty() => Ok(config),
            faults => Err(faults),
        });
        judged.map_err(|faults| faults.0.iter().map(|f| place(&f.path, &f.message)).collect())
    }

    /// Everything that is wrong with it, by field path.
    pub fn validate(&self) -> Faults {
        let (mut bad, root) = (Faults::default(), Path::root());
        bad.one_of(root.field("apiVersion"), Some(&self.api_version), &[super::API_VERSION]);
        bad.one_of(root.field("kind"), Some(&self.kind), &["MachineConfig"]);
        bad.named(root.field("metadata").field("name"), &self.metadata.name, names::label);
        self.spec.validate(&root.field("spec"), &mut bad);
        bad
    }
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

impl Spec {
    fn validate(&self, at: &Path, bad: &mut Faults) {
        if let Some(cluster) = &self.cluster {
            let at = at.field("cluster");
            bad.named(at.field("name"), &cluster.name, names::label);
            bad.unless(is_uuid(&cluster.uid), at.field("uid"), "must be a UUID: 8-4-4-4-12 hexadecimal digits");
        }
        if let Some(serial) = &self.state.serial {
            let plain = serial.bytes().all(|b| b.is_ascii_graphic());
            bad.unless(plain && (1..=64).contains(&serial.len()), at.field("state").field("serial"), SERIAL);
        }
        let api = at.field("api");
        for (i, name) in self.api.names.iter().enumerate() {
            bad.named(api.field("names").index(i), name, names::subdomain);
        }
        for (i, address) in self.api.addresses.iter().enumerate() {
            bad.unless(!address.is_unspecified(), api.field("addresses").index(i), "must be an address of its own");
        }
        for (i, key) in self.enrol.keys.iter().enumerate() {
            bad.unless(
                is_sha256(key),
                at.field("enrol").field("keys").index(i),
                "must be SHA-256 in hex: 64 of 0-9a-f",
            );
        }
        let images = at.field("images");
        for (i, mirror) in self.images.mirrors.iter().enumerate() {
            let at = images.field("mirrors").index(i);
            bad.unless(is_registry(&mirror.registry), at.field("registry"), "must be a registry's HOST or HOST:PORT");
            let host = ["https://", "http://"].iter().find_map(|s| mirror.endpoint.strip_prefix(s)).unwrap_or_default();
            bad.unless(is_registry(host), at.field("endpoint"), "must be https://HOST[:PORT] or http://HOST[:PORT]");
        }
        if let Some(ca) = &self.images.ca {
            bad.unless(ca.contains("-----BEGIN CERTIFICATE-----"), images.field("ca"), "must hold certificates in PEM");
        }
    }
}

const SERIAL: &str = "must be a disk's serial: 1 to 64 visible characters (of a Cinder volume, the first 20 of its id)";

/// Whether a text is SHA-256 in lower-case hex.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_registry(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(plain)
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "io.rastos.v1alpha1.Mirror")]
pub struct Mirror {
    /// The registry's host as images name it, for instance `docker.io`.
    pub registry: String,
    /// Where to ask instead: `https://HOST[:PORT]`, or `http://…` for one that has no TLS.
    pub endpoint: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: rastos.io/v1alpha1
kind: MachineConfig
metadata: {name: one}
spec:
  cluster: {name: one, uid: 6d7c1a52-6f0e-4f0d-9d0c-1d9d4f1c2b3a}
  state:
    serial: 3f0c9a4e-77f1-4d2b-9
  api:
    addresses: [172.24.4.10]
  images:
    mirrors:
    - {registry: docker.io, endpoint: 'http://172.24.4.1:5000'}
";

    #[test]
    fn a_good_one_is_read() {
        let config = MachineConfig::read(GOOD).unwrap();
        assert_eq!(config.spec.state.serial.as_deref(), Some("3f0c9a4e-77f1-4d2b-9"));
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(MachineConfig::read(&json).unwrap(), config);
    }

    #[test]
    fn what_is_wrong_has_its_line_and_field() {
        for (from, to, said) in [
            ("serial:", "seriel:", "line 7: spec.state.seriel"),
            ("name: one}\nspec", "name: One}\nspec", "line 3: metadata.name: \"One\" must be a DNS label"),
            ("6d7c1a52-", "", "line 5: spec.cluster.uid: must be a UUID"),
            ("172.24.4.10", "172.24.4.256", "line 9: spec.api.addresses"),
            ("'http://172.24.4.1:5000'", "ftp://x", "line 12: spec.images.mirrors[0].endpoint"),
            ("kind: MachineConfig", "kind: Machine", "line 2: kind: \"Machine\" must be one of MachineConfig"),
            ("  state:", "  state: {}\n  state:", "line 7: spec.state: is given twice"),
            ("    mirrors:\n", "  mirrors:\n", "line "),
            ("spec:", "spec: [", "line "),
        ] {
            let wrong = GOOD.replacen(from, to, 1);
            let faults = MachineConfig::read(&wrong).expect_err(from);
            assert!(faults.iter().any(|f| f.starts_with(said)), "{said}: {faults:?}");
        }
        assert!(MachineConfig::read("").is_err());
        assert!(MachineConfig::read("#cloud-config\npackages: [x]\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _judged = MachineConfig::read(&text);
        }

        #[test]
        fn no_broken_document_panics(at in 0..GOOD.len(), with: String) {
            let mut text = GOOD.to_owned();
            text.replace_range(at..at + 1, &with);
            let _judged = MachineConfig::read(&text);
        }
    }
}
