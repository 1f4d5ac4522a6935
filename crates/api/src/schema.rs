//! OpenAPI definitions of everything that is served, made on demand from the types.

use k8s_openapi::{
    api::{authentication::v1::TokenRequest, autoscaling::v1::Scale, core::v1::Binding, policy::v1::Eviction},
    apimachinery::pkg::apis::meta::v1::{
        APIGroup, APIGroupList, APIResourceList, DeleteOptions, ListMeta, Patch, Status, WatchEvent,
    },
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    mergekeys::{self, ListType},
    registry::{Kind, Registry},
};

/// The dialect of OpenAPI: where definitions live, and how a field says more than what it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `#/definitions/…`.
    V2,
    /// `#/components/schemas/…`.
    V3,
}

/// The name of the definition of a kind's list.
pub fn list_definition(kind: &Kind) -> String {
    format!("{}List", kind.definition)
}

/// All definitions, by name: the kinds of a registry, their lists, what they refer to, and what requests and
/// answers are made of beside them.
///
/// Costs milliseconds and megabytes: keep the encoded result, if anything.
pub fn definitions(registry: &Registry, version: Version) -> Map<String, Value> {
    let mut all = raw(registry, version);
    let prefix = prefix(version);
    for kind in registry.kinds() {
        let gvk = |kind_name: &str| json!([{"group": kind.group, "version": kind.version, "kind": kind_name}]);
        if let Some(definition) = all.get_mut(&*kind.definition) {
            definition["x-kubernetes-group-version-kind"] = gvk(&kind.kind);
        }
        if kind.stored {
            let mut list = list_of(kind, prefix);
            list["x-kubernetes-group-version-kind"] = gvk(&format!("{}List", kind.kind));
            all.insert(list_definition(kind), list);
        }
    }
    for (definition, kind, group) in [
        ("io.k8s.api.autoscaling.v1.Scale", "Scale", "autoscaling"),
        ("io.k8s.api.core.v1.Binding", "Binding", ""),
        ("io.k8s.api.policy.v1.Eviction", "Eviction", "policy"),
        ("io.k8s.api.authentication.v1.TokenRequest", "TokenRequest", "authentication.k8s.io"),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.Status", "Status", ""),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "DeleteOptions", ""),
    ] {
        if let Some(definition) = all.get_mut(definition) {
            definition["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": "v1", "kind": kind}]);
        }
    }
    for (name, definition) in &mut all {
        annotate(name, definition);
        dialect(definition, version);
    }
    all
}

/// The definitions as the types give them.
pub(crate) fn raw(registry: &Registry, version: Version) -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12()
        .with(|s| s.definitions_path = prefix(version).trim_start_matches('#').trim_end_matches('/').into());
    let mut generator = SchemaGenerator::new(settings.for_deserialize());
    for kind in registry.kinds() {
        (kind.schema)(&mut generator);
    }
    generator.subschema_for::<Scale>();
    generator.subschema_for::<Binding>();
    generator.subschema_for::<Eviction>();
    generator.subschema_for::<TokenRequest>();
    generator.subschema_for::<Status>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<Patch>();
    generator.subschema_for::<WatchEvent<Value>>();
    generator.subschema_for::<APIGroup>();
    generator.subschema_for::<APIGroupList>();
    generator.subschema_for::<APIResourceList>();
    generator.take_definitions(false)
}

fn prefix(version: Version) -> &'static str {
    match version {
        Version::V2 => "#/definitions/",
        Version::V3 => "#/components/schemas/",
    }
}

fn list_of(kind: &Kind, prefix: &str) -> Value {
    let string = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "description": format!("{}List is a list of {}.", kind.kind, kind.plural),
        "required": ["items"],
        "properties": {
            "apiVersion": string("The version of this form of an object."),
            "kind": string("The kind of this object."),
            "metadata": {"$ref": format!("{prefix}io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")},
            "items": {"type": "array", "items": {"$ref": format!("{prefix}{}", kind.definition)}},
        },
    })
}

/// Adds how lists and maps are merged.
fn annotate(name: &str, definition: &mut Value) {
    if mergekeys::is_atomic(name) {
        definition["x-kubernetes-map-type"] = "atomic".into();
    }
    let Some(fields) = definition.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, schema) in fields {
        let is_list = schema["type"] == "array";
        let Some(rule) = mergekeys::rule(name, field) else {
            if is_list {
                schema["x-kubernetes-list-type"] = "atomic".into();
            }
            continue;
        };
        if let Some(strategy) = rule.strategy {
            schema["x-kubernetes-patch-strategy"] = strategy.into();
        }
        if let Some(key) = rule.patch_key {
            schema["x-kubernetes-patch-merge-key"] = key.into();
        }
        if is_list {
            schema["x-kubernetes-list-type"] = match rule.list {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map(keys) => {
                    schema["x-kubernetes-list-map-keys"] = json!(keys);
                    "map"
                }
            }
            .into();
        }
    }
}

