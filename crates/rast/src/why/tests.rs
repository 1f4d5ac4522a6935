//! Each named cause with the words it leads to.

use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use super::{Cause, Chain, pod, workload};

fn event(reason: &str, message: &str) -> Event {
    serde_json::from_value(json!({
        "metadata": {}, "involvedObject": {"fieldPath": "spec.containers{main}"},
        "reason": reason, "message": message,
    }))
    .unwrap()
}

/// A pod on a ready node, whose container `main` has this status.
fn with(container: Value, events: &[(&str, &str)]) -> pod::Evidence {
    let mut status = json!({"name": "main", "image": "reg/app:1", "imageID": "", "ready": false, "restartCount": 0});
    status.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "main", "resources": {"limits": {"memory": "32Mi"}}},
        ]},
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "PodReadyToStartContainers", "status": "True"},
            ],
            "containerStatuses": [status],
        },
    });
    pod::Evidence {
        pod: serde_json::from_value(pod).unwrap(),
        events: events.iter().map(|(reason, message)| event(reason, message)).collect(),
        logs: vec![("main".into(), vec!["panic: no such table".into()])],
        node_ready: Some(true),
    }
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"state": {"waiting": {"reason": reason, "message": message}}})
}

fn ended(reason: &str, code: i32) -> Value {
    json!({
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"reason": reason, "exitCode": code}},
    })
}

/// A pod as a whole: changes to the pod of [`with`].
fn pod_with(change: impl FnOnce(&mut Value), events: &[(&str, &str)]) -> pod::Evidence {
    let mut evidence = with(json!({}), events);
    let mut pod = serde_json::to_value(&evidence.pod).unwrap();
    change(&mut pod);
    evidence.pod = serde_json::from_value(pod).unwrap();
    evidence
}

fn unscheduled(message: &str) -> pod::Evidence {
    let mut evidence = pod_with(
        |pod| {
            pod["spec"]["nodeName"] = Value::Null;
            pod["status"] = json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
            ]});
        },
        &[],
    );
    evidence.node_ready = None;
    evidence
}

#[track_caller]
pub(super) fn says(chain: &Chain, cause: Cause, expected: &str) {
    assert_eq!(chain.cause, cause, "{chain}");
    let expected: Vec<&str> = expected.lines().map(|l| l.strip_prefix("        ").unwrap_or(l)).collect();
    assert_eq!(chain.to_string().trim_end(), expected.join("\n").trim());
}

#[test]
fn image_not_found() {
    let said = r#"Failed to pull image "reg/app:1": the registry says: manifest unknown"#;
    let evidence = with(waiting("ImagePullBackOff", "Back-off pulling image"), &[("Failed", said)]);
    says(
        &pod::explain(&evidence),
        Cause::ImageNotFound,
        r#"
        pod/web is Pending
          because container main: the registry has no image reg/app:1
            | Failed to pull image "reg/app:1": the registry says: manifest unknown
        to do: check the name and the tag"#,
    );
}

#[test]
fn image_access_denied() {
    let evidence = with(waiting("ErrImagePull", "reg/app:1: the registry says: 401 unauthorized"), &[]);
    says(
        &pod::explain(&evidence),
        Cause::ImageDenied,
        r#"
        pod/web is Pending
          because container main: the registry refuses access to reg/app:1
            | reg/app:1: the registry says: 401 unauthorized
        to do: name a Secret of type kubernetes.io/dockerconfigjson in spec.imagePullSecrets"#,
    );
}

#[test]
fn registry_down() {
    let evidence = with(waiting("ErrImagePull", "reg/app:1: connect to 127.0.0.1:5000: connection refused"), &[]);
    says(
        &pod::explain(&evidence),
        Cause::RegistryDown,
        r#"
        pod/web is Pending
          because container main: the image reg/app:1 could not be fetched
            | reg/app:1: connect to 127.0.0.1:5000: connection refused
        to do: check that the node reaches the registry; the pull is tried again by itself"#,
    );
}

#[test]
fn image_name_invalid() {
    let evidence = with(waiting("InvalidImageName", "upper case"), &[]);
    assert_eq!(pod::explain(&evidence).cause, Cause::ImageName);
}

#[test]
fn image_never_pulled() {
    let evidence = with(waiting("ErrImageNeverPull", ""), &[]);
    says(
        &pod::explain(&evidence),
        Cause::ImageNeverPulled,
        r#"
        pod/web is Pending
          because container main: the image reg/app:1 is not on the node and imagePullPolicy is Never
        to do: `rast pull` or `rast images load` it, or allow it to be pulled"#,
    );
}

