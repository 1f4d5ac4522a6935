use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Taint, Toleration};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    view::{Demand, HostPort, Node, Resources},
    wire::{self, Pod},
};

fn resources(cpu: i64, memory: i64, pods: i64) -> Resources {
    Resources { cpu, memory, pods, ..Resources::default() }
}

fn node(cpu: i64, memory: i64) -> Node {
    Node { ready: true, allocatable: resources(cpu, memory, 110), ..Node::default() }
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap()
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]})
}

fn refusal(view: &View, spec: Value) -> String {
    choose(view, &pod(spec).wish()).unwrap_err().to_string()
}

fn with(nodes: impl IntoIterator<Item = (&'static str, Node)>) -> View {
    let mut view = View::default();
    for (name, node) in nodes {
        view.set_node(name, node);
    }
    view
}

#[test]
fn no_nodes() {
    assert_eq!(refusal(&View::default(), json!({})), "no nodes available to schedule pods");
}

#[test]
fn reasons_are_worded_as_by_kubernetes() {
    let view = with([("n", node(1000, 1 << 30))]);
    assert_eq!(refusal(&view, requests("1", "2Gi")), "0/1 nodes are available: 1 Insufficient memory.");
    assert_eq!(
        refusal(&view, requests("1001m", "2Gi")),
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."
    );
    let taint = Taint { key: "gpu".into(), value: Some("yes".into()), effect: "NoSchedule".into(), time_added: None };
    let view = with([
        ("cordoned", Node { unschedulable: true, ..node(1000, 1 << 30) }),
        ("full", Node { allocatable: resources(1000, 1 << 30, 0), ..node(0, 0) }),
        ("late", Node { ready: false, ..node(1000, 1 << 30) }),
        ("tainted", Node { taints: vec![taint], ..node(1000, 1 << 30) }),
    ]);
    assert_eq!(
        refusal(&view, json!({})),
        "0/4 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint {gpu: yes}, \
         1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 1 node(s) were unschedulable."
    );
    let elsewhere = json!({"nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}]});
    assert_eq!(
        refusal(&view, elsewhere),
        "0/4 nodes are available: 4 node(s) didn't match Pod's node affinity/selector."
    );
}

#[test]
fn an_extended_resource_is_counted_too() {
    let mut gpu = node(1000, 1 << 30);
    gpu.allocatable.other.insert("example.com/gpu".into(), 1);
    let mut view = with([("n", gpu)]);
    let wants = json!({"containers": [{"resources": {"requests": {"example.com/gpu": "1"}}}]});
    view.place("other", "n", pod(wants.clone()).spec.demand());
    assert_eq!(refusal(&view, wants), "0/1 nodes are available: 1 Insufficient example.com/gpu.");
}

#[test]
fn host_ports() {
    let port = |spec: Value| json!({"containers": [{"ports": [spec]}]});
    let taken = port(json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"}));
    let mut view = with([("n", node(1000, 1 << 30))]);
    view.place("other", "n", pod(taken).spec.demand());
    let says = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    assert_eq!(refusal(&view, port(json!({"hostPort": 80}))), says);
    assert_eq!(refusal(&view, port(json!({"hostPort": 80, "hostIP": "10.0.0.1"}))), says);
    for free in [
        json!({"hostPort": 80, "hostIP": "10.0.0.2"}),
        json!({"hostPort": 80, "protocol": "UDP"}),
        json!({"hostPort": 81}),
        json!({"containerPort": 80}),
    ] {
        assert_eq!(choose(&view, &pod(port(free)).wish()), Ok("n"));
    }
    let host_network = json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80}]}]});
    assert_eq!(refusal(&view, host_network), says);
}

#[test]
fn affinity_terms() {
    let zoned = |zone: &str| Node { labels: BTreeMap::from([("zone".into(), zone.into())]), ..node(1000, 1 << 30) };
    let view = with([("a", zoned("1")), ("b", zoned("2")), ("c", zoned("3"))]);
    let pick = |affinity: Value| choose(&view, &pod(json!({"affinity": {"nodeAffinity": affinity}})).wish()).ok();
    let required =
        |terms: Value| json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    let zone = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]});
    assert_eq!(pick(required(json!([zone("Gt", &["1"])]))), Some("b"));
    assert_eq!(pick(required(json!([zone("In", &["9"]), zone("In", &["3"])]))), Some("c"));
    assert_eq!(pick(required(json!([zone("NotIn", &["1"])]))), Some("b"));
    assert_eq!(pick(required(json!([{}]))), None, "an empty term matches nothing");
    let field = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["c"]}]});
    assert_eq!(pick(required(json!([field]))), Some("c"));
    let preferred = json!({"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": zone("In", &["2"])}, {"weight": 90, "preference": zone("In", &["3"])}]});
    assert_eq!(pick(preferred), Some("c"));
}

