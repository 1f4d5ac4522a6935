//! `/etc/rastos/config.yaml`: what an instance is told. Every field has a default.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
};

use anyhow::{Context as _, Result};
use api::rastos::machine::Mirror;
use clap::ValueEnum;
use ipnet::IpNet;
use runtime::Backend;
use serde::{Deserialize, Serialize};

use crate::{
    exit::{Exit, Failure},
    host::Host,
};

/// The agent's port, kept closed to pods.
const AGENT_PORT: u16 = 10250;

/// The settings of an instance.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// The port of the API.
    pub api_port: u16,
    /// Where the API listens.
    pub api_address: IpAddr,
    /// Where pods get their addresses from; no two instances of a host may share one.
    pub pod_range: IpNet,
    /// The node's name; the host's name when absent.
    pub node_name: Option<String>,
    /// The node's address; that of the default route when absent.
    pub node_address: Option<IpAddr>,
    /// Registries (`host[:port]`) to speak plain HTTP to, besides those on loopback.
    pub plain_http_registries: Vec<String>,
    /// Registries' stand-ins, asked before the registries themselves.
    pub mirrors: Vec<Mirror>,
    /// Further certificate authorities for registries, PEM.
    pub registry_ca: Option<String>,
    /// Pods on this node.
    pub max_pods: u32,
    /// Processes and threads of a pod.
    pub max_processes: u32,
    /// What makes containers of what pods ask for.
    pub runtime: Runtime,
    /// Set by PID 1: this instance is all that the machine is for.
    pub machine: Option<Machine>,
}

/// What makes containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The library that this program brings along
    #[default]
    Libcontainer,
    /// The crun of this host
    Crun,
}

impl Runtime {
    /// Finds it on this host.
    pub fn find(self) -> Result<Backend> {
        match self {
            Self::Libcontainer => Ok(Backend::Libcontainer),
            Self::Crun => {
                let path = env::var_os("PATH").unwrap_or_default();
                let found = env::split_paths(&path).map(|dir| dir.join("crun")).find(|file| file.is_file());
                let absent = "runtime: crun is not in PATH; install it, or say `runtime: libcontainer`";
                found.map(Backend::Crun).ok_or_else(|| Failure::new(Exit::Failed, absent).into())
            }
        }
    }
}

/// What PID 1 hands on of the machine's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Machine {
    /// DNS names for the API's certificate.
    pub names: Vec<String>,
    /// Addresses for the API's certificate, besides the machine's own.
    pub addresses: Vec<IpAddr>,
    /// SHA-256, in hex, of the keys of clients that may enrol as administrators.
    pub enrol: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_port: 6443,
            api_address: Ipv4Addr::UNSPECIFIED.into(),
            pod_range: IpNet::new_assert(Ipv4Addr::new(10, 42, 0, 0).into(), 16),
            node_name: None,
            node_address: None,
            plain_http_registries: Vec::new(),
            mirrors: Vec::new(),
            registry_ca: None,
            max_pods: 1100,
            max_processes: 4096,
            runtime: Runtime::default(),
            machine: None,
        }
    }
}

impl Settings {
    /// Reads the file; the defaults when there is none.
    pub fn read(file: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e).with_context(|| format!("read {}", file.display())),
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        // As PID 1 writes it: a machine in its first second needs no second parser.
        if let Ok(settings) = serde_json::from_str(&text) {
            return Ok(settings);
        }
        serde_saphyr::from_str(&text)
            .map_err(|e| Failure::new(Exit::Invalid, format!("{}: {e}", file.display())).into())
    }

    /// Writes down what the instance runs with, for `rast down`: the command line may have changed it.
    pub fn record(&self, host: &Host) -> Result<()> {
        let path = host.run().join("settings.json");
        std::fs::write(&path, serde_json::to_vec(self)?).with_context(|| format!("write {}", path.display()))
    }

    /// What the instance ran with last; `None` when it did not run since the host was started.
    pub fn recorded(host: &Host) -> Result<Option<Self>> {
        let path = host.run().join("settings.json");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }

    /// What the network is told.
    pub fn network(&self, host: &Host) -> network::Config {
        network::Config {
            instance: host.instance().to_owned(),
            state_dir: host.state().join("network"),
            pod_ranges: vec![self.pod_range],
            unmasqueraded: Vec::new(),
            closed_ports: vec![AGENT_PORT],
            mtu: None,
        }
    }

    /// What the images are told.
    pub fn images(&self) -> images::Config {
        let mirror = |m: &Mirror| images::Mirror { registry: m.registry.clone(), endpoint: m.endpoint.clone() };
        images::Config {
            plain_http: self.plain_http_registries.clone(),
            mirrors: self.mirrors.iter().map(mirror).collect(),
            ca: self.registry_ca.clone(),
            ..images::Config::default()
        }
    }

    /// The node's name: a DNS name, as Kubernetes demands.
    pub fn node(&self) -> Result<String> {
        if let Some(name) = &self.node_name {
            return Ok(name.clone());
        }
        let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        let name: String = host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        let name = name.trim_matches(['-', '.']).to_owned();
        Ok(if name.is_empty() { "node".to_owned() } else { name })
    }

    /// The node's address: what the host would speak from to the outside; on a host without a way there, any of its
    /// own, or else loopback.
    pub fn address(&self) -> IpAddr {
        // Connecting a datagram socket asks the routing table and sends nothing.
        let outward = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
            Some(socket.local_addr().ok()?.ip())
        };
        let any = || own_addresses().into_iter().find(|ip| ip.is_ipv4() && !ip.is_loopback());
        let any = || any().filter(|_| self.machine.is_some());
        self.node_address.or_else(outward).or_else(any).unwrap_or(Ipv4Addr::LOCALHOST.into())
    }
}

/// This host's own addresses, without those of IPv6 that mean nothing beyond their link.
pub fn own_addresses() -> Vec<IpAddr> {
    let own = nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|link| {
        let address = link.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    });
    own.filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, text).unwrap();
        Settings::read(&file)
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let settings = read("podRange: 10.9.0.0/16\n").unwrap();
        assert_eq!(settings.pod_range.to_string(), "10.9.0.0/16");
        assert_eq!(settings.api_port, 6443);
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_line() {
        let error = format!("{:#}", read("apiPort: 1\npodrange: 10.9.0.0/16\n").unwrap_err());
        assert!(error.contains("podrange") && error.contains('2'), "{error}");
    }
}
