//! Objects without one field: how `make test-fields` proves that a field's test goes red when the field is ignored.

use std::sync::LazyLock;

use serde_json::Value;

use crate::mergekeys::{Shape, child};

/// `api.core.v1.Container.args` in `RAST_DROP_FIELD`: the definition without `io.k8s.`, and the field.
static DROPPED: LazyLock<Option<(String, String)>> = LazyLock::new(|| {
    let named = std::env::var("RAST_DROP_FIELD").ok()?;
    named.rsplit_once('.').map(|(definition, field)| (format!("io.k8s.{definition}"), field.to_owned()))
});

/// Whether it is this field that `RAST_DROP_FIELD` names.
pub fn drops(definition: &str, field: &str) -> bool {
    DROPPED.as_ref().is_some_and(|(of, name)| of == definition && name == field)
}

/// Removes the field that `RAST_DROP_FIELD` names wherever it stands in this value of a definition.
pub fn forget(definition: &str, value: &mut Value) {
    if let Some((of, field)) = &*DROPPED {
        drop_field(definition, value, of, field);
    }
}

fn drop_field(definition: &str, value: &mut Value, of: &str, field: &str) {
    let Some(object) = value.as_object_mut() else { return };
    if definition == of {
        object.shift_remove(field);
    }
    for (name, value) in object {
        let Some(inner) = child(definition, name) else { continue };
        let Some(definition) = inner.definition else { continue };
        match (inner.shape, value) {
            (Shape::List(_), Value::Array(list)) => {
                list.iter_mut().for_each(|item| drop_field(definition, item, of, field));
            }
            (Shape::Map, Value::Object(map)) => {
                map.values_mut().for_each(|item| drop_field(definition, item, of, field));
            }
            (_, value) => drop_field(definition, value, of, field),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_goes_everywhere_and_nothing_else_does() {
        let mut spec =
            json!({"containers": [{"name": "a", "args": ["x"]}], "initContainers": [{"args": [], "image": "i"}]});
        drop_field("io.k8s.api.core.v1.PodSpec", &mut spec, "io.k8s.api.core.v1.Container", "args");
        assert_eq!(spec, json!({"containers": [{"name": "a"}], "initContainers": [{"image": "i"}]}));
    }
}
