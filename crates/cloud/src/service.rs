//! The services of a cloud, and where the catalogue says that they are.

use std::fmt;

use serde_json::Value;

use crate::config::Interface;

/// A service that rastOS talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Keystone.
    Identity,
    /// Nova.
    Compute,
    /// Neutron.
    Network,
    /// Cinder.
    BlockStorage,
    /// Glance.
    Image,
    /// Heat.
    Orchestration,
    /// Octavia.
    LoadBalancer,
    /// Swift.
    ObjectStore,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Identity,
        Self::Compute,
        Self::Network,
        Self::BlockStorage,
        Self::Image,
        Self::Orchestration,
        Self::LoadBalancer,
        Self::ObjectStore,
    ];

    /// The types that catalogues know it by, the official one first.
    pub fn types(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["identity"],
            Self::Compute => &["compute"],
            Self::Network => &["network"],
            Self::BlockStorage => &["block-storage", "volumev3", "block-store", "volume"],
            Self::Image => &["image"],
            Self::Orchestration => &["orchestration"],
            Self::LoadBalancer => &["load-balancer"],
            Self::ObjectStore => &["object-store"],
        }
    }

    /// The version of its API that is spoken, as it stands in addresses; none for what has none there.
    fn version(self) -> &'static str {
        match self {
            Self::Identity | Self::BlockStorage => "v3",
            Self::Compute => "v2.1",
            Self::Network => "v2.0",
            Self::Image | Self::LoadBalancer => "v2",
            Self::Orchestration => "v1",
            Self::ObjectStore => "",
        }
    }

    /// The address of its API: a catalogue gives it with or without the version.
    pub fn versioned(self, url: &str, project: &str) -> String {
        let url = url.trim_end_matches('/');
        let is_version = |part: &str| {
            part.strip_prefix('v').is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()) && v.len() <= 4)
        };
        match self {
            Self::ObjectStore => url.to_owned(),
            _ if url.split('/').skip(3).any(is_version) => url.to_owned(),
            Self::Orchestration => format!("{url}/v1/{project}"),
            _ => format!("{url}/{}", self.version()),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity (Keystone)",
            Self::Compute => "compute (Nova)",
            Self::Network => "network (Neutron)",
            Self::BlockStorage => "block storage (Cinder)",
            Self::Image => "image (Glance)",
            Self::Orchestration => "orchestration (Heat)",
            Self::LoadBalancer => "load balancing (Octavia)",
            Self::ObjectStore => "object storage (Swift)",
        })
    }
}

/// The services' addresses, as a token's catalogue gives them.
#[derive(Clone, Debug, Default)]
pub struct Catalog(Vec<Endpoint>);

#[derive(Clone, Debug)]
struct Endpoint {
    kind: String,
    interface: String,
    region: String,
    url: String,
}

impl Catalog {
    /// Reads the `catalog` of a token.
    pub fn read(catalog: &Value) -> Self {
        let services = catalog.as_array().into_iter().flatten();
        let endpoints = services.flat_map(|service| {
            let endpoints = service["endpoints"].as_array().into_iter().flatten();
            endpoints.filter_map(|e| {
                let text = |v: &Value| v.as_str().map(str::to_owned);
                Some(Endpoint {
                    kind: text(&service["type"])?,
                    interface: text(&e["interface"])?,
                    region: text(&e["region_id"]).or_else(|| text(&e["region"])).unwrap_or_default(),
                    url: text(&e["url"])?,
                })
            })
        });
        Self(endpoints.collect())
    }

    /// A service's address; in any region when none is asked for.
    pub fn find(&self, service: Service, region: Option<&str>, interface: Interface) -> Option<&str> {
        service.types().iter().find_map(|kind| {
            let fits = |e: &&Endpoint| {
                e.kind == *kind && e.interface == interface.word() && region.is_none_or(|r| r == e.region)
            };
            self.0.iter().find(fits).map(|e| e.url.as_str())
        })
    }

    /// The regions that have servers: others may have what is the same for all of them.
    pub fn regions(&self, interface: Interface) -> Vec<&str> {
        let servers = self.0.iter().filter(|e| e.kind == "compute" && e.interface == interface.word());
        let mut regions: Vec<&str> = servers.map(|e| e.region.as_str()).collect();
        regions.sort_unstable();
        regions.dedup();
        regions
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_come_with_or_without_their_version() {
        for (service, given, wanted) in [
            (Service::Image, "http://g:9292/", "http://g:9292/v2"),
            (Service::Image, "http://c/image/v2", "http://c/image/v2"),
            (Service::Network, "http://n:9696", "http://n:9696/v2.0"),
            (Service::Compute, "http://c:8774/v2.1/p", "http://c:8774/v2.1/p"),
            (Service::Orchestration, "http://h:8004", "http://h:8004/v1/p"),
            (Service::Orchestration, "http://h:8004/v1/p", "http://h:8004/v1/p"),
            (Service::ObjectStore, "http://s/v1/AUTH_p", "http://s/v1/AUTH_p"),
        ] {
            assert_eq!(service.versioned(given, "p"), wanted);
        }
    }

    #[test]
    fn the_catalogue_is_searched_by_type_region_and_interface() {
        let endpoint = |i: &str, r: &str, u: &str| json!({"interface": i, "region_id": r, "url": u});
        let catalog = Catalog::read(&json!([
            {"type": "volumev3", "endpoints": [endpoint("public", "a", "1"), endpoint("internal", "a", "2")]},
            {"type": "object-store", "endpoints": [endpoint("public", "a", "3"), endpoint("public", "b", "4")]},
        ]));
        let find = |s, r, i| catalog.find(s, r, i);
        assert_eq!(find(Service::BlockStorage, None, Interface::Internal), Some("2"));
        assert_eq!(find(Service::ObjectStore, Some("b"), Interface::Public), Some("4"));
        assert_eq!(find(Service::ObjectStore, Some("c"), Interface::Public), None);
        assert_eq!(find(Service::Image, None, Interface::Public), None);
    }
}
