//! Whole documents.

use std::collections::{BTreeMap, BTreeSet};

use api::{Registry, schema};
use serde_json::{Map, Value, json};

use super::paths;

fn info() -> Value {
    json!({"title": "rastOS", "version": concat!("v", env!("CARGO_PKG_VERSION"))})
}

/// The one document of OpenAPI v2.
pub(super) fn v2(registry: &Registry) -> Value {
    let mut all = Map::new();
    for kind in registry.kinds() {
        all.extend(paths::of(kind, schema::Version::V2));
    }
    json!({
        "swagger": "2.0", "info": info(), "paths": all,
        "definitions": schema::definitions(registry, schema::Version::V2),
    })
}

/// The documents of OpenAPI v3, by `api/v1`, `apis/apps/v1` …: each with what its paths refer to.
pub(super) fn v3(registry: &Registry) -> BTreeMap<String, Value> {
    let definitions = schema::definitions(registry, schema::Version::V3);
    let mut groups: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for kind in registry.kinds() {
        let paths = groups.entry(paths::root(kind)).or_default();
        paths.extend(paths::of(kind, schema::Version::V3));
    }
    let document = |(root, paths): (String, Map<String, Value>)| {
        let paths = Value::Object(paths);
        let mut needed = BTreeSet::new();
        gather(&paths, &definitions, &mut needed);
        let schemas: Map<String, Value> = needed.iter().map(|name| (name.clone(), definitions[name].clone())).collect();
        (root, json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas}}))
    };
    groups.into_iter().map(document).collect()
}

/// The definitions that something refers to, directly or through others.
fn gather(value: &Value, definitions: &Map<String, Value>, needed: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(item, definitions, needed)),
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/components/schemas/"));
            if let Some(name) = name
                && let Some(definition) = definitions.get(name)
                && needed.insert(name.to_owned())
            {
                gather(definition, definitions, needed);
            }
            fields.values().for_each(|field| gather(field, definitions, needed));
        }
        _ => {}
    }
}
