//! Fields that a kind does not know.

use serde_json::Value;

use crate::{faults::Path, registry::Kind};

impl Kind {
    /// The fields of an object as it was sent that are not in it as it was decoded: nothing knows them. A null
    /// stands for "not given" and is not counted.
    pub fn unknown_fields(&self, original: &Value, decoded: &Value) -> Vec<Path> {
        fields(original, decoded)
    }
}

/// The same, for what is no registered kind.
pub(crate) fn fields(original: &Value, decoded: &Value) -> Vec<Path> {
    let mut unknown = Vec::new();
    for (key, value) in original.as_object().into_iter().flatten() {
        // The type's own name is not part of it.
        if key != "apiVersion" && key != "kind" {
            compare(value, decoded.get(key), Path::root().field(key), &mut unknown);
        }
    }
    unknown
}

fn compare(original: &Value, decoded: Option<&Value>, at: Path, unknown: &mut Vec<Path>) {
    match (original, decoded) {
        (Value::Null, _) => {}
        (_, None) => unknown.push(at),
        (Value::Object(map), Some(decoded @ Value::Object(_))) => {
            for (key, value) in map {
                compare(value, decoded.get(key), at.field(key), unknown);
            }
        }
        (Value::Array(list), Some(Value::Array(decoded))) => {
            for (index, value) in list.iter().enumerate() {
                compare(value, decoded.get(index), at.index(index), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::builtin;

    #[test]
    fn unknown_fields_are_named_where_they_stand() {
        let registry = builtin();
        let pod = registry.object("v1", "Pod").unwrap();
        let original = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "lables": {}, "labels": {"x/y": "z"},
            "creationTimestamp": null}, "spec": {"containers": [{"name": "a", "image": "b", "port": 5, "env": [
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}], "resources": {"limits": {"cpu": 1}}}]}});
        let decoded = (pod.strategy.decode)(&original).unwrap();
        let unknown: Vec<String> = pod.unknown_fields(&original, &decoded).iter().map(ToString::to_string).collect();
        assert_eq!(unknown, ["metadata.lables", "spec.containers[0].port"]);
    }

    #[test]
    fn wrong_types_are_named_where_they_stand() {
        let registry = builtin();
        let pod = registry.object("v1", "Pod").unwrap();
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "a", "ports": [{"containerPort": "http"}]}]}});
        let faults = (pod.strategy.decode)(&object).unwrap_err();
        assert_eq!(faults.0[0].path.to_string(), "spec.containers[0].ports[0].containerPort");
        assert_eq!(faults.0[0].message, "must be an integer, not string \"http\"");
        let object = json!({"metadata": {}, "spec": {"containers": [{"env": [{"name": "A", "value": true}]}]}});
        let faults = (pod.strategy.decode)(&object).unwrap_err();
        assert_eq!(
            faults.0[0].to_string(),
            "spec.containers[0].env[0].value: must be a string, not boolean `true`; put it in quotes"
        );
        assert!((pod.strategy.decode)(&json!({"apiVersion": "v1", "kind": "Node"})).is_err());
    }
}
