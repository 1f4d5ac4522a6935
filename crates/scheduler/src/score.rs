//! Which of several nodes is best: room left, balance, preferences; weights as in the Kubernetes scheduler.

use crate::{
    filter,
    view::{Node, Usage, Wish},
};

/// What a container that requests nothing is taken to use, so that such pods spread too.
const UNASKED_CPU: i64 = 100;
const UNASKED_MEMORY: i64 = 200 << 20;

/// The highest mark in one subject; fine enough that one more pod of a hundred shows.
const FULL: i64 = 1_000_000;

/// A node that fits.
pub type Candidate<'a> = (&'a str, &'a Node, &'a Usage);

/// The best node; of equally good ones the first by name.
pub fn best<'a>(wish: &Wish, candidates: &[Candidate<'a>]) -> Option<&'a str> {
    let preferred: Vec<i64> = candidates.iter().map(|c| preference(wish, c)).collect();
    let repelled: Vec<i64> = candidates.iter().map(|c| repulsion(wish, c.1)).collect();
    let most = |values: &[i64]| values.iter().copied().max().unwrap_or_default().max(1);
    let (most_preferred, most_repelled) = (most(&preferred), most(&repelled));
    let total = |i: usize| {
        let (_, node, usage) = candidates[i];
        room(wish, node, usage)
            + 2 * (FULL * preferred[i] / most_preferred)
            + 3 * (FULL - FULL * repelled[i] / most_repelled)
    };
    // `max_by_key` takes the last of equals.
    (0..candidates.len()).rev().max_by_key(|i| total(*i)).map(|i| candidates[i].0)
}

/// The weights of the preferred terms that the node matches.
fn preference(wish: &Wish, (name, node, _): &Candidate<'_>) -> i64 {
    let matched = wish.preferred.iter().filter(|p| filter::matches(&p.preference, name, &node.labels));
    matched.map(|p| i64::from(p.weight)).sum::<i64>().max(0)
}

/// How many taints would rather have the pod elsewhere.
fn repulsion(wish: &Wish, node: &Node) -> i64 {
    let repels = |t: &&_| {
        let taint: &k8s_openapi::api::core::v1::Taint = t;
        taint.effect == "PreferNoSchedule" && !filter::tolerated(taint, &wish.tolerations)
    };
    node.taints.iter().filter(repels).count() as i64
}

/// The share that stays free (of CPU, memory and pods on average), and CPU and memory being used alike: each up
/// to [`FULL`].
fn room(wish: &Wish, node: &Node, usage: &Usage) -> i64 {
    let share = |want: i64, taken: i64, have: i64| {
        let used = i128::from(FULL) * i128::from(taken.saturating_add(want)) / i128::from(have.max(1));
        used.clamp(0, FULL.into()) as i64
    };
    let asked = |want: i64, default: i64| if want > 0 { want } else { default };
    let want = &wish.demand.requests;
    let cpu = share(asked(want.cpu, UNASKED_CPU), usage.taken.cpu, node.allocatable.cpu);
    let memory = share(asked(want.memory, UNASKED_MEMORY), usage.taken.memory, node.allocatable.memory);
    // Pods that ask for nothing would all land on one node if only what is asked for counted.
    let pods = share(want.pods, usage.taken.pods, node.allocatable.pods);
    FULL - (cpu + memory + pods) / 3 + FULL - (cpu - memory).abs()
}
