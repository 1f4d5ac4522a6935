//! Strategic merge patch: a merge patch that knows the keys of lists.

use std::collections::{HashMap, HashSet};

use api::Kind;
use serde_json::{Map, Value, json};

use super::place::Place;
use crate::{ApiError, Result};

/// Applies a strategic merge patch to a copy of `object`.
pub(crate) fn patch(kind: &Kind, object: &Value, patch: &Value) -> Result<Value> {
    let patch = patch.as_object().ok_or_else(|| ApiError::bad_request("a strategic merge patch must be an object"))?;
    let mut result = object.clone();
    merge_map(&mut result, patch, &mut Place::root(kind))?;
    Ok(result)
}

const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

fn merge_map(live: &mut Value, patch: &Map<String, Value>, at: &mut Place<'_>) -> Result<()> {
    if !live.is_object() {
        *live = json!({});
    }
    let Some(map) = live.as_object_mut() else { return Ok(()) };
    match directive(patch)? {
        Some(Directive::Delete) => {
            map.clear();
            return Ok(());
        }
        Some(Directive::Replace) => map.clear(),
        Some(Directive::Merge) | None => {}
    }
    for (name, items) in patch.iter().filter_map(|(k, v)| Some((k.strip_prefix(DELETE_FROM)?, v))) {
        let gone: HashSet<String> = list(items, DELETE_FROM)?.iter().map(Value::to_string).collect();
        if let Some(live) = map.get_mut(name).and_then(Value::as_array_mut) {
            live.retain(|v| !gone.contains(&v.to_string()));
        }
    }
    let mut gone = HashSet::new();
    for (name, value) in patch.iter().filter(|(k, _)| !k.starts_with('$')) {
        match value {
            Value::Null => {
                gone.insert(name);
            }
            Value::Object(value) if matches!(directive(value)?, Some(Directive::Delete)) => {
                gone.insert(name);
            }
            Value::Object(value) => {
                let slot = map.entry(name.clone()).or_insert(Value::Null);
                at.within(name, |at| merge_map(slot, value, at))?;
            }
            Value::Array(items) => {
                let slot = map.entry(name.clone()).or_insert_with(|| json!([]));
                at.within(name, |at| merge_list(slot, items, at))?;
            }
            scalar => {
                map.insert(name.clone(), scalar.clone());
            }
        }
    }
    if !gone.is_empty() {
        map.retain(|name, _| !gone.contains(name));
    }
    for (name, order) in patch.iter().filter_map(|(k, v)| Some((k.strip_prefix(ORDER)?, v))) {
        let order = list(order, ORDER)?;
        if let Some(live) = map.get_mut(name).and_then(Value::as_array_mut) {
            at.within(name, |at| reorder(live, order, at.keys().patch));
        }
    }
    if let Some(keep) = patch.get("$retainKeys") {
        let keep: HashSet<&str> = list(keep, "$retainKeys")?.iter().filter_map(Value::as_str).collect();
        map.retain(|name, _| keep.contains(&**name));
    }
    Ok(())
}

fn merge_list(live: &mut Value, patch: &[Value], at: &mut Place<'_>) -> Result<()> {
    if !live.is_array() {
        *live = json!([]);
    }
    let Some(items) = live.as_array_mut() else { return Ok(()) };
    let keys = at.keys();
    if keys.set {
        let had: HashSet<String> = items.iter().map(Value::to_string).collect();
        items.extend(patch.iter().filter(|v| !had.contains(&v.to_string())).cloned());
        return Ok(());
    }
    let Some(key) = keys.patch else {
        items.clear();
        return plain(patch, items, at);
    };
    let mut replace = false;
    for item in patch {
        let map = item
            .as_object()
            .ok_or_else(|| ApiError::bad_request(format!("a list merged by {key:?} must hold objects")))?;
        replace |= map.get(key).is_none() && matches!(directive(map)?, Some(Directive::Replace));
    }
    if replace {
        items.clear();
    }
    let mut index = Index::of(items, key);
    for map in patch.iter().filter_map(Value::as_object) {
        let how = directive(map)?;
        let Some(id) = map.get(key) else {
            if matches!(how, Some(Directive::Replace)) {
                continue;
            }
            let message = format!("an item of the patch does not contain the declared merge key: {key}");
            return Err(ApiError::bad_request(message));
        };
        if matches!(how, Some(Directive::Delete)) {
            index.forget(id);
            continue;
        }
        let found = index.find(id).unwrap_or_else(|| {
            items.push(json!({}));
            index.add(id)
        });
        merge_map(&mut items[found], map, at)?;
    }
    let mut kept = index.kept.into_iter();
    items.retain(|_| kept.next().unwrap_or(true));
    Ok(())
}

