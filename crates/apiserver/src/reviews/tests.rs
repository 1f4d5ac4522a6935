use std::sync::Arc;

use async_trait::async_trait;
use axum::{body::Body, response::Response};

use super::*;
use crate::{
    Audit, Authenticator, Config, Nodes, Version,
    admission::tests::{World, account, node, user},
    authn::StoredHolders,
    pki::Pki,
};

struct Nowhere;

#[async_trait]
impl Nodes for Nowhere {
    async fn forward(&self, _node: &str, _request: http::Request<Body>) -> Response {
        Response::default()
    }
}

struct Fixture {
    world: World,
    server: Server,
    _dir: tempfile::TempDir,
}

impl Fixture {
    /// The pods `web` on node `n1` and `idle` on none; both run as `default`.
    async fn new() -> Self {
        let (dir, world) = (tempfile::tempdir().unwrap(), World::new().await);
        for (name, node) in [("web", "n1"), ("idle", "")] {
            let pod = json!({"metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}")},
                "spec": {"serviceAccountName": "default", "nodeName": node}});
            world.put(&format!("/registry/core/pods/a/{name}"), pod).await;
        }
        world.put("/registry/core/nodes/n1", json!({"metadata": {"name": "n1", "uid": "uid-n1"}})).await;
        let clock: crate::Clock = Arc::new(|| "2026-01-02T03:04:05Z".parse().unwrap());
        let pki = Pki::open(dir.path(), clock()).unwrap();
        let holders = Arc::new(StoredHolders(world.ctx.store.clone()));
        let text = String::new;
        let version =
            Version { major: text(), minor: text(), git_version: text(), git_commit: text(), build_date: text() };
        let server = Server::new(Config {
            store: world.ctx.store.clone(),
            registry: world.ctx.registry.clone(),
            authenticator: Arc::new(Authenticator::new(&pki, holders, clock.clone()).unwrap()),
            authorizer: world.rbac.clone(),
            audit: Arc::new(Audit::default()),
            doors: vec![],
            nodes: Arc::new(Nowhere),
            version,
            clock,
        });
        Self { world, server, _dir: dir }
    }

    async fn ask(&self, who: &Identity, kind: &str, spec: Value) -> Value {
        let object = json!({"spec": spec});
        answer(&self.server, who, self.world.kind(kind), "", object).await.unwrap()["status"].clone()
    }

    async fn token(&self, who: &Identity, spec: Value) -> std::result::Result<Value, u16> {
        let account = account("default", json!({}));
        token(&self.server, who, &account, json!({"spec": spec})).await.map_err(|e| e.code.as_u16())
    }
}

