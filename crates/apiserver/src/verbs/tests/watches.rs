use serde_json::{Value, json};

use crate::testing::Fixture;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(f: &Fixture, name: &str, label: &str) -> Value {
    f.post(MAPS, json!({"metadata": {"name": name, "labels": {"l": label}}})).await.expect(201)
}

async fn label(f: &Fixture, name: &str, label: &str) {
    let patch = json!({"metadata": {"labels": {"l": label}}});
    f.patch("merge", &format!("{MAPS}/{name}"), patch).await.expect(200);
}

#[tokio::test]
async fn from_now_and_from_a_revision() {
    let f = Fixture::new().await;
    let a = make(&f, "a", "x").await;
    let mut now = f.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(now.line().await, "ADDED a");
    let rv = a["metadata"]["resourceVersion"].as_str().unwrap();
    let mut from = f.watch(&format!("{MAPS}?watch=true&resourceVersion={rv}")).await;
    make(&f, "b", "x").await;
    label(&f, "a", "y").await;
    f.delete(&format!("{MAPS}/b"), Value::Null).await.expect(200);
    for watch in [&mut now, &mut from] {
        assert_eq!(watch.line().await, "ADDED b");
        assert_eq!(watch.line().await, "MODIFIED a");
        let (what, gone) = watch.next().await.unwrap();
        assert_eq!((what.as_str(), &gone["metadata"]["name"]), ("DELETED", &json!("b")));
        let rv: u64 = gone["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert!(rv > a["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap());
    }
}

#[tokio::test]
async fn a_list_and_a_watch_from_it_miss_nothing_and_repeat_nothing() {
    let f = Fixture::new().await;
    make(&f, "a", "x").await;
    let list = f.get(MAPS).await.expect(200);
    let rv = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    make(&f, "b", "x").await;
    let mut watch = f.watch(&format!("{MAPS}?watch=1&resourceVersion={rv}")).await;
    assert_eq!(watch.line().await, "ADDED b");
}

