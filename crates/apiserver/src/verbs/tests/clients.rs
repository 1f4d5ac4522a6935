//! kube's client and reflector, without a socket; and what discovery tells.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt, reflector, watcher},
};
use serde_json::json;

use crate::testing::{Fixture, pod};

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

#[tokio::test]
async fn kube_does_everything() {
    let f = Fixture::new().await;
    let client = Client::new(f.client.clone(), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let made = maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let params = PatchParams::apply("me");
    let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": "1"}});
    maps.patch("a", &params, &Patch::Apply(&patch)).await.unwrap();
    let mut stale = made.clone();
    stale.data = Some(BTreeMap::from([("y".into(), "2".into())]));
    let error = maps.replace("a", &PostParams::default(), &stale).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(s) if s.code == 409));
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    let mut events = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(m)) if m.data.is_some()));
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Deleted(_))));
    assert!(maps.get_opt("a").await.unwrap().is_none());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.create(&PostParams::default(), &serde_json::from_value(pod("p")).unwrap()).await.unwrap();
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
}

/// Both ways in which kube's watcher begins: a list, and initial events.
#[tokio::test]
async fn reflectors_follow() {
    let f = Fixture::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(Client::new(f.client.clone(), "default"));
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let (reader, writer) = reflector::store();
        let events = reflector(writer, watcher(maps.clone(), config)).applied_objects();
        let task = tokio::spawn(events.for_each(async |_| {}));
        reader.wait_until_ready().await.unwrap();
        assert_eq!(reader.len(), 1);
        maps.create(&PostParams::default(), &map("b")).await.unwrap();
        let seen = async {
            while reader.len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), seen).await.unwrap();
        maps.delete("b", &DeleteParams::default()).await.unwrap();
        task.abort();
    }
}

#[tokio::test]
async fn discovery_tells_what_is_served() {
    let f = Fixture::new().await;
    let client = Client::new(f.client.clone(), "default");
    let groups = kube::Discovery::new(client.clone()).run().await.unwrap();
    let apps = groups.get("apps").unwrap();
    let (_, capabilities) = apps.recommended_kind("Deployment").unwrap();
    assert!(capabilities.subresources.iter().any(|(r, _)| r.plural == "scale"));
    let groups = kube::Discovery::new(client).run_aggregated().await.unwrap();
    assert!(groups.get("").unwrap().recommended_kind("Pod").is_some());

    let core = f.get("/api/v1").await.expect(200);
    let resources = core["resources"].as_array().unwrap();
    let eviction = resources.iter().find(|r| r["name"] == "pods/eviction").unwrap();
    assert_eq!((&eviction["group"], &eviction["version"]), (&json!("policy"), &json!("v1")));
    f.get("/apis/none/v1").await.expect(404);
    f.get("/apis/none").await.expect(404);
    // kubectl debug tells by this that a resource is not served.
    assert_eq!(f.get("/bogus").await.expect(404)["details"], json!({}));
    assert_eq!(f.get("/apis/apps").await.expect(200)["preferredVersion"]["version"], "v1");
    assert_eq!(f.get("/readyz").await.text(), "ok");
    // Generated clients write a slash at the end.
    for path in ["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version"] {
        assert_eq!(f.get(&format!("{path}/")).await.expect(200), f.get(path).await.expect(200), "{path}");
    }
    let paths = f.get("/").await.expect(200)["paths"].as_array().unwrap().clone();
    for path in paths.iter().map(|path| path.as_str().unwrap()) {
        assert_eq!(f.get(path).await.code, 200, "{path}");
    }
    assert!(paths.contains(&json!("/apis/apps/v1")) && paths.contains(&json!("/apis/apps")), "{paths:?}");
}
