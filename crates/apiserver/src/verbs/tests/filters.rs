use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures::FutureExt;
use http::Request;
use serde_json::json;
use tower::{Service, ServiceExt};

use crate::{
    Identity,
    serve::Peer,
    testing::{Fixture, pod},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn get(uri: &str) -> http::request::Builder {
    Request::get(uri)
}

async fn bound(f: &Fixture, name: &str, node: &str) {
    let mut bound = pod(name);
    bound["spec"]["nodeName"] = json!(node);
    f.post(PODS, bound).await.expect(201);
}

#[tokio::test]
async fn who_may_not_is_told() {
    let f = Fixture::new().await;
    let mut mallory = f.server.local(Identity { user: "mallory".into(), ..Identity::default() });
    let response = mallory.call(get(MAPS).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(response.headers().contains_key("audit-id"));
}

#[tokio::test]
async fn who_acts_as_another_is_the_other() {
    let f = Fixture::new().await;
    let status = async |request: http::request::Builder| f.send(request.body(Body::empty()).unwrap()).await.status();
    assert_eq!(status(get(MAPS).header("impersonate-user", "mallory")).await, 403);
    assert_eq!(status(get(MAPS).header("impersonate-user", "bob")).await, 200);
    // Half of it, or what is not understood, is refused rather than passed over.
    assert_eq!(status(get(MAPS).header("impersonate-group", "x")).await, 400);
    assert_eq!(status(get(MAPS).header("impersonate-user", "bob").header("impersonate-extra-a", "b")).await, 400);
    let mut bob = f.server.local(Identity { user: "bob".into(), ..Identity::default() });
    let request = get(MAPS).header("impersonate-user", "alice").body(Body::empty()).unwrap();
    assert_eq!(bob.call(request).await.unwrap().status(), 403);
}

/// Whoever may act as some users is not thereby a master, nor a service account.
#[tokio::test]
async fn every_part_of_whom_one_acts_as_must_be_allowed() {
    let f = Fixture::new().await;
    let deputy = f.server.local(Identity { user: "deputy".into(), ..Identity::default() });
    let status = async |headers: &[(&str, &str)]| {
        let request = headers.iter().fold(get(MAPS), |request, (name, value)| request.header(*name, *value));
        deputy.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    };
    let bob = ("impersonate-user", "bob");
    assert_eq!(status(&[bob]).await, 200);
    assert_eq!(status(&[bob, ("impersonate-group", "system:masters")]).await, 403);
    assert_eq!(status(&[bob, ("impersonate-uid", "1")]).await, 403);
    assert_eq!(status(&[("impersonate-user", "system:serviceaccount:default:default")]).await, 403);
}

#[tokio::test]
async fn a_door_judges_for_itself() {
    let f = Fixture::new().await;
    let mut mallory = f.server.local(Identity { user: "mallory".into(), ..Identity::default() });
    let knock = |path: &str| Request::post(path).body(Body::empty()).unwrap();
    let response = mallory.call(knock("/door")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("audit-id"));
    for beside in ["/door/", "/door/x", "/doors"] {
        assert_eq!(mallory.call(knock(beside)).await.unwrap().status(), 403, "{beside}");
    }
}

#[tokio::test]
async fn a_right_to_read_is_no_right_to_run() {
    let f = Fixture::new().await;
    bound(&f, "p", "n1").await;
    let reader = f.server.local(Identity { user: "reader".into(), ..Identity::default() });
    for (part, code) in [("log", 200), ("exec?command=id", 403), ("attach", 403), ("portforward", 403)] {
        let request = get(&format!("{PODS}/p/{part}")).body(Body::empty()).unwrap();
        assert_eq!(reader.clone().oneshot(request).await.unwrap().status(), code, "{part}");
    }
}

#[tokio::test]
async fn a_right_to_patch_is_no_right_to_create() {
    let f = Fixture::new().await;
    let patcher = f.server.local(Identity { user: "patcher".into(), ..Identity::default() });
    let apply = async || {
        let request = Request::patch(format!("{MAPS}/m?fieldManager=m&force=true"));
        let request = request.header("content-type", "application/apply-patch+yaml");
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
        patcher.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap().status()
    };
    assert_eq!(apply().await, 403);
    f.get(&format!("{MAPS}/m")).await.expect(404);
    f.post(MAPS, json!({"metadata": {"name": "m"}})).await.expect(201);
    assert_eq!(apply().await, 200);
}

#[tokio::test]
async fn a_right_in_one_namespace_is_none_to_another() {
    let f = Fixture::new().await;
    f.post("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await.expect(201);
    for uri in ["namespaces/default/namespaces", "namespaces/default/namespaces/other", "namespaces/default/nodes/n"] {
        let uri = format!("/api/v1/{uri}");
        f.get(&uri).await.expect(404);
        f.get(&format!("{uri}?watch=true")).await.expect(404);
        f.post(&uri, json!({"metadata": {"name": "more"}})).await.expect(404);
        f.delete(&uri, serde_json::Value::Null).await.expect(404);
        f.patch("merge", &uri, json!({"metadata": {"labels": {"a": "b"}}})).await.expect(404);
    }
    f.get("/api/v1/namespaces/default/namespaces/other/status").await.expect(404);
    let other = f.get("/api/v1/namespaces/other").await.expect(200);
    assert!(other["metadata"]["deletionTimestamp"].is_null() && other["metadata"]["labels"]["a"].is_null());
}

#[tokio::test]
async fn a_selector_is_judged_as_it_selects() {
    let f = Fixture::new().await;
    for name in ["allowed", "other"] {
        f.post(MAPS, json!({"metadata": {"name": name}})).await.expect(201);
    }
    // By its raw commas this one names `allowed`; by its escapes, it excludes something else.
    let sly = r"fieldSelector=metadata.name!=a%5C,metadata.name%3Dallowed";
    f.get(&format!("{MAPS}?{sly}")).await.expect(400);
    f.get(&format!("{MAPS}?watch=true&{sly}")).await.expect(400);
    f.delete(&format!("{MAPS}?{sly}"), serde_json::Value::Null).await.expect(400);
    f.get(&format!("{MAPS}/other")).await.expect(200);
}

#[tokio::test]
async fn a_request_may_say_how_long_it_waits() {
    let f = Fixture::new().await;
    for (text, code) in [("30s", 200), ("3m", 200), ("0s", 200), ("1m30s", 200), ("invalid", 400), ("-5s", 400)] {
        let answer = f.get(&format!("/version?timeout={text}")).await;
        assert_eq!(answer.code, code, "{text}: {}", answer.text());
    }
    let told = f.get(&format!("{MAPS}?timeout=soon")).await.expect(400);
    assert!(told["message"].as_str().unwrap().contains("invalid timeout specified in the request URL"), "{told}");
    f.watch(&format!("{MAPS}?watch=true&timeoutSeconds=1&timeout=1s")).await;
}

#[tokio::test]
async fn a_panic_costs_one_answer() {
    let f = Fixture::new().await;
    bound(&f, "p", "broken").await;
    let answer = f.get(&format!("{PODS}/p/log")).await;
    assert_eq!(answer.expect(500)["reason"], "InternalError");
    assert!(!answer.text().contains("this node"), "{}", answer.text());
    f.get(&format!("{PODS}/p")).await.expect(200);
}

#[tokio::test]
async fn too_many_at_once_are_sent_away() {
    let f = Fixture::new().await;
    let router = f.server.router();
    let mut held = Vec::new();
    for shares in [f.server.in_flight(), f.server.long()] {
        held.extend(std::iter::from_fn(|| shares.take("system:anonymous")));
    }
    assert!(f.server.in_flight().take("another").is_some());
    let request = || get(MAPS).body(Body::empty()).unwrap();
    let answer = router.clone().oneshot(request()).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    let watch = get(&format!("{MAPS}?watch=true")).body(Body::empty()).unwrap();
    assert_eq!(router.clone().oneshot(watch).await.unwrap().status(), 429);
    // What comes from within the process is not held up.
    f.get(MAPS).await.expect(200);
    drop(held);
    assert_eq!(router.oneshot(request()).await.unwrap().status(), 200);
}

/// Whoever sends slowly keeps no one waiting but those who send too.
#[tokio::test]
async fn who_waits_for_a_body_holds_up_no_answer() {
    let f = Fixture::new().await;
    let router = f.server.router();
    let slow = || {
        let body = Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
        let mut answer = Box::pin(router.clone().oneshot(Request::post(MAPS).body(body).unwrap()));
        let answered = answer.as_mut().now_or_never().map(|answer| answer.unwrap().status());
        (answer, answered)
    };
    let waiting: Vec<_> = std::iter::repeat_with(slow).take_while(|(_, answered)| answered.is_none()).collect();
    assert_eq!(waiting.len(), 100);
    let status = async |request: Request<Body>| router.clone().oneshot(request).await.unwrap().status();
    let read = || get(MAPS).body(Body::empty()).unwrap();
    let write = |name: &str| Request::post(MAPS).body(json!({"metadata": {"name": name}}).to_string().into()).unwrap();
    assert_eq!(status(read()).await, 200);
    assert_eq!(status(write("a")).await, 429);
    drop(waiting);
    assert_eq!(status(write("a")).await, 201);
}

#[tokio::test]
async fn a_stranger_takes_only_the_places_of_its_host() {
    let f = Fixture::new().await;
    let _held: Vec<_> = std::iter::from_fn(|| f.server.in_flight().take("192.0.2.1")).collect();
    for (host, code) in [("192.0.2.1", 429), ("192.0.2.2", 200)] {
        let mut request = get("/version").body(Body::empty()).unwrap();
        let peer = Peer { address: format!("{host}:1").parse().unwrap(), certificate: None };
        request.extensions_mut().insert(peer);
        assert_eq!(f.server.router().oneshot(request).await.unwrap().status(), code, "{host}");
    }
}
