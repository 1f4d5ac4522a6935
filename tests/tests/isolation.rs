//! What a container must not reach, tried from inside one that asked for nothing.

#[path = "isolation/probe.rs"]
mod probe;

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, thread};

use serde_json::{Value, json};
use tests::{Answer, Client, Instance, eventually, pods::pod};

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE.
const CAPABILITIES: &str = "00000000000005fb";

const DEVICES: &str = "fd full mqueue null ptmx pts random shm stderr stdin stdout termination-log tty urandom zero";

/// A shell in the pod `probe`.
struct Inside<'a>(&'a Instance);

impl Inside<'_> {
    fn run(&self, script: &str) -> Answer {
        self.0.rast().run(&["exec", "probe", "--", "sh", "-c", script])
    }

    #[track_caller]
    fn says(&self, script: &str) -> String {
        let answer = self.run(script);
        assert_eq!(answer.code, 0, "{script}: {}{}", answer.out, answer.err);
        answer.out.trim_end().to_owned()
    }

    /// The script fails, for this reason.
    #[track_caller]
    fn denied(&self, script: &str, reason: &str) {
        let answer = self.run(script);
        assert_ne!(answer.code, 0, "{script} is allowed: {}", answer.out);
        assert!(answer.err.to_lowercase().contains(reason), "{script}: {reason:?} is not in: {}", answer.err);
    }
}

#[test]
fn the_host_is_out_of_reach() {
    let instance = Instance::up();
    let mut other = pod("other", "echo a secret word; exec sleep 1000");
    other["spec"]["volumes"] = json!([{"name": "own", "emptyDir": {}}]);
    other["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "own", "mountPath": "/own"}]);
    instance.apply(&[pod("probe", "exec sleep 1000"), other]);
    let probe = instance.ready("probe");
    instance.ready("other");
    let inside = Inside(&instance);

    rights(&inside);
    namespaces(&inside, instance.first_process(&probe));
    files(&inside, &instance);
    network(&inside, &probe);
    no_descriptor_is_a_way_out(&instance);
}

fn rights(inside: &Inside) {
    // The first process, and one that came later.
    for process in ["1", "self"] {
        let status = inside.says(&format!("cat /proc/{process}/status"));
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        for (name, value) in [
            ("CapEff", CAPABILITIES),
            ("CapPrm", CAPABILITIES),
            ("CapBnd", CAPABILITIES),
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            assert_eq!(field(name), Some(value), "{name} of {process}");
        }
    }
    inside.denied("unshare -Ur true", "not permitted");
    inside.denied("unshare -m true", "not permitted");
    inside.denied("mkdir -p /tmp/m && mount -t tmpfs none /tmp/m", "permission denied");
    inside.denied("umount /proc/kcore", "not permitted");
    inside.denied("chroot /tmp /bin/true", "not permitted");
    inside.denied("mknod /tmp/disk b 8 0 && cat /tmp/disk", "not permitted");
    inside.denied("dmesg", "not permitted");
    inside.denied("ping -c 1 -W 1 127.0.0.1", "permission denied");
}

fn namespaces(inside: &Inside, process: i32) {
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let [own, there] = ["self".to_owned(), process.to_string()]
            .map(|pid| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace").display().to_string());
        assert_ne!(own, there, "{kind} is the host's");
        assert_eq!(inside.says(&format!("readlink /proc/self/ns/{kind}")), there, "an exec is in another {kind}");
    }
    let map = inside.says("cat /proc/self/uid_map");
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", "4294967295"]);
    assert_eq!(inside.says("ls /proc/1/fd").split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
    inside.denied(&format!("kill -0 {}", std::process::id()), "no such process");
    assert_eq!(inside.says("ls /proc/1/root/"), inside.says("ls /"));
    assert_eq!(inside.says("ls /proc/1/root/../.."), inside.says("ls /"));
    // Abstract sockets belong to a network namespace (CVE-2020-15257).
    assert_eq!(inside.says("grep -c @ /proc/net/unix || true"), "0");
}

fn files(inside: &Inside, instance: &Instance) {
    for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        assert_eq!(inside.says(&format!("head -c 10 {masked} | wc -c")), "0", "{masked}");
    }
    for masked in ["/proc/acpi", "/proc/scsi", "/sys/firmware"] {
        assert_eq!(inside.says(&format!("ls {masked} 2>/dev/null | wc -l")), "0", "{masked}");
    }
    for fixed in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ] {
        // Not every kernel has all of them.
        if Path::new(fixed).exists() {
            inside.denied(&format!("echo h > {fixed}"), "read-only");
        }
    }
    inside.denied("for d in /sys/fs/cgroup/memory /sys/fs/cgroup; do mkdir $d/x && exit; done; false", "read-only");
    assert_eq!(inside.says("find /sys/fs/cgroup -name release_agent"), "");
    assert_eq!(inside.says("echo $(ls /dev)"), DEVICES);

    let mounts = inside.says("cat /proc/self/mountinfo");
    for line in mounts.lines() {
        assert!(!line.contains("shared:") && !line.contains("master:"), "propagates: {line}");
        let volume =
            line.contains("/var/run/secrets/") || line.contains("/etc/") || line.contains("/dev/termination-log");
        assert!(volume || !line.contains(&instance.root().display().to_string()), "a path of the host: {line}");
    }
    // Of other pods' logs, files and secrets not even the names.
    assert_eq!(inside.says("ls -d /var/log/pods /var/lib/rastos /run/rastos /etc/rastos 2>/dev/null || true"), "");
    let word = "find / -xdev -type f -size -64k -exec grep -l 'a secret word' {} + 2>/dev/null || true";
    assert_eq!(inside.says(word), "");
}

