use serde_json::{Value, json};

use crate::testing::{Fixture, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }})
}

fn causes(status: &Value) -> Vec<&str> {
    status["details"]["causes"].as_array().into_iter().flatten().filter_map(|c| c["field"].as_str()).collect()
}

#[tokio::test]
async fn a_created_object_is_there() {
    let f = Fixture::new().await;
    let made = f.post(MAPS, map("a", json!({"x": "1"}))).await.expect(201);
    let metadata = &made["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["creationTimestamp"], "2026-01-02T03:04:05Z");
    assert!(metadata["uid"].as_str().is_some_and(|u| u.len() == 36));
    assert!(metadata["resourceVersion"].as_str().is_some_and(|v| v.parse::<u64>().is_ok()));
    assert_eq!(metadata["managedFields"][0]["manager"], "test");
    assert_eq!(metadata["managedFields"][0]["fieldsV1"], json!({"f:data": {"f:x": {}}}));
    assert_eq!(f.get(&format!("{MAPS}/a")).await.expect(200), made);

    let again = f.post(MAPS, map("a", json!({}))).await.expect(409);
    assert_eq!(again["reason"], "AlreadyExists");
}

#[tokio::test]
async fn names_are_generated_or_required() {
    let f = Fixture::new().await;
    let made = f.post(MAPS, json!({"metadata": {"generateName": "web-"}})).await.expect(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_eq!(causes(&f.post(MAPS, json!({})).await.expect(422)), ["metadata.name"]);
    for bad in ["a/b", "..", "a%2f", "x\u{0}"] {
        f.post(MAPS, map(bad, json!({}))).await.expect(422);
    }
}

#[tokio::test]
async fn what_does_not_fit_the_address_is_refused() {
    let f = Fixture::new().await;
    f.post(MAPS, json!({"kind": "Pod", "metadata": {"name": "a"}})).await.expect(400);
    f.post(MAPS, json!({"metadata": {"name": "a", "namespace": "other"}})).await.expect(400);
    f.post(MAPS, json!({"metadata": {"name": "a", "resourceVersion": "1"}})).await.expect(400);
    f.post(MAPS, json!([1])).await.expect(400);
    f.post(MAPS, json!({"metadata": 1})).await.expect(400);
    f.call("POST", MAPS, "application/json", "{").await.expect(400);
    f.call("POST", MAPS, "text/html", "x").await.expect(415);
    f.call("POST", MAPS, "application/json", vec![b' '; 4 << 20]).await.expect(413);
    f.post("/api/v1/namespaces/none/configmaps", map("a", json!({}))).await.expect(404);
    f.post("/api/v1/configmaps", map("a", json!({}))).await.expect(405);
    f.post("/api/v1/namespaces/default/nodes", json!({"metadata": {"name": "a"}})).await.expect(404);
    f.post("/api/v1/namespaces/default/unicorns", json!({})).await.expect(404);
    f.call("POST", &format!("{MAPS}/a/scale"), "application/json", "{}").await.expect(404);
}

#[tokio::test]
async fn yaml_is_taken() {
    let f = Fixture::new().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\ndata:\n  key: 'yes'\n";
    let made = f.call("POST", MAPS, "application/yaml", yaml).await.expect(201);
    assert_eq!(made["data"], json!({"key": "yes"}));
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_told() {
    let f = Fixture::new().await;
    let text = r#"{"metadata":{"name":"s"},"data":{"a":"1","a":"2"},"bogus":{"x":1}}"#;
    let uri = |v: &str| format!("{MAPS}?fieldValidation={v}&dryRun=All");
    let strict = f.call("POST", &uri("Strict"), "application/json", text).await;
    let message = strict.expect(400)["message"].as_str().unwrap().to_owned();
    // All at once, unknown ones first, in the words that Kubernetes' own tests look for.
    let told = r#"strict decoding error: unknown field "bogus", duplicate field "data.a""#;
    assert!(message.ends_with(told), "{message}");
    for (media, patch) in
        [("merge", r#"{"bogus":1,"data":{"a":"1","a":"2"}}"#), ("strategic", r#"{"bogus":1,"data":{"a":"1","a":"2"}}"#)]
    {
        let media = format!("application/{}merge-patch+json", if media == "merge" { "" } else { "strategic-" });
        f.post(MAPS, map(&media.replace(['/', '+'], "-"), json!({}))).await.expect(201);
        let uri = format!("{MAPS}/{}?fieldValidation=Strict", media.replace(['/', '+'], "-"));
        let message = f.call("PATCH", &uri, &media, patch).await.expect(400)["message"].as_str().unwrap().to_owned();
        assert!(message.ends_with(told), "{message}");
    }
    let strict = f.post(&uri("Strict"), json!({"metadata": {"name": "s"}, "bogus": 1})).await.expect(400);
    assert!(strict["message"].as_str().unwrap().ends_with("strict decoding error: unknown field \"bogus\""));
    let warned = f.call("POST", &uri("Warn"), "application/json", text).await;
    warned.expect(201);
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().collect();
    assert_eq!(warnings, ["299 - \"unknown field \\\"bogus\\\"\"", "299 - \"duplicate field \\\"data.a\\\"\""]);
    let ignored = f.call("POST", &uri("Ignore"), "application/json", text).await;
    assert!(!ignored.headers.contains_key("warning"));
    f.post(&uri("Perhaps"), json!({"metadata": {"name": "s"}})).await.expect(400);
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let f = Fixture::new().await;
    let made = f.post(&format!("{MAPS}?dryRun=All"), map("a", json!({}))).await.expect(201);
    assert!(made["metadata"]["uid"].is_string());
    f.get(&format!("{MAPS}/a")).await.expect(404);
    let made = f.post(MAPS, map("a", json!({"x": "1"}))).await.expect(201);
    f.post(&format!("{MAPS}?dryRun=All"), map("a", json!({}))).await.expect(409);
    f.put(&format!("{MAPS}/a?dryRun=All"), map("a", json!({"x": "2"}))).await.expect(200);
    f.delete(&format!("{MAPS}/a?dryRun=All"), Value::Null).await.expect(200);
    f.delete(&format!("{MAPS}?dryRun=All"), Value::Null).await.expect(200);
    // As kubectl asks for it, and of one that would only be marked.
    f.delete(&format!("{MAPS}/a"), json!({"dryRun": ["All"]})).await.expect(200);
    let foreground = json!({"dryRun": ["All"], "propagationPolicy": "Foreground"});
    f.delete(&format!("{MAPS}/a"), foreground).await.expect(200);
    assert_eq!(f.get(&format!("{MAPS}/a")).await.expect(200), made);
}

#[tokio::test]
async fn updates_are_checked_against_the_revision() {
    let f = Fixture::new().await;
    let uri = format!("{MAPS}/a");
    let first = f.post(MAPS, map("a", json!({"x": "1"}))).await.expect(201);
    let mut next = first.clone();
    next["data"]["x"] = json!("2");
    let second = f.put(&uri, next.clone()).await.expect(200);
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(f.put(&uri, next).await.expect(409)["reason"], "Conflict");
    // Without a revision it is unconditional; the same again writes nothing.
    let third = f.put(&uri, map("a", json!({"x": "3"}))).await.expect(200);
    assert_eq!(third["data"], json!({"x": "3"}));
    assert_eq!(f.put(&uri, map("a", json!({"x": "3"}))).await.expect(200), third);
    let mut other = map("a", json!({}));
    other["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    f.put(&uri, other).await.expect(409);
    f.put(&uri, map("b", json!({}))).await.expect(400);
    f.put(&format!("{MAPS}/none"), map("none", json!({}))).await.expect(404);
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let f = Fixture::new().await;
    let uri = format!("{DEPLOYMENTS}/web");
    let made = f.post(DEPLOYMENTS, deployment()).await.expect(201);
    assert_eq!((&made["metadata"]["generation"], &made["status"]), (&json!(1), &json!({})));
    assert!(!made["metadata"]["managedFields"].to_string().contains("f:status"));
    let mut new = made.clone();
    new["metadata"]["annotations"] = json!({"told": "with the status"});
    new["metadata"]["labels"] = json!({"mine": "now"});
    new["spec"]["replicas"] = json!(7);
    new["status"] = json!({"replicas": 3, "observedGeneration": 1});
    let after = f.put(&format!("{uri}/status"), new.clone()).await.expect(200);
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(2), &json!(3)));
    let metadata = &after["metadata"];
    assert_eq!((&metadata["generation"], &metadata["annotations"]), (&json!(1), &new["metadata"]["annotations"]));
    assert!(metadata["labels"].is_null(), "labels grant rights: {metadata}");
    assert!(after["metadata"]["managedFields"].as_array().unwrap().iter().any(|m| m["subresource"] == "status"));
    new["metadata"].as_object_mut().unwrap().shift_remove("resourceVersion");
    new["status"]["replicas"] = json!(9);
    let after = f.put(&uri, new).await.expect(200);
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(7), &json!(3)));
    assert_eq!(after["metadata"]["generation"], json!(2));
}

#[tokio::test]
async fn scale_is_read_and_set() {
    let f = Fixture::new().await;
    f.post(DEPLOYMENTS, deployment()).await.expect(201);
    let uri = format!("{DEPLOYMENTS}/web/scale");
    let scale = f.get(&uri).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(scale["status"]["selector"], "app=web");
    let scale = f.patch("merge", &uri, json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(scale["spec"]["replicas"], json!(5));
    let mut stale = scale.clone();
    stale["metadata"]["resourceVersion"] = json!("1");
    f.put(&uri, stale).await.expect(409);
    let mut bad = scale.clone();
    bad["spec"]["replicas"] = json!(-1);
    assert_eq!(causes(&f.put(&uri, bad).await.expect(422)), ["spec.replicas"]);
    assert_eq!(f.get(&format!("{DEPLOYMENTS}/web")).await.expect(200)["spec"]["replicas"], json!(5));
}

#[tokio::test]
async fn patches_of_every_type() {
    let f = Fixture::new().await;
    f.post(DEPLOYMENTS, deployment()).await.expect(201);
    let uri = format!("{DEPLOYMENTS}/web");
    let ops = json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "1"}}]);
    assert_eq!(f.patch("json", &uri, ops).await.expect(200)["metadata"]["labels"], json!({"a": "1"}));
    let merge = json!({"metadata": {"labels": {"a": null, "b": "2"}}});
    assert_eq!(f.patch("merge", &uri, merge).await.expect(200)["metadata"]["labels"], json!({"b": "2"}));
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "j"}]}}}});
    let after = f.patch("strategic-merge", &uri, strategic).await.expect(200);
    assert_eq!(after["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    f.patch("json", &uri, json!([{"op": "remove", "path": "/nope"}])).await.expect(422);
    f.patch("merge", &uri, json!({"spec": {"replicas": "x"}})).await.expect(400);
    f.patch("merge", &uri, json!({"metadata": {"resourceVersion": "1"}})).await.expect(409);
    f.call("PATCH", &uri, "application/json", "{}").await.expect(415);
    f.patch("merge", &format!("{DEPLOYMENTS}/none"), json!({})).await.expect(404);
    assert_eq!(causes(&f.patch("merge", &format!("{uri}?force=true"), json!({})).await.expect(422)), ["force"]);
}

#[tokio::test]
async fn what_is_made_has_no_name_in_its_path_and_what_is_changed_has_one() {
    let f = Fixture::new().await;
    f.post(DEPLOYMENTS, deployment()).await.expect(201);
    f.post(&format!("{DEPLOYMENTS}/web"), deployment()).await.expect(405);
    f.put(DEPLOYMENTS, deployment()).await.expect(405);
    f.patch("merge", DEPLOYMENTS, json!({})).await.expect(405);
}

#[tokio::test]
async fn apply_creates_merges_and_conflicts() {
    let f = Fixture::new().await;
    let uri = format!("{DEPLOYMENTS}/web");
    assert_eq!(causes(&f.apply(&uri, "", false, deployment()).await.expect(422)), ["fieldManager"]);
    let mut double = deployment();
    double["spec"]["template"]["spec"]["containers"] =
        json!([{"name": "c", "image": "i"}, {"name": "c", "image": "j"}]);
    let refused = f.apply(&uri, "a", true, double).await.expect(400);
    let place = r#".spec.template.spec.containers[{"name":"c"}]"#;
    assert!(refused["message"].as_str().unwrap().ends_with(place), "{refused}");
    let made = f.apply(&uri, "a", false, deployment()).await.expect(201);
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    // The same again changes nothing, defaults notwithstanding.
    assert_eq!(f.apply(&uri, "a", false, deployment()).await.expect(200), made);
    let mut other = deployment();
    other["spec"]["replicas"] = json!(9);
    let refused = f.apply(&uri, "b", false, other.clone()).await.expect(409);
    assert_eq!(causes(&refused), [".spec.replicas"]);
    assert_eq!(refused["details"]["causes"][0]["message"], "conflict with \"a\"");
    assert_eq!(f.apply(&uri, "b", true, other).await.expect(200)["spec"]["replicas"], json!(9));
    let strict = format!("{uri}?fieldManager=a&fieldValidation=Strict");
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"bogus": 1}}).to_string();
    f.call("PATCH", &strict, "application/apply-patch+yaml", body).await.expect(400);
}

