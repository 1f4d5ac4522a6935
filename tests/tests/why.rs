//! `rast why` of everything that can be staged: its words are those that people read.

use std::{
    fmt::Write as _,
    fs,
    io::Read as _,
    net::TcpListener,
    process::{Command, Stdio},
};

use tests::{Client, Instance, Relay, eventually, registry};

/// A pod of one container `main`; `spec` and `main` are in flow style and may be empty.
fn pod(name: &str, spec: &str, main: &str) -> String {
    let image = if main.contains("image:") { String::new() } else { format!("image: {}/busybox:1, ", registry()) };
    let command = if main.contains("command:") { "" } else { "command: [sleep, '1000'], " };
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{terminationGracePeriodSeconds: 0, {spec} containers: [{{name: main, {image}{command}{main}}}]}}\n"
    )
}

fn deployment(name: &str, spec: &str, template: &str) -> String {
    let image = format!("{}/busybox:1", registry());
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\n\
         spec: {{{spec} selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, \
         spec: {{{template} containers: [{{name: main, image: '{image}', command: [sleep, '1000']}}]}}}}}}\n"
    )
}

/// Whether the text is the pattern, where `…` stands for anything.
fn like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    for part in parts {
        match rest.find(part) {
            Some(_) if part.is_empty() => rest = "",
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

/// Waits until `rast why` says each of these; fails with all that are not so.
fn says(instance: &Instance, expected: &[(&str, &str)]) {
    let rast = instance.rast();
    let pattern = |text: &str| {
        let lines: Vec<&str> = text.lines().map(|l| l.strip_prefix("            ").unwrap_or(l)).collect();
        lines.join("\n").trim().replace("IMAGES", &registry())
    };
    eventually("all causes are told", || {
        let mut wrong = String::new();
        for (target, text) in expected {
            let (said, pattern) = (rast.ok(&["why", target]), pattern(text));
            if !like(said.trim_end(), &pattern) {
                let _infallible = write!(wrong, "\n--- {target} should be:\n{pattern}\n--- and is:\n{said}");
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    });
}

/// Pulls at a terminal, and waits for the bar of a pull that cannot go on.
fn shows_a_bar(instance: &Instance, image: &str) {
    let rast = instance.rast().command(&["pull", image]);
    let line = format!("'{}' pull '{image}'", rast.get_program().display());
    let mut script = Command::new("script");
    script.args(["-qfec", &line, "/dev/null"]).env("TERM", "xterm");
    script.envs(rast.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut script = script.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("util-linux");
    let mut terminal = script.stdout.take().expect("piped");
    let (mut shown, mut some) = (vec![], [0; 4096]);
    while !String::from_utf8_lossy(&shown).contains("0 of 1 layers ready") {
        let length = terminal.read(&mut some).expect("a terminal");
        assert_ne!(length, 0, "no bar: {}", String::from_utf8_lossy(&shown));
        shown.extend(&some[..length]);
    }
    script.kill().expect("started");
    script.wait().expect("killed");
}

#[test]
fn why_a_pull_takes_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let slow = format!("{}/busybox:1", listener.local_addr().expect("bound"));
    let relay = Relay::default();
    relay.listen(listener);
    relay.hold(true);
    let instance = Instance::up();
    instance.rast().input(pod("slow", "", &format!("image: '{slow}', "))).ok(&["apply", "-f", "-"]);
    let far = "
            pod/slow is Pending
              because container main: Pulling image \"…/busybox:1\": 0.… of …MiB fetched, 0 of 1 layers unpacked";
    says(&instance, &[("pod/slow", far)]);
    shows_a_bar(&instance, &slow);
    relay.hold(false);
    instance.ready("slow");
}

#[test]
fn why_a_pod_does_not_run() {
    let instance = Instance::up();
    let all = [
        pod("image-not-found", "", &format!("image: '{}/none:1'", registry())),
        pod("registry-down", "", "image: '127.0.0.1:1/app:1'"),
        pod("image-name", "", "image: 'UPPER:::1'"),
        pod("never-pulled", "", &format!("image: '{}/never:1', imagePullPolicy: Never", registry())),
        pod("missing-map", "", "env: [{name: A, valueFrom: {configMapKeyRef: {name: absent, key: k}}}]"),
        pod("missing-key", "", "env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: size}}}]"),
        pod(
            "missing-secret",
            "volumes: [{name: v, secret: {secretName: absent}}],",
            "volumeMounts: [{name: v, mountPath: /v}]",
        ),
        pod("not-started", "", "command: [serve]"),
        pod("crash", "", "command: [sh, -c, 'echo one; echo panic: no such table; exit 3']"),
        pod(
            "memory",
            "",
            "command: [dd, if=/dev/zero, of=/dev/null, bs=64M, count=1], resources: {limits: {memory: 16Mi}}",
        ),
        pod(
            "liveness",
            "",
            "command: [sleep, '1000'], livenessProbe: {exec: {command: [sh, -c, 'echo sick; exit 1']}, periodSeconds: 1, failureThreshold: 1}",
        ),
        pod(
            "readiness",
            "",
            "command: [sleep, '1000'], readinessProbe: {exec: {command: [sh, -c, 'echo busy; exit 1']}, periodSeconds: 1}",
        ),
        pod("no-room", "", "resources: {requests: {memory: 100Ti}}"),
        pod("no-node", "nodeSelector: {disk: ssd},", ""),
        pod("runs-as-root", "securityContext: {runAsNonRoot: true},", ""),
        pod(
            "evicted",
            "volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}],",
            "command: [sh, -c, 'dd if=/dev/zero of=/v/x bs=1M count=4; sleep 1000'], volumeMounts: [{name: v, mountPath: /v}]",
        ),
        pod("deadline", "activeDeadlineSeconds: 1,", ""),
        pod("done", "restartPolicy: Never,", "command: ['true']"),
        pod("fine", "", ""),
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: red}\n".into(),
    ];
    instance.rast().input(all.concat()).ok(&["apply", "-f", "-"]);
    says(
        &instance,
        &[
            (
                "image-not-found",
                r#"
            pod/image-not-found is Pending
              because container main: the registry has no image IMAGES/none:1
                | Failed to pull image "IMAGES/none:1": …not found…
            to do: check the name and the tag"#,
            ),
            (
                "registry-down",
                r#"
            pod/registry-down is Pending
              because container main: the image 127.0.0.1:1/app:1 could not be fetched
                | Failed to pull image "127.0.0.1:1/app:1": …refused…
            to do: check that the node reaches the registry; the pull is tried again by itself"#,
            ),
            (
                "image-name",
                r#"
            pod/image-name is Pending
              because container main: "UPPER:::1" is not an image name
                | …
            to do: write REGISTRY/REPOSITORY:TAG in lower case"#,
            ),
            (
                "never-pulled",
                "
            pod/never-pulled is Pending
              because container main: the image IMAGES/never:1 is not on the node and imagePullPolicy is Never
            to do: `rast pull` or `rast images load` it, or allow it to be pulled",
            ),
            (
                "missing-map",
                r#"
            pod/missing-map is Pending
              because container main: configmap "absent" not found
            to do: create it in the pod's namespace; the container then starts by itself"#,
            ),
            (
                "missing-key",
                "
            pod/missing-key is Pending
              because container main: couldn't find key size in ConfigMap default/settings
            to do: add the key, or mark the reference optional",
            ),
            (
                "missing-secret",
                r#"
            pod/missing-secret is Pending
              because container main waits for a volume
                | MountVolume.SetUp failed for volume "v" : secret "absent" not found
            to do: create it in the pod's namespace; the container then starts by itself"#,
            ),
            (
                "not-started",
                "
            pod/not-started is …
              because container main: its program could not be started
                | …serve…
            to do: check command, args and the image's entrypoint",
            ),
            (
                "crash",
                "
            pod/crash is Running, but not ready
              because container main waits before its next start, after …
                because container main ended with exit code 3
                  | one
                  | panic: no such table
            to do: `rast logs crash -c main --previous` shows all it printed",
            ),
            (
                "memory",
                "
            pod/memory is Running, but not ready
              because container main waits before its next start, after …
                because container main used all its memory of 16Mi and the kernel killed it
            to do: raise resources.limits.memory, or find what takes the memory",
            ),
            (
                "liveness",
                "
            pod/liveness is Running, but not ready
              because container main waits before its next start, after …
                because container main was ended because its liveness probe failed
                  | Liveness probe failed: command […] ended with exit code 1: sick
            to do: check what the probe asks for, and its timeouts",
            ),
            (
                "readiness",
                "
            pod/readiness is Running, but not ready
              because container main runs, but its probe fails
                | Readiness probe failed: command […] ended with exit code 1: busy
            to do: check what the probe asks for",
            ),
            (
                "no-room",
                "
            pod/no-room is Pending
              because it has no node yet
                because no node has room for what it asks for
                  | 0/1 nodes are available: 1 Insufficient memory.
            to do: lower resources.requests, end something else, or add a node",
            ),
            (
                "no-node",
                "
            pod/no-node is Pending
              because it has no node yet
                because no node is one that it may run on
                  | 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.
            to do: compare nodeSelector, affinity and tolerations with `rast describe nodes`",
            ),
            (
                "runs-as-root",
                "
            pod/runs-as-root is Pending
              because container main: …root…
            to do: set securityContext.runAsUser, or use an image with another user",
            ),
            (
                "evicted",
                "
            pod/evicted was evicted
              because …1Mi…
            to do: raise the limit of ephemeral-storage, or write less",
            ),
            (
                "deadline",
                "
            pod/deadline was ended
              because it ran longer than spec.activeDeadlineSeconds",
            ),
            ("pod/done", "pod/done did its work and ended"),
            ("pod/fine", "pod/fine runs and is ready"),
            (
                "absent",
                "
            pod/absent does not exist in namespace default
            to do: `rast apply` it; `rast get -A` shows other namespaces",
            ),
        ],
    );
}

#[test]
fn why_a_full_node_takes_no_pod() {
    let mut instance = Instance::prepared();
    let etc = instance.root().join("etc/rastos");
    fs::create_dir_all(&etc).expect("the directory");
    fs::write(etc.join("config.yaml"), "nodeName: one\nmaxPods: 1\n").expect("the settings");
    instance.start();
    // The scheduler has no say in these.
    let here =
        |name: &str, requests: &str| pod(name, "nodeName: one,", &format!("resources: {{requests: {requests}}}"));
    let asks = |name: &str, requests: &str| pod(name, "", &format!("resources: {{requests: {requests}}}"));
    let first = [
        here("out-of-cpu", "{cpu: '1000'}"),
        here("out-of-memory", "{memory: 100Ti}"),
        here("out-of-disk", "{ephemeral-storage: 100Pi}"),
        asks("no-cpu", "{cpu: '1000'}"),
    ];
    instance.rast().input(first.concat()).ok(&["apply", "-f", "-"]);
    let rejected = |name: &str, words: &str| {
        format!(
            "pod/{name} was rejected\n  because its node has no room for what it asks for\n    \
             | Pod was rejected: Node didn't have enough resource: {words}\n\
             to do: lower resources.requests, end something else, or let the scheduler choose: no spec.nodeName"
        )
    };
    let unscheduled = |name: &str, words: &str| {
        format!(
            "pod/{name} is Pending\n  because it has no node yet\n    because no node has room for what it asks for\n      \
             | 0/1 nodes are available: 1 {words}.\n\
             to do: lower resources.requests, end something else, or add a node"
        )
    };
    let cpu = rejected("out-of-cpu", "cpu, requested: 1000000, used: 0, capacity: …");
    let memory = rejected("out-of-memory", &format!("memory, requested: {}, used: 0, capacity: …", 100_u64 << 40));
    let disk =
        rejected("out-of-disk", &format!("ephemeral-storage, requested: {}, used: 0, capacity: …", 100_u64 << 50));
    let unscheduled_cpu = unscheduled("no-cpu", "Insufficient cpu");
    says(
        &instance,
        &[("out-of-cpu", &cpu), ("out-of-memory", &memory), ("out-of-disk", &disk), ("no-cpu", &unscheduled_cpu)],
    );

    // One pod that runs is as many as it takes.
    instance.rast().input(here("only", "{}")).ok(&["apply", "-f", "-"]);
    instance.ready("only");
    let more = [here("out-of-pods", "{}"), asks("no-place", "{}")];
    instance.rast().input(more.concat()).ok(&["apply", "-f", "-"]);
    let pods = rejected("out-of-pods", "pods, requested: 1, used: 1, capacity: 1");
    let place = unscheduled("no-place", "Too many pods");
    says(&instance, &[("out-of-pods", &pods), ("no-place", &place), ("only", "pod/only runs and is ready")]);
}

#[test]
fn an_api_that_never_answers_is_asked_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let dir = tempfile::tempdir().expect("a directory");
    let kubeconfig = dir.path().join("kubeconfig.yaml");
    let server = format!("https://{}", listener.local_addr().expect("bound"));
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: a, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: a, user: {{}}}}]\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n"
    );
    fs::write(&kubeconfig, config).expect("write it");
    let rast = Client::new(tests::program()).arg("--kubeconfig").arg(kubeconfig.display().to_string());
    let said = rast.fails(6, &["why", "pod/web"]);
    assert_eq!(said, "rast: the API does not answer for pod/web: no answer in 10s\n");
    listener.set_nonblocking(true).expect("a socket");
    assert_eq!(std::iter::from_fn(|| listener.accept().ok()).count(), 1);
}