fn network(inside: &Inside, probe: &Value) {
    let node = probe["status"]["hostIP"].as_str().expect("the node's address");
    // A port that only the host serves, and the agent's, which is closed to pods whoever serves it.
    let open = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = open.local_addr().expect("an address").port();
    thread::spawn(move || open.incoming().for_each(drop));
    let _agent = TcpListener::bind("0.0.0.0:10250");
    inside.says(&format!("nc -w 3 {node} {port} </dev/null"));
    inside.denied(&format!("nc -w 3 {node} 10250 </dev/null"), "refused");
    inside.denied("nc -w 3 169.254.169.254 80 </dev/null", "refused");
}

/// CVE-2024-21626: no descriptor of the runtime's serves as a working directory.
fn no_descriptor_is_a_way_out(instance: &Instance) {
    let mut way = pod("way", "ls -la .");
    way["spec"]["containers"][0]["workingDir"] = json!("/proc/self/fd/8");
    let refused = instance.rast().input(way.to_string()).fails(3, &["apply", "-f", "-"]);
    assert!(refused.contains("spec.containers[0].workingDir"), "{refused}");
}

/// A pod that asks for more than the default level gives.
fn asking(name: &str, what: Value) -> Value {
    let mut pod = pod(name, "exec sleep 1000");
    for (field, value) in what.as_object().expect("fields") {
        match field.as_str() {
            "securityContext" => pod["spec"]["containers"][0][field] = value.clone(),
            _ => pod["spec"][field] = value.clone(),
        }
    }
    pod
}

fn apply(client: &Client, object: &Value) -> Answer {
    client.clone().input(object.to_string()).run(&["apply", "-f", "-"])
}

#[test]
fn what_a_pod_may_ask_of_the_host_is_a_right_of_its_namespace() {
    let instance = Instance::up();
    let rast = instance.rast();
    let asks = [
        ("path", json!({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}), "hostPath"),
        ("all", json!({"securityContext": {"privileged": true}}), "privileged"),
        ("net", json!({"hostNetwork": true}), "hostNetwork"),
        ("pid", json!({"hostPID": true}), "hostPID"),
        ("cap", json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}), "SYS_ADMIN"),
    ];
    for (name, what, word) in &asks {
        let refused = apply(&rast, &asking(name, what.clone()));
        assert_eq!(refused.code, 5, "{name}: {}{}", refused.out, refused.err);
        assert!(refused.err.contains(word), "{word:?} is not in {}", refused.err);
    }

    // Not who creates the pod counts: the controller may no more.
    let template = &asking("net", json!({"hostNetwork": true}))["spec"];
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "net"},
        "spec": {
            "selector": {"matchLabels": {"app": "net"}},
            "template": {"metadata": {"labels": {"app": "net"}}, "spec": template},
        },
    });
    instance.apply(&[deployment]);
    eventually("the event tells", || {
        let events = rast.ok(&["get", "events", "-o", "json"]);
        let told = events.contains("FailedCreate") && events.contains("hostNetwork");
        if told { Ok(()) } else { Err(events) }
    });
    assert_eq!(rast.ok(&["get", "pods", "-o", "name"]), "");

    only_a_cluster_admin_changes_the_level(&instance);
    let labelled = rast.ok(&["get", "namespace/default", "-o", "json"]);
    assert!(labelled.contains("privileged"), "{labelled}");
    eventually("the Deployment's pod runs", || {
        let pods = rast.ok(&["get", "pods", "-l", "app=net", "--field-selector", "status.phase=Running", "-o", "name"]);
        if pods.is_empty() { Err(rast.ok(&["get", "pods"])) } else { Ok(()) }
    });
    for (name, what, _) in &asks[..2] {
        assert_eq!(apply(&rast, &asking(name, what.clone())).code, 0, "{name}");
        instance.ready(name);
    }
    a_default_token_may_do_nothing(&instance);
}

