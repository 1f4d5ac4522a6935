use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Conflict, apply};
use crate::{
    merge::{
        fields::Fields,
        managed::{Managed, Operation, Writer},
        place::Place,
    },
    testing::kind,
};

fn by(manager: &str, live: &Value, config: Value, force: bool) -> Result<Value, Vec<Conflict>> {
    let kind = kind("deployments");
    apply(live, &config, &Writer { kind: &kind, manager, subresource: "", now: "2026-01-01T00:00:00Z" }, force)
}

fn update(manager: &str, old: &Value, mut new: Value) -> Value {
    let kind = kind("deployments");
    let mut managed = Managed::of(old);
    managed.updated(old, &new, &Writer { kind: &kind, manager, subresource: "", now: "2026-01-01T00:00:00Z" });
    managed.write(&mut new);
    new
}

fn config(replicas: i64, containers: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": containers}}},
    })
}

fn without_managers(mut object: Value) -> Value {
    object["metadata"].as_object_mut().unwrap().shift_remove("managedFields");
    object
}

fn owned(object: &Value, manager: &str) -> Value {
    let managed = Managed::of(object);
    managed.0.iter().find(|e| e.manager == manager).map(|e| e.fields.to_value()).unwrap_or_default()
}

/// Would take hours if each item were looked for among all.
#[test]
fn a_long_list_costs_what_a_list_costs() {
    let env = |last: &str| -> Value {
        let env = (0..30_000).map(|i| json!({"name": format!("E{i}"), "value": if i == 29_999 { last } else { "" }}));
        json!([{"name": "c", "env": env.collect::<Vec<_>>()}])
    };
    let live = by("a", &Value::Null, config(1, env("x")), false).unwrap();
    let live = by("a", &live, config(1, env("y")), false).unwrap();
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0]["env"][29_999]["value"], "y");
    let new = config(1, env("z"));
    assert_eq!(
        owned(&update("b", &live, new), "b"),
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
        r#"k:{"name":"c"}"#: {"f:env": {r#"k:{"name":"E29999"}"#: {"f:value": {}}}}}}}}})
    );
    let none = by("a", &live, config(1, json!([{"name": "c"}])), false).unwrap();
    assert!(none["spec"]["template"]["spec"]["containers"][0].get("env").is_none());
}

#[test]
fn a_first_apply_creates() {
    let live = by("a", &Value::Null, config(1, json!([{"name": "c", "image": "1"}])), false).unwrap();
    assert_eq!(without_managers(live.clone()), config(1, json!([{"name": "c", "image": "1"}])));
    let want = json!({
        "f:metadata": {"f:labels": {"f:app": {}}},
        "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}
        }}}},
    });
    assert_eq!(owned(&live, "a"), want);
    assert_eq!(Managed::of(&live).0[0].operation, Operation::Apply);
}

#[test]
fn what_is_no_longer_stated_goes() {
    let live =
        by("a", &Value::Null, config(1, json!([{"name": "c", "image": "1"}, {"name": "d", "image": "1"}])), false)
            .unwrap();
    let next = config(1, json!([{"name": "c", "image": "1"}]));
    let live = by("a", &live, next.clone(), false).unwrap();
    assert_eq!(without_managers(live), next);
}

#[test]
fn what_was_filled_in_goes_with_what_it_belonged_to() {
    let probe = json!([{"name": "c", "image": "1", "livenessProbe": {"httpGet": {"port": 80}}}]);
    let mut live = by("a", &Value::Null, config(1, probe), false).unwrap();
    live["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["periodSeconds"] = json!(10);
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    let live = by("a", &live, config(1, json!([{"name": "c", "image": "1"}])), false).unwrap();
    let want = json!({"name": "c", "image": "1", "imagePullPolicy": "Always"});
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0], want);
}