#[test]
fn a_preference_against_a_node_counts() {
    let shy = Taint { key: "shy".into(), effect: "PreferNoSchedule".into(), ..Taint::default() };
    let view = with([("a", Node { taints: vec![shy], ..node(8000, 8 << 30) }), ("b", node(2000, 2 << 30))]);
    assert_eq!(choose(&view, &pod(json!({})).wish()), Ok("b"));
    let tolerant = json!({"tolerations": [{"key": "shy", "operator": "Exists"}]});
    assert_eq!(choose(&view, &pod(tolerant).wish()), Ok("a"));
}

#[test]
fn init_containers_and_sidecars() {
    let amount = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let spec: wire::PodSpec = serde_json::from_value(json!({
        "initContainers": [
            {"resources": amount("2")},
            {"resources": amount("100m"), "restartPolicy": "Always"},
            {"resources": amount("3")},
        ],
        "containers": [{"resources": amount("1")}, {"resources": amount("500m")}],
        "overhead": {"cpu": "50m"},
    }))
    .unwrap();
    assert_eq!(spec.demand().requests, resources(3150, 0, 1));
}

/// One pod with a null would end the watch of all.
#[test]
fn null_is_absent() {
    let container = json!({"resources": {"requests": null}, "ports": null});
    let spec = json!({"initContainers": null, "tolerations": null, "affinity": null, "nodeSelector": null,
        "priority": null, "hostNetwork": null, "overhead": null, "resources": null, "schedulingGates": null,
        "containers": [container, {"resources": null, "ports": [{"hostPort": null, "containerPort": null}]}]});
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": {"conditions": null}})).unwrap();
    assert_eq!(pod.wish().demand.requests, resources(0, 0, 1));
    let node =
        json!({"metadata": {}, "spec": {"taints": null, "unschedulable": null}, "status": {"allocatable": null}});
    assert!(!serde_json::from_value::<wire::Node>(node).unwrap().view().ready);
}

#[test]
fn pods_that_ask_for_nothing_spread() {
    let mut view = with([("a", node(4000, 8 << 30)), ("b", node(4000, 8 << 30))]);
    let wish = pod(json!({})).wish();
    let mut counts = BTreeMap::new();
    for i in 0..10 {
        let node = choose(&view, &wish).unwrap().to_owned();
        view.place(&i.to_string(), &node, wish.demand.clone());
        *counts.entry(node).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([("a".into(), 5), ("b".into(), 5)]));
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn some_node() -> impl Strategy<Value = Node> {
    let taint = (prop_oneof![Just("x"), Just("y")], prop_oneof![Just("NoSchedule"), Just("PreferNoSchedule")])
        .prop_map(|(key, effect)| Taint { key: key.into(), effect: effect.into(), ..Taint::default() });
    let taints = prop::collection::vec(taint, 0..2);
    (0i64..4, 0i64..4, 0i64..4, any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.9), taints).prop_map(
        |(cpu, memory, pods, ssd, unschedulable, ready, taints)| Node {
            labels: BTreeMap::from([("ssd".to_owned(), ssd.to_string())]),
            allocatable: resources(cpu, memory, pods),
            taints,
            unschedulable,
            ready,
        },
    )
}

fn some_wish() -> impl Strategy<Value = Wish> {
    let port = (80..82i32, prop_oneof![Just("0.0.0.0"), Just("10.0.0.1"), Just("10.0.0.2")])
        .prop_map(|(port, a)| HostPort { protocol: "TCP".into(), address: a.into(), port });
    let ports = prop::collection::vec(port, 0..2);
    (0i64..3, 0i64..3, ports, prop::option::of(any::<bool>()), prop::option::of("[xy]")).prop_map(
        |(cpu, memory, ports, ssd, tolerated)| Wish {
            demand: Demand { requests: resources(cpu, memory, 1), ports },
            selector: ssd.map(|ssd| ("ssd".to_owned(), ssd.to_string())).into_iter().collect(),
            tolerations: tolerated
                .map(|key| Toleration { key: Some(key), operator: Some("Exists".into()), ..Toleration::default() })
                .into_iter()
                .collect(),
            ..Wish::default()
        },
    )
}