#[tokio::test]
async fn tolerations_written_anew_keep_what_every_pod_has() {
    let f = Fixture::new().await;
    f.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    let anew = json!({"spec": {"tolerations": [{"key": "mine", "operator": "Exists"}]}});
    let pod = f.patch("merge", "/api/v1/namespaces/default/pods/p", anew).await.expect(200);
    let keys: Vec<&str> =
        pod["spec"]["tolerations"].as_array().unwrap().iter().map(|t| t["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["mine", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    assert_eq!(pod["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let f = Fixture::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    f.post(pods, pod("p")).await.expect(201);
    let binding = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    f.post(&format!("{pods}/p/binding"), binding("")).await.expect(400);
    f.post(&format!("{pods}/p/binding"), binding("n1")).await.expect(201);
    assert_eq!(f.post(&format!("{pods}/p/binding"), binding("n2")).await.expect(409)["reason"], "Conflict");
    let bound = f.get(&format!("{pods}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    f.post(&format!("{pods}/none/binding"), binding("n1")).await.expect(404);
}

#[tokio::test]
async fn racing_patches_all_count() {
    let f = Fixture::new().await;
    f.post(MAPS, map("a", json!({}))).await.expect(201);
    let uri = format!("{MAPS}/a");
    let patches = (0..8).map(|i| f.patch("merge", &uri, json!({"data": {format!("k{i}"): "v"}})));
    for answer in futures::future::join_all(patches).await {
        answer.expect(200);
    }
    assert_eq!(f.get(&uri).await.expect(200)["data"].as_object().unwrap().len(), 8);
}

/// Whoever gets a 201 was there before the end: nothing is created in a namespace once it is marked.
#[tokio::test]
async fn no_create_slips_into_a_namespace_that_ends() {
    let f = Fixture::new().await;
    let revision = |o: &Value| o["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    for round in 0..5 {
        let (name, uri) = (format!("n{round}"), format!("/api/v1/namespaces/n{round}"));
        f.post("/api/v1/namespaces", json!({"metadata": {"name": name}})).await.expect(201);
        let maps = format!("{uri}/configmaps");
        let creates = futures::future::join_all((0..20).map(|i| f.post(&maps, map(&format!("m{i}"), json!({})))));
        let (made, marked) = tokio::join!(creates, f.delete(&uri, Value::Null));
        let end = revision(&marked.expect(200));
        for answer in made {
            match answer.code.as_u16() {
                201 => assert!(revision(&answer.json()) < end),
                code => assert_eq!(code, 403, "{}", answer.text()),
            }
        }
    }
}

fn nulls(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Null => found.push(at.to_owned()),
        Value::Array(items) => items.iter().for_each(|item| nulls(item, &format!("{at}[]"), found)),
        Value::Object(map) => map.iter().for_each(|(key, value)| nulls(value, &format!("{at}.{key}"), found)),
        _ => {}
    }
}

/// Null is absent: clients send it for empty lists, and no reader should have to know.
#[tokio::test]
async fn null_is_never_stored() {
    let f = Fixture::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let uri = |name: &str| format!("{pods}/{name}");
    let with_nulls = |name: &str| {
        let mut pod = pod(name);
        pod["metadata"]["finalizers"] = Value::Null;
        pod["metadata"]["creationTimestamp"] = Value::Null;
        for field in ["initContainers", "volumes", "nodeSelector", "tolerations", "affinity"] {
            pod["spec"][field] = Value::Null;
        }
        for field in ["env", "ports", "volumeMounts", "command", "securityContext"] {
            pod["spec"]["containers"][0][field] = Value::Null;
        }
        pod["status"] = Value::Null;
        pod
    };
    f.post(pods, with_nulls("posted")).await.expect(201);
    f.apply(&uri("applied"), "m", false, with_nulls("applied")).await.expect(201);
    f.apply(&uri("applied"), "m", false, with_nulls("applied")).await.expect(200);
    f.put(&uri("posted"), {
        let mut pod = f.get(&uri("posted")).await.expect(200);
        pod["spec"]["initContainers"] = Value::Null;
        pod
    })
    .await
    .expect(200);
    let add = |path: &str| json!([{"op": "add", "path": path, "value": null}]);
    f.patch("json", &uri("posted"), add("/spec/initContainers")).await.expect(200);
    f.patch("merge", &uri("posted"), json!({"spec": {"nodeSelector": null}})).await.expect(200);
    f.patch("strategic-merge", &uri("posted"), json!({"spec": {"initContainers": null}})).await.expect(200);
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "message": null}],
        "initContainerStatuses": null}});
    f.patch("merge", &format!("{}/status", uri("posted")), status.clone()).await.expect(200);
    f.patch("strategic-merge", &format!("{}/status", uri("applied")), status).await.expect(200);
    let mut deployment = deployment();
    deployment["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    deployment["spec"]["template"]["spec"]["initContainers"] = Value::Null;
    deployment["status"] = Value::Null;
    f.post(DEPLOYMENTS, deployment).await.expect(201);
    f.patch("merge", &format!("{DEPLOYMENTS}/web/scale"), json!({"spec": {"replicas": 3}})).await.expect(200);

    for uri in [uri("posted"), uri("applied"), format!("{DEPLOYMENTS}/web")] {
        let mut found = Vec::new();
        nulls(&f.get(&uri).await.expect(200), "", &mut found);
        assert_eq!(found, Vec::<String>::new(), "{uri}");
    }
}

