use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::testing::{Fixture, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn bound(f: &Fixture) -> String {
    let mut two = pod("p");
    two["spec"]["containers"] = json!([{"name": "main", "image": "i"}, {"name": "side", "image": "i"}]);
    two["spec"]["nodeName"] = json!("n1");
    let made = f.post(PODS, two).await.expect(201);
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn forwarded(f: &Fixture, method: &str, uri: &str) -> String {
    let answer = f.call(method, uri, "text/plain", "").await;
    assert_eq!(answer.code, 200, "{}", answer.text());
    answer.text().to_owned()
}

#[tokio::test]
async fn streams_go_to_the_node_in_the_kubelets_form() {
    let f = Fixture::new().await;
    let uid = bound(&f).await;
    let log = forwarded(&f, "GET", &format!("{PODS}/p/log?follow=true&tailLines=5&bogus=1")).await;
    assert_eq!(log, format!("n1 GET /containerLogs/default/p/main?follow=true&tailLines=5&uid={uid} false"));
    let exec = forwarded(
        &f,
        "POST",
        &format!("{PODS}/p/exec?container=side&command=sh&command=-c&command=a+%26b&stdin=true&stdout=true&tty=false"),
    )
    .await;
    assert_eq!(
        exec,
        format!("n1 POST /exec/default/p/side?command=sh&command=-c&command=a%20%26b&input=1&output=1&uid={uid} false")
    );
    let attach = forwarded(&f, "GET", &format!("{PODS}/p/attach?stdout=1&tty=1")).await;
    assert_eq!(attach, format!("n1 GET /attach/default/p/main?output=1&tty=1&uid={uid} false"));
    let forward = forwarded(&f, "POST", &format!("{PODS}/p/portforward?ports=80")).await;
    assert_eq!(forward, format!("n1 POST /portForward/default/p?ports=80&uid={uid} false"));
}

#[tokio::test]
async fn the_default_container_may_be_annotated() {
    let f = Fixture::new().await;
    bound(&f).await;
    let annotation = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "side"}}});
    f.patch("merge", &format!("{PODS}/p"), annotation).await.expect(200);
    assert!(forwarded(&f, "GET", &format!("{PODS}/p/log")).await.starts_with("n1 GET /containerLogs/default/p/side?"));
    f.get(&format!("{PODS}/p/log?container=none")).await.expect(400);
}

#[tokio::test]
async fn what_a_pod_serves_is_asked_by_its_port() {
    let f = Fixture::new().await;
    let mut web = pod("web");
    web["spec"]["nodeName"] = json!("n1");
    web["spec"]["containers"][0]["ports"] = json!([{"name": "main", "containerPort": 8080}]);
    f.post(PODS, web).await.expect(201);
    for (name, path, asked) in [
        ("web", "/proxy/", "/8080/"),
        ("web", "/proxy/a/b?c=d%20e", "/8080/a/b?c=d%20e"),
        ("web:81", "/proxy/", "/81/"),
        ("web:main", "/proxy/x", "/8080/x"),
        ("http:web:main", "/proxy/x", "/8080/x"),
    ] {
        let told = forwarded(&f, "GET", &format!("{PODS}/{name}{path}")).await;
        assert_eq!(told, format!("n1 GET /proxy/default/web{asked} false"), "{name}{path}");
    }
    for method in ["PUT", "OPTIONS", "DELETE"] {
        let told = forwarded(&f, method, &format!("{PODS}/web/proxy/x")).await;
        assert!(told.starts_with(&format!("n1 {method} ")), "{told}");
    }
    assert_eq!(forwarded(&f, "POST", &format!("{PODS}/web/proxy")).await, "n1 POST /proxy/default/web/8080/ false");
    for method in ["GET", "HEAD"] {
        let request = Request::builder().method(method).uri(format!("{PODS}/web/proxy?a=b%20c"));
        let moved = f.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(moved.status(), 301);
        assert_eq!(moved.headers()["location"], format!("{PODS}/web/proxy/?a=b%20c"));
    }
    for name in ["web:none", "https:web:81", "a:b:c:d"] {
        f.get(&format!("{PODS}/{name}/proxy/")).await.expect(400);
    }
    f.get(&format!("{PODS}/none/proxy/")).await.expect(404);
}

#[tokio::test]
async fn what_a_node_refuses_is_a_status() {
    let f = Fixture::new().await;
    bound(&f).await;
    let status = f.get(&format!("{PODS}/p/log?previous=true")).await.expect(400);
    assert_eq!((&status["kind"], &status["message"]), (&json!("Status"), &json!("no previous container")));
}

#[tokio::test]
async fn a_pod_without_node_has_no_streams() {
    let f = Fixture::new().await;
    f.post(PODS, pod("q")).await.expect(201);
    let refused: Value = f.get(&format!("{PODS}/q/log")).await.expect(400);
    assert_eq!(refused["message"], "pod q does not have a host assigned");
    f.get(&format!("{PODS}/none/log")).await.expect(404);
}

#[tokio::test]
async fn log_options_are_judged_before_the_pod_is_looked_for() {
    let f = Fixture::new().await;
    for (query, field) in [
        ("tailLines=-1", "tailLines"),
        ("limitBytes=0", "limitBytes"),
        ("limitBytes=-1", "limitBytes"),
        ("sinceSeconds=0", "sinceSeconds"),
        ("sinceSeconds=-5", "sinceSeconds"),
        ("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z", ""),
        ("stream=Both", "stream"),
        ("stream=Stdout&tailLines=1", ""),
    ] {
        let status = f.get(&format!("{PODS}/none/log?{query}")).await.expect(422);
        let details = &status["details"];
        assert_eq!((&details["kind"], &details["name"]), (&json!("PodLogOptions"), &json!("none")), "{status}");
        assert_eq!(details["causes"][0]["field"], field, "{status}");
    }
    f.get(&format!("{PODS}/none/log?tailLines=many")).await.expect(400);
    let uid = bound(&f).await;
    let query = "tailLines=0&limitBytes=1&sinceSeconds=1&stream=All";
    let log = forwarded(&f, "GET", &format!("{PODS}/p/log?{query}")).await;
    assert_eq!(log, format!("n1 GET /containerLogs/default/p/main?{query}&uid={uid} false"));
}