#[test]
fn what_another_also_states_stays() {
    let both = config(1, json!([{"name": "c", "image": "1"}]));
    let live = by("a", &Value::Null, both.clone(), false).unwrap();
    let live = by("b", &live, both.clone(), false).unwrap();
    let mut less = both.clone();
    less["spec"].as_object_mut().unwrap().remove("replicas");
    let live = by("a", &live, less, false).unwrap();
    assert_eq!(live["spec"]["replicas"], json!(1));
}

#[test]
fn a_conflict_names_the_manager_and_the_field() {
    let live = by("a", &Value::Null, config(1, json!([{"name": "c", "image": "1"}])), false).unwrap();
    let conflicts = by("b", &live, config(2, json!([{"name": "c", "image": "2"}])), false).unwrap_err();
    let fields: Vec<&str> = conflicts.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(fields, [".spec.replicas", ".spec.template.spec.containers[name=\"c\"].image"]);
    assert!(conflicts.iter().all(|c| c.manager == "\"a\""));

    let forced = by("b", &live, config(2, json!([{"name": "c", "image": "2"}])), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], json!(2));
    assert!(owned(&forced, "a")["f:spec"].get("f:replicas").is_none());
    // `a` has lost the fields: stating them again with the old values is now a conflict with `b`.
    assert!(by("a", &forced, config(1, json!([{"name": "c", "image": "1"}])), false).is_err());
}

#[test]
fn an_update_takes_what_it_changes() {
    let live = by("a", &Value::Null, config(1, json!([{"name": "c", "image": "1"}])), false).unwrap();
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(5);
    let live = update("scaler", &live, scaled);
    assert_eq!(owned(&live, "scaler"), json!({"f:spec": {"f:replicas": {}}}));
    let conflicts = by("a", &live, config(1, json!([{"name": "c", "image": "1"}])), false).unwrap_err();
    assert_eq!(conflicts, [Conflict { manager: "\"scaler\" using Update".into(), field: ".spec.replicas".into() }]);
}

#[test]
fn a_removed_field_has_no_manager() {
    let live = by("a", &Value::Null, config(1, json!([{"name": "c", "image": "1"}])), false).unwrap();
    let mut bare = live.clone();
    bare["metadata"].as_object_mut().unwrap().shift_remove("labels");
    let live = update("b", &live, bare);
    assert!(owned(&live, "a").get("f:metadata").is_none());
}

/// `web` with this strategy and the volume `v` of this source.
fn choosing(strategy: Value, mut volume: Value) -> Value {
    let mut all = config(1, json!([{"name": "c", "image": "1"}]));
    volume["name"] = "v".into();
    all["spec"]["strategy"] = strategy;
    all["spec"]["template"]["spec"]["volumes"] = json!([volume]);
    all
}

fn chosen(object: &Value) -> Value {
    json!([object["spec"]["strategy"], object["spec"]["template"]["spec"]["volumes"][0]])
}

#[test]
fn what_was_filled_in_of_an_alternative_goes_with_the_choice_of_another() {
    let mut live = by("a", &Value::Null, choosing(json!({"type": "RollingUpdate"}), json!({})), false).unwrap();
    live["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": "25%"});
    live["spec"]["template"]["spec"]["volumes"][0]["emptyDir"] = json!({});
    let same = by("a", &live, choosing(json!({"type": "RollingUpdate"}), json!({})), false).unwrap();
    assert_eq!(chosen(&same), chosen(&live));
    let other = choosing(json!({"type": "Recreate"}), json!({"configMap": {"name": "m"}}));
    let live = by("a", &live, other, false).unwrap();
    assert_eq!(chosen(&live), json!([{"type": "Recreate"}, {"name": "v", "configMap": {"name": "m"}}]));
}

