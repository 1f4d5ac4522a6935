//! Bodies that no client of good will sends: never a panic, never a 500.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::testing::Fixture;

const TARGETS: &[(&str, &str)] = &[
    ("/api/v1/namespaces/default/configmaps", "ConfigMap"),
    ("/api/v1/namespaces/default/pods", "Pod"),
    ("/apis/apps/v1/namespaces/default/deployments", "Deployment"),
    ("/api/v1/namespaces", "Namespace"),
];

const KEYS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "data",
    "name",
    "generateName",
    "labels",
    "annotations",
    "finalizers",
    "managedFields",
    "fieldsV1",
    "f:spec",
    "k:{",
    "ownerReferences",
    "template",
    "containers",
    "ports",
    "selector",
    "matchLabels",
    "replicas",
    "deletionTimestamp",
    "resourceVersion",
    "uid",
    "kind",
    "apiVersion",
    "$patch",
    "$setElementOrder/containers",
    "$retainKeys",
    "op",
    "path",
    "value",
    "from",
    "target",
    "propagationPolicy",
];

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(KEYS).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(KEYS), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// An object that gets past the first checks: nonsense in one or two places, not everywhere.
fn object() -> impl Strategy<Value = Value> {
    let texts = || prop::collection::btree_map("[a-z.$/~]{1,6}", "[a-z]{0,3}", 0..3);
    let lists = || prop::collection::vec("[a-z./]{1,5}", 0..3);
    let part = || prop::option::weighted(0.3, anything());
    (texts(), texts(), lists(), part(), part(), part()).prop_map(|(labels, notes, held, odd, spec, status)| {
        let mut object = json!({"metadata": {"name": "x", "labels": labels, "annotations": notes, "finalizers": held}});
        for (field, value) in [("spec", spec), ("status", status)] {
            if let Some(value) = value {
                object[field] = value;
            }
        }
        if let Some(odd) = odd {
            object["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Apply", "fieldsV1": odd}]);
        }
        object
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn bodies_never_break_the_server(body in prop_oneof![anything(), object()], target in prop::sample::select(TARGETS)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let f = Fixture::new().await;
            let (uri, one) = (target.0, format!("{}/x", target.0));
            let plain = json!({"metadata": {"name": "x"}, "spec": {
                "containers": [{"name": "c", "image": "i"}], "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            }});
            let mut stated = body.clone();
            if let Some(map) = stated.as_object_mut() {
                map.insert("kind".into(), json!(target.1));
            }
            let mut answers = vec![f.post(uri, body.clone()).await];
            f.post(uri, plain).await;
            answers.push(f.put(&one, body.clone()).await);
            for what in ["json", "merge", "strategic-merge"] {
                answers.push(f.patch(what, &one, body.clone()).await);
            }
            answers.push(f.patch("json", &one, json!([body])).await);
            answers.push(f.apply(&one, "m", true, stated).await);
            for part in ["status", "scale", "finalize"] {
                answers.push(f.put(&format!("{one}/{part}"), body.clone()).await);
            }
            for part in ["binding", "eviction"] {
                answers.push(f.post(&format!("{one}/{part}"), body.clone()).await);
            }
            answers.push(f.get(&one).await);
            answers.push(f.delete(&one, body.clone()).await);
            for answer in answers {
                assert!(answer.code.as_u16() < 500, "{}", answer.text());
            }
        });
    }
}
