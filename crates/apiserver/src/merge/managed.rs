//! Who set which field: `metadata.managedFields`.

use api::{Kind, Subresource};
use serde_json::{Value, json};

use super::{fields::Fields, place::Place};

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Update,
    Apply,
}

/// Who writes, how, when.
#[derive(Clone)]
pub(crate) struct Writer<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) manager: &'a str,
    pub(crate) subresource: &'a str,
    /// RFC 3339.
    pub(crate) now: &'a str,
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    pub(crate) operation: Operation,
    pub(crate) subresource: String,
    pub(crate) api_version: String,
    pub(crate) time: String,
    pub(crate) fields: Fields,
}

/// All of `managedFields`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Managed(pub(crate) Vec<Entry>);

/// Fields that belong to the server, not to a manager.
const SYSTEM: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "deletionGracePeriodSeconds"],
    &["metadata", "uid"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
    &["metadata", "selfLink"],
];

/// Forgets what no manager can own, and the status, where it has its own address, of those who did not write there.
pub(crate) fn without_system(mut fields: Fields, writer: &Writer<'_>) -> Fields {
    SYSTEM.iter().for_each(|path| fields.forget(path));
    if writer.subresource.is_empty() && writer.kind.subresources.contains(&Subresource::Status) {
        fields.forget(&["status"]);
    }
    fields
}

impl Managed {
    /// Those of an object.
    pub(crate) fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
        let text = |e: &Value, field: &str| e[field].as_str().unwrap_or_default().to_owned();
        let entry = |e: &Value| Entry {
            manager: text(e, "manager"),
            operation: if e["operation"] == "Apply" { Operation::Apply } else { Operation::Update },
            subresource: text(e, "subresource"),
            api_version: text(e, "apiVersion"),
            time: text(e, "time"),
            fields: Fields::parse(&e["fieldsV1"]),
        };
        Self(entries.map(entry).filter(|e| !e.fields.is_empty()).collect())
    }

    /// Writes them into an object.
    pub(crate) fn write(&self, object: &mut Value) {
        let entry = |e: &Entry| {
            let mut value = json!({
                "manager": e.manager,
                "operation": if e.operation == Operation::Apply { "Apply" } else { "Update" },
                "apiVersion": e.api_version,
                "time": e.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": e.fields.to_value(),
            });
            if !e.subresource.is_empty() {
                value["subresource"] = json!(e.subresource);
            }
            value
        };
        let Some(metadata) = object["metadata"].as_object_mut() else { return };
        if self.0.is_empty() {
            metadata.shift_remove("managedFields");
        } else {
            metadata.insert("managedFields".into(), self.0.iter().map(entry).collect());
        }
    }

    /// The entry of a writer, made when absent.
    pub(crate) fn entry(&mut self, writer: &Writer<'_>, operation: Operation) -> &mut Entry {
        let mine =
            |e: &Entry| e.manager == writer.manager && e.operation == operation && e.subresource == writer.subresource;
        let at = self.0.iter().position(mine).unwrap_or_else(|| {
            self.0.push(Entry {
                manager: writer.manager.to_owned(),
                operation,
                subresource: writer.subresource.to_owned(),
                api_version: String::new(),
                time: String::new(),
                fields: Fields::default(),
            });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// Someone wrote `new` over `old` (null on create) without applying: what changed is the writer's now.
    pub(crate) fn updated(&mut self, old: &Value, new: &Value, writer: &Writer<'_>) {
        let mut at = Place::root(writer.kind);
        let changed = without_system(Fields::changed(new, Some(old), &mut at), writer);
        let removed = Fields::of(old, &mut at).minus(&Fields::of(new, &mut at));
        for entry in &mut self.0 {
            let own = entry.manager == writer.manager
                && entry.operation == Operation::Update
                && entry.subresource == writer.subresource;
            entry.fields = entry.fields.minus(&removed);
            if !own {
                entry.fields = entry.fields.minus(&changed);
            }
        }
        if !changed.is_empty() {
            let entry = self.entry(writer, Operation::Update);
            entry.fields.unite(&changed);
            entry.time = writer.now.to_owned();
            entry.api_version = writer.kind.api_version();
        }
        self.0.retain(|e| !e.fields.is_empty());
    }
}
