//! What would not fit: the pods that files ask for, placed as the scheduler would, beside what is bound now.
//!
//! Not looked at: that a rollout needs room for old and new pods at once, and pods that wait for a node already.

use anyhow::Result;
use api::selector::Selector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use scheduler::{Pod, Unfit, View, Wish, choose};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    cluster::{Cluster, Query},
    manifest::Object,
    target::Address,
};

/// Pods that an object asks for.
struct Ask {
    /// `deployment.apps/web`.
    shown: String,
    /// How many it wants.
    wanted: usize,
    /// How many of these are on nodes already.
    placed: usize,
    /// What each asks of its node.
    wish: Wish,
}

/// One line for each of the objects whose pods would not all fit.
pub async fn shortage(cluster: &Cluster, objects: &[Object]) -> Result<Vec<String>> {
    let list = async |kind: &str| -> Result<Vec<Value>> {
        let path = Cluster::path(&*cluster.kind(kind)?, None, None);
        let list = cluster.get(&path, Query::default()).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    };
    let (nodes, pods) = (list("nodes").await?, list("pods").await?);
    let mut asks = Vec::new();
    for object in objects {
        let at = Address::of(cluster, object)?;
        // With its defaults: a limit without a request asks for as much.
        let Ok(whole) = at.kind.complete(&object.value) else { continue };
        asks.extend(ask(&whole, &at.namespace, at.to_string(), &pods));
    }
    Ok(unplaced(View::read(&nodes, &pods)?, &asks))
}

/// What a Pod, ReplicaSet or Deployment asks for; `None` of any other kind. `pods`: all there are.
fn ask(object: &Value, namespace: &str, shown: String, pods: &[Value]) -> Option<Ask> {
    let spec = &object["spec"];
    let on_a_node = |pod: &&Value| {
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        pod["metadata"]["namespace"] == namespace
            && pod["metadata"]["deletionTimestamp"].is_null()
            && !ended
            && pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty())
    };
    let count = |is: &dyn Fn(&Value) -> bool| pods.iter().filter(on_a_node).filter(|p| is(p)).count();
    let (wanted, placed, pod) = match object["kind"].as_str()? {
        "Pod" => (1, count(&|p| p["metadata"]["name"] == object["metadata"]["name"]), object),
        "Deployment" | "ReplicaSet" => {
            let selector = Selector::from_struct(&LabelSelector::deserialize(&spec["selector"]).ok()?).ok()?;
            let wanted = usize::try_from(spec["replicas"].as_u64().unwrap_or(1)).ok()?;
            (wanted, count(&|p| selector.matches_object(p)), &spec["template"])
        }
        _ => return None,
    };
    Some(Ask { shown, wanted, placed, wish: Pod::deserialize(pod).ok()?.wish() })
}

/// Places everything, in order; tells what found no node.
fn unplaced(mut view: View, asks: &[Ask]) -> Vec<String> {
    let mut short = Vec::new();
    for (i, ask) in asks.iter().enumerate() {
        let missing = ask.wanted.saturating_sub(ask.placed);
        for n in 0..missing {
            match choose(&view, &ask.wish).map(str::to_owned) {
                Ok(node) => view.place(&format!("planned {i} {n}"), &node, ask.wish.demand.clone()),
                Err(unfit) => {
                    // Equal pods: where one does not fit, the next does not either.
                    let (left, wanted) = (missing - n, ask.wanted);
                    let what = if wanted == 1 { "its pod".into() } else { format!("{left} of {wanted} pods") };
                    short.push(format!("{}: {what} would not fit: {}", ask.shown, reasons(&unfit)));
                    break;
                }
            }
        }
    }
    short
}

fn reasons(unfit: &Unfit) -> String {
    if unfit.nodes == 0 {
        return "there is no node".into();
    }
    unfit.reasons.iter().map(|(reason, nodes)| format!("{nodes} {reason}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node() -> Value {
        json!({
            "metadata": {"name": "n"},
            "status": {
                "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    }

    fn deployment(replicas: u32, memory: &str) -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"memory": memory}}},
            ]}},
        }})
    }

    fn bound(name: &str, app: &str, memory: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": app}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"requests": {"memory": memory}}}]},
        })
    }

    fn short(objects: &[Value], pods: &[Value]) -> Vec<String> {
        let shown = |o: &Value| format!("{}/web", o["kind"].as_str().unwrap().to_lowercase());
        let asks: Vec<Ask> = objects.iter().filter_map(|o| ask(o, "default", shown(o), pods)).collect();
        unplaced(View::read(&[node()], pods).unwrap(), &asks)
    }

    #[test]
    fn the_pods_that_find_no_room_are_counted() {
        assert_eq!(short(&[deployment(4, "256Mi")], &[]), Vec::<String>::new());
        let expected = ["deployment/web: 3 of 5 pods would not fit: 1 Insufficient memory"];
        assert_eq!(short(&[deployment(5, "400Mi")], &[]), expected);
    }

    #[test]
    fn what_is_bound_takes_room_unless_it_is_meant() {
        let others = [bound("a", "db", "512Mi")];
        let expected = ["deployment/web: 2 of 4 pods would not fit: 1 Insufficient memory"];
        assert_eq!(short(&[deployment(4, "256Mi")], &others), expected);
        let own = [bound("a", "web", "512Mi"), bound("b", "web", "512Mi")];
        assert_eq!(short(&[deployment(2, "512Mi")], &own), Vec::<String>::new());
    }

    #[test]
    fn objects_of_one_plan_share_the_room() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c"}]}});
        let map = json!({"kind": "ConfigMap", "metadata": {"name": "m"}});
        let lines = short(&[deployment(2, "512Mi"), map, deployment(1, "1Mi"), pod], &[]);
        assert_eq!(
            lines,
            [
                "deployment/web: its pod would not fit: 1 Insufficient memory",
                "pod/web: its pod would not fit: 1 node(s) didn't match Pod's node affinity/selector",
            ]
        );
    }
}