fn only_a_cluster_admin_changes_the_level(instance: &Instance) {
    let kubectl = instance.kubectl("1.36");
    kubectl.ok(&["create", "clusterrole", "names", "--verb=get,list,patch,update", "--resource=namespaces"]);
    kubectl.ok(&["create", "clusterrolebinding", "bob", "--clusterrole=names", "--user=bob"]);
    let label = |who: &[&str], label: &str| kubectl.run(&[&["label", "namespace", "default", label], who].concat());
    let bob = ["--as=bob"];
    let level = "pod-security.kubernetes.io/enforce=privileged";
    let harmless = label(&bob, "team=blue");
    assert_eq!(harmless.code, 0, "{}", harmless.err);
    let refused = label(&bob, level);
    assert_ne!(refused.code, 0, "bob may");
    assert!(refused.err.contains("cluster-admin"), "{}", refused.err);
    let allowed = label(&[], level);
    assert_eq!(allowed.code, 0, "{}", allowed.err);
}

fn a_default_token_may_do_nothing(instance: &Instance) {
    instance.apply(&[pod("holder", "exec sleep 1000")]);
    instance.ready("holder");
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let token = instance.rast().ok(&["exec", "holder", "--", "cat", token]);
    let server = format!("https://127.0.0.1:{}", instance.port());
    let holder = instance.outside("kubectl-1.36").env("KUBECONFIG", "/dev/null");
    let holder = holder.arg("--server").arg(server).arg("--insecure-skip-tls-verify").arg("--token").arg(token.trim());
    // It is known, and that is all.
    assert!(holder.ok(&["auth", "whoami"]).contains("system:serviceaccount:default:default"));
    for words in
        [["get", "pods"], ["get", "secrets"], ["get", "nodes"], ["get", "namespaces"], ["delete", "pod/holder"]]
    {
        let refused = holder.run(&words);
        assert!(refused.code != 0 && refused.err.contains("Forbidden"), "{words:?}: {}{}", refused.out, refused.err);
    }
    all_refusals_are_written_down(instance, token.trim());
}

fn all_refusals_are_written_down(instance: &Instance, token: &str) {
    let path = instance.root().join("var/log/rastos/audit.log");
    let log = eventually("the audit log has them", || {
        let log = fs::read_to_string(&path).map_err(|e| e.to_string())?;
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let refusals: Vec<Value> = events.filter(|event| event["responseStatus"]["code"] == 403).collect();
        let has = |user: &str, verb: &str, resource: &str, decision: &str| {
            refusals.iter().any(|event| {
                event["user"]["username"] == user
                    && (&event["verb"], &event["objectRef"]["resource"]) == (&json!(verb), &json!(resource))
                    && event["annotations"]["authorization.k8s.io/decision"] == decision
                    && event["sourceIPs"] == json!(["127.0.0.1"])
            })
        };
        // One that RBAC refused, and one that the namespace's level did.
        let both = has("system:serviceaccount:default:default", "list", "secrets", "forbid")
            && has("kubernetes-admin", "patch", "pods", "allow");
        if both { Ok(log) } else { Err(format!("{refusals:#?}")) }
    });
    assert!(!log.contains(token), "a token is in the audit log");
    let mode = fs::metadata(&path).map(|file| PermissionsExt::mode(&file.permissions())).expect("it is there");
    assert_eq!(mode & 0o777, 0o600);
}