/// Says in one dialect what the other says differently.
fn dialect(schema: &mut Value, version: Version) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(|s| dialect(s, version)),
        Value::Object(map) => {
            map.values_mut().for_each(|s| dialect(s, version));
            derived(map);
            if map.remove("x-kubernetes-int-or-string").is_some() {
                let quantity =
                    map.get("description").and_then(Value::as_str).is_some_and(|d| d.starts_with("Quantity"));
                match (version, quantity) {
                    (Version::V2, true) => drop(map.insert("type".into(), "string".into())),
                    (Version::V2, false) => {
                        map.insert("type".into(), "string".into());
                        map.insert("format".into(), "int-or-string".into());
                    }
                    (Version::V3, true) => {
                        map.insert("oneOf".into(), json!([{"type": "string"}, {"type": "number"}]));
                    }
                    (Version::V3, false) => {
                        map.insert("format".into(), "int-or-string".into());
                        map.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
                    }
                }
            }
            // In OpenAPI 3.0 a reference hides whatever stands beside it.
            if version == Version::V3
                && map.len() > 1
                && let Some(reference) = map.remove("$ref")
            {
                map.insert("allOf".into(), json!([{"$ref": reference}]));
            }
        }
        _ => {}
    }
}

/// What derived schemas say and OpenAPI cannot: that a value may be null, and that fields are no others.
fn derived(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get("type")
        && let Some(only) = types.iter().find(|t| *t != "null").cloned()
    {
        schema.insert("type".into(), only);
    }
    if let Some(Value::Array(choice)) = schema.get("anyOf")
        && let [Value::Object(given), null] = choice.as_slice()
        && null["type"] == "null"
    {
        let given = given.clone();
        schema.remove("anyOf");
        schema.extend(given);
    }
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    fn references<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
        match schema {
            Value::Array(list) => list.iter().for_each(|s| references(s, found)),
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|s| references(s, found));
            }
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for version in [Version::V2, Version::V3] {
            let all = definitions(&builtin(), version);
            for (name, definition) in &all {
                let mut found = Vec::new();
                references(definition, &mut found);
                for reference in found {
                    let target = reference.strip_prefix(prefix(version));
                    assert!(target.is_some_and(|t| all.contains_key(t)), "{name} refers to {reference}");
                }
            }
        }
    }

    #[test]
    fn every_kind_has_a_definition_that_names_it() {
        let registry = builtin();
        let all = definitions(&registry, Version::V3);
        for kind in registry.kinds() {
            let gvk = &all[&*kind.definition]["x-kubernetes-group-version-kind"][0];
            assert_eq!(gvk, &json!({"group": kind.group, "version": kind.version, "kind": kind.kind}));
            assert_eq!(all.contains_key(&list_definition(kind)), kind.stored);
        }
    }

    #[test]
    fn derived_schemas_speak_openapi() {
        fn check(schema: &Value) {
            match schema {
                Value::Array(list) => list.iter().for_each(check),
                Value::Object(map) => {
                    assert!(map.get("type").is_none_or(|t| !t.is_array()), "{schema}");
                    assert!(!map.contains_key("anyOf") && !map.contains_key("const"), "{schema}");
                    map.values().for_each(check);
                }
                _ => {}
            }
        }
        for version in [Version::V2, Version::V3] {
            let all = definitions(&builtin(), version);
            let own: Vec<_> = all.iter().filter(|(name, _)| name.starts_with("io.rastos.")).collect();
            assert!(own.len() > 8, "{own:?}");
            own.iter().for_each(|(_, schema)| check(schema));
        }
    }

    #[test]
    fn fields_say_how_they_merge_and_what_they_take() {
        let v2 = definitions(&builtin(), Version::V2);
        let spec = &v2["io.k8s.api.core.v1.PodSpec"]["properties"];
        assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["containers"]["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(spec["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
        assert_eq!(spec["tolerations"]["x-kubernetes-list-type"], "atomic");
        assert_eq!(v2["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
        assert_eq!(v2["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"], "string");
        assert_eq!(v2["io.k8s.api.core.v1.SecretKeySelector"]["x-kubernetes-map-type"], "atomic");
        let v3 = definitions(&builtin(), Version::V3);
        let reference = &v3["io.k8s.api.core.v1.PodSpec"]["properties"]["securityContext"]["allOf"][0]["$ref"];
        assert_eq!(reference, "#/components/schemas/io.k8s.api.core.v1.PodSecurityContext");
    }
}
