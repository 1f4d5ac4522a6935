//! Strategies written against the typed structs of `k8s-openapi`, lifted to JSON values.

use k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use serde_path_to_error::Segment;

use crate::{
    faults::{Cause, Faults, Path},
    meta,
    names::{self, Rule},
    registry::{Kind, Scope, Strategy, Verb},
    support,
};

/// What a kind rules about its objects, in its own type. Each rule starts out as "anything goes".
pub trait Typed: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize + JsonSchema + 'static {
    /// What names look like; `None` for objects without a name.
    const NAME: Option<Rule> = Some(names::subdomain);

    /// Fills in what was left out.
    fn default(&mut self) {}
    /// Refuses what may not stand.
    fn validate(&self, _bad: &mut Faults) {}
    /// Refuses what may not change. The new object passed [`Typed::validate`] on its own.
    fn validate_update(&self, _old: &Self, _bad: &mut Faults) {}
}

/// Decodes an object, or says where its form is wrong.
pub fn decode<T: DeserializeOwned>(object: &Value) -> Result<T, Faults> {
    // The first try pays nothing for paths; only a refusal walks again to find out where.
    T::deserialize(object).or_else(|_| serde_path_to_error::deserialize(object)).map_err(|error| {
        let path = path(error.path());
        let mut faults = Faults::default();
        faults.push(path, Cause::Invalid, in_plain_words(&error.into_inner().to_string()));
        faults
    })
}

/// serde's "invalid type: integer `5`, expected a string", said to a person.
fn in_plain_words(why: &str) -> String {
    let Some((found, wanted)) = why.strip_prefix("invalid type: ").and_then(|w| w.split_once(", expected ")) else {
        return why.to_owned();
    };
    let wanted = match wanted {
        "i32" | "i64" => "an integer",
        "a sequence" => "a list",
        other => other,
    };
    let hint = if wanted == "a string" { "; put it in quotes" } else { "" };
    format!("must be {wanted}, not {found}{hint}")
}

/// Encodes an object: Kubernetes' own form in JSON.
pub fn encode<T: Serialize>(object: &T) -> Value {
    // The types of k8s-openapi have string keys and no fallible serializer: this cannot fail.
    serde_json::to_value(object).unwrap_or_default()
}

fn path(path: &serde_path_to_error::Path) -> Path {
    path.iter().fold(Path::root(), |at, segment| match segment {
        Segment::Seq { index } => at.index(*index),
        Segment::Map { key } | Segment::Enum { variant: key } => {
            if key.contains(['.', '/']) {
                at.key(key)
            } else {
                at.field(key)
            }
        }
        Segment::Unknown => at,
    })
}

impl Kind {
    /// A plain stored kind of this type: all verbs, no subresource, the columns Name and Age. A kind's file
    /// overrides what differs.
    pub fn of<T: Typed>(plural: &'static str, scope: Scope) -> Self {
        Self {
            group: T::GROUP.into(),
            version: T::VERSION.into(),
            kind: T::KIND.into(),
            plural: plural.into(),
            singular: T::KIND.to_lowercase().into(),
            short: &[],
            categories: &[],
            scope,
            verbs: Verb::ALL,
            subresources: &[],
            columns: crate::columns::PLAIN,
            stored: true,
            view: None,
            returns_deleted: false,
            definition: T::schema_name(),
            schema: |generator| {
                generator.subschema_for::<T>();
            },
            strategy: Strategy::of::<T>(),
        }
    }

    /// A question that is answered in the response to its create and kept nowhere.
    pub fn review<T: Typed>(plural: &'static str, scope: Scope) -> Self {
        Self { verbs: &[Verb::Create], stored: false, ..Self::of::<T>(plural, scope) }
    }
}

impl Strategy {
    /// The rules of a type without status.
    pub fn of<T: Typed>() -> Self {
        Self {
            decode: |object| decode::<T>(object).map(|typed| encode(&typed)),
            default: |object| {
                if let Ok(mut typed) = decode::<T>(object) {
                    typed.default();
                    *object = encode(&typed);
                }
            },
            validate: |object, bad| match decode::<T>(object) {
                Ok(typed) => {
                    if let Some(rule) = T::NAME {
                        meta::validate(typed.metadata(), rule, &Path::root().field("metadata"), bad);
                    }
                    typed.validate(bad);
                    support::check(&T::schema_name(), object, bad);
                }
                Err(faults) => bad.0.extend(faults.0),
            },
            validate_update: |new, old, bad| match (decode::<T>(new), decode::<T>(old)) {
                (Ok(new), Ok(old)) => {
                    meta::validate_update(new.metadata(), old.metadata(), bad);
                    new.validate_update(&old, bad);
                }
                (new, old) => [new.err(), old.err()].into_iter().flatten().for_each(|f| bad.0.extend(f.0)),
            },
            before_create: |_| {},
            before_update: |_, _| {},
            before_status: |new, old| *new = old.clone(),
            fields: |_| Vec::new(),
            grace: |_, _| 0,
        }
    }

    /// The same for a type whose `spec` its users write and whose `status` the system writes.
    pub fn with_status(self) -> Self {
        Self {
            before_create: |new| {
                new["status"] = json!({});
                new["metadata"]["generation"] = json!(1);
            },
            before_update: |new, old| {
                keep(new, old, "status");
                count_generation(new, old, new["spec"] != old["spec"]);
            },
            before_status,
            ..self
        }
    }
}

/// Gives a field its old value back.
pub(crate) fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(object) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => object.insert(field.to_owned(), value.clone()),
        None => object.remove(field),
    };
}

/// Sets `metadata.generation`: one more than before if something asked for has changed.
pub(crate) fn count_generation(new: &mut Value, old: &Value, changed: bool) {
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + i64::from(changed);
    if generation > 0 {
        new["metadata"]["generation"] = json!(generation);
    }
}

/// Only the status is new, the annotations that go with it, and what the server itself keeps about the write.
/// Labels stay: they grant rights (a namespace's) and say who owns what.
fn before_status(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    keep(&mut kept, new, "status");
    for own in ["annotations", "resourceVersion", "managedFields"] {
        keep(&mut kept["metadata"], &new["metadata"], own);
    }
    *new = kept;
}