#[tokio::test]
async fn a_watch_of_a_namespace_sees_no_other() {
    let f = Fixture::new().await;
    f.post("/api/v1/namespaces", json!({"metadata": {"name": "default2"}})).await.expect(201);
    let other = "/api/v1/namespaces/default2/configmaps";
    f.post(other, json!({"metadata": {"name": "before"}})).await.expect(201);
    let mut one = f.watch(&format!("{MAPS}?watch=true")).await;
    let mut all = f.watch("/api/v1/configmaps?watch=true").await;
    f.post(other, json!({"metadata": {"name": "after"}})).await.expect(201);
    f.delete(&format!("{other}/before"), Value::Null).await.expect(200);
    make(&f, "a", "x").await;
    assert_eq!(one.line().await, "ADDED a");
    for line in ["ADDED before", "ADDED after", "DELETED before", "ADDED a"] {
        assert_eq!(all.line().await, line);
    }
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let f = Fixture::new().await;
    make(&f, "a", "x").await;
    make(&f, "b", "y").await;
    let mut watch = f.watch(&format!("{MAPS}?watch=true&labelSelector=l%3Dx")).await;
    assert_eq!(watch.line().await, "ADDED a");
    label(&f, "b", "x").await;
    assert_eq!(watch.line().await, "ADDED b");
    label(&f, "a", "y").await;
    let (what, left) = watch.next().await.unwrap();
    assert_eq!((what.as_str(), &left["metadata"]["labels"]["l"]), ("DELETED", &json!("x")));
    label(&f, "a", "z").await;
    f.delete(&format!("{MAPS}/a"), Value::Null).await.expect(200);
    f.delete(&format!("{MAPS}/b"), Value::Null).await.expect(200);
    assert_eq!(watch.line().await, "DELETED b");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let f = Fixture::new().await;
    make(&f, "a", "x").await;
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = f.watch(&format!("{MAPS}?{query}&resourceVersion=0")).await;
    assert_eq!(watch.line().await, "ADDED a");
    let (what, mark) = watch.next().await.unwrap();
    assert_eq!((what.as_str(), &mark["kind"]), ("BOOKMARK", &json!("ConfigMap")));
    assert_eq!(mark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let rv = mark["metadata"]["resourceVersion"].as_str().unwrap();
    let mut next = f.watch(&format!("{MAPS}?watch=true&resourceVersion={rv}")).await;
    make(&f, "b", "x").await;
    assert_eq!(next.line().await, "ADDED b");
}

#[tokio::test]
async fn options_that_do_not_go_together_are_told() {
    let f = Fixture::new().await;
    for query in [
        "sendInitialEvents=true",
        "sendInitialEvents=false",
        "sendInitialEvents=true&resourceVersionMatch=Exact",
        "resourceVersionMatch=NotOlderThan&resourceVersion=1",
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x",
    ] {
        let status = f.get(&format!("{MAPS}?watch=true&{query}")).await.expect(422);
        assert_eq!(status["details"]["kind"], "ListOptions", "{status}");
        assert_eq!(status["details"]["causes"][0]["field"], "resourceVersionMatch", "{status}");
    }
}

#[tokio::test]
async fn too_old_a_revision_is_an_error_event() {
    let f = Fixture::new().await;
    for i in 0..5000 / 40 {
        // 40 KiB each: the ring holds 4 MiB.
        f.post(MAPS, json!({"metadata": {"name": format!("m{i}")}, "data": {"x": "y".repeat(40_000)}}))
            .await
            .expect(201);
    }
    let mut watch = f.watch(&format!("{MAPS}?watch=true&resourceVersion=1")).await;
    let (what, status) = watch.next().await.unwrap();
    assert_eq!((what.as_str(), &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn time_brings_bookmarks_and_the_end() {
    let f = Fixture::new().await;
    let mut watch = f.watch(&format!("{MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=100")).await;
    make(&f, "a", "x").await;
    assert_eq!(watch.line().await, "ADDED a");
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    assert_eq!(watch.next().await.unwrap().0, "BOOKMARK");
    tokio::time::advance(std::time::Duration::from_secs(40)).await;
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_stopped_server_ends_its_watches() {
    let f = Fixture::new().await;
    let mut watch = f.watch(&format!("{MAPS}?watch=true")).await;
    f.server.stop();
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn tables_are_watched_too() {
    let f = Fixture::new().await;
    make(&f, "a", "x").await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    for (include, kind) in [("", "PartialObjectMetadata"), ("&includeObject=Object", "ConfigMap")] {
        let mut watch = f.watch_as(&format!("{MAPS}?watch=true&timeoutSeconds=100{include}"), accept).await;
        // Each event is a Table with the one row; the columns come with the first.
        let mut next = async |what: &str, name: Value, columns: bool| {
            let (event, table) = watch.next().await.unwrap();
            let row = &table["rows"][0];
            assert_eq!((&*event, &table["kind"], &row["object"]["kind"]), (what, &json!("Table"), &json!(kind)));
            assert_eq!(table["rows"].as_array().unwrap().len(), 1);
            assert_eq!(row["object"]["metadata"]["name"], name);
            assert_eq!(row["object"]["metadata"]["resourceVersion"], table["metadata"]["resourceVersion"]);
            assert_eq!(table["columnDefinitions"].as_array().unwrap().is_empty(), !columns);
            table["rows"][0].clone()
        };
        let first = next("ADDED", json!("a"), true).await;
        assert_eq!(first["cells"][0], "a");
        make(&f, "b", "x").await;
        next("ADDED", json!("b"), false).await;
        f.patch("merge", &format!("{MAPS}/b"), json!({"data": {"k": "v"}})).await.expect(200);
        let modified = next("MODIFIED", json!("b"), false).await;
        assert_eq!(modified["cells"][1], 1, "its data");
        f.delete(&format!("{MAPS}/b"), Value::Null).await.expect(200);
        assert_eq!(next("DELETED", json!("b"), false).await["cells"][0], "b");
    }
    let mut bare = f.watch_as(&format!("{MAPS}?watch=true&includeObject=None"), accept).await;
    let (_, table) = bare.next().await.unwrap();
    assert_eq!((&table["rows"][0]["cells"][0], &table["rows"][0]["object"]), (&json!("a"), &Value::Null));
}

/// Upstream's reflectors count on what they get being objects.
#[tokio::test]
async fn a_list_that_is_streamed_is_none_of_tables() {
    let f = Fixture::new().await;
    make(&f, "a", "x").await;
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let request = http::Request::get(format!("{MAPS}?{query}")).header("accept", table);
    assert_eq!(f.send(request.body(axum::body::Body::empty()).unwrap()).await.status(), 406);
    let mut watch = f.watch_as(&format!("{MAPS}?{query}"), &format!("{table},application/json")).await;
    assert_eq!(watch.next().await.unwrap().1["kind"], "ConfigMap");
    let (what, mark) = watch.next().await.unwrap();
    assert_eq!((&*what, &mark["metadata"]["annotations"]["k8s.io/initial-events-end"]), ("BOOKMARK", &json!("true")));
}

/// A bookmark is a row of nearly nothing: no column may want more.
#[tokio::test]
async fn every_kind_has_bookmarks_as_tables() {
    let f = Fixture::new().await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for kind in f.server.config().registry.kinds().iter().filter(|kind| kind.stored) {
        let prefix = if kind.group.is_empty() { "api" } else { "apis" };
        let uri = format!("/{prefix}/{}/{}?watch=true&allowWatchBookmarks=true", kind.api_version(), kind.plural);
        let mut watch = f.watch_as(&format!("{uri}&labelSelector=none=such"), accept).await;
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(61)).await;
        let (what, table) = watch.next().await.unwrap();
        tokio::time::resume();
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!((&*what, cells.len()), ("BOOKMARK", kind.columns.len()), "{uri}");
    }
}
