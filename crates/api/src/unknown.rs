//! Fields that a kind does not know.

use serde_json::Value;

use crate::{
    faults::{MAX_FAULTS, Path, Step},
    registry::Kind,
};

impl Kind {
    /// The fields of an object as it was sent that are not in it as it was decoded: nothing knows them. A null
    /// stands for "not given" and is not counted.
    pub fn unknown_fields(&self, original: &Value, decoded: &Value) -> Vec<Path> {
        fields(original, decoded)
    }
}

/// The same, for what is no registered kind. At most [`MAX_FAULTS`] are told of.
pub(crate) fn fields(original: &Value, decoded: &Value) -> Vec<Path> {
    let mut search = Search::default();
    for (key, value) in original.as_object().into_iter().flatten() {
        // The type's own name is not part of it.
        if key != "apiVersion" && key != "kind" {
            search.within(Step::Field(key), value, decoded.get(key));
        }
    }
    search.unknown
}

/// Keeps the way rather than the path: only what is unknown pays for one.
#[derive(Default)]
struct Search<'a> {
    way: Vec<Step<'a>>,
    unknown: Vec<Path>,
}

impl<'a> Search<'a> {
    fn within(&mut self, step: Step<'a>, original: &'a Value, decoded: Option<&Value>) {
        self.way.push(step);
        self.compare(original, decoded);
        self.way.pop();
    }

    fn compare(&mut self, original: &'a Value, decoded: Option<&Value>) {
        match (original, decoded) {
            (Value::Null, _) => {}
            (_, None) if self.unknown.len() < MAX_FAULTS => self.unknown.push(Path::of(self.way.iter().copied())),
            (Value::Object(map), Some(decoded @ Value::Object(_))) => {
                map.iter().for_each(|(key, value)| self.within(Step::Field(key), value, decoded.get(key)));
            }
            (Value::Array(list), Some(Value::Array(decoded))) => {
                let items = list.iter().enumerate();
                items.for_each(|(index, value)| self.within(Step::Index(index), value, decoded.get(index)));
            }
            _ => {}
        }
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
