//! Which nodes a pod can run on. The checks, their order and their words are those of the Kubernetes scheduler.

use std::{collections::BTreeMap, fmt};

use api::{
    selector::{Operator, Requirement},
    taints::tolerates,
};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

use crate::view::{Node, Usage, Wish};

/// The taint that a node without a true `Ready` condition counts as having.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint that a cordoned node counts as having, for tolerations.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Why a pod cannot run on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is cordoned.
    Unschedulable,
    /// It has a taint, of this key and value, that the pod does not tolerate.
    Taint(String, String),
    /// It does not match `nodeSelector` or the required node affinity.
    Affinity,
    /// A host port is taken.
    Ports,
    /// It runs as many pods as it may.
    Pods,
    /// There is not enough of this resource.
    Insufficient(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::Taint(key, value) => write!(f, "node(s) had untolerated taint {{{key}: {value}}}"),
            Self::Affinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::Ports => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Self::Pods => f.write_str("Too many pods"),
            Self::Insufficient(what) => write!(f, "Insufficient {what}"),
        }
    }
}

/// Why the pod cannot run on the node: the reasons of the first check that fails, none if it can.
pub fn unfit(wish: &Wish, name: &str, node: &Node, usage: &Usage) -> Vec<Reason> {
    let taint = |key: &str| Taint { key: key.into(), effect: "NoSchedule".into(), ..Taint::default() };
    if node.unschedulable && !tolerated(&taint(UNSCHEDULABLE), &wish.tolerations) {
        return vec![Reason::Unschedulable];
    }
    let not_ready = (!node.ready).then(|| taint(NOT_READY));
    let repels =
        |t: &&Taint| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerated(t, &wish.tolerations);
    if let Some(taint) = node.taints.iter().chain(&not_ready).find(repels) {
        return vec![Reason::Taint(taint.key.clone(), taint.value.clone().unwrap_or_default())];
    }
    if !affine(wish, name, &node.labels) {
        return vec![Reason::Affinity];
    }
    if wish.demand.ports.iter().any(|want| usage.ports.iter().any(|taken| taken.conflicts(want))) {
        return vec![Reason::Ports];
    }
    lacking(wish, node, usage)
}

/// Whether one of these covers the taint.
pub fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn affine(wish: &Wish, name: &str, labels: &BTreeMap<String, String>) -> bool {
    wish.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        && wish.required.as_ref().is_none_or(|terms| terms.iter().any(|term| matches(term, name, labels)))
}

/// Whether a node matches all of a term; an empty term matches none.
pub fn matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|e| holds(e, labels.get(&e.key).map(String::as_str)))
        && fields.iter().all(|f| f.key == "metadata.name" && holds(f, Some(name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.clone().unwrap_or_default();
    let bound = values.first().and_then(|v| number(v));
    let operator = match (requirement.operator.as_str(), bound) {
        ("In", _) => Operator::In(values),
        ("NotIn", _) => Operator::NotIn(values),
        ("Exists", _) => Operator::Exists,
        ("DoesNotExist", _) => Operator::DoesNotExist,
        ("Gt", Some(bound)) => Operator::Gt(bound),
        ("Lt", Some(bound)) => Operator::Lt(bound),
        _ => return false,
    };
    Requirement { key: String::new(), operator }.holds(value)
}

fn lacking(wish: &Wish, node: &Node, usage: &Usage) -> Vec<Reason> {
    let (want, have, taken) = (&wish.demand.requests, &node.allocatable, &usage.taken);
    let mut reasons = Vec::new();
    if taken.pods.saturating_add(want.pods) > have.pods {
        reasons.push(Reason::Pods);
    }
    let mut check = |name: &str, want: i64, have: i64, taken: i64| {
        // What is not asked for does not matter, even where more is taken than there is.
        if want > 0 && want > have.saturating_sub(taken) {
            reasons.push(Reason::Insufficient(name.to_owned()));
        }
    };
    check("cpu", want.cpu, have.cpu, taken.cpu);
    check("memory", want.memory, have.memory, taken.memory);
    check("ephemeral-storage", want.storage, have.storage, taken.storage);
    for (name, amount) in &want.other {
        let of = |map: &BTreeMap<String, i64>| map.get(name).copied().unwrap_or_default();
        check(name, *amount, of(&have.other), of(&taken.other));
    }
    reasons
}