#[test]
fn what_another_stated_of_an_alternative_goes_only_by_force() {
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}});
    let volume = json!({"emptyDir": {"medium": "Memory"}});
    let live = update("b", &Value::Null, choosing(rolling, volume));
    let other = || choosing(json!({"type": "Recreate"}), json!({"configMap": {"name": "m"}}));
    let conflicts = by("a", &live, other(), false).unwrap_err();
    assert_eq!(conflicts[0].field, ".spec.strategy.type");
    let live = by("a", &live, other(), true).unwrap();
    assert_eq!(chosen(&live), json!([{"type": "Recreate"}, {"name": "v", "configMap": {"name": "m"}}]));
    let left = owned(&live, "b").to_string();
    assert!(!left.contains("rollingUpdate") && !left.contains("emptyDir"), "{left}");
    // A manager that chooses nothing else leaves what another has tuned.
    let tuned =
        update("b", &live, choosing(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}), json!({})));
    let mut stated = choosing(json!({"type": "RollingUpdate"}), json!({}));
    stated["spec"]["template"]["spec"]["volumes"] = json!([]);
    let live = by("a", &tuned, stated, true).unwrap();
    assert_eq!(live["spec"]["strategy"]["rollingUpdate"]["maxSurge"], 1);
}

fn some_config() -> impl Strategy<Value = Value> {
    let containers = prop::collection::btree_map("[a-c]", "[0-2]", 1..4);
    let labels = prop::collection::btree_map("[x-z]", "[0-2]", 0..3);
    (prop::option::of(0..3_i64), containers, labels).prop_map(|(replicas, containers, labels)| {
        let containers: Vec<Value> = containers.iter().map(|(n, i)| json!({"name": n, "image": i})).collect();
        let mut config = config(0, json!(containers));
        config["metadata"]["labels"] = json!(labels);
        match replicas {
            Some(n) => config["spec"]["replicas"] = json!(n),
            None => {
                config["spec"].as_object_mut().unwrap().remove("replicas");
            }
        }
        if labels.is_empty() {
            config["metadata"].as_object_mut().unwrap().remove("labels");
        }
        config
    })
}

fn sorted(mut object: Value) -> Value {
    if let Some(list) = object["spec"]["template"]["spec"]["containers"].as_array_mut() {
        list.sort_by_key(|c| c["name"].to_string());
    }
    object
}

proptest! {
    #[test]
    fn twice_is_once(first in some_config(), second in some_config(), force: bool) {
        let live = by("a", &Value::Null, first, false).unwrap();
        if let Ok(once) = by("b", &live, second.clone(), force) {
            prop_assert_eq!(by("b", &once, second, false).unwrap(), once);
        }
    }

    #[test]
    fn alone_the_object_is_what_was_stated_last(all in prop::collection::vec(some_config(), 1..5)) {
        let live = all.iter().fold(Value::Null, |live, config| by("a", &live, config.clone(), false).unwrap());
        prop_assert_eq!(sorted(without_managers(live)), sorted(all.last().unwrap().clone()));
    }

    #[test]
    fn everything_stated_is_there_and_owned(first in some_config(), second in some_config()) {
        let live = by("a", &Value::Null, first, false).unwrap();
        let live = by("b", &live, second.clone(), true).unwrap();
        let pods = kind("deployments");
        let mut at = Place::root(&pods);
        let missing = Fields::changed(&second, Some(&live), &mut at);
        prop_assert!(missing.is_empty(), "{:?}", missing.paths());
    }

    #[test]
    fn sets_of_fields_come_back(config in some_config()) {
        let deployments = kind("deployments");
        let fields = Fields::of(&config, &mut Place::root(&deployments));
        prop_assert_eq!(&Fields::parse(&fields.to_value()), &fields);
        prop_assert!(fields.minus(&fields).is_empty());
        prop_assert_eq!(&fields.and(&fields), &fields);
    }

    #[test]
    fn any_managed_fields_are_read(text in r#"[fkv:.{}"a1, ]{0,40}"#) {
        let fields = serde_json::from_str::<Value>(&text).unwrap_or_else(|_| json!({text: {}}));
        Fields::parse(&fields).to_value();
        let object = json!({"metadata": {"managedFields": [{"fieldsV1": fields}, fields]}});
        Managed::of(&object);
    }
}
