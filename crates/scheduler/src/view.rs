//! What the scheduler knows of the cluster: nodes, and what the pods bound to them take.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PreferredSchedulingTerm, Taint, Toleration};

/// Amounts of what a node has to give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub storage: i64,
    /// Pods.
    pub pods: i64,
    /// Anything else, by its name.
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    /// Adds (or with `sign` -1 takes away). An amount counts as 2^47 at most, which no node has, so that the sums of
    /// 65,536 pods cannot overflow, whatever these ask for.
    pub fn add(&mut self, more: &Self, sign: i64) {
        const MOST: i64 = 1 << 47;
        let add = |here: &mut i64, amount: i64| *here = here.saturating_add(sign * amount.clamp(-MOST, MOST));
        add(&mut self.cpu, more.cpu);
        add(&mut self.memory, more.memory);
        add(&mut self.storage, more.storage);
        add(&mut self.pods, more.pods);
        for (name, amount) in &more.other {
            add(self.other.entry(name.clone()).or_default(), *amount);
        }
    }

    /// The larger of each.
    pub fn max(mut self, other: &Self) -> Self {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.storage = self.storage.max(other.storage);
        self.pods = self.pods.max(other.pods);
        for (name, amount) in &other.other {
            let here = self.other.entry(name.clone()).or_default();
            *here = (*here).max(*amount);
        }
        self
    }
}

/// A port of the node that a pod wants for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The address; `0.0.0.0` is all of them.
    pub address: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        let all = |address: &str| matches!(address, "0.0.0.0" | "::" | "");
        (self.port, &self.protocol) == (other.port, &other.protocol)
            && (self.address == other.address || all(&self.address) || all(&other.address))
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What keeps pods away.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// Its `Ready` condition is true.
    pub ready: bool,
    /// What pods may take in all.
    pub allocatable: Resources,
}

/// What a pod takes from its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// What it requests; `pods` is 1.
    pub requests: Resources,
    /// Ports of the node.
    pub ports: Vec<HostPort>,
}

/// What a pod asks of its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// What it takes.
    pub demand: Demand,
    /// Labels that the node must have.
    pub selector: BTreeMap<String, String>,
    /// Terms of which the node must match one, if there are any.
    pub required: Option<Vec<NodeSelectorTerm>>,
    /// Terms that make a node better.
    pub preferred: Vec<PreferredSchedulingTerm>,
    /// Taints that do not matter.
    pub tolerations: Vec<Toleration>,
}

/// What the pods on a node take together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    pub taken: Resources,
    pub ports: Vec<HostPort>,
}

/// The cluster.
#[derive(Clone, Debug, Default)]
pub struct View {
    nodes: BTreeMap<String, Node>,
    /// By node, whether that exists or not.
    usage: HashMap<String, Usage>,
    /// Where each pod is and what it takes, by its uid.
    placed: HashMap<String, (String, Demand)>,
}

/// What a node that holds no pods has taken.
static EMPTY: Usage =
    Usage { taken: Resources { cpu: 0, memory: 0, storage: 0, pods: 0, other: BTreeMap::new() }, ports: Vec::new() };

impl View {
    /// Notes a node; tells whether anything changed.
    pub fn set_node(&mut self, name: &str, node: Node) -> bool {
        if self.nodes.get(name) == Some(&node) {
            return false;
        }
        self.nodes.insert(name.to_owned(), node);
        true
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Forgets nodes that are not wanted.
    pub fn retain_nodes(&mut self, keep: impl Fn(&str) -> bool) {
        self.nodes.retain(|name, _| keep(name));
    }

    /// Notes that a pod is on a node, wherever it was before.
    pub fn place(&mut self, uid: &str, node: &str, demand: Demand) {
        if self.placed.get(uid).is_some_and(|(on, what)| on == node && *what == demand) {
            return;
        }
        self.remove(uid);
        let usage = self.usage.entry(node.to_owned()).or_default();
        usage.taken.add(&demand.requests, 1);
        usage.ports.extend(demand.ports.iter().cloned());
        self.placed.insert(uid.to_owned(), (node.to_owned(), demand));
    }

    /// Notes that a pod takes nothing any more; tells whether it did.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some((node, demand)) = self.placed.remove(uid) else { return false };
        if let Some(usage) = self.usage.get_mut(&node) {
            usage.taken.add(&demand.requests, -1);
            for port in &demand.ports {
                if let Some(at) = usage.ports.iter().position(|p| p == port) {
                    usage.ports.swap_remove(at);
                }
            }
            if usage.taken.pods <= 0 {
                self.usage.remove(&node);
            }
        }
        true
    }

    /// The uids of the pods that take something.
    pub fn placed(&self) -> impl Iterator<Item = &str> {
        self.placed.keys().map(String::as_str)
    }

    /// Nodes in the order of their names, and what is taken of each.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, &Node, &Usage)> {
        self.nodes.iter().map(|(name, node)| (name.as_str(), node, self.usage.get(name).unwrap_or(&EMPTY)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_overflows_and_what_goes_leaves_nothing() {
        let most = Resources { memory: i64::MAX, other: [("gpu".to_owned(), i64::MAX)].into(), ..Resources::default() };
        let mut view = View::default();
        let demand = |pods| Demand { requests: Resources { pods, ..most.clone() }, ports: Vec::new() };
        for uid in ["a", "b", "c"] {
            view.place(uid, "node", demand(1));
        }
        view.set_node("node", Node::default());
        let taken = |view: &View| view.nodes().next().map(|(_, _, usage)| usage.taken.clone()).unwrap();
        assert!(taken(&view).memory > 1 << 48);
        for uid in ["a", "b", "c"] {
            view.remove(uid);
        }
        assert_eq!(taken(&view), Resources::default());
    }
}
