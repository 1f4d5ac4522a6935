//! What a Cluster may say: the same rules for the file and for the API.

use ipnet::IpNet;

use super::{API_PORT, API_VERSION, Access, Cluster, KIND, Network, Protocol, Registries, State, overlap};
use crate::{Faults, Path, Quantity, names};

/// Where pods get their addresses from on every machine; a network of machines must lie elsewhere.
pub const POD_RANGE: &str = "10.42.0.0/16";
/// Stacks are called `rastos-NAME-state`, servers `NAME-0`, and hosts end in `.NAME.rastos.internal`.
const LONGEST_NAME: usize = 40;

/// Whether a range holds addresses of pods.
pub fn meets_pods(range: &IpNet) -> bool {
    POD_RANGE.parse().is_ok_and(|pods| overlap(&pods, range))
}

/// What is wrong with a cluster's name. It becomes part of paths, of addresses and of the names of stacks.
pub fn name_rule(name: &str) -> names::Complaint {
    names::label(name)
        .or_else(|| (name.len() > LONGEST_NAME).then(|| format!("must be no more than {LONGEST_NAME} bytes")))
        .or_else(|| {
            let message = "must not end in -state: rastos-a-state is the stack of cluster a's state";
            name.ends_with("-state").then(|| message.to_owned())
        })
}

impl Cluster {
    /// Notes what may not stand; the name and the rest of the metadata are judged as those of every kind.
    pub(crate) fn judge(&self, bad: &mut Faults) {
        let root = Path::root();
        bad.one_of(root.field("apiVersion"), Some(&self.api_version), &[API_VERSION]);
        bad.one_of(root.field("kind"), Some(&self.kind), &[KIND]);
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
        bad.unless(!meets_pods(&cidr), at, format!("overlaps the pods' range {POD_RANGE}; choose another"));
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::typed;

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
    fn names_become_paths_and_stacks_and_are_kept_plain() {
        let longest = "a".repeat(LONGEST_NAME);
        for good in ["a", "demo", "a-1", longest.as_str()] {
            assert_eq!(name_rule(good), None, "{good}");
        }
        let long = "a".repeat(LONGEST_NAME + 1);
        for bad in ["", "../x", "a/b", "a.b", "A", "-a", "a b", "a\u{1b}[2J", "demo-state", long.as_str()] {
            assert!(name_rule(bad).is_some(), "{bad:?}");
            let written = json!({"apiVersion": API_VERSION, "kind": "Cluster", "metadata": {"name": bad}});
            let faults = Cluster::read(&written).unwrap_err();
            assert_eq!(faults.0[0].path.to_string(), "metadata.name", "{bad:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_where_it_stands() {
        for (spec, fault) in [
            (json!({"flavour": "m1"}), "spec.flavour: is not known"),
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
