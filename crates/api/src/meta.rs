//! What holds for the metadata of every object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::Value;

use crate::{
    faults::{Cause, Faults, Path},
    names::{self, Rule},
};

/// How many bytes all annotations of an object may have.
const ANNOTATIONS: usize = 256 * 1024;
/// Finalizers that need no prefix.
const FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// Refuses metadata that may not stand; a name must be there, or a beginning to make one from.
pub fn validate(metadata: &ObjectMeta, rule: Rule, at: &Path, bad: &mut Faults) {
    match (metadata.name.as_deref(), metadata.generate_name.as_deref()) {
        (Some(name), _) if !name.is_empty() => bad.ruled(at.field("name"), name, rule),
        (_, Some(beginning)) if !beginning.is_empty() => {
            bad.ruled(at.field("generateName"), beginning.trim_end_matches('-'), rule);
        }
        _ => bad.required(at.field("name"), "must be given, or generateName"),
    }
    if let Some(namespace) = metadata.namespace.as_deref().filter(|n| !n.is_empty()) {
        bad.ruled(at.field("namespace"), namespace, names::label);
    }
    validate_labels(metadata, at, bad);
    if metadata.generation.is_some_and(|g| g < 0) {
        bad.push(at.field("generation"), Cause::Invalid, "must not be negative");
    }
    let mut controllers = 0;
    for (index, owner) in metadata.owner_references.iter().flatten().enumerate() {
        let at = at.field("ownerReferences").index(index);
        let fields =
            [("apiVersion", &owner.api_version), ("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)];
        for (field, _) in fields.iter().filter(|(_, value)| value.is_empty()) {
            bad.required(at.field(field), "must be given");
        }
        if (&*owner.api_version, &*owner.kind) == ("v1", "Event") {
            bad.push(at, Cause::Invalid, "an Event owns nothing: it goes by itself");
        }
        controllers += usize::from(owner.controller == Some(true));
    }
    bad.unless(controllers <= 1, at.field("ownerReferences"), "only one owner may be the controller");
    for (index, finalizer) in metadata.finalizers.iter().flatten().enumerate() {
        let at = at.field("finalizers").index(index);
        bad.named(at.clone(), finalizer, names::qualified);
        if !finalizer.contains('/') && !FINALIZERS.contains(&&**finalizer) {
            bad.push(
                at,
                Cause::Invalid,
                format!("{finalizer:.80?} must have a prefix, as in example.com/{finalizer:.80}"),
            );
        }
    }
}

/// Refuses labels and annotations that may not stand.
pub fn validate_labels(metadata: &ObjectMeta, at: &Path, bad: &mut Faults) {
    labels(metadata.labels.iter().flatten(), &at.field("labels"), bad);
    let mut size = 0;
    for (key, value) in metadata.annotations.iter().flatten() {
        // Upstream takes annotations' keys in any case.
        bad.ruled(at.field("annotations"), &key.to_lowercase(), names::qualified);
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS {
        let message = format!("all annotations together have {size} bytes; at most {ANNOTATIONS} are allowed");
        bad.push(at.field("annotations"), Cause::Invalid, message);
    }
}

/// Refuses labels that may not stand.
pub fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>, at: &Path, bad: &mut Faults) {
    for (key, value) in labels {
        bad.ruled(at.clone(), key, names::qualified);
        bad.ruled(at.key(key), value, names::label_value);
    }
}

/// Refuses a label selector that may not stand.
pub fn selector(selector: &LabelSelector, at: &Path, bad: &mut Faults) {
    labels(selector.match_labels.iter().flatten(), &at.field("matchLabels"), bad);
    for (index, term) in selector.match_expressions.iter().flatten().enumerate() {
        let at = at.field("matchExpressions").index(index);
        bad.named(at.field("key"), &term.key, names::qualified);
        bad.one_of(at.field("operator"), Some(&term.operator), &["In", "NotIn", "Exists", "DoesNotExist"]);
        let values = term.values.as_deref().unwrap_or_default();
        match (&*term.operator, values.is_empty()) {
            ("In" | "NotIn", true) => bad.required(at.field("values"), "must be given with In and NotIn"),
            ("Exists" | "DoesNotExist", false) => {
                bad.forbidden(at.field("values"), "must not be given with Exists and DoesNotExist");
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            bad.ruled(at.field("values").index(index), value, names::label_value);
        }
    }
}

/// Refuses changes to what identifies an object.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, bad: &mut Faults) {
    let at = Path::root().field("metadata");
    let same = [
        ("name", new.name == old.name),
        ("namespace", new.namespace.is_none() || new.namespace == old.namespace),
        ("uid", new.uid.is_none() || new.uid == old.uid),
        ("creationTimestamp", new.creation_timestamp.is_none() || new.creation_timestamp == old.creation_timestamp),
    ];
    for (field, _) in same.iter().filter(|(_, same)| !same) {
        immutable(at.field(field), bad);
    }
}

/// Notes that a field may not change.
pub fn immutable(path: Path, bad: &mut Faults) {
    bad.push(path, Cause::Invalid, "may not change: delete the object and create it anew");
}

/// Whether a value says nothing: null, empty, zero or false, or made of such alone.
pub fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_blank),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(metadata: Value) -> Vec<String> {
        let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
        let mut bad = Faults::default();
        validate(&metadata, names::subdomain, &Path::root().field("metadata"), &mut bad);
        bad.0.iter().map(|f| f.path.to_string()).collect()
    }

    #[test]
    fn bad_metadata_is_refused_where_it_stands() {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u", "controller": true});
        for (metadata, path) in [
            (json!({}), "metadata.name"),
            (json!({"name": "a/b"}), "metadata.name"),
            (json!({"name": ".."}), "metadata.name"),
            (json!({"name": "a".repeat(64 * 1024)}), "metadata.name"),
            (json!({"generateName": "A-"}), "metadata.generateName"),
            (json!({"name": "a", "namespace": "a.b"}), "metadata.namespace"),
            (json!({"name": "a", "labels": {"-": "a"}}), "metadata.labels"),
            (json!({"name": "a", "labels": {"a": "b c"}}), "metadata.labels[a]"),
            (json!({"name": "a", "annotations": {"a b": ""}}), "metadata.annotations"),
            (json!({"name": "a", "annotations": {"a": "x".repeat(ANNOTATIONS)}}), "metadata.annotations"),
            (json!({"name": "a", "finalizers": ["mine"]}), "metadata.finalizers[0]"),
            (json!({"name": "a", "ownerReferences": [owner, owner]}), "metadata.ownerReferences"),
            (
                json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a"}]}),
                "metadata.ownerReferences[0].uid",
            ),
            (
                json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "a", "uid": "u"}]}),
                "metadata.ownerReferences[0]",
            ),
        ] {
            assert_eq!(faults(metadata.clone()), [path], "{metadata:.200}");
        }
        assert_eq!(
            faults(json!({"generateName": "a-", "finalizers": ["a.b/c", "orphan"], "annotations": {"A/b": "c"}})),
            Vec::<String>::new()
        );
    }
}
