//! Pods that wait for a node.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;

use crate::{view::Wish, wire::Pod};

/// A pod without a node.
#[derive(Clone, Debug)]
pub struct Pending {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub wish: Wish,
    /// What its `PodScheduled` condition says, if that is false, and since when.
    pub told: Option<(String, Option<Timestamp>)>,
}

impl Pending {
    /// From a pod of ours that has no node yet.
    pub fn of(pod: &Pod) -> Option<Self> {
        let told = pod.status.conditions.iter().find(|c| c.kind == "PodScheduled" && c.status == "False");
        Some(Self {
            uid: pod.metadata.uid.clone()?,
            namespace: pod.metadata.namespace.clone()?,
            name: pod.metadata.name.clone()?,
            wish: pod.wish(),
            told: told.map(|c| (c.message.clone().unwrap_or_default(), c.last_transition_time)),
        })
    }
}

/// The order of service: higher priority first, then who came first.
type Turn = (std::cmp::Reverse<i32>, u64);

/// Pods in their turn; those that fit nowhere step aside until the cluster changes.
#[derive(Default)]
pub struct Queue {
    pods: BTreeMap<Turn, Pending>,
    turns: HashMap<String, Turn>,
    aside: HashSet<Turn>,
    /// Turns of pods that may be tried.
    due: std::collections::BTreeSet<Turn>,
    arrivals: u64,
}

impl Queue {
    /// Adds a pod, or renews what it asks for.
    pub fn add(&mut self, priority: i32, pod: Pending) {
        let turn = match self.turns.get(&pod.uid) {
            Some(turn) => {
                // Our own report of why it fits nowhere comes back as a change; that is no reason to try again.
                if self.pods.get(turn).is_some_and(|known| known.wish == pod.wish) {
                    self.pods.insert(*turn, pod);
                    return;
                }
                *turn
            }
            None => {
                self.arrivals += 1;
                (std::cmp::Reverse(priority), self.arrivals)
            }
        };
        self.turns.insert(pod.uid.clone(), turn);
        self.pods.insert(turn, pod);
        self.aside.remove(&turn);
        self.due.insert(turn);
    }

    /// Whether the pod waits here.
    pub fn contains(&self, uid: &str) -> bool {
        self.turns.contains_key(uid)
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        if let Some(turn) = self.turns.remove(uid) {
            self.pods.remove(&turn);
            self.aside.remove(&turn);
            self.due.remove(&turn);
        }
    }

    /// Takes the pod whose turn it is out of the queue.
    pub fn pop(&mut self) -> Option<(i32, Pending)> {
        let turn = self.due.pop_first()?;
        let pod = self.pods.remove(&turn)?;
        self.turns.remove(&pod.uid);
        Some((turn.0.0, pod))
    }

    /// Puts a pod that fits nowhere aside.
    pub fn put_aside(&mut self, priority: i32, pod: Pending) {
        self.add(priority, pod.clone());
        if let Some(turn) = self.turns.get(&pod.uid) {
            self.due.remove(turn);
            self.aside.insert(*turn);
        }
    }

    /// The cluster changed: everyone may try again.
    pub fn retry_all(&mut self) {
        self.due.extend(self.aside.drain());
    }

    /// The uids of all pods.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.turns.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Pending {
        let wish = Wish::default();
        Pending { uid: uid.into(), namespace: "default".into(), name: uid.into(), wish, told: None }
    }

    #[test]
    fn priority_then_arrival() {
        let mut queue = Queue::default();
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.add(priority, pod(uid));
        }
        queue.remove("c");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, p)| p.uid).collect();
        assert_eq!(order, ["b", "d", "a"]);
    }

    #[test]
    fn aside_until_the_cluster_or_the_pod_changes() {
        let mut queue = Queue::default();
        queue.put_aside(0, pod("a"));
        assert!(queue.pop().is_none());
        queue.add(0, Pending { told: Some(("0/1 nodes".into(), None)), ..pod("a") });
        assert!(queue.pop().is_none(), "our own condition is no change");
        queue.retry_all();
        assert_eq!(queue.pop().unwrap().1.told.unwrap().0, "0/1 nodes");
        queue.put_aside(0, pod("a"));
        let mut wants_less = pod("a");
        wants_less.wish.demand.requests.cpu = 1;
        queue.add(0, wants_less);
        assert!(queue.pop().is_some());
    }
}
