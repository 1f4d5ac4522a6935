//! What `kubectl get` shows of objects.

use api::builtin;
use serde_json::{Value, json};

fn row(api_version: &str, kind: &str, object: Value) -> String {
    let registry = builtin();
    let kind = registry.object(api_version, kind).unwrap();
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let cells = kind.columns.iter().map(|column| match (column.value)(&object, now) {
        Value::String(text) => text,
        other => other.to_string(),
    });
    cells.collect::<Vec<_>>().join(" | ")
}

const MADE: &str = "2026-01-01T00:50:30Z";

fn pod(spec: Value, status: Value) -> String {
    row("v1", "Pod", json!({"metadata": {"name": "a", "creationTimestamp": MADE}, "spec": spec, "status": status}))
}

#[test]
fn pods() {
    let one = json!({"containers": [{"name": "a"}], "nodeName": "n"});
    let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
    assert_eq!(
        pod(one.clone(), json!({"phase": "Running", "containerStatuses": [running], "podIPs": [{"ip": "10.0.0.1"}]})),
        "a | 1/1 | Running | 0 | 9m30s | 10.0.0.1 | n | <none> | <none>"
    );
    assert_eq!(
        pod(json!({"containers": [{"name": "a"}]}), json!({"phase": "Pending"})),
        "a | 0/1 | Pending | 0 | 9m30s | <none> | <none> | <none> | <none>"
    );
    let crashing = json!({"name": "a", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:58:00Z"}}});
    assert_eq!(
        pod(one.clone(), json!({"phase": "Running", "containerStatuses": [crashing]})),
        "a | 0/1 | CrashLoopBackOff | 3 (2m ago) | 9m30s | <none> | n | <none> | <none>"
    );
    let ended = json!({"name": "a", "state": {"terminated": {"exitCode": 3}}});
    assert!(
        pod(one.clone(), json!({"phase": "Failed", "containerStatuses": [ended]}))
            .starts_with("a | 0/1 | ExitCode:3 |")
    );
    assert!(pod(one, json!({"phase": "Failed", "reason": "Evicted"})).starts_with("a | 0/1 | Evicted |"));
}

#[test]
fn pods_that_initialise() {
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
    let status = |init: Value| json!({"phase": "Pending", "initContainerStatuses": init});
    let begins = |init: Value, expected: &str| {
        let row = pod(spec.clone(), status(init));
        assert!(row.starts_with(expected), "{row}");
    };
    begins(json!([{"name": "i", "state": {"running": {}}}]), "a | 0/2 | Init:0/2 |");
    begins(
        json!([{"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]),
        "a | 0/2 | Init:ImagePullBackOff |",
    );
    begins(
        json!([{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]),
        "a | 0/2 | Init:Error |",
    );
    let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
    begins(json!([done, {"name": "s", "state": {"running": {}}}]), "a | 0/2 | Init:1/2 |");
    begins(
        json!([done, {"name": "s", "started": true, "ready": true, "state": {"running": {}}}]),
        "a | 1/2 | Pending |",
    );
}

#[test]
fn a_pod_that_goes() {
    let pod = json!({"metadata": {"name": "a", "deletionTimestamp": MADE}, "spec": {"containers": [{}]}, "status": {"phase": "Running"}});
    assert!(row("v1", "Pod", pod).starts_with("a | 0/1 | Terminating | 0 | <unknown> |"));
}

#[test]
fn other_kinds() {
    let meta = json!({"name": "a", "creationTimestamp": MADE});
    let template = json!({"spec": {"containers": [{"name": "x", "image": "i:1"}, {"name": "y", "image": "j"}]}});
    let selector = json!({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "t", "operator": "NotIn", "values": ["b", "c"]}]});
    let cases = [
        (
            "apps/v1",
            "Deployment",
            json!({"metadata": meta, "spec": {"replicas": 3, "selector": selector, "template": template},
                "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}),
            "a | 1/3 | 2 | 1 | 9m30s | x,y | i:1,j | app=a,t notin (b,c)",
        ),
        (
            "apps/v1",
            "ReplicaSet",
            json!({"metadata": meta, "spec": {"replicas": 3}, "status": {"replicas": 2, "readyReplicas": 1}}),
            "a | 3 | 2 | 1 | 9m30s |  |  | <none>",
        ),
        (
            "v1",
            "Node",
            json!({"metadata": {"name": "a", "creationTimestamp": MADE, "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1", "osImage": "o", "kernelVersion": "6", "containerRuntimeVersion": "r"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
            "a | Ready,SchedulingDisabled | control-plane | 9m30s | v1 | 10.0.0.1 | <none> | o | 6 | r",
        ),
        ("v1", "Namespace", json!({"metadata": meta, "status": {"phase": "Active"}}), "a | Active | 9m30s"),
        (
            "v1",
            "ConfigMap",
            json!({"metadata": meta, "data": {"a": "", "b": ""}, "binaryData": {"c": ""}}),
            "a | 3 | 9m30s",
        ),
        ("v1", "Secret", json!({"metadata": meta, "type": "Opaque", "data": {"a": ""}}), "a | Opaque | 1 | 9m30s"),
        ("v1", "ServiceAccount", json!({"metadata": meta}), "a | 0 | 9m30s"),
        (
            "v1",
            "Event",
            json!({"metadata": meta, "type": "Normal", "reason": "Pulled", "message": "x\n", "count": 2,
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "source": {"component": "c", "host": "h"},
            "firstTimestamp": MADE, "lastTimestamp": "2026-01-01T00:59:59Z"}),
            "1s | Normal | Pulled | pod/p | spec | c, h | x | 9m30s | 2 | a",
        ),
        (
            "coordination.k8s.io/v1",
            "Lease",
            json!({"metadata": meta, "spec": {"holderIdentity": "h"}}),
            "a | h | 9m30s",
        ),
        (
            "rastos.io/v1alpha1",
            "Cluster",
            json!({"metadata": {"name": "a", "creationTimestamp": MADE, "generation": 2}, "status": {"observedGeneration": 1,
                "address": "192.0.2.1", "version": "1", "machines": [{"name": "a-0", "server": "s"}], "project": "p"}}),
            "a | 192.0.2.1 | awaits up | 1 | 9m30s | a-0 | <none> | p",
        ),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", json!({"metadata": meta}), "a | 2026-01-01T00:50:30Z"),
        (
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            json!({"metadata": meta, "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}),
            "a | Role/r | 9m30s | u |  | n/s",
        ),
    ];
    for (version, kind, object, expected) in cases {
        assert_eq!(row(version, kind, object), expected, "{kind}");
    }
}

/// Upstream's cells are numbers where they count, though most of these columns call themselves strings.
#[test]
fn what_is_counted_is_a_number() {
    let (object, now) = (json!({"metadata": {"name": "a"}}), "2026-01-01T01:00:00Z".parse().unwrap());
    let registry = builtin();
    let mut counted = std::collections::BTreeSet::new();
    for kind in registry.kinds() {
        let numbers = kind.columns.iter().filter(|c| (c.value)(&object, now).is_number());
        counted.extend(numbers.map(|c| format!("{} {} {}", kind.plural, c.name, c.kind)));
        assert!(
            kind.columns.iter().all(|c| c.kind == "string" || (c.value)(&object, now).is_number()),
            "{}",
            kind.plural
        );
    }
    let expected = [
        "configmaps Data string",
        "deployments Available string",
        "deployments Up-to-date string",
        "events Count string",
        "replicasets Current integer",
        "replicasets Desired integer",
        "replicasets Ready integer",
        "secrets Data string",
        "serviceaccounts Secrets string",
    ];
    assert!(counted.iter().eq(expected.iter()), "{counted:?}");
}
