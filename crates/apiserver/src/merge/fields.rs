//! Sets of fields, as `managedFields` holds them (`FieldsV1`).

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::place::Place;

/// A set of fields of an object. A step is in the form of `FieldsV1`: `f:NAME` for a field, `k:{…}` for the item
/// of a list with these keys, `v:…` for an item of a list of scalars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Whether this very place is in the set.
    here: bool,
    below: BTreeMap<String, Fields>,
}

impl Fields {
    fn leaf() -> Self {
        Self { here: true, below: BTreeMap::new() }
    }

    /// All fields of a value that lead to something: leaves, and items of keyed lists.
    pub(crate) fn of(value: &Value, at: &mut Place<'_>) -> Self {
        Self::changed(value, None, at)
    }

    /// Fields of `new` that `old` does not have or has with another value.
    pub(crate) fn changed(new: &Value, old: Option<&Value>, at: &mut Place<'_>) -> Self {
        match new {
            _ if old == Some(new) => Self::default(),
            Value::Object(map) if !map.is_empty() && !at.keys().atomic => {
                let mut fields = Self::default();
                for (name, value) in map {
                    let old = old.and_then(|o| o.get(name));
                    fields.put(format!("f:{name}"), at.within(name, |at| Self::changed(value, old, at)));
                }
                fields
            }
            Value::Array(items) if !items.is_empty() => {
                let keys = at.keys();
                let old = old.and_then(Value::as_array).into_iter().flatten().rev();
                // Of several with the same keys, the first counts.
                let old: HashMap<String, &Value> = old.filter_map(|o| Some((keys.step(o)?, o))).collect();
                let mut fields = Self::default();
                for item in items {
                    let Some(step) = keys.step(item) else { return Self::leaf() };
                    let old = old.get(&step).copied();
                    let mut below = if item.is_object() { Self::changed(item, old, at) } else { Self::default() };
                    below.here = old.is_none();
                    fields.put(step, below);
                }
                fields
            }
            _ => Self::leaf(),
        }
    }

    pub(super) fn put(&mut self, step: String, fields: Fields) {
        if !fields.is_empty() {
            self.below.insert(step, fields);
        }
    }

    /// Whether nothing is in the set.
    pub(crate) fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// Adds all of `other`.
    pub(crate) fn unite(&mut self, other: &Self) {
        self.here |= other.here;
        for (step, fields) in &other.below {
            self.below.entry(step.clone()).or_default().unite(fields);
        }
    }

    /// What is in this set and not in `other`.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut rest = Self { here: self.here && !other.here, below: BTreeMap::new() };
        for (step, fields) in &self.below {
            rest.put(step.clone(), other.below.get(step).map_or_else(|| fields.clone(), |o| fields.minus(o)));
        }
        rest
    }

    /// What is in both sets.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut both = Self { here: self.here && other.here, below: BTreeMap::new() };
        for (step, fields) in &self.below {
            if let Some(other) = other.below.get(step) {
                both.put(step.clone(), fields.and(other));
            }
        }
        both
    }

    /// Forgets a field and all below it.
    pub(crate) fn forget(&mut self, path: &[&str]) {
        if let [first, rest @ ..] = path {
            let step = format!("f:{first}");
            if rest.is_empty() {
                self.below.remove(&step);
            } else if let Some(below) = self.below.get_mut(&step) {
                below.forget(rest);
                if below.is_empty() {
                    self.below.remove(&step);
                }
            }
        }
    }

    /// Every field as a path for people: `.spec.containers[name="a"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.collect(String::new(), &mut all);
        all
    }

    fn collect(&self, path: String, all: &mut Vec<String>) {
        for (step, fields) in &self.below {
            let path = match step.split_at(2) {
                ("f:", name) => format!("{path}.{name}"),
                ("k:", keys) => {
                    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                    let keys: Vec<_> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    format!("{path}[{}]", keys.join(","))
                }
                (_, value) => format!("{path}[={value}]"),
            };
            fields.collect(path, all);
        }
        if self.here && self.below.is_empty() {
            all.push(path);
        }
    }

    /// Reads `fieldsV1`; what makes no sense is left out.
    pub(crate) fn parse(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self::default() };
        let mut fields = Self { here: map.is_empty() || map.contains_key("."), below: BTreeMap::new() };
        for (step, below) in map {
            let known = match step.get(..2) {
                Some("f:" | "v:") => Some(step.clone()),
                Some("k:") => serde_json::from_str::<BTreeMap<String, Value>>(&step[2..])
                    .ok()
                    .map(|keys| format!("k:{}", json!(keys))),
                _ => None,
            };
            if let Some(step) = known {
                fields.put(step, Self::parse(below));
            }
        }
        fields
    }

    /// Writes `fieldsV1`.
    pub(crate) fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.here && !self.below.is_empty() {
            map.insert(".".into(), json!({}));
        }
        map.extend(self.below.iter().map(|(step, fields)| (step.clone(), fields.to_value())));
        Value::Object(map)
    }

    /// Removes from `value` what is in this set and not in `kept`. A place below which nothing is kept goes as a
    /// whole, with what nobody owns in it (values that were filled in).
    pub(crate) fn prune(&self, value: &mut Value, kept: &Self, at: &mut Place<'_>) {
        let nothing = Self::default();
        match value {
            Value::Object(map) => {
                map.retain(|name, value| {
                    let step = format!("f:{name}");
                    match (self.below.get(&step), kept.below.get(&step)) {
                        (None, _) => true,
                        (Some(_), None) if at.depth() > 0 => false,
                        (Some(fields), kept) => {
                            at.within(name, |at| fields.prune(value, kept.unwrap_or(&nothing), at));
                            true
                        }
                    }
                });
            }
            Value::Array(items) => {
                let keys = at.keys();
                items.retain_mut(|item| {
                    let Some(step) = keys.step(item) else { return true };
                    match (self.below.get(&step), kept.below.get(&step)) {
                        (Some(_), None) => false,
                        (Some(fields), Some(kept)) => {
                            fields.prune(item, kept, at);
                            true
                        }
                        (None, _) => true,
                    }
                });
            }
            _ => {}
        }
    }
}
