//! Where in a kind's type a value stands, and how what stands there is merged.

use api::{
    Kind,
    mergekeys::{Child, ListType, Shape, child},
};
use serde_json::{Map, Value, json};

/// The way from an object down to a value: its field names, without list items.
pub(crate) struct Place<'a> {
    root: &'a str,
    /// What each field on the way holds; `None` for plain and unknown ones, and for entries of maps.
    path: Vec<Step>,
}

#[derive(Clone, Copy)]
struct Step {
    holds: Option<&'static Child>,
    /// An entry of a map: it holds what the map is said to hold.
    entry: bool,
}

/// How a list or map is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The fields that together tell items apart (server-side apply).
    apply: &'static [&'static str],
    /// The field that tells items apart in a strategic merge patch.
    pub(crate) patch: Option<&'static str>,
    /// A list of scalars, merged as a set.
    pub(crate) set: bool,
    /// A map that is replaced as a whole by server-side apply.
    pub(crate) atomic: bool,
    /// A map, or a list of maps, that holds one of several alternatives (`retainKeys`).
    pub(crate) alternatives: bool,
}

impl<'a> Place<'a> {
    /// The object itself.
    pub(crate) fn root(kind: &'a Kind) -> Self {
        Self { root: &kind.definition, path: Vec::new() }
    }

    /// Runs `f` one field further down.
    pub(crate) fn within<R>(&mut self, field: &str, f: impl FnOnce(&mut Self) -> R) -> R {
        let step = match self.path.last() {
            None => Step { holds: child(self.root, field), entry: false },
            Some(Step { holds: Some(map @ Child { shape: Shape::Map, .. }), entry: false }) => {
                Step { holds: Some(map), entry: true }
            }
            Some(Step { holds, .. }) => {
                let definition = holds.and_then(|h| h.definition);
                Step { holds: definition.and_then(|d| child(d, field)), entry: false }
            }
        };
        self.path.push(step);
        let result = f(self);
        self.path.pop();
        result
    }

    /// How what stands here is merged.
    pub(crate) fn keys(&self) -> Keys {
        match self.path.last() {
            Some(Step { holds: Some(held), entry: false }) => {
                let (apply, set): (&[&str], _) = match held.shape {
                    Shape::List(ListType::Map(keys)) => (keys, false),
                    Shape::List(ListType::Set) => (&[], true),
                    _ => (&[], false),
                };
                let atomic = held.atomic && !matches!(held.shape, Shape::List(_));
                let alternatives = held.strategy.is_some_and(|s| s.split(',').any(|word| word == "retainKeys"));
                Keys { apply, patch: held.patch_key, set, atomic, alternatives }
            }
            _ => Keys::default(),
        }
    }

    /// How many fields down.
    pub(crate) fn depth(&self) -> usize {
        self.path.len()
    }
}

impl Keys {
    /// The step that leads to an item, as `FieldsV1` writes it; `None` when items have no identity. A key that
    /// the item leaves out is not in the step, except for `protocol`, which the API fills in.
    pub(crate) fn step(&self, item: &Value) -> Option<String> {
        if self.set {
            return (!item.is_object() && !item.is_array()).then(|| format!("v:{item}"));
        }
        let mut keys: Map<String, Value> = Map::new();
        for key in self.apply {
            match item.get(key) {
                Some(value) => keys.insert((*key).into(), value.clone()),
                None if *key == "protocol" => keys.insert("protocol".into(), json!("TCP")),
                None => None,
            };
        }
        keys.sort_keys();
        (!keys.is_empty()).then(|| format!("k:{}", Value::Object(keys)))
    }
}
