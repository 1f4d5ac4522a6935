//! A namespace that ends: its pods go first, for they may need what else is there; what is left is told meanwhile.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::{Wire, rfc3339};

/// What is left of a kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Left {
    /// The plural with its group.
    pub kind: String,
    /// How many objects.
    pub count: usize,
    /// What holds how many of those that were looked at.
    pub finalizers: BTreeMap<String, usize>,
}

impl Left {
    /// Of a list, and of how many objects come after it.
    pub fn of(kind: &str, found: &[Wire], more: usize) -> Self {
        let mut left = Self { kind: kind.to_owned(), count: found.len() + more, ..Self::default() };
        for finalizer in found.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
            *left.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        left
    }
}

/// The patch that tells it in the namespace's status; `None` when that is told already.
pub fn told(namespace: &Value, left: &[Left], failure: Option<&str>, now: Timestamp) -> Option<Value> {
    let mut held = BTreeMap::<&str, usize>::new();
    for (finalizer, count) in left.iter().flat_map(|left| &left.finalizers) {
        *held.entry(finalizer).or_default() += count;
    }
    let listed = |all: Vec<String>| (!all.is_empty()).then(|| all.join(", "));
    let remaining = listed(left.iter().map(|left| format!("{} {}", left.count, left.kind)).collect());
    let held = listed(held.iter().map(|(finalizer, count)| format!("{finalizer} holds {count}")).collect());
    let own = [
        ("NamespaceDeletionDiscoveryFailure", None, "DiscoveryFailed", "ResourcesDiscovered"),
        ("NamespaceDeletionGroupVersionParsingFailure", None, "GroupVersionParsingFailed", "ParsedGroupVersions"),
        ("NamespaceDeletionContentFailure", failure.map(str::to_owned), "ContentDeletionFailed", "ContentDeleted"),
        ("NamespaceContentRemaining", remaining, "SomeResourcesRemain", "ContentRemoved"),
        ("NamespaceFinalizersRemaining", held, "SomeFinalizersRemain", "ContentHasNoFinalizers"),
    ];
    let before = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let own = own.map(|(name, message, bad, good)| {
        let (status, reason) = if message.is_some() { ("True", bad) } else { ("False", good) };
        let known = before.iter().find(|condition| condition["type"] == name && condition["status"] == status);
        let since = known.map_or_else(|| json!(rfc3339(now)), |condition| condition["lastTransitionTime"].clone());
        let mut condition = json!({"type": name, "status": status, "reason": reason, "lastTransitionTime": since});
        if let Some(message) = message {
            condition["message"] = message.into();
        }
        condition
    });
    let theirs = before.iter().filter(|condition| own.iter().all(|ours| ours["type"] != condition["type"]));
    let after: Vec<&Value> = theirs.chain(&own).collect();
    (before.iter().collect::<Vec<_>>() != after).then(|| json!({"status": {"conditions": after}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn left(finalizers: &[&str]) -> Left {
        let wire = json!({"metadata": {"name": "a", "finalizers": finalizers}});
        Left::of("pods", &[serde_json::from_value(wire).unwrap()], 2)
    }

    #[test]
    fn what_is_left_and_what_holds_it_is_told_once() {
        let mut namespace = json!({"status": {"conditions": [{"type": "Theirs", "status": "True"}]}});
        let patch = told(&namespace, &[left(&["a.b/c"])], None, NOW).unwrap();
        let all = patch["status"]["conditions"].as_array().unwrap();
        let short = |c: &Value| format!("{} {} {}", c["type"], c["status"], c["message"]).replace('"', "");
        assert_eq!(
            all.iter().map(short).collect::<Vec<_>>(),
            [
                "Theirs True null",
                "NamespaceDeletionDiscoveryFailure False null",
                "NamespaceDeletionGroupVersionParsingFailure False null",
                "NamespaceDeletionContentFailure False null",
                "NamespaceContentRemaining True 3 pods",
                "NamespaceFinalizersRemaining True a.b/c holds 1",
            ]
        );
        namespace["status"] = patch["status"].clone();
        let later = NOW + jiff::SignedDuration::from_secs(60);
        assert_eq!(told(&namespace, &[left(&["a.b/c"])], None, later), None);

        let patch = told(&namespace, &[left(&[])], Some("refused"), later).unwrap();
        let all = patch["status"]["conditions"].as_array().unwrap();
        assert_eq!((&all[3]["message"], &all[3]["lastTransitionTime"]), (&json!("refused"), &json!(rfc3339(later))));
        assert_eq!(all[4]["lastTransitionTime"], rfc3339(NOW));
        assert_eq!((&all[5]["status"], &all[5]["lastTransitionTime"]), (&json!("False"), &json!(rfc3339(later))));
    }
}