/// The judge: whether a pod may be on a node beside these others, told from the rules alone.
fn may(wish: &Wish, node: &Node, others: &[&Wish]) -> bool {
    let sum = |f: fn(&Resources) -> i64| others.iter().map(|o| f(&o.demand.requests)).sum::<i64>();
    let tolerates = |key: &str| wish.tolerations.iter().any(|t| t.key.as_deref() == Some(key));
    let (want, have) = (&wish.demand.requests, &node.allocatable);
    node.ready
        && !node.unschedulable
        && node.taints.iter().all(|t| t.effect == "PreferNoSchedule" || tolerates(&t.key))
        && wish.selector.iter().all(|(k, v)| node.labels.get(k) == Some(v))
        && (others.len() as i64) < have.pods
        && (want.cpu == 0 || sum(|r| r.cpu) + want.cpu <= have.cpu)
        && (want.memory == 0 || sum(|r| r.memory) + want.memory <= have.memory)
        && !wish.demand.ports.iter().any(|p| {
            let others = others.iter().flat_map(|o| &o.demand.ports);
            others.into_iter().any(|q| {
                p.port == q.port && (p.address == q.address || p.address == "0.0.0.0" || q.address == "0.0.0.0")
            })
        })
}

proptest! {
    /// Pods come, are bound where `choose` says, and go: the judge agrees with every choice and refusal.
    #[test]
    fn the_judge_agrees(
        nodes in prop::collection::vec(some_node(), 0..4),
        pods in prop::collection::vec((some_wish(), prop::bool::weighted(0.3)), 1..25),
    ) {
        let mut view = View::default();
        for (name, node) in NAMES.iter().zip(&nodes) {
            view.set_node(name, node.clone());
        }
        let mut bound: Vec<(usize, String, &Wish)> = vec![];
        for (i, (wish, first_one_leaves)) in pods.iter().enumerate() {
            if *first_one_leaves && !bound.is_empty() {
                prop_assert!(view.remove(&bound.remove(0).0.to_string()));
            }
            let on = |name: &str| bound.iter().filter(|b| b.1 == name).map(|b| b.2).collect::<Vec<_>>();
            let fitting: Vec<_> = NAMES.iter().zip(&nodes).filter(|(name, n)| may(wish, n, &on(name))).collect();
            match choose(&view, wish) {
                Ok(name) => {
                    prop_assert!(fitting.iter().any(|(n, _)| **n == name), "{name} does not fit");
                    let name = name.to_owned();
                    view.place(&i.to_string(), &name, wish.demand.clone());
                    bound.push((i, name, wish));
                }
                Err(unfit) => {
                    prop_assert!(fitting.is_empty(), "{unfit}");
                    prop_assert_eq!(unfit.nodes, nodes.len());
                    let told: usize = unfit.reasons.values().sum();
                    prop_assert!(told >= nodes.len() && unfit.reasons.values().all(|n| *n <= nodes.len()));
                }
            }
        }
        // A view that was built up and torn down equals one that was built at once.
        let mut fresh = View::default();
        for (name, node) in NAMES.iter().zip(&nodes) {
            fresh.set_node(name, node.clone());
        }
        for (i, name, wish) in &bound {
            fresh.place(&i.to_string(), name, wish.demand.clone());
        }
        for ((_, _, one), (_, _, other)) in view.nodes().zip(fresh.nodes()) {
            prop_assert_eq!(&one.taken, &other.taken);
            prop_assert_eq!(one.ports.len(), other.ports.len());
        }
    }

    #[test]
    fn any_json_is_read_or_refused_without_panic(text in "\\PC*", amount in "\\PC{0,12}") {
        let _ = serde_json::from_str::<Pod>(&text);
        let _ = pod(requests(&amount, &amount)).spec.demand();
    }

    #[test]
    fn no_order_of_equal_nodes_matters(wish in some_wish(), node in some_node(), count in 1usize..4) {
        let mut view = View::default();
        for name in NAMES[..count].iter().rev() {
            view.set_node(name, node.clone());
        }
        if let Ok(name) = choose(&view, &wish) {
            prop_assert_eq!(name, "a");
        }
    }
}