#[tokio::test]
async fn access_reviews_answer_as_the_authoriser_does() {
    let f = Fixture::new().await;
    let spec = |verb: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "a"}});
    let yes = f.ask(&user("view"), "SelfSubjectAccessReview", spec("list")).await;
    assert_eq!(yes["allowed"], true);
    assert_eq!(yes["reason"], r#"RBAC: allowed by RoleBinding "a/view" of ClusterRole "view" to User "view""#);
    let no = f.ask(&user("view"), "SelfSubjectAccessReview", spec("create")).await;
    assert_eq!(no, json!({"allowed": false}));
    let mut other = spec("create");
    other["user"] = json!("edit");
    assert_eq!(f.ask(&user("view"), "SubjectAccessReview", other).await["allowed"], true);
    let mut local = json!({"spec": {"user": "edit", "resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "a"}}});
    let kind = f.world.kind("LocalSubjectAccessReview");
    let answered = answer(&f.server, &user("admin"), kind, "a", local.clone()).await.unwrap();
    assert_eq!(answered["status"]["allowed"], true);
    local["spec"]["resourceAttributes"]["namespace"] = json!("b");
    assert_eq!(answer(&f.server, &user("admin"), kind, "a", local).await.unwrap_err().code, 400, "another namespace");
    let path = json!({"nonResourceAttributes": {"path": "/apis", "verb": "get"}});
    assert_eq!(f.ask(&user("nobody"), "SelfSubjectAccessReview", path).await["allowed"], true);
    let empty = answer(&f.server, &user("x"), f.world.kind("SelfSubjectAccessReview"), "", json!({"spec": {}})).await;
    assert_eq!(empty.unwrap_err().code, 400);
}

#[tokio::test]
async fn rules_reviews_list_what_holds() {
    let f = Fixture::new().await;
    let status = f.ask(&user("view"), "SelfSubjectRulesReview", json!({"namespace": "a"})).await;
    let lists = |status: &Value, part: &str| status["resourceRules"].to_string().contains(part);
    assert!(lists(&status, r#""pods/log""#) && !lists(&status, "secrets"));
    assert!(status["nonResourceRules"].to_string().contains("/healthz"));
    assert!(!lists(&f.ask(&user("view"), "SelfSubjectRulesReview", json!({"namespace": "b"})).await, "pods"));
}

#[tokio::test]
async fn whoami() {
    let f = Fixture::new().await;
    let status = f.ask(&user("bob"), "SelfSubjectReview", Value::Null).await;
    assert_eq!(status, json!({"userInfo": {"username": "bob", "groups": ["system:authenticated"]}}));
}

#[tokio::test]
async fn a_token_is_made_and_recognised() {
    let f = Fixture::new().await;
    let web = json!({"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "uid-web"});
    let made = f.token(&user("edit"), json!({"audiences": ["vault"], "boundObjectRef": web})).await.unwrap();
    assert_eq!(made["status"]["expirationTimestamp"], "2026-01-02T04:04:05Z");
    assert_eq!(made["metadata"]["name"], "default");
    let review = json!({"token": made["status"]["token"], "audiences": ["vault"]});
    let status = f.ask(&user("x"), "TokenReview", review).await;
    assert_eq!(status["user"]["username"], "system:serviceaccount:a:default");
    assert_eq!(status["user"]["uid"], "uid-default");
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/node-name"], json!(["n1"]));
    let review = json!({"token": made["status"]["token"]});
    assert_eq!(f.ask(&user("x"), "TokenReview", review).await["authenticated"], false, "not for the API server");

    let plain = f.token(&user("edit"), json!({})).await.unwrap();
    let bearer = f.server.config().authenticator.authenticate(None, plain["status"]["token"].as_str()).await;
    assert_eq!(bearer.unwrap().unwrap().user, "system:serviceaccount:a:default");
}

#[tokio::test]
async fn a_token_has_its_limits() {
    let f = Fixture::new().await;
    let ask = async |spec| f.token(&user("edit"), spec).await;
    assert_eq!(ask(json!({"expirationSeconds": 599})).await, Err(422));
    let long = ask(json!({"expirationSeconds": 10_i64.pow(10)})).await.unwrap();
    assert_eq!(long["spec"]["expirationSeconds"], 365 * 24 * 3600);
    let holder =
        |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"kind": kind, "name": name, "uid": uid}});
    assert_eq!(ask(holder("Pod", "gone", "x")).await, Err(404));
    assert_eq!(ask(holder("Pod", "web", "another")).await, Err(409));
    assert_eq!(ask(holder("Service", "web", "x")).await, Err(422));
    let other = json!({"metadata": {"name": "other", "uid": "u"}, "spec": {"serviceAccountName": "robot"}});
    f.world.put("/registry/core/pods/a/other", other).await;
    assert_eq!(ask(holder("Pod", "other", "u")).await, Err(400), "runs as another account");
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_pods_only() {
    let f = Fixture::new().await;
    let bound = |name: &str| json!({"boundObjectRef": {"kind": "Pod", "name": name}});
    assert!(f.token(&node("n1"), bound("web")).await.is_ok());
    assert_eq!(f.token(&node("n1"), bound("idle")).await, Err(403));
    assert_eq!(f.token(&node("n2"), bound("web")).await, Err(403));
    assert_eq!(f.token(&node("n1"), json!({})).await, Err(403));
}

async fn fetch(f: &Fixture, who: Identity, request: http::request::Builder, body: Value) -> (u16, Value) {
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response = tower::ServiceExt::oneshot(f.server.local(who), request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn others_can_check_tokens_by_themselves() {
    let f = Fixture::new().await;
    let get = |path: &str| http::Request::get(path).header("host", "10.0.0.1:6443");
    let master = || Identity::system("admin", &["system:masters"]);
    let (code, found) = fetch(&f, master(), get("/.well-known/openid-configuration"), Value::Null).await;
    assert_eq!((code, &found["issuer"]), (200, &json!(crate::authn::ISSUER)));
    assert_eq!(found["jwks_uri"], "https://10.0.0.1:6443/openid/v1/jwks");
    let (code, keys) = fetch(&f, master(), get("/openid/v1/jwks"), Value::Null).await;
    let made = f.token(&user("edit"), json!({})).await.unwrap();
    let head = jsonwebtoken::decode_header(made["status"]["token"].as_str().unwrap()).unwrap();
    assert_eq!((code, keys["keys"][0]["kid"].as_str()), (200, head.kid.as_deref()));
    for path in ["/.well-known/openid-configuration", "/openid/v1/jwks"] {
        assert_eq!(fetch(&f, user("view"), get(path), Value::Null).await.0, 403, "{path}");
    }
}

#[tokio::test]
async fn a_review_makes_no_table() {
    let f = Fixture::new().await;
    let post = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let spec = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}});
    let (code, status) = fetch(&f, user("view"), post, spec).await;
    assert_eq!((code, &status["reason"]), (406, &json!("NotAcceptable")));
}
