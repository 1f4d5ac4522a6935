//! Requests and limits as cgroups have them, and the pod's quality of service.

use std::fmt;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::Resources;

use crate::pod::{self, Role};

/// Quality of service: who is killed first when memory runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

const PERIOD: u64 = 100_000;
/// The kernel's smallest quota.
const LEAST_QUOTA: i64 = 1_000;
const LEAST_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;

/// The class of a pod: Guaranteed when every container has equal requests and limits for CPU and memory.
pub fn qos(pod: &Pod) -> Qos {
    let (mut any, mut all_equal) = (false, true);
    // An ephemeral container has no resources of its own.
    for (_, c) in pod::containers(pod).filter(|(role, _)| *role != Role::Ephemeral) {
        for resource in ["cpu", "memory"] {
            let limit = pod::amount(c, resource, true).filter(|q| !q.is_zero());
            let request = pod::amount(c, resource, false).filter(|q| !q.is_zero());
            any |= limit.is_some() || request.is_some();
            all_equal &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, all_equal) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// The pod's place below the instance's cgroup. Side by side, whatever its class: CPU is then shared out by what each
/// requests. A cgroup for a class would have a share of its own, to be kept at the sum of its pods'.
pub fn cgroup(pod: &Pod) -> String {
    format!("pod{}", pod::uid(pod))
}

/// A container's limits. `node_memory` in bytes, for the order in which the kernel kills.
pub fn container(pod: &Pod, c: &Container, node_memory: u64, pids: Option<i64>) -> Resources {
    let cpu = pod::amount(c, "cpu", true).map(|q| q.millis()).filter(|m| *m > 0);
    let request = pod::amount(c, "cpu", false).map(|q| q.millis()).or(cpu).unwrap_or(0);
    Resources {
        cpu_shares: Some(shares(request)),
        cpu_quota: cpu.map(quota),
        cpu_period: cpu.map(|_| PERIOD),
        memory: pod::amount(c, "memory", true).map(|q| q.units()).filter(|n| *n > 0),
        pids,
        oom_score_adj: Some(oom_score_adj(pod, c, node_memory)),
    }
}

/// What the pod requests of its node.
pub fn requested(pod: &Pod, resource: &str) -> i64 {
    let of = |c: &Container| pod::amount(c, resource, false).map_or(0, |q| number(resource, q));
    sum(pod, |c| Some(of(c))).unwrap_or(0)
}

/// The sum over the pod's containers, or what the largest init container needs beside the sidecars before it; none if
/// any has none.
fn sum(pod: &Pod, of: impl Fn(&Container) -> Option<i64>) -> Option<i64> {
    let (mut lasting, mut most) = (0i64, 0i64);
    for (role, c) in pod::containers(pod) {
        match role {
            Role::Init => most = most.max(lasting.saturating_add(of(c)?)),
            Role::Sidecar | Role::Main => lasting = lasting.saturating_add(of(c)?),
            Role::Ephemeral => {}
        }
    }
    Some(lasting.max(most))
}

/// Thousandths of a CPU, units of everything else.
fn number(resource: &str, amount: Quantity) -> i64 {
    if resource == "cpu" { amount.millis() } else { amount.units() }
}

/// The limits of the pod as a whole; none if any container has none.
pub fn sandbox(pod: &Pod, pids: Option<i64>) -> Resources {
    let limit =
        |resource: &str| sum(pod, |c| pod::amount(c, resource, true).map(|q| number(resource, q))).filter(|n| *n > 0);
    let request: i64 = pod::containers(pod)
        .filter(|(role, _)| *role != Role::Init)
        .filter_map(|(_, c)| pod::amount(c, "cpu", false).or_else(|| pod::amount(c, "cpu", true)))
        .map(|q| q.millis())
        .fold(0, i64::saturating_add);
    let cpu = limit("cpu");
    Resources {
        cpu_shares: Some(shares(request)),
        cpu_quota: cpu.map(quota),
        cpu_period: cpu.map(|_| PERIOD),
        memory: limit("memory"),
        pids,
        oom_score_adj: None,
    }
}

fn shares(millis: i64) -> u64 {
    (u64::try_from(millis).unwrap_or(0).saturating_mul(1024) / 1000).clamp(LEAST_SHARES, MOST_SHARES)
}

fn quota(millis: i64) -> i64 {
    (millis.saturating_mul(PERIOD as i64) / 1000).max(LEAST_QUOTA)
}

/// As kubelet's: the more a container asked for, the later it goes.
fn oom_score_adj(pod: &Pod, c: &Container, node_memory: u64) -> i32 {
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let asked = pod::amount(c, "memory", false).or_else(|| pod::amount(c, "memory", true));
            let asked = asked.map_or(0, |q| q.units().max(0));
            let share = i128::from(asked) * 1000 / i128::from(node_memory.max(1));
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": [
            {"name": "c", "resources": resources}]}}))
        .unwrap()
    }

    #[test]
    fn classes() {
        let full = json!({"cpu": "500m", "memory": "1Gi"});
        for (resources, class) in [
            (json!({}), Qos::BestEffort),
            (json!({"limits": full}), Qos::Guaranteed),
            (json!({"limits": full, "requests": {"cpu": "0.5", "memory": "1024Mi"}}), Qos::Guaranteed),
            (json!({"requests": full}), Qos::Burstable),
            (json!({"limits": {"cpu": "1"}}), Qos::Burstable),
        ] {
            let pod = pod(resources);
            assert_eq!(qos(&pod), class);
            assert_eq!(cgroup(&pod), "podu");
        }
    }

    #[test]
    fn values() {
        let pod =
            pod(json!({"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}}));
        let c = &pod::spec(&pod).containers[0];
        let r = container(&pod, c, 1 << 30, Some(100));
        assert_eq!((r.cpu_shares, r.cpu_quota, r.cpu_period), (Some(256), Some(150_000), Some(100_000)));
        assert_eq!((r.memory, r.pids, r.oom_score_adj), (Some(64 << 20), Some(100), Some(969)));
        assert_eq!(sandbox(&pod, None).memory, Some(64 << 20));
    }
}
