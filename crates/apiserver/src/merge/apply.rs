//! Server-side apply: a manager states the fields it cares for; the server merges, removes what the manager no
//! longer states, and refuses to take fields from others unless forced.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use api::Kind;
use serde_json::Value;

use super::{
    fields::Fields,
    managed::{Managed, Operation, Writer, without_system},
    place::Place,
};

/// A field that someone else manages with another value: who, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The manager, with how it wrote.
    pub(crate) manager: String,
    /// `.spec.replicas`.
    pub(crate) field: String,
}

/// Applies `config` to `live` (null when the object does not exist yet). The result carries `managedFields`.
///
/// Where a value holds one of several alternatives, like a Deployment's strategy or a volume's source, the one that was
/// chosen before goes with the choice of another, as it does in a strategic merge patch by `$retainKeys`: what was only
/// filled in always, what others stated only by force.
pub(crate) fn apply(live: &Value, config: &Value, writer: &Writer<'_>, force: bool) -> Result<Value, Vec<Conflict>> {
    let mut at = Place::root(writer.kind);
    let mut config = config.clone();
    drop_nulls(&mut config);
    let stated = without_system(Fields::of(&config, &mut at), writer);
    let mut managed = Managed::of(live);

    let before = std::mem::take(&mut managed.entry(writer, Operation::Apply).fields);
    let rejected = without_system(rejected(live, &config, &mut at), writer);
    if force {
        managed.0.iter_mut().for_each(|entry| entry.fields = entry.fields.minus(&rejected));
    }
    let others = managed.0.iter().fold(Fields::default(), |mut all, entry| {
        all.unite(&entry.fields);
        all
    });
    let mut merged = live.clone();
    let mut kept = stated.clone();
    kept.unite(&others);
    let mut gone = before.minus(&stated);
    gone.unite(&rejected);
    gone.minus(&others).prune(&mut merged, &kept, &mut at);
    merge(&mut merged, &config, &mut at);

    let changed = Fields::changed(&merged, Some(live), &mut at).and(&stated);
    let mut conflicts = Vec::new();
    for entry in &mut managed.0 {
        let taken = entry.fields.and(&changed);
        if force {
            entry.fields = entry.fields.minus(&taken);
        } else {
            let how = if entry.operation == Operation::Update { " using Update" } else { "" };
            let manager = format!("{:?}{how}", entry.manager);
            conflicts.extend(taken.paths().into_iter().map(|field| Conflict { manager: manager.clone(), field }));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let entry = managed.entry(writer, Operation::Apply);
    if before != stated || entry.time.is_empty() {
        entry.time = writer.now.to_owned();
    }
    entry.api_version = writer.kind.api_version();
    entry.fields = stated;
    managed.0.retain(|e| !e.fields.is_empty());
    managed.write(&mut merged);
    Ok(merged)
}

/// The fields of alternatives that `live` has chosen and `config` has not, where `config` makes a choice.
fn rejected(live: &Value, config: &Value, at: &mut Place<'_>) -> Fields {
    let mut fields = Fields::default();
    match (live, config) {
        (Value::Object(live), Value::Object(config)) => {
            let another = |(name, value): (&String, &Value)| match live.get(name) {
                None => true,
                Some(old) => !value.is_object() && !value.is_array() && value != old,
            };
            let chosen = at.keys().alternatives && config.iter().any(another);
            for (name, value) in live {
                let below = at.within(name, |at| match config.get(name) {
                    Some(config) => rejected(value, config, at),
                    None if chosen => Fields::of(value, at),
                    None => Fields::default(),
                });
                fields.put(format!("f:{name}"), below);
            }
        }
        (Value::Array(live), Value::Array(config)) => {
            let keys = at.keys();
            let stated = config.iter().rev().filter_map(|item| Some((keys.step(item)?, item)));
            let stated: HashMap<String, &Value> = stated.collect();
            for (step, item) in live.iter().filter_map(|item| Some((keys.step(item)?, item))) {
                let below = stated.get(&step).map_or_else(Fields::default, |config| rejected(item, config, at));
                fields.put(step, below);
            }
        }
        _ => {}
    }
    fields
}

/// Puts `config` into `live`, lists item by item where they have keys.
fn merge(live: &mut Value, config: &Value, at: &mut Place<'_>) {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !at.keys().atomic => {
            for (name, value) in config {
                let slot = live.entry(name.clone()).or_insert(Value::Null);
                at.within(name, |at| merge(slot, value, at));
            }
        }
        (Value::Array(live), Value::Array(config)) => {
            let keys = at.keys();
            if config.iter().any(|item| keys.step(item).is_none()) {
                return live.clone_from(config);
            }
            // Of several with the same keys, the first counts.
            let steps = live.iter().enumerate().rev().map(|(i, item)| (keys.step(item), i));
            let mut index: HashMap<Option<String>, usize> = steps.collect();
            for item in config {
                match index.entry(keys.step(item)) {
                    Entry::Occupied(at_index) => merge(&mut live[*at_index.get()], item, at),
                    Entry::Vacant(next) => {
                        next.insert(live.len());
                        live.push(item.clone());
                    }
                }
            }
        }
        (live, config) => live.clone_from(config),
    }
}

/// The first item that a list with keys holds twice, as a path for people: whose fields would they be?
pub(crate) fn twice(kind: &Kind, config: &Value) -> Option<String> {
    doubled(config, &mut Place::root(kind))
}

fn doubled(value: &Value, at: &mut Place<'_>) -> Option<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .find_map(|(name, value)| at.within(name, |at| doubled(value, at)).map(|below| format!(".{name}{below}"))),
        Value::Array(items) => {
            let (keys, mut seen) = (at.keys(), HashSet::new());
            items.iter().find_map(|item| match keys.step(item) {
                Some(step) if !seen.insert(step.clone()) => Some(format!("[{}]", &step[2..])),
                _ => doubled(item, at).map(|below| format!("[]{below}")),
            })
        }
        _ => None,
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
