//! Clients that nobody here wrote, against a running instance.

use std::io::{BufRead as _, BufReader};

use tests::{Client, Instance, eventually, pods::web, registry};

const KUBECTLS: [&str; 2] = ["1.20", "1.36"];

/// Runs the same story with every kubectl, each in a namespace of its own.
fn with_each(story: impl Fn(&Client, &Instance)) {
    let instance = Instance::up();
    for version in KUBECTLS {
        let namespace = format!("v{}", version.replace('.', "-"));
        let kubectl = instance.kubectl(version);
        kubectl.ok(&["create", "namespace", &namespace]);
        eprintln!("--- kubectl {version}");
        story(&kubectl.arg("--namespace").arg(namespace), &instance);
    }
}

#[test]
fn kubectl_applies_and_rolls_out() {
    with_each(|kubectl, _| {
        let apply = |text: String| kubectl.clone().input(text).ok(&["apply", "-f", "-"]);
        assert!(apply(web(2, "one")).contains("created"));
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
        assert!(apply(web(2, "one")).contains("unchanged"));
        assert!(apply(web(2, "two")).contains("configured"));
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
        assert!(kubectl.ok(&["rollout", "history", "deployment/web"]).contains('2'));
        kubectl.ok(&["rollout", "undo", "deployment/web"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
        let greeting = "jsonpath={.spec.template.spec.containers[0].env[0].value}";
        assert_eq!(kubectl.ok(&["get", "deployment", "web", "-o", greeting]), "one");
        kubectl.ok(&["rollout", "restart", "deployment/web"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
        kubectl.ok(&["scale", "deployment/web", "--replicas=3"]);
        kubectl.ok(&["wait", "--for=condition=Available", "deployment/web", "--timeout=90s"]);
        eventually("three pods run", || {
            let names = kubectl.ok(&["get", "pods", "--field-selector=status.phase=Running", "-o", "name"]);
            if names.lines().count() == 3 { Ok(()) } else { Err(names) }
        });
        let table = kubectl.ok(&["get", "deployments"]);
        assert!(table.starts_with("NAME   READY   UP-TO-DATE   AVAILABLE   AGE"), "{table}");
        kubectl.ok(&["delete", "deployment", "web", "--timeout=60s"]);
        eventually("its pods have gone", || {
            let names = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "name"]);
            if names.is_empty() { Ok(()) } else { Err(names) }
        });
    });
}

/// A Deployment of no pods with this strategy, and a volume of this source.
fn choosing(strategy: &str, source: &str) -> String {
    let volume = format!("    spec:\n      volumes: [{{name: v, {source}}}]\n");
    web(0, "x").replace("  selector:", &format!("  strategy: {strategy}\n  selector:")).replace("    spec:\n", &volume)
}

#[test]
fn an_alternative_goes_with_the_choice_of_another() {
    with_each(|kubectl, instance| {
        kubectl.clone().input(web(0, "x")).ok(&["apply", "-f", "-"]);
        let namespace = kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.metadata.namespace}"]);
        let rast = instance.rast().arg("--namespace").arg(namespace);
        let show = "jsonpath={.spec.strategy}{.spec.template.spec.volumes}";
        let tuned = "{type: RollingUpdate, rollingUpdate: {maxSurge: 1}}";
        for client in [kubectl, &rast] {
            for other in ["{type: RollingUpdate}", tuned] {
                let apply =
                    |strategy, source| client.clone().input(choosing(strategy, source)).ok(&["apply", "-f", "-"]);
                apply(other, "emptyDir: {}");
                assert!(kubectl.ok(&["get", "deployment", "web", "-o", show]).contains("emptyDir"));
                apply("{type: Recreate}", "configMap: {name: m}");
                let shown = kubectl.ok(&["get", "deployment", "web", "-o", show]);
                assert!(shown.contains("Recreate") && !shown.contains("rollingUpdate"), "{shown}");
                assert!(shown.contains("configMap") && !shown.contains("emptyDir"), "{shown}");
            }
            // The next client takes over what this one has left.
            client.clone().input(choosing(tuned, "emptyDir: {}")).ok(&["apply", "-f", "-"]);
        }
    });
}

#[test]
fn kubectl_reads_logs_and_runs_commands() {
    with_each(|kubectl, _| {
        let image = format!("{}/busybox:1", registry());
        let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done";
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": image, "command": ["sh", "-c", script],
            }]},
        });
        kubectl.clone().input(pod.to_string()).ok(&["apply", "-f", "-"]);
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"]);
        assert!(kubectl.ok(&["logs", "talker", "--tail=1"]).starts_with("line "));
        let mut follow = kubectl.command(&["logs", "-f", "talker"]);
        let mut follow = follow.stdout(std::process::Stdio::piped()).spawn().expect("kubectl starts");
        let lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
        let read: Vec<String> = lines.map_while(Result::ok).take(10).collect();
        follow.kill().and_then(|()| follow.wait()).expect("kubectl ends");
        assert_eq!(read[0], "line 1");
        assert_eq!(read.len(), 10);

        assert_eq!(kubectl.ok(&["exec", "talker", "--", "echo", "hello"]), "hello\n");
        let failed = kubectl.run(&["exec", "talker", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((failed.code, failed.out.as_str()), (7, "out\n"));
        assert!(failed.err.contains("err"), "{}", failed.err);
        let piped = kubectl.clone().input("a b c").ok(&["exec", "-i", "talker", "--", "wc", "-w"]);
        assert_eq!(piped.trim(), "3");
        let described = kubectl.ok(&["describe", "pod", "talker"]);
        assert!(described.contains("Started"), "{described}");
        kubectl.ok(&["delete", "pod", "talker", "--dry-run=server"]);
        assert_eq!(kubectl.ok(&["exec", "talker", "--", "echo", "still"]), "still\n");
        kubectl.ok(&["delete", "pod", "talker", "--timeout=60s"]);
        assert!(kubectl.run(&["get", "pod", "talker"]).err.contains("NotFound"));
    });
}

