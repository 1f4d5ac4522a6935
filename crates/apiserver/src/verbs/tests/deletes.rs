use serde_json::{Value, json};

use crate::testing::{Fixture, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_deleted_object_is_gone() {
    let f = Fixture::new().await;
    let made = f.post(MAPS, json!({"metadata": {"name": "a"}})).await.expect(201);
    let wrong = json!({"preconditions": {"uid": "x"}});
    f.delete(&format!("{MAPS}/a"), wrong).await.expect(409);
    let right = json!({"preconditions": {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}});
    let status = f.delete(&format!("{MAPS}/a"), right).await.expect(200);
    assert_eq!((&status["status"], &status["details"]["uid"]), (&json!("Success"), &made["metadata"]["uid"]));
    f.get(&format!("{MAPS}/a")).await.expect(404);
    f.delete(&format!("{MAPS}/a"), Value::Null).await.expect(404);
    for options in [
        json!({"propagationPolicy": "Nonsense"}),
        json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
        json!({"propagationPolicy": "Background", "orphanDependents": false}),
    ] {
        let status = f.delete(&format!("{MAPS}/a"), options).await.expect(422);
        assert_eq!(status["details"]["causes"][0]["field"], "propagationPolicy");
    }
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let f = Fixture::new().await;
    f.post(MAPS, json!({"metadata": {"name": "a", "finalizers": ["x.io/y"]}})).await.expect(201);
    let uri = format!("{MAPS}/a");
    let marked = f.delete(&uri, Value::Null).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    f.delete(&uri, Value::Null).await.expect(200);
    f.patch("merge", &uri, json!({"metadata": {"finalizers": ["x.io/y", "x.io/new"]}})).await.expect(422);
    f.get(&uri).await.expect(200);
    f.patch("merge", &uri, json!({"metadata": {"finalizers": null}})).await.expect(200);
    f.get(&uri).await.expect(404);
}

#[tokio::test]
async fn foreground_waits_for_the_collector() {
    let f = Fixture::new().await;
    f.post(MAPS, json!({"metadata": {"name": "a"}})).await.expect(201);
    let marked = f.delete(&format!("{MAPS}/a"), json!({"propagationPolicy": "Foreground"})).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    for options in [json!({"propagationPolicy": "Orphan"}), json!({"orphanDependents": true})] {
        f.post(MAPS, json!({"metadata": {"name": "b"}})).await.expect(201);
        let marked = f.delete(&format!("{MAPS}/b"), options).await.expect(200);
        assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]));
        f.patch("merge", &format!("{MAPS}/b"), json!({"metadata": {"finalizers": null}})).await.expect(200);
        f.get(&format!("{MAPS}/b")).await.expect(404);
    }
    f.post(MAPS, json!({"metadata": {"name": "b"}})).await.expect(201);
    f.delete(&format!("{MAPS}/b"), json!({"orphanDependents": false})).await.expect(200);
    f.get(&format!("{MAPS}/b")).await.expect(404);
}

#[tokio::test]
async fn a_bound_pod_waits_for_its_node() {
    let f = Fixture::new().await;
    f.post(PODS, pod("free")).await.expect(201);
    f.delete(&format!("{PODS}/free"), Value::Null).await.expect(200);
    f.get(&format!("{PODS}/free")).await.expect(404);

    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = json!("n1");
    f.post(PODS, bound).await.expect(201);
    let uri = format!("{PODS}/bound");
    let marked = f.delete(&uri, json!({"gracePeriodSeconds": 7})).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], json!(7));
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-02T03:04:12Z");
    let again = f.delete(&uri, json!({"gracePeriodSeconds": 60})).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
    f.delete(&uri, json!({"gracePeriodSeconds": 0})).await.expect(200);
    f.get(&uri).await.expect(404);
    f.delete(&uri, json!({"gracePeriodSeconds": -5})).await.expect(400);
}

#[tokio::test]
async fn an_evicted_pod_is_deleted() {
    let f = Fixture::new().await;
    f.post(PODS, pod("p")).await.expect(201);
    let mut eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    eviction["deleteOptions"] = json!({"dryRun": ["All"]});
    f.post(&format!("{PODS}/p/eviction"), eviction.clone()).await.expect(201);
    f.get(&format!("{PODS}/p")).await.expect(200);
    eviction["deleteOptions"] = Value::Null;
    let mut other = eviction.clone();
    other["metadata"]["name"] = json!("q");
    f.post(&format!("{PODS}/p/eviction"), other).await.expect(400);
    f.post(&format!("{PODS}/p/eviction"), eviction.clone()).await.expect(201);
    f.get(&format!("{PODS}/p")).await.expect(404);

    let mut bound = pod("p");
    bound["spec"]["nodeName"] = json!("n1");
    f.post(PODS, bound).await.expect(201);
    eviction["deleteOptions"] = json!({"preconditions": {"uid": "another"}});
    f.post(&format!("{PODS}/p/eviction"), eviction.clone()).await.expect(409);
    eviction["deleteOptions"] = Value::Null;
    f.post(&format!("{PODS}/p/eviction"), eviction).await.expect(201);
    let evicted = f.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(evicted["status"]["conditions"][0]["type"], "DisruptionTarget");
}

#[tokio::test]
async fn a_collection_goes_by_selector() {
    let f = Fixture::new().await;
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        f.post(MAPS, json!({"metadata": {"name": name, "labels": {"app": app}}})).await.expect(201);
    }
    let gone = f.delete(&format!("{MAPS}?labelSelector=app%3Dx"), Value::Null).await.expect(200);
    assert_eq!(gone["items"].as_array().unwrap().len(), 2);
    let left = f.get(MAPS).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().iter().map(|i| &i["metadata"]["name"]).collect::<Vec<_>>(), ["c"]);
}

#[tokio::test]
async fn a_namespace_ends_by_finalize() {
    let f = Fixture::new().await;
    let uri = "/api/v1/namespaces/t";
    f.post("/api/v1/namespaces", json!({"metadata": {"name": "t"}})).await.expect(201);
    f.post("/api/v1/namespaces/t/configmaps", json!({"metadata": {"name": "a"}})).await.expect(201);
    let marked = f.delete(uri, Value::Null).await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let refused = f.post("/api/v1/namespaces/t/configmaps", json!({"metadata": {"name": "b"}})).await.expect(403);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    // What is there can still change, and go.
    f.patch("merge", "/api/v1/namespaces/t/configmaps/a", json!({"data": {"x": "1"}})).await.expect(200);
    f.delete("/api/v1/namespaces/t/configmaps/a", Value::Null).await.expect(200);
    let mut done = marked.clone();
    done["spec"]["finalizers"] = json!([]);
    f.put(&format!("{uri}/finalize"), done).await.expect(200);
    f.get(uri).await.expect(404);
}

#[tokio::test]
async fn old_events_are_swept() {
    let f = Fixture::new().await;
    let events = "/api/v1/namespaces/default/events";
    let event = |name: &str| json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "R", "type": "Normal"});
    let mut new = event("new");
    new["lastTimestamp"] = json!("2026-01-02T04:00:00Z"); // when the clock says 04:05
    f.post(events, new).await.expect(201);
    f.post(events, event("old")).await.expect(201);
    f.advance(3700);
    crate::tasks::sweep_events(&f.server).await;
    f.get(&format!("{events}/old")).await.expect(404);
    f.get(&format!("{events}/new")).await.expect(200);
}
