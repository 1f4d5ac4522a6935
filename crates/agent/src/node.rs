//! The Node object and its Lease: the agent's sign of life.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time},
    },
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::config::{Capacity, Config};

/// How often the lease is renewed.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a node may be silent before others think it dead.
const LEASE_SECONDS: i32 = 40;
/// How often an unchanged status is written all the same.
const REPEAT: Duration = Duration::from_secs(300);
/// Less memory or disk than this share is pressure.
const LEAST_MEMORY: u64 = 100 << 20;
const LEAST_DISK_PERCENT: u64 = 10;

/// What is measured on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Memory that programs can still have is short.
    pub memory_pressure: bool,
    /// Disk is short.
    pub disk_pressure: bool,
    /// Process ids are short.
    pub pid_pressure: bool,
}

impl Measured {
    /// Measures where `state` lies. What cannot be read is no pressure.
    pub fn now(state: &std::path::Path) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let memory = read("/proc/meminfo");
        let available = memory.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
        let available = available.and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
        let disk = rustix::fs::statvfs(state).map(|s| s.f_bavail * 100 < s.f_blocks * LEAST_DISK_PERCENT);
        let threads = read("/proc/loadavg").split(['/', ' ']).nth(4).and_then(|n| n.parse::<u64>().ok());
        let most = read("/proc/sys/kernel/pid_max").trim().parse::<u64>().ok();
        Self {
            memory_pressure: available.is_some_and(|kib| kib * 1024 < LEAST_MEMORY),
            disk_pressure: disk.unwrap_or(false),
            pid_pressure: threads.zip(most).is_some_and(|(t, m)| t * 10 > m * 9),
        }
    }
}

/// Keeps the Node and the Lease up to date until dropped.
pub async fn keep(client: Client, config: Config, state: std::path::PathBuf) {
    let mut told: Option<(Measured, tokio::time::Instant)> = None;
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut owner = None;
    loop {
        ticks.tick().await;
        let measured = Measured::now(&state);
        let due = told.is_none_or(|(m, at)| m != measured || at.elapsed() >= REPEAT);
        if due {
            match report(&client, &config, measured).await {
                Ok(uid) => (told, owner) = (Some((measured, tokio::time::Instant::now())), Some(uid)),
                Err(e) => tracing::warn!("node {}: {e}", config.node_name),
            }
        }
        let Some(uid) = &owner else { continue };
        match renew(&client, &config.node_name, uid).await {
            Ok(true) => {}
            // It went with its owner: the node is to be registered anew before its pods count as orphans.
            Ok(false) => told = None,
            Err(e) => tracing::warn!("lease of node {}: {e}", config.node_name),
        }
    }
}

/// Registers the node or brings it up to date; its uid.
pub async fn report(client: &Client, config: &Config, measured: Measured) -> Result<String, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let now = Timestamp::now();
    let node = match api.get_opt(&config.node_name).await? {
        Some(node) => node,
        None => {
            let node = Node {
                metadata: ObjectMeta {
                    name: Some(config.node_name.clone()),
                    labels: Some(labels(config)),
                    ..ObjectMeta::default()
                },
                spec: Some(NodeSpec::default()),
                ..Node::default()
            };
            api.create(&PostParams::default(), &node).await?
        }
    };
    let have = node.metadata.labels.clone().unwrap_or_default();
    if labels(config).iter().any(|(k, v)| have.get(k) != Some(v)) {
        let patch = json!({"metadata": {"labels": labels(config)}});
        api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    let patch = json!({"status": status(config, measured, node.status.as_ref(), now)});
    let node = api.patch_status(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(node.metadata.uid.unwrap_or_default())
}

fn labels(config: &Config) -> BTreeMap<String, String> {
    [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), v.to_string()))
    .collect()
}

/// The architecture as Kubernetes names it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The node's status: pure, from what is configured and measured.
pub fn status(config: &Config, measured: Measured, old: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let own = [
        ("MemoryPressure", measured.memory_pressure, "KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"),
        ("DiskPressure", measured.disk_pressure, "KubeletHasNoDiskPressure", "KubeletHasDiskPressure"),
        ("PIDPressure", measured.pid_pressure, "KubeletHasSufficientPID", "KubeletHasInsufficientPID"),
        ("Ready", true, "KubeletNotReady", "KubeletReady"),
    ];
    let before = |name: &str| old.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == name));
    let mut conditions: Vec<NodeCondition> = own
        .into_iter()
        .map(|(name, holds, no, yes)| {
            let status = if holds { "True" } else { "False" };
            let same = before(name).filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
            NodeCondition {
                type_: name.into(),
                status: status.into(),
                reason: Some(if holds { yes } else { no }.into()),
                message: Some(
                    if name == "Ready" { "rast agent is posting ready status" } else { "measured by rast agent" }
                        .into(),
                ),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: same.or(Some(Time(now))),
            }
        })
        .collect();
    let theirs = old.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    conditions.extend(theirs.filter(|c| !own.iter().any(|o| o.0 == c.type_)).cloned());
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    let ips = config.addresses.iter().map(|ip| address("InternalIP", ip.to_string()));
    NodeStatus {
        capacity: Some(amounts(config.capacity, false)),
        allocatable: Some(amounts(config.capacity, true)),
        conditions: Some(conditions),
        addresses: Some(ips.chain([address("Hostname", config.node_name.clone())]).collect()),
        daemon_endpoints: Some(NodeDaemonEndpoints::default()),
        node_info: Some(info(config)),
        ..NodeStatus::default()
    }
}

fn amounts(c: Capacity, allocatable: bool) -> BTreeMap<String, Quantity> {
    let less = |all: u64, reserved: u64| if allocatable { all.saturating_sub(reserved) } else { all };
    [
        ("cpu", format!("{}m", less(c.cpu_millis, c.reserved_cpu_millis))),
        ("memory", format!("{}Ki", less(c.memory, c.reserved_memory) / 1024)),
        ("ephemeral-storage", format!("{}Ki", c.storage / 1024)),
        ("pods", c.pods.to_string()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), Quantity(v)))
    .collect()
}

fn info(config: &Config) -> NodeSystemInfo {
    let read = |path| std::fs::read_to_string(path).map(|t| t.trim().to_string()).unwrap_or_default();
    let os = read("/etc/os-release");
    let os = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    NodeSystemInfo {
        architecture: arch().into(),
        operating_system: "linux".into(),
        os_image: os.into(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        machine_id: read("/etc/machine-id"),
        container_runtime_version: format!("rast://{}", config.version),
        kubelet_version: format!("v1.36.0+rastos-{}", config.version),
        ..NodeSystemInfo::default()
    }
}

/// Renews the lease, or makes it: false then.
async fn renew(client: &Client, node: &str, uid: &str) -> Result<bool, kube::Error> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"renewTime": now}});
    match api.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(e)) if e.code == 404 => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(node.into()),
                    owner_references: Some(vec![OwnerReference {
                        api_version: "v1".into(),
                        kind: "Node".into(),
                        name: node.into(),
                        uid: uid.into(),
                        ..OwnerReference::default()
                    }]),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(node.into()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    renew_time: Some(now),
                    ..LeaseSpec::default()
                }),
            };
            api.create(&PostParams::default(), &lease).await.map(|_| false)
        }
        other => other.map(|_| true),
    }
}
