use proptest::prelude::*;
use serde_json::{Value, json};

use super::patch;
use crate::testing::kind;

fn patched(object: Value, with: Value) -> Value {
    patch(&kind("pods"), &object, &with).unwrap()
}

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn lists_are_merged_by_key() {
    let object = containers(
        json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]),
    );
    let with = containers(
        json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c", "image": "3"}]),
    );
    let want = containers(json!([
        {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "b", "image": "1"},
        {"name": "c", "image": "3"},
    ]));
    assert_eq!(patched(object, with), want);
}

/// Would take hours if each item were looked for among all.
#[test]
fn a_long_list_costs_what_a_list_costs() {
    let env = |with: &dyn Fn(usize) -> Value| {
        let mut env: Vec<Value> = (0..30_000).map(with).collect();
        env.reverse();
        env
    };
    let object = containers(json!([{"name": "c", "env": env(&|i| json!({"name": format!("E{i}"), "value": "a"}))}]));
    let changed = env(&|i| match i % 3 {
        0 => json!({"name": format!("E{i}"), "$patch": "delete"}),
        _ => json!({"name": format!("E{i}"), "value": "b"}),
    });
    let mut order = env(&|i| json!({"name": format!("E{i}")}));
    order.reverse();
    let result = patched(object, containers(json!([{"name": "c", "env": changed, "$setElementOrder/env": order}])));
    let env = result["spec"]["containers"][0]["env"].as_array().unwrap();
    assert_eq!(env.len(), 20_000);
    assert_eq!((&env[0], &env[19_999]["name"]), (&json!({"name": "E1", "value": "b"}), &json!("E29999")));
    let many = |value: Value| -> Value { (0..100_000).map(|i| (format!("k{i}"), value.clone())).collect() };
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    assert_eq!(patched(labels(many(json!("a"))), labels(many(Value::Null))), labels(json!({})));
}

#[test]
fn an_item_deleted_and_given_again_stands_at_the_end() {
    let object = containers(json!([{"name": "a", "image": "1"}, {"name": "b"}, {"name": "a", "image": "2"}]));
    let with =
        containers(json!([{"name": "a", "$patch": "delete"}, {"name": "a", "image": "3"}, {"name": "a", "tty": true}]));
    assert_eq!(patched(object, with), containers(json!([{"name": "b"}, {"name": "a", "image": "3", "tty": true}])));
}

#[test]
fn items_are_deleted_and_lists_replaced() {
    let object = containers(json!([{"name": "a"}, {"name": "b"}]));
    let with = containers(json!([{"name": "a", "$patch": "delete"}]));
    assert_eq!(patched(object.clone(), with), containers(json!([{"name": "b"}])));
    let with = containers(json!([{"name": "z"}, {"$patch": "replace"}]));
    assert_eq!(patched(object, with), containers(json!([{"name": "z"}])));
}

#[test]
fn lists_without_key_are_replaced() {
    let object = containers(json!([{"name": "a", "command": ["x", "y"]}]));
    let with = containers(json!([{"name": "a", "command": ["z"]}]));
    assert_eq!(patched(object, with.clone()), with);
}

#[test]
fn maps_are_replaced_deleted_and_pruned() {
    let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"x": {"y": 1, "z": 2}}});
    let with = json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}, "spec": {"x": {"$patch": "delete"}}});
    assert_eq!(patched(object.clone(), with), json!({"metadata": {"labels": {"c": "3"}}, "spec": {}}));
    let with = json!({"metadata": {"labels": {"a": null}}, "spec": {"x": {"w": 3, "$retainKeys": ["w", "z"]}}});
    assert_eq!(patched(object, with), json!({"metadata": {"labels": {"b": "2"}}, "spec": {"x": {"z": 2, "w": 3}}}));
}

#[test]
fn sets_grow_and_shrink() {
    let object = json!({"metadata": {"finalizers": ["a", "b"]}});
    let with = json!({"metadata": {"finalizers": ["b", "c"], "$deleteFromPrimitiveList/finalizers": ["a"]}});
    assert_eq!(patched(object, with), json!({"metadata": {"finalizers": ["b", "c"]}}));
}

#[test]
fn order_is_as_told() {
    let object = containers(json!([{"name": "a"}, {"name": "x"}, {"name": "b"}]));
    let with = json!({"spec": {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
        "containers": [{"name": "c"}],
    }});
    let want = containers(json!([{"name": "c"}, {"name": "x"}, {"name": "b"}, {"name": "a"}]));
    assert_eq!(patched(object, with), want);
}

#[test]
fn nonsense_is_refused() {
    let object = containers(json!([{"name": "a"}]));
    for bad in [
        json!([1]),
        json!({"$patch": "explode"}),
        containers(json!([{"image": "x"}])),
        containers(json!(["x"])),
        json!({"$setElementOrder/containers": 1}),
        json!({"metadata": {"$retainKeys": "x"}}),
    ] {
        assert!(patch(&kind("pods"), &object, &bad).is_err(), "{bad}");
    }
}

/// JSON in which directives and keyed lists are likely.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        prop_oneof!["delete", "replace", "merge", "a", "b"].prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("spec"),
        Just("metadata"),
        Just("containers"),
        Just("name"),
        Just("finalizers"),
        Just("$patch"),
        Just("$retainKeys"),
        Just("$setElementOrder/containers"),
        Just("$deleteFromPrimitiveList/finalizers"),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

fn has_directive(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(k, v)| k.starts_with('$') || has_directive(v)),
        Value::Array(items) => items.iter().any(has_directive),
        _ => false,
    }
}

/// What a patch is made from on the client's side, in its plainest form: set all, delete what is gone.
fn diff(old: &Value, new: &Value) -> Value {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|k| !new.contains_key(*k)).map(|k| (k.clone(), Value::Null));
            let set = new.iter().map(|(k, v)| (k.clone(), diff(old.get(k).unwrap_or(&Value::Null), v)));
            Value::Object(gone.chain(set).collect())
        }
        (_, new) => new.clone(),
    }
}

fn labels() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", "[a-c]", 0..4).prop_map(|m| json!({"metadata": {"labels": m}}))
}

proptest! {
    #[test]
    fn never_panics_and_leaves_no_directive(object in anything(), with in anything()) {
        let (pods, clean) = (kind("pods"), !has_directive(&object));
        if let Ok(result) = patch(&pods, &object, &with) {
            // Directives only survive below scalars' places in lists of lists, which no kind has.
            prop_assert!(!clean || !result.as_object().is_some_and(|m| m.keys().any(|k| k.starts_with('$'))));
        }
    }

    #[test]
    fn a_diff_leads_from_old_to_new(old in labels(), new in labels()) {
        let with = diff(&old, &new);
        prop_assert_eq!(patched(old, with), new);
    }

    #[test]
    fn twice_is_once(object in labels(), with in labels()) {
        let once = patched(object, with.clone());
        prop_assert_eq!(patched(once.clone(), with), once);
    }
}
