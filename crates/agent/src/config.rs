//! What the agent is told about its node.

use std::{net::IpAddr, path::PathBuf, time::Duration};

/// The node, as configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name in the API.
    pub node_name: String,
    /// Container logs, e.g. `/var/log/pods`.
    pub logs: PathBuf,
    /// Where `Localhost` seccomp profiles lie, e.g. `/etc/rastos/seccomp`.
    pub seccomp: PathBuf,
    /// The node's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// What the node has.
    pub capacity: Capacity,
    /// Where pods find names.
    pub dns: Dns,
    /// The API server as pods reach it: host and port for `KUBERNETES_SERVICE_*`; none when pods cannot.
    pub api: Option<(String, u16)>,
    /// The API server's CA in PEM, for projected tokens when the ConfigMap `kube-root-ca.crt` does not exist.
    pub ca: Option<String>,
    /// Processes and threads of a pod, unless the runtime's default is to hold.
    pub pids: Option<i64>,
    /// Version string of the node's software.
    pub version: String,
    /// What is done from time to time.
    pub rounds: Rounds,
}

/// What is done from time to time, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Measuring local storage, and rotating logs.
    pub measure: Duration,
    /// Bringing files from the API up to date, tokens among them.
    pub refresh: Duration,
    /// Collecting images and remains.
    pub collect: Duration,
    /// Which images go then.
    pub images: images::Policy,
}

impl Default for Rounds {
    fn default() -> Self {
        Self {
            measure: Duration::from_secs(10),
            refresh: Duration::from_secs(60),
            collect: Duration::from_secs(300),
            images: images::Policy::default(),
        }
    }
}

/// What a node has, and how much of it pods may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk for images, logs and emptyDirs.
    pub storage: u64,
    /// Pods.
    pub pods: u32,
    /// Thousandths of a CPU kept for the system.
    pub reserved_cpu_millis: u64,
    /// Bytes of memory kept for the system.
    pub reserved_memory: u64,
}

impl Capacity {
    /// What this host has; `storage` is measured where `state` lies.
    pub fn of_host(state: &std::path::Path, pods: u32) -> Self {
        let memory = std::fs::read_to_string("/proc/meminfo").ok();
        let memory = memory.as_deref().and_then(|t| t.lines().find_map(|l| l.strip_prefix("MemTotal:")));
        let kib = memory.and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let storage = rustix::fs::statvfs(state).map_or(0, |s| s.f_blocks * s.f_frsize);
        Self { cpu_millis: cpus * 1000, memory: kib * 1024, storage, pods, reserved_cpu_millis: 0, reserved_memory: 0 }
    }
}

/// How names are resolved in pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// The cluster's own name servers; with none, `ClusterFirst` means the node's.
    pub servers: Vec<IpAddr>,
    /// The cluster's domain, e.g. `cluster.local`.
    pub domain: String,
}