/// Where the items of a list with these keys are.
struct Index {
    by_key: HashMap<String, Vec<usize>>,
    /// Whether each item stays in the list.
    kept: Vec<bool>,
}

impl Index {
    fn of(items: &[Value], key: &str) -> Self {
        let mut index = Self { by_key: HashMap::new(), kept: vec![true; items.len()] };
        for (i, id) in items.iter().enumerate().filter_map(|(i, item)| Some((i, item.get(key)?))) {
            index.by_key.entry(id.to_string()).or_default().push(i);
        }
        index
    }

    /// The first with this key.
    fn find(&self, id: &Value) -> Option<usize> {
        self.by_key.get(&id.to_string())?.first().copied()
    }

    /// Notes the item at the end of the list.
    fn add(&mut self, id: &Value) -> usize {
        self.by_key.insert(id.to_string(), vec![self.kept.len()]);
        self.kept.push(true);
        self.kept.len() - 1
    }

    /// Lets all with this key go.
    fn forget(&mut self, id: &Value) {
        self.by_key.remove(&id.to_string()).into_iter().flatten().for_each(|i| self.kept[i] = false);
    }
}

/// Items of a list that is replaced, without directives.
fn plain(patch: &[Value], items: &mut Vec<Value>, at: &mut Place<'_>) -> Result<()> {
    for item in patch {
        let mut new = item.clone();
        if let Some(map) = item.as_object() {
            if map.len() == 1 && directive(map)?.is_some() {
                continue;
            }
            new = json!({});
            merge_map(&mut new, map, at)?;
        }
        items.push(new);
    }
    Ok(())
}

/// Brings the items that `order` names into its order; the others stay where they are.
fn reorder(items: &mut [Value], order: &[Value], key: Option<&str>) {
    let id = |item: &Value| key.map_or(item, |k| &item[k]).to_string();
    let ranks: HashMap<String, usize> = order.iter().enumerate().rev().map(|(rank, o)| (id(o), rank)).collect();
    let rank = |item: &Value| ranks.get(&id(item)).copied();
    let mut ranked: Vec<(usize, usize)> = items.iter().enumerate().filter_map(|(i, v)| Some((rank(v)?, i))).collect();
    let mut places: Vec<usize> = ranked.iter().map(|(_, i)| *i).collect();
    ranked.sort();
    places.sort();
    let moved: Vec<Value> = ranked.iter().map(|(_, i)| items[*i].clone()).collect();
    for (place, item) in places.into_iter().zip(moved) {
        items[place] = item;
    }
}

enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Map<String, Value>) -> Result<Option<Directive>> {
    match patch.get("$patch") {
        None => Ok(None),
        Some(Value::String(s)) if s == "merge" => Ok(Some(Directive::Merge)),
        Some(Value::String(s)) if s == "replace" => Ok(Some(Directive::Replace)),
        Some(Value::String(s)) if s == "delete" => Ok(Some(Directive::Delete)),
        Some(other) => {
            Err(ApiError::bad_request(format!("unknown patch type {other} in $patch; use merge, replace or delete")))
        }
    }
}

fn list<'a>(value: &'a Value, what: &str) -> Result<&'a [Value]> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| ApiError::bad_request(format!("{what} must be a list")))
}

#[cfg(test)]
mod tests;
