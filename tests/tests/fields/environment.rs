//! Where variables come from.

use serde_json::json;

use crate::{Place, has, object, pod, script};

#[test]
fn sources() {
    let place = Place::up();
    let limits = |cpu: &str| json!({"limits": {"cpu": cpu, "memory": "64Mi"}});
    let of = |source: &str, from: &str, key: &str, optional: bool| json!({"name": format!("OF_{key}"), "valueFrom": {source: {"name": from, "key": key, "optional": optional}}});
    let cpu = json!({"containerName": "other", "resource": "limits.cpu", "divisor": "1m"});
    let main = script(
        "main",
        "env",
        json!({"resources": limits("300m"),
        "env": [{"name": "PLAIN", "value": "plain"}, {"name": "ALSO", "value": "$(PLAIN)-too"},
            of("configMapKeyRef", "map", "a", false), of("secretKeyRef", "secret", "b", false),
            of("configMapKeyRef", "none", "c", true), of("secretKeyRef", "none", "d", true),
            {"name": "SELF", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": cpu}}],
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "map"}}, {"secretRef": {"name": "secret"}},
            {"configMapRef": {"name": "none", "optional": true}}, {"secretRef": {"name": "none", "optional": true}}]}),
    );
    place.apply(vec![
        object("ConfigMap", "map", json!({"a": "from map"})),
        object("Secret", "secret", json!({"b": "from secret"})),
        pod("env", vec![main, script("other", "true", json!({"resources": limits("200m")}))], json!({})),
    ]);
    let wrote = place.wrote("env", "main");
    has(
        &wrote,
        &[
            "PLAIN=plain",
            "ALSO=plain-too",
            "OF_a=from map",
            "OF_b=from secret",
            "SELF=env",
            "CPU=200",
            "P_a=from map",
            "b=from secret",
        ],
    );
    assert!(!wrote.contains("OF_c") && !wrote.contains("OF_d"), "{wrote}");
}
