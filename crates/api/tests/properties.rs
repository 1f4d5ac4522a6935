//! What holds for any object: no rule panics, defaults settle at once, a decoded object decodes to itself.

use api::{Faults, builtin};
use proptest::prelude::*;
use serde_json::{Value, json};

/// An object of each kind that says much, to be broken in places.
fn seeds() -> Vec<Value> {
    let spec = json!({
        "hostNetwork": false, "restartPolicy": "Always", "serviceAccountName": "a", "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        "securityContext": {"runAsUser": 1, "sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}]}}},
        "dnsConfig": {"nameservers": ["10.0.0.1"], "options": [{"name": "a"}]},
        "initContainers": [{"name": "i", "image": "b", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "image": "b:1", "command": ["a"], "workingDir": "/a",
            "ports": [{"containerPort": 80, "hostPort": 80, "name": "a"}],
            "env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.5"}},
            "livenessProbe": {"httpGet": {"port": 80, "path": "/", "httpHeaders": [{"name": "a", "value": "b"}]}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
            "securityContext": {"capabilities": {"add": ["NET_RAW"]}, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a"}]}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "p", "projected": {"sources": [
            {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.labels['a']"}}]}}]}}]});
    let meta = json!({"name": "a", "namespace": "n", "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["a.b/c"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u", "controller": true}]});
    vec![
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"name": "a", "restartCount": 1,
            "ready": true, "image": "b", "imageID": "", "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"replicas": 2, "paused": true,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"podCIDRs": ["10.0.0.0/24"],
            "taints": [{"key": "a", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "1"},
            "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "kubernetes.io/tls", "data": {"tls.crt": "AA=="},
            "stringData": {"tls.key": "a"}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
            "roleRef": {"kind": "Role", "name": "a"}, "subjects": [{"kind": "User", "name": "a"}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta,
            "rules": [{"verbs": ["get"], "nonResourceURLs": ["/a/*"]}]}),
        json!({"apiVersion": "v1", "kind": "Event", "metadata": meta, "involvedObject": {"kind": "Pod", "name": "a",
            "namespace": "n"}, "lastTimestamp": "2026-01-01T00:00:00Z", "count": 1, "message": "a"}),
    ]
}

/// Every place in a value.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, v)| places(v, format!("{at}/{}", key.replace('/', "~1")), all))
        }
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| places(v, format!("{at}/{i}"), all)),
        _ => {}
    }
    all.push(at);
}

fn anything() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "", "..", "/", "/proc/..", "a\0b", "-1", "1e400", "NaN", "25%", "$(", "a=b", "0", "['",
    ]);
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{}])),
        Just(json!({"": ""})),
    ]
}

/// A seed of which one or two places say something else.
fn broken() -> impl Strategy<Value = Value> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), anything()), 0..3);
    (0..seeds().len(), edits).prop_map(|(seed, edits)| {
        let mut object = seeds().swap_remove(seed);
        for (place, value) in edits {
            let mut all = Vec::new();
            places(&object, String::new(), &mut all);
            // The last place is the object itself, and its kind must stay.
            all.retain(|p| !p.is_empty() && p != "/kind" && p != "/apiVersion");
            *object.pointer_mut(place.get(&all).as_str()).unwrap() = value;
        }
        object
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_object_is_judged(object in broken(), other in broken()) {
        let registry = builtin();
        let kind = registry.object(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
        let strategy = kind.strategy;
        let now = jiff::Timestamp::UNIX_EPOCH;
        // Columns and fields are asked for whatever stands in the store.
        kind.columns.iter().for_each(|column| drop((column.value)(&object, now)));
        let _ = ((strategy.fields)(&object), (strategy.grace)(&object, None), api::scale::scale_of(&object));
        let Ok(decoded) = (strategy.decode)(&object) else { return Ok(()) };
        prop_assert_eq!((strategy.decode)(&decoded), Ok(decoded.clone()));
        kind.unknown_fields(&object, &decoded);

        let mut once = decoded.clone();
        (strategy.default)(&mut once);
        let mut twice = once.clone();
        (strategy.default)(&mut twice);
        prop_assert_eq!(&once, &twice);

        let mut bad = Faults::default();
        (strategy.validate)(&once, &mut bad);
        prop_assert!(bad.0.iter().all(|f| !f.message.is_empty() && f.message.len() < 2048));
        (strategy.validate_update)(&once, &other, &mut bad);
        let mut created = once.clone();
        (strategy.before_create)(&mut created);
        let mut updated = once.clone();
        (strategy.before_update)(&mut updated, &other);
        (strategy.before_status)(&mut once, &other);

        // What is the same may be written again.
        let mut bad = Faults::default();
        (strategy.validate_update)(&twice, &twice, &mut bad);
        prop_assert!(bad.is_empty(), "{:?}", bad);
    }

    #[test]
    fn any_pod_is_judged_by_its_security(object in broken()) {
        let Ok(pod) = serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(object) else { return Ok(()) };
        let spec = pod.spec.clone().unwrap_or_default();
        let mut before = 0;
        // Each level refuses what the one before does, and more.
        for level in [api::security::Level::Privileged, api::security::Level::Default, api::security::Level::Baseline,
            api::security::Level::Restricted] {
            let found = api::security::check(level, &spec, &pod.metadata).len();
            prop_assert!(found >= before);
            before = found;
        }
        let _ = (api::pod::qos(&spec), api::pod::requests(&spec), api::pod::limits(&spec), api::pod::phase(&spec, &[], &[]));
    }
}