#[test]
fn missing_config_map() {
    let evidence = with(waiting("CreateContainerConfigError", r#"configmap "settings" not found"#), &[]);
    says(
        &pod::explain(&evidence),
        Cause::MissingSource,
        r#"
        pod/web is Pending
          because container main: configmap "settings" not found
        to do: create it in the pod's namespace; the container then starts by itself"#,
    );
}

#[test]
fn missing_key() {
    let message = "couldn't find key colour in ConfigMap default/settings";
    let evidence = with(waiting("CreateContainerConfigError", message), &[]);
    says(
        &pod::explain(&evidence),
        Cause::MissingKey,
        r#"
        pod/web is Pending
          because container main: couldn't find key colour in ConfigMap default/settings
        to do: add the key, or mark the reference optional"#,
    );
}

#[test]
fn missing_secret_of_a_volume() {
    let said = r#"MountVolume.SetUp failed for volume "keys" : secret "keys" not found"#;
    let evidence = with(waiting("ContainerCreating", ""), &[("FailedMount", said)]);
    assert_eq!(pod::explain(&evidence).cause, Cause::MissingSource);
}

#[test]
fn runs_as_root() {
    let message = "container has runAsNonRoot and image will run as root";
    let evidence = with(waiting("CreateContainerConfigError", message), &[]);
    assert_eq!(pod::explain(&evidence).cause, Cause::RunsAsRoot);
}

#[test]
fn program_not_found() {
    let message = r#"exec: "serve": executable file not found in $PATH"#;
    let evidence = with(waiting("RunContainerError", message), &[]);
    says(
        &pod::explain(&evidence),
        Cause::NotStarted,
        r#"
        pod/web is Pending
          because container main: its program could not be started
            | exec: "serve": executable file not found in $PATH
        to do: check command, args and the image's entrypoint"#,
    );
}

#[test]
fn crash_with_its_last_lines() {
    says(
        &pod::explain(&with(ended("Error", 1), &[])),
        Cause::Crash,
        r#"
        pod/web is Pending
          because container main waits before its next start, after 3 restarts
            because container main ended with exit code 1
              | panic: no such table
        to do: `rast logs web -c main --previous` shows all it printed"#,
    );
}

#[test]
fn killed_for_memory() {
    says(
        &pod::explain(&with(ended("OOMKilled", 137), &[])),
        Cause::Memory,
        r#"
        pod/web is Pending
          because container main waits before its next start, after 3 restarts
            because container main used all its memory of 32Mi and the kernel killed it
        to do: raise resources.limits.memory, or find what takes the memory"#,
    );
}

#[test]
fn killed_by_its_liveness_probe() {
    let events = [
        ("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500"),
        ("Killing", "Container main failed liveness probe, will be restarted"),
    ];
    says(
        &pod::explain(&with(ended("Error", 137), &events)),
        Cause::Killed,
        r#"
        pod/web is Pending
          because container main waits before its next start, after 3 restarts
            because container main was ended because its liveness probe failed
              | Liveness probe failed: HTTP probe failed with statuscode: 500
        to do: check what the probe asks for, and its timeouts"#,
    );
}

#[test]
fn what_killed_an_earlier_run_is_not_blamed() {
    let events = [
        ("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500"),
        ("Killing", "Container main failed liveness probe, will be restarted"),
    ];
    let run = |started: &str| {
        let mut status = ended("Error", 3);
        status["lastState"]["terminated"]["startedAt"] = started.into();
        let mut evidence = with(status, &events);
        let at = serde_json::from_value(json!("2026-01-02T03:04:05Z")).unwrap();
        evidence.events[1].last_timestamp = Some(at);
        pod::explain(&evidence).cause
    };
    assert_eq!([run("2026-01-02T03:04:00Z"), run("2026-01-02T03:04:06Z")], [Cause::Killed, Cause::Crash]);
}

#[test]
fn readiness_probe_fails() {
    let running = json!({"started": true, "state": {"running": {}}});
    let mut evidence = with(running, &[("Unhealthy", "Readiness probe failed: connection refused")]);
    evidence.pod.status.as_mut().unwrap().phase = Some("Running".into());
    says(
        &pod::explain(&evidence),
        Cause::NotReady,
        r#"
        pod/web is Running, but not ready
          because container main runs, but its probe fails
            | Readiness probe failed: connection refused
        to do: check what the probe asks for"#,
    );
}

#[test]
fn hook_failed() {
    let events = [("Killing", "Container main failed its postStart hook: command [\"x\"] ended with exit code 3: no")];
    says(
        &pod::explain(&with(ended("Error", 143), &events)),
        Cause::Hook,
        r#"
        pod/web is Pending
          because container main waits before its next start, after 3 restarts
            because container main was ended because its postStart hook failed
              | command ["x"] ended with exit code 3: no
        to do: check what the hook does, and what it needs"#,
    );
}

#[test]
fn no_room() {
    says(
        &pod::explain(&unscheduled("0/1 nodes are available: 1 Insufficient memory.")),
        Cause::NoRoom,
        r#"
        pod/web is Pending
          because it has no node yet
            because no node has room for what it asks for
              | 0/1 nodes are available: 1 Insufficient memory.
        to do: lower resources.requests, end something else, or add a node"#,
    );
}

#[test]
fn port_taken() {
    let message = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    assert_eq!(pod::explain(&unscheduled(message)).cause, Cause::PortTaken);
}

#[test]
fn no_node_that_it_may_run_on() {
    let message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
    assert_eq!(pod::explain(&unscheduled(message)).cause, Cause::NoNode);
}

#[test]
fn evicted() {
    let evidence = pod_with(
        |pod| {
            let message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi.";
            pod["status"] = json!({"phase": "Failed", "reason": "Evicted", "message": message});
        },
        &[],
    );
    says(
        &pod::explain(&evidence),
        Cause::Evicted,
        r#"
        pod/web was evicted
          because Pod ephemeral local storage usage exceeds the total limit of containers 1Mi.
        to do: raise the limit of ephemeral-storage, or write less"#,
    );
}

#[test]
fn rejected() {
    let evidence = pod_with(
        |pod| pod["status"] = json!({"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected: cpu"}),
        &[],
    );
    says(
        &pod::explain(&evidence),
        Cause::NoRoom,
        r#"
        pod/web was rejected
          because its node has no room for what it asks for
            | Pod was rejected: cpu
        to do: lower resources.requests, end something else, or let the scheduler choose: no spec.nodeName"#,
    );
}

#[test]
fn deadline() {
    let evidence = pod_with(|pod| pod["status"] = json!({"phase": "Failed", "reason": "DeadlineExceeded"}), &[]);
    assert_eq!(pod::explain(&evidence).cause, Cause::Deadline);
}

#[test]
fn leaving_with_a_finalizer() {
    let evidence = pod_with(
        |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-24T20:00:00Z");
            pod["metadata"]["finalizers"] = json!(["example.org/hold"]);
        },
        &[],
    );
    says(
        &pod::explain(&evidence),
        Cause::Leaving,
        r#"
        pod/web is being deleted
          because these finalizers hold it: example.org/hold
        to do: what set a finalizer must take it away"#,
    );
}

#[test]
fn node_down() {
    let mut evidence = with(json!({}), &[]);
    evidence.node_ready = Some(false);
    assert_eq!(pod::explain(&evidence).cause, Cause::NodeDown);
}

fn deployment(object: Value, events: &[(&str, &str)], pods: Vec<Chain>) -> Chain {
    workload::explain(workload::Evidence {
        shown: "deployment.apps/web".into(),
        object,
        events: events.iter().map(|(reason, message)| event(reason, message)).collect(),
        pods,
    })
}

#[test]
fn forbidden_by_the_namespace() {
    let said = r#"pods "web-1" is forbidden: violates PodSecurity "baseline": hostNetwork"#;
    says(
        &deployment(json!({"spec": {"replicas": 2}}), &[("FailedCreate", said)], vec![]),
        Cause::Forbidden,
        r#"
        deployment.apps/web: 0 of 2 pods are ready
          because its pods are refused
            | pods "web-1" is forbidden: violates PodSecurity "baseline": hostNetwork
        to do: change the template, or have a cluster-admin change the namespace's pod-security label"#,
    );
}

#[test]
fn no_service_account() {
    let said = r#"error looking up service account default/web: serviceaccount "web" not found"#;
    let chain = deployment(json!({"spec": {"replicas": 1}}), &[("FailedCreate", said)], vec![]);
    assert_eq!(chain.cause, Cause::NoAccount);
}

#[test]
fn held_by_its_owner() {
    let none = deployment(json!({"spec": {"replicas": 0}}), &[], vec![]);
    let paused = deployment(json!({"spec": {"replicas": 1, "paused": true}}), &[], vec![]);
    assert_eq!((none.cause, paused.cause), (Cause::Held, Cause::Held));
}

#[test]
fn a_deployment_ends_at_the_worst_pod() {
    let fine = Chain::new(Cause::Fine, "pod/a runs and is ready");
    let crash = pod::explain(&with(ended("Error", 1), &[]));
    let object = json!({"spec": {"replicas": 2}, "status": {"readyReplicas": 1, "updatedReplicas": 2}});
    let chain = deployment(object, &[], vec![fine, crash]);
    assert_eq!(chain.cause, Cause::Crash);
    assert_eq!(chain.links[0], "deployment.apps/web: 1 of 2 pods are ready");
}
