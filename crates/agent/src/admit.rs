//! Whether the node has room for a pod that it was given, in the kubelet's words. The scheduler has asked already, but
//! not for a pod that names its node, and two decisions may cross.

use k8s_openapi::api::core::v1::Pod;

use crate::{config::Capacity, observe::Failure, resources};

/// What a pod takes of its node: thousandths of a CPU, bytes of memory, bytes of disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand([i64; 3]);

const RESOURCES: [(&str, &str); 3] =
    [("cpu", "OutOfcpu"), ("memory", "OutOfmemory"), ("ephemeral-storage", "OutOfephemeral-storage")];

impl Demand {
    /// What a pod requests.
    pub fn of(pod: &Pod) -> Self {
        Self(RESOURCES.map(|(name, _)| resources::requested(pod, name)))
    }

    /// Whether it requests nothing that could be short.
    pub fn is_none(&self) -> bool {
        self.0 == [0; 3]
    }
}

/// Why there is no room for a pod beside those that are here; `None` if there is.
pub fn refusal(want: Demand, capacity: Capacity, here: impl Iterator<Item = Demand>) -> Option<Failure> {
    let (mut pods, mut used) = (0, [0i64; 3]);
    for Demand(amounts) in here {
        pods += 1;
        used = std::array::from_fn(|i| used[i].saturating_add(amounts[i]));
    }
    let short = |reason, name: &str, want: i64, used: i64, have: i64| Failure {
        reason,
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {name}, requested: {want}, used: {used}, capacity: {have}"
        ),
    };
    if pods >= i64::from(capacity.pods) {
        return Some(short("OutOfpods", "pods", 1, pods, capacity.pods.into()));
    }
    let have = [
        capacity.cpu_millis.saturating_sub(capacity.reserved_cpu_millis),
        capacity.memory.saturating_sub(capacity.reserved_memory),
        capacity.storage,
    ];
    let have = have.map(|amount| i64::try_from(amount).unwrap_or(i64::MAX));
    // What is not asked for does not matter, even where more is taken than there is.
    let lacks = |i: &usize| want.0[*i] > 0 && want.0[*i] > have[*i].saturating_sub(used[*i]);
    (0..RESOURCES.len()).find(lacks).map(|i| short(RESOURCES[i].1, RESOURCES[i].0, want.0[i], used[i], have[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Capacity =
        Capacity { cpu_millis: 2000, memory: 100, storage: 50, pods: 3, reserved_cpu_millis: 500, reserved_memory: 0 };

    fn reason(want: [i64; 3], here: &[[i64; 3]]) -> Option<&'static str> {
        refusal(Demand(want), NODE, here.iter().copied().map(Demand)).map(|f| f.reason)
    }

    #[test]
    fn what_is_short_is_named_first() {
        assert_eq!(reason([1500, 100, 50], &[]), None);
        assert_eq!(reason([1501, 101, 51], &[]), Some("OutOfcpu"));
        assert_eq!(reason([1, 1, 1], &[[1000, 60, 0], [499, 40, 0]]), Some("OutOfmemory"));
        assert_eq!(reason([0, 0, 51], &[]), Some("OutOfephemeral-storage"));
        assert_eq!(reason([0, 0, 0], &[[9000, 900, 900]; 2]), None, "nothing is asked for");
        assert_eq!(reason([0, 0, 0], &[[0; 3]; 3]), Some("OutOfpods"));
    }

    #[test]
    fn the_message_counts() {
        let refused = refusal(Demand([900, 0, 0]), NODE, [Demand([1000, 0, 0])].into_iter()).unwrap();
        assert!(refused.message.ends_with("cpu, requested: 900, used: 1000, capacity: 1500"), "{}", refused.message);
    }
}