#[test]
fn why_a_workload_has_no_pods_or_stays() {
    let instance = Instance::up();
    let rast = instance.rast();
    let held = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: leaving, finalizers: [example.org/hold]}\n\
                spec: {terminationGracePeriodSeconds: 0, containers: [{name: main, image: 'REGISTRY/busybox:1', \
                command: [sleep, '1000']}]}\n";
    let first = [
        held.replace("REGISTRY", &registry()),
        pod("holder", "", "ports: [{containerPort: 80, hostPort: 18080}]"),
        deployment("forbidden", "replicas: 2,", "hostNetwork: true,"),
        deployment("no-account", "replicas: 1,", "serviceAccountName: absent,"),
        deployment("none", "replicas: 0,", ""),
        deployment("paused", "replicas: 1, paused: true,", ""),
        deployment("broken", "replicas: 1,", "securityContext: {runAsNonRoot: true},"),
        deployment("fine", "replicas: 2,", ""),
    ];
    rast.clone().input(first.concat()).ok(&["apply", "-f", "-"]);
    rast.ok(&["wait", "--for", "condition=Ready", "pod/holder", "pod/leaving", "--timeout", "60"]);
    let second = pod("port-taken", "", "ports: [{containerPort: 80, hostPort: 18080}]");
    rast.clone().input(second).ok(&["apply", "-f", "-"]);
    rast.ok(&["delete", "pod/leaving", "--no-wait"]);
    says(
        &instance,
        &[
            (
                "leaving",
                "
            pod/leaving is being deleted
              because these finalizers hold it: example.org/hold
            to do: what set a finalizer must take it away",
            ),
            (
                "port-taken",
                "
            pod/port-taken is Pending
              because it has no node yet
                because another pod holds the port of the host that it asks for
                  | 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.
            to do: choose another hostPort, or none and reach the pod by its address",
            ),
            (
                "deployment/forbidden",
                r#"
            deployment.apps/forbidden: 0 of 2 pods are ready
              because its pods are refused
                | Error creating: pods "forbidden-…-" is forbidden: violates PodSecurity "baseline…": spec.hostNetwork: must be unset or false…
            to do: change the template, or have a cluster-admin change the namespace's pod-security label"#,
            ),
            (
                "deployment/no-account",
                r#"
            deployment.apps/no-account: 0 of 1 pods are ready
              because its pods name a service account that does not exist
                | Error creating: pods "no-account-…-" is forbidden: …serviceaccount "absent" not found…
            to do: create the ServiceAccount, or name another in spec.template.spec.serviceAccountName"#,
            ),
            (
                "deployment/none",
                "
            deployment.apps/none is wanted to have no pods
            to do: `rast scale deployment.apps/none --replicas N`",
            ),
            (
                "deployment/paused",
                "
            deployment.apps/paused: 0 of 1 pods are ready
              because it is paused
            to do: `rast rollout resume deployment.apps/paused`",
            ),
            (
                "deployment/broken",
                "
            deployment.apps/broken: 0 of 1 pods are ready
              because pod/broken-… is Pending
                because container main: …root…
            to do: set securityContext.runAsUser, or use an image with another user",
            ),
            ("deployment/fine", "deployment.apps/fine has all its 2 pods, and they are ready"),
        ],
    );
    // What the advice says is understood.
    rast.ok(&["rollout", "resume", "deployment.apps/paused"]);
    rast.ok(&["scale", "deployment.apps/none", "--replicas", "1"]);
    rast.ok(&["rollout", "status", "deployment/paused", "--timeout", "60"]);
    rast.ok(&["rollout", "status", "deployment/none", "--timeout", "60"]);
}
