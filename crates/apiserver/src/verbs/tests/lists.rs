use std::io::Read;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::testing::{Fixture, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.map(|i| i["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn five(f: &Fixture) {
    for name in ["a", "b", "c", "d", "e"] {
        let label = if name < "c" { "x" } else { "y" };
        f.post(MAPS, json!({"metadata": {"name": name, "labels": {"l": label}}})).await.expect(201);
    }
}

fn next(list: &Value) -> String {
    format!("{MAPS}?limit=2&continue={}", list["metadata"]["continue"].as_str().unwrap())
}

#[tokio::test]
async fn pages_show_one_revision() {
    let f = Fixture::new().await;
    five(&f).await;
    let all = f.get(MAPS).await.expect(200);
    assert_eq!((&all["kind"], names(&all).len()), (&json!("ConfigMapList"), 5));
    let first = f.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a".into(), "b".into()], &json!(3)));
    // Unchanged, the next page comes from the cache; changed, from the store: both show the first page's time.
    assert_eq!(names(&f.get(&next(&first)).await.expect(200)), ["c", "d"]);
    f.delete(&format!("{MAPS}/c"), Value::Null).await.expect(200);
    f.post(MAPS, json!({"metadata": {"name": "cc"}})).await.expect(201);
    let second = f.get(&next(&first)).await.expect(200);
    assert_eq!((names(&second), &second["metadata"]["remainingItemCount"]), (vec!["c".into(), "d".into()], &json!(1)));
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let third = f.get(&next(&second)).await.expect(200);
    assert_eq!(names(&third), ["e"]);
    assert!(third["metadata"]["continue"].is_null());
    f.get(&format!("{MAPS}?continue=%21%21")).await.expect(400);
}

#[tokio::test]
async fn a_page_of_a_compacted_time_is_gone() {
    let f = Fixture::new().await;
    five(&f).await;
    let first = f.get(&format!("{MAPS}?limit=2")).await.expect(200);
    f.delete(&format!("{MAPS}/a"), Value::Null).await.expect(200);
    f.get(MAPS).await.expect(200); // now the cache, too, is past the first page
    let store = &f.server.config().store;
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let gone = f.get(&next(&first)).await.expect(410);
    assert_eq!(gone["reason"], "Expired");
    // The rest can be had as it is now, and pages after it show that one revision.
    let second = f.get(&next(&gone)).await.expect(200);
    assert_eq!((names(&second), &second["metadata"]["remainingItemCount"]), (vec!["c".into(), "d".into()], &json!(1)));
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    f.post(MAPS, json!({"metadata": {"name": "f"}})).await.expect(201);
    assert_eq!(names(&f.get(&next(&second)).await.expect(200)), ["e"]);
}

/// What is long past is let go, or the store would grow without end; not before its time, or watches would break.
#[tokio::test]
async fn a_token_ends_with_its_revision_though_nothing_has_changed() {
    let f = Fixture::new().await;
    five(&f).await;
    let first = f.get(&format!("{MAPS}?limit=2")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    f.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    f.post("/api/v1/namespaces", json!({"metadata": {"name": "elsewhere"}})).await.expect(201);
    let store = &f.server.config().store;
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let gone = f.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(410);
    assert_eq!(gone["reason"], "Expired");
    let token = gone["metadata"]["continue"].as_str().unwrap();
    let rest = f.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["c", "d"]);
    assert_ne!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn the_store_is_compacted_as_time_goes_by() {
    let f = Fixture::new().await;
    let store = &f.server.config().store;
    for minute in 0..30 {
        let writes = || vec![store::Write::Put("/registry/test/things/x".into(), "1".into())];
        let commits = (0..200).map(|_| store.commit(store::Txn { checks: vec![], writes: writes() }));
        futures::future::try_join_all(commits).await.unwrap();
        if let Err(error) = store.get("/registry/test/things/x", Some(store::Rev(20))).await {
            assert!(matches!(error, store::Error::Compacted { .. }) && minute >= 5, "after {minute} minutes: {error}");
            return;
        }
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        tokio::time::resume();
    }
    panic!("never compacted");
}

#[tokio::test]
async fn selectors_select() {
    let f = Fixture::new().await;
    five(&f).await;
    assert_eq!(names(&f.get(&format!("{MAPS}?labelSelector=l%3Dx")).await.expect(200)), ["a", "b"]);
    assert_eq!(names(&f.get(&format!("{MAPS}?labelSelector=l+in+(y)&limit=2")).await.expect(200)), ["c", "d"]);
    assert_eq!(names(&f.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dd")).await.expect(200)), ["d"]);
    f.get(&format!("{MAPS}?fieldSelector=spec.x%3Dd")).await.expect(400);
    f.get(&format!("{MAPS}?labelSelector=%3D")).await.expect(400);
    let pods = "/api/v1/namespaces/default/pods";
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = json!("n1");
    f.post(pods, bound).await.expect(201);
    f.post(pods, pod("q")).await.expect(201);
    assert_eq!(names(&f.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.expect(200)), ["p"]);
}

#[tokio::test]
async fn a_namespace_is_not_the_prefix_of_another() {
    let f = Fixture::new().await;
    f.post("/api/v1/namespaces", json!({"metadata": {"name": "default2"}})).await.expect(201);
    f.post("/api/v1/namespaces/default2/configmaps", json!({"metadata": {"name": "z"}})).await.expect(201);
    five(&f).await;
    assert_eq!(names(&f.get(MAPS).await.expect(200)).len(), 5);
    assert_eq!(names(&f.get("/api/v1/configmaps").await.expect(200)).len(), 6);
    f.get("/api/v1/namespaces/default/configmaps/z").await.expect(404);
}

#[tokio::test]
async fn revisions_may_be_named() {
    let f = Fixture::new().await;
    five(&f).await;
    let then = f.get(MAPS).await.expect(200);
    let rv = then["metadata"]["resourceVersion"].as_str().unwrap();
    f.delete(&format!("{MAPS}/a"), Value::Null).await.expect(200);
    let exact = f.get(&format!("{MAPS}?resourceVersion={rv}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!(names(&exact).len(), 5);
    let now = f.get(MAPS).await.expect(200);
    let now = now["metadata"]["resourceVersion"].as_str().unwrap();
    let newer = f.get(&format!("{MAPS}?resourceVersion={now}&resourceVersionMatch=NotOlderThan")).await.expect(200);
    assert_eq!(names(&newer).len(), 4);
    assert_eq!(names(&f.get(&format!("{MAPS}?resourceVersion=0")).await.expect(200)).len(), 4);
    f.get(&format!("{MAPS}?resourceVersion=x")).await.expect(400);
    // A page without more words is of just that revision.
    let paged = f.get(&format!("{MAPS}?resourceVersion={rv}&limit=1")).await.expect(200);
    assert_eq!((names(&paged), &paged["metadata"]["resourceVersion"]), (vec!["a".to_owned()], &json!(rv)));
    let newer = format!("{MAPS}?resourceVersion={rv}&limit=1&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&f.get(&newer).await.expect(200)), ["b"]);
}

#[tokio::test]
async fn options_that_do_not_go_together_are_told() {
    let f = Fixture::new().await;
    for (query, field) in [
        ("resourceVersionMatch=Exact", "resourceVersionMatch"),
        ("resourceVersionMatch=NotOlderThan", "resourceVersionMatch"),
        ("resourceVersionMatch=Exact&resourceVersion=0", "resourceVersionMatch"),
        ("resourceVersionMatch=Newest&resourceVersion=1", "resourceVersionMatch"),
        ("resourceVersionMatch=Exact&resourceVersion=1&continue=x", "resourceVersionMatch"),
        ("sendInitialEvents=true", "sendInitialEvents"),
    ] {
        let uri = format!("{MAPS}?{query}");
        for answer in [f.get(&uri).await, f.delete(&uri, Value::Null).await] {
            let status = answer.expect(422);
            assert_eq!((&status["reason"], &status["details"]["kind"]), (&json!("Invalid"), &json!("ListOptions")));
            assert_eq!(status["details"]["causes"][0]["field"], field, "{status}");
        }
    }
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let post = Request::post(format!("{MAPS}?includeObject=Some")).header("accept", accept);
    let body = json!({"metadata": {"name": "a"}}).to_string();
    assert_eq!(f.send(post.body(body.into()).unwrap()).await.status(), 400);
    f.get(&format!("{MAPS}/a")).await.expect(404);
}

#[tokio::test]
async fn an_object_may_be_asked_for_no_older_than_a_revision() {
    let f = Fixture::new().await;
    let made = f.post(MAPS, json!({"metadata": {"name": "a"}})).await.expect(201);
    let rv = made["metadata"]["resourceVersion"].as_str().unwrap();
    for given in [rv, "1", "0"] {
        let got = f.get(&format!("{MAPS}/a?resourceVersion={given}")).await.expect(200);
        assert_eq!(got["metadata"]["resourceVersion"], rv);
    }
    f.get(&format!("{MAPS}/a?resourceVersion=x")).await.expect(400);
}

async fn fetch(f: &Fixture, uri: &str, header: (&str, &str)) -> (http::HeaderMap, Vec<u8>) {
    let response = f.send(Request::get(uri).header(header.0, header.1).body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    let (parts, body) = response.into_parts();
    (parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn tables_and_metadata() {
    let f = Fixture::new().await;
    five(&f).await;
    let accept = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let table: Value = serde_json::from_slice(&fetch(&f, &format!("{MAPS}?limit=2"), accept).await.1).unwrap();
    assert_eq!((&table["kind"], &table["rows"][1]["cells"][0]), (&json!("Table"), &json!("b")));
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert!(table["metadata"]["continue"].is_string());
    let one: Value =
        serde_json::from_slice(&fetch(&f, &format!("{MAPS}/a?includeObject=Object"), accept).await.1).unwrap();
    assert_eq!(one["rows"][0]["object"]["kind"], "ConfigMap");
    let accept = ("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let partial: Value = serde_json::from_slice(&fetch(&f, MAPS, accept).await.1).unwrap();
    assert_eq!((&partial["kind"], names(&partial).len()), (&json!("PartialObjectMetadataList"), 5));
    assert!(partial["items"][0].get("data").is_none());
}

#[tokio::test]
async fn long_lists_are_compressed_for_those_who_take_it() {
    let f = Fixture::new().await;
    for i in 0..40 {
        f.post(MAPS, json!({"metadata": {"name": format!("m{i:02}")}, "data": {"x": "y".repeat(8000)}}))
            .await
            .expect(201);
    }
    let (plain_headers, plain) = fetch(&f, MAPS, ("accept-encoding", "identity")).await;
    assert_eq!(plain_headers["content-length"], plain.len().to_string());
    let (headers, packed) = fetch(&f, MAPS, ("accept-encoding", "gzip")).await;
    assert_eq!(headers["content-encoding"], "gzip");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain);
    assert_eq!(names(&serde_json::from_slice(&text).unwrap()).len(), 40);
}

#[tokio::test]
async fn a_time_that_has_not_come_is_not_waited_for_for_ever() {
    let f = Fixture::new().await;
    five(&f).await;
    for asked in ["", "/a", "/none"] {
        let uri = format!("{MAPS}{asked}?resourceVersion=1000000");
        let status = f.get(&uri).await.expect(504);
        assert_eq!(status["reason"], "Timeout", "{status}");
        assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "{status}");
        assert_eq!(status["details"]["retryAfterSeconds"], 1);
    }
    f.get(&format!("{MAPS}?watch=1&resourceVersion=1000000")).await.expect(504);
}