#[tokio::test]
async fn an_empty_list_of_managers_clears_nothing() {
    let f = Fixture::new().await;
    let one = format!("{MAPS}/m");
    f.apply(
        &one,
        "m",
        false,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}}),
    )
    .await
    .expect(201);
    let managers = async |list: Value| {
        let done = f.patch("merge", &one, json!({"metadata": {"managedFields": list}})).await.expect(200);
        done["metadata"]["managedFields"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(managers(json!([])).await, 1);
    assert_eq!(managers(json!([{}])).await, 0);
}

#[tokio::test]
async fn who_takes_no_json_is_told_before_anything_is_done() {
    let f = Fixture::new().await;
    let ask = async |method: &str, uri: &str, body: Value| {
        let request = http::Request::builder().method(method).uri(uri).header("accept", "text/html");
        let request = request.header("content-type", "application/json").body(body.to_string().into());
        f.send(request.unwrap()).await.status().as_u16()
    };
    assert_eq!(ask("POST", MAPS, json!({"metadata": {"name": "m"}})).await, 406);
    f.get(&format!("{MAPS}/m")).await.expect(404);
    f.post(MAPS, json!({"metadata": {"name": "m"}})).await.expect(201);
    assert_eq!(ask("PUT", &format!("{MAPS}/m"), json!({"metadata": {"name": "m"}, "data": {"a": "b"}})).await, 406);
    assert_eq!(ask("DELETE", &format!("{MAPS}/m"), json!({})).await, 406);
    assert!(f.get(&format!("{MAPS}/m")).await.expect(200)["data"].is_null());
}

#[tokio::test]
async fn a_namespace_of_a_generated_name_is_labelled_with_it() {
    let f = Fixture::new().await;
    let made = f.post("/api/v1/namespaces", json!({"metadata": {"generateName": "ns-"}})).await.expect(201);
    let metadata = &made["metadata"];
    assert!(metadata["name"].is_string());
    assert_eq!(metadata["labels"]["kubernetes.io/metadata.name"], metadata["name"]);
}

#[tokio::test]
async fn what_is_too_large_is_not_stored() {
    let f = Fixture::new().await;
    let mut large = crate::testing::pod("p");
    large["spec"]["containers"][0]["args"] = json!(["x".repeat(3 << 19)]);
    f.post("/api/v1/namespaces/default/pods", large).await.expect(413);
    f.post("/api/v1/namespaces/default/pods", crate::testing::pod("p")).await.expect(201);
    let keys: Value = (0..5_000).map(|i| (format!("{i:0250}"), json!(""))).collect::<serde_json::Map<_, _>>().into();
    f.post(MAPS, json!({"metadata": {"name": "m"}, "data": keys})).await.expect(422);
}

/// What `kubectl debug --target` sends is told by its field, and what to do instead.
#[tokio::test]
async fn a_container_to_debug_in_the_processes_of_another_is_refused() {
    let f = Fixture::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    f.post(pods, pod("p")).await.expect(201);
    let debug = async |more: Value| {
        let mut container = json!({"name": "debugger", "image": "busybox"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let patch = json!({"spec": {"ephemeralContainers": [container]}});
        f.patch("strategic-merge", &format!("{pods}/p/ephemeralcontainers"), patch).await
    };
    let status = debug(json!({"targetContainerName": "main"})).await.expect(422);
    let cause = &status["details"]["causes"][0];
    assert_eq!(cause["field"], "spec.ephemeralContainers[0].targetContainerName", "{status}");
    assert!(cause["message"].as_str().unwrap().contains("kubectl debug without --target"), "{status}");
    assert_eq!(debug(json!({})).await.expect(200)["metadata"]["generation"], 2);
}
