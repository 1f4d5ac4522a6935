//! The decision.

use std::{collections::BTreeMap, fmt};

use crate::{
    filter::{self, Reason},
    score,
    view::{View, Wish},
};

/// Why no node takes a pod, in the words of the Kubernetes scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes have each reason. A node counts once for every resource it lacks.
    pub reasons: BTreeMap<Reason, usize>,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut counted: Vec<_> = self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        counted.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, counted.join(", "))
    }
}

/// The node for a pod, or why there is none.
pub fn choose<'a>(view: &'a View, wish: &Wish) -> Result<&'a str, Unfit> {
    let mut refusal = Unfit { nodes: 0, reasons: BTreeMap::new() };
    let mut candidates = Vec::new();
    for (name, node, usage) in view.nodes() {
        refusal.nodes += 1;
        let reasons = filter::unfit(wish, name, node, usage);
        if reasons.is_empty() {
            candidates.push((name, node, usage));
        }
        for reason in reasons {
            *refusal.reasons.entry(reason).or_default() += 1;
        }
    }
    score::best(wish, &candidates).ok_or(refusal)
}

#[cfg(test)]
mod tests;