#[test]
fn kubectl_validates_explains_and_asks_for_rights() {
    with_each(|kubectl, _| {
        let wrong = web(1, "x").replace("containers:", "containerz:");
        let refused = kubectl.clone().input(wrong).run(&["apply", "-f", "-"]);
        assert_ne!(refused.code, 0);
        assert!(refused.err.contains("containerz"), "{}", refused.err);
        let explained = kubectl.ok(&["explain", "pod.spec.containers.image"]);
        for part in ["<string>", "Container image name"] {
            assert!(explained.contains(part), "{part:?} is not in {explained}");
        }
        assert_eq!(kubectl.ok(&["auth", "can-i", "create", "pods"]).trim(), "yes");
        assert!(kubectl.ok(&["api-resources"]).contains("deployments"));
        assert!(kubectl.ok(&["version"]).contains("rastos"));
        let nobody = kubectl.run(&["auth", "can-i", "create", "pods", "--as", "nobody"]);
        assert_eq!(nobody.out.trim(), "no", "{}", nobody.err);
    });
}

#[test]
fn the_python_client_creates_watches_and_patches() {
    let instance = Instance::up();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/story.py");
    let out = instance.outside("python").env("IMAGE", format!("{}/busybox:1", registry())).ok(&[script]);
    assert!(out.ends_with("done\n"), "{out}");
}

#[test]
fn the_calls_of_kubernetes_own_conformance_tests_are_answered() {
    let instance = Instance::up();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/conformance.py");
    let python = instance.outside("python").env("IMAGE", format!("{}/busybox:1", registry()));
    let python = python.env("OTHER_IMAGE", format!("{}/multi:1", registry()));
    let out = python.env("WEB_IMAGE", format!("{}/web:1", registry())).ok(&[script]);
    assert!(out.ends_with("done\n"), "{out}");
}

/// rastOS's own kind: by the same verbs, schema and rules, whoever asks.
#[test]
fn a_cluster_is_a_kind_like_any() {
    with_each(|kubectl, _| {
        let cluster = |spec: &str| {
            let head = "apiVersion: rastos.io/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\nspec: ";
            kubectl.clone().input(format!("{head}{spec}\n"))
        };
        for (spec, at) in [
            ("{network: {cidr: 10.42.3.0/24}}", "spec.network.cidr"),
            ("{access: [{port: 80}]}", "spec.access"),
            ("{state: {size: lots}}", "spec.state.size"),
        ] {
            let refused = cluster(spec).run(&["apply", "--validate=false", "-f", "-"]);
            assert!(refused.code != 0 && refused.err.contains(at), "{spec}: {}", refused.err);
        }
        let unknown = cluster("{flavour: small}").run(&["apply", "-f", "-"]);
        assert!(unknown.code != 0 && unknown.err.contains("flavour"), "{}", unknown.err);
        assert!(cluster("{flavor: small, state: {size: 20Gi}}").ok(&["apply", "-f", "-"]).contains("created"));
        let table = kubectl.ok(&["get", "clusters"]);
        assert!(table.starts_with("NAME   ADDRESS   MADE        VERSION   AGE"), "{table}");
        assert!(table.contains("demo   <none>    awaits up   <none>"), "{table}");
        kubectl.ok(&["patch", "cluster", "demo", "--type=merge", "-p", r#"{"spec": {"flavor": "large"}}"#]);
        let shown = "jsonpath={.spec.flavor} {.spec.access[0].port} {.metadata.generation}";
        assert_eq!(kubectl.ok(&["get", "cluster/demo", "-o", shown]), "large 6443 2");
        let explained = kubectl.ok(&["explain", "cluster.spec.state.size"]);
        assert!(explained.contains("10Gi unless given"), "{explained}");
        kubectl.ok(&["delete", "cluster", "demo"]);
    });
}
