//! Pods from the API to running containers and back to nothing.

mod common;

use std::{
    fs,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use agent::Rounds;
use apiserver::Identity;
use common::{Node, eventually, within};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event, Secret},
};
use kube::{Api, api::PostParams};
use runtime::Runtime;
use serde_json::{Value, json};

fn phase(want: &'static str) -> impl Fn(&Value) -> bool {
    move |p| p["status"]["phase"] == want
}

fn ready(p: &Value) -> bool {
    p["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn state(p: &Value, n: usize) -> &Value {
    &p["status"]["containerStatuses"][n]["state"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_speaks_and_goes() {
    let node = Node::new().await;
    let start = Instant::now();
    node.create(
        "web",
        json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c",
        "command": ["sh", "-c", "echo hello; trap 'exit 0' TERM; sleep 1000 & wait"]}]}),
    )
    .await;
    let pod = node.until("web", "ready", ready).await;
    eprintln!("create -> Running {:?}", start.elapsed());
    assert!(pod["status"]["podIP"].as_str().unwrap().starts_with("10."));
    assert_eq!(pod["status"]["podIPs"], json!([{"ip": pod["status"]["podIP"]}]));
    assert!(pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().starts_with("rast://"));
    for n in 0..3 {
        let start = Instant::now();
        let name = format!("again-{n}");
        node.create(
            &name,
            json!({"containers": [{"name": "c", "command": ["sleep", "1000"]}], "terminationGracePeriodSeconds": 1}),
        )
        .await;
        node.until(&name, "running", phase("Running")).await;
        eprintln!("create -> Running {:?}", start.elapsed());
    }
    eventually("the log", async || match node.logs("web", "c").await {
        log if log == "hello\n" => Ok(()),
        log => Err(log),
    })
    .await;
    let events: Api<Event> = Api::namespaced(node.client.clone(), "default");
    eventually("the events", async || {
        let all = events.list(&Default::default()).await.unwrap();
        let reasons: Vec<_> = all.iter().filter_map(|e| e.reason.clone()).collect();
        let all = ["Pulled", "Created", "Started"].iter().all(|r| reasons.iter().any(|x| x == r));
        if all { Ok(()) } else { Err(format!("{reasons:?}")) }
    })
    .await;
    node.delete("web").await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_with_their_words() {
    let node = Node::new().await;
    node.create("ok", json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["true"]}]})).await;
    node.create(
        "bad",
        json!({"restartPolicy": "Never", "containers": [{"name": "c",
        "terminationMessagePolicy": "FallbackToLogsOnError", "command": ["sh", "-c", "echo last words; exit 3"]}]}),
    )
    .await;
    node.create(
        "said",
        json!({"restartPolicy": "Never", "containers": [{"name": "c",
        "command": ["sh", "-c", "echo -n why > /dev/termination-log; exit 4"]}]}),
    )
    .await;
    node.create("none", json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["/no/such"]}]}))
        .await;
    let pod = node.until("ok", "done", phase("Succeeded")).await;
    assert_eq!(state(&pod, 0)["terminated"]["reason"], "Completed");
    let pod = node.until("bad", "failed", phase("Failed")).await;
    assert_eq!(state(&pod, 0)["terminated"]["exitCode"], 3);
    assert_eq!(state(&pod, 0)["terminated"]["message"], "last words\n");
    let pod = node.until("said", "failed", phase("Failed")).await;
    assert_eq!(state(&pod, 0)["terminated"]["message"], "why");
    let pod = node.until("none", "failed", phase("Failed")).await;
    assert_eq!(state(&pod, 0)["terminated"]["reason"], "StartError");
    assert_eq!(node.logs("bad", "c").await, "last words\n", "logs stay while the object does");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environment_and_volumes() {
    let node = Node::new().await;
    node.create("p", json!({"restartPolicy": "Never", "containers": [{"name": "c",
        "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}, {"name": "X", "value": "$(K)!"}],
        "volumeMounts": [{"name": "m", "mountPath": "/m"}, {"name": "e", "mountPath": "/e"}, {"name": "s", "mountPath": "/s"},
            {"name": "e", "mountPath": "/sub", "subPath": "a/b"}],
        "command": ["sh", "-c", "echo $X $IP $FROM_IMAGE $KUBERNETES_SERVICE_HOST; cat /m/k /s/t; echo; echo x > /sub/f; cat /e/a/b/f; hostname; grep -cw p /etc/hosts; cd /var/run/secrets/kubernetes.io/serviceaccount; cat namespace ca.crt; echo; grep -c '^ey.*[.].*[.]' token"]}],
        "volumes": [{"name": "m", "configMap": {"name": "m"}}, {"name": "e", "emptyDir": {}},
            {"name": "s", "secret": {"secretName": "s"}}]})).await;
    let missing =
        |p: &Value| state(p, 0)["waiting"]["message"].as_str().is_some_and(|m| m.contains("configmap \"m\" not found"));
    node.until("p", "waiting for its ConfigMap", missing).await;
    let maps: Api<ConfigMap> = Api::namespaced(node.client.clone(), "default");
    let secrets: Api<Secret> = Api::namespaced(node.client.clone(), "default");
    let secret = serde_json::from_value(json!({"metadata": {"name": "s"}, "data": {"t": "dG9rZW4="}})).unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let map = serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"k": "v"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let pod = node.until("p", "done", phase("Succeeded")).await;
    let ip = pod["status"]["podIP"].as_str().unwrap();
    assert_eq!(node.logs("p", "c").await, format!("v! {ip} yes 10.0.0.1\nvtoken\nx\np\n1\ndefaulta CA\n1\n"));
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_sidecar_and_probes() {
    let node = Node::new().await;
    node.create("p", json!({"terminationGracePeriodSeconds": 2,
        "initContainers": [
            {"name": "i", "command": ["sh", "-c", "echo 1 > /e/i"], "volumeMounts": [{"name": "e", "mountPath": "/e"}]},
            {"name": "s", "restartPolicy": "Always", "command": ["sleep", "1000"],
             "startupProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}],
        "containers": [{"name": "c", "command": ["sh", "-c", "mkdir /w; httpd -p 8080 -h /w; cat /e/i; sleep 3; echo ok > /w/ready; sleep 1000"],
            "ports": [{"name": "web", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "web"}, "periodSeconds": 1},
            "livenessProbe": {"tcpSocket": {"port": 8080}, "initialDelaySeconds": 1, "periodSeconds": 1},
            "volumeMounts": [{"name": "e", "mountPath": "/e"}]}],
        "volumes": [{"name": "e", "emptyDir": {}}]})).await;
    let pod = node.until("p", "running", phase("Running")).await;
    assert!(!ready(&pod), "not before its probe says so");
    let pod = node.until("p", "ready", ready).await;
    assert_eq!(pod["status"]["initContainerStatuses"][1]["started"], true);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    node.delete("p").await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_storage_is_evicted() {
    let node = Node::new().await;
    node.create("p", json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c",
        "command": ["sh", "-c", "dd if=/dev/zero of=/e/f bs=1M count=4; sleep 1000"],
        "volumeMounts": [{"name": "e", "mountPath": "/e"}]}], "volumes": [{"name": "e", "emptyDir": {"sizeLimit": "1Mi"}}]})).await;
    let pod = node.until("p", "evicted", phase("Failed")).await;
    assert_eq!(pod["status"]["reason"], "Evicted");
    assert!(pod["status"]["message"].as_str().unwrap().contains("exceeds the limit \"1Mi\""));
    // What counts against the limits of the containers, alone and together.
    let four = |file: &str| format!("dd if=/dev/zero of={file} bs=1M count=4; sleep 1000");
    let limited = |script: &str, most: &str| {
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "command": ["sh", "-c", script],
            "resources": {"limits": {"ephemeral-storage": most}}, "volumeMounts": [{"name": "e", "mountPath": "/e"}]}],
            "volumes": [{"name": "e", "emptyDir": {}}]})
    };
    let alone = "Container c exceeded its local ephemeral storage limit \"1Mi\"";
    let together = "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi";
    let cases = [
        ("layer", four("/f"), "1Mi", alone),
        ("log", "seq 200000; sleep 1000".into(), "1Mi", alone),
        ("dir", four("/e/f"), "2Mi", together),
    ];
    node.create("modest", limited(&four("/f"), "100Mi")).await;
    for (name, script, most, _) in &cases {
        node.create(name, limited(script, most)).await;
    }
    for (name, _, _, why) in cases {
        let pod = node.until(name, "evicted", phase("Failed")).await;
        assert_eq!(pod["status"]["reason"], "Evicted");
        assert!(pod["status"]["message"].as_str().unwrap().contains(why), "{name}: {:#}", pod["status"]);
    }
    node.until("modest", "ready", ready).await;
    node.end().await;
}

/// The log files of the only container there is, oldest first.
fn log_files(node: &Node) -> Vec<PathBuf> {
    let below = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = below(node.dir.path().join("logs")).flat_map(|pod| below(pod.join("c"))).collect();
    files.sort_by_key(|file| (file.ends_with("0.log"), file.clone()));
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_is_put_aside_and_none_of_it_is_lost() {
    let node = Node::new().await;
    let script = "seq 300000; while :; do echo tick; sleep 0.1; done";
    node.create(
        "p",
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "command": ["sh", "-c", script]}]}),
    )
    .await;
    let all = within(60, "the log goes on in a new file", async || {
        let files = log_files(&node);
        let [old, new] = &files[..] else { return Err(format!("{files:?}")) };
        match fs::read_to_string(new).unwrap() {
            new if new.contains(" F tick\n") => Ok(fs::read_to_string(old).unwrap() + &new),
            new => Err(format!("{} bytes", new.len())),
        }
    })
    .await;
    let lines = all.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
    assert!(lines.eq(1..=300_000), "every line, once, in order");
    assert_eq!(node.get("/containerLogs/default/p/c?tailLines=1").await.1, "tick\n");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_in_the_api_reaches_a_running_pod_and_the_lease_is_renewed() {
    let node = Node::new().await;
    let params = PostParams::default();
    let (maps, secrets) = (
        Api::<ConfigMap>::namespaced(node.client.clone(), "default"),
        Api::<Secret>::namespaced(node.client.clone(), "default"),
    );
    let map =
        |colour: &str| serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"colour": colour}})).unwrap();
    let secret =
        |word: &str| serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"word": word}})).unwrap();
    maps.create(&params, &map("red")).await.unwrap();
    secrets.create(&params, &secret("old")).await.unwrap();
    let script = "say() { echo $(cat /m/colour /s/word); }; say; until say | grep -q greennew; do sleep 0.2; done; say; \
        exec sleep 1000";
    node.create(
        "p",
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "m", "mountPath": "/m"}, {"name": "s", "mountPath": "/s"}]}],
            "volumes": [{"name": "m", "configMap": {"name": "m"}}, {"name": "s", "secret": {"secretName": "s"}}]}),
    )
    .await;
    let says = async |seconds, want: &str| {
        within(seconds, "the files", async || match node.logs("p", "c").await {
            log if log == want => Ok(()),
            log => Err(log),
        })
        .await;
    };
    says(30, "redold\n").await;
    let leases = Api::<Lease>::namespaced(node.client.clone(), "kube-node-lease");
    let lease = async || leases.get(&node.node).await.unwrap().spec.unwrap();
    let first = lease().await;
    assert_eq!((first.holder_identity.as_deref(), first.lease_duration_seconds), (Some(&*node.node), Some(40)));
    maps.replace("m", &params, &map("green")).await.unwrap();
    secrets.replace("s", &params, &secret("new")).await.unwrap();
    says(120, "redold\ngreennew\n").await;
    let first = first.renew_time.unwrap().0;
    eventually("the lease is renewed", async || match lease().await.renew_time.unwrap().0 {
        then if then > first => Ok(()),
        then => Err(then.to_string()),
    })
    .await;
    node.end().await;
}

/// The API's clock is so far behind that each token has a few seconds to live for the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_before_it_ends() {
    let node = Node::new().await;
    node.behind.store(595, Ordering::Relaxed);
    let script = "while :; do cat /t/token; echo; sleep 0.2; done";
    node.create(
        "p",
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "t", "mountPath": "/t"}]}],
            "volumes": [{"name": "t", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]}}]}),
    )
    .await;
    let tokens = eventually("other tokens", async || {
        let mut tokens: Vec<String> = node.logs("p", "c").await.lines().map(str::to_owned).collect();
        tokens.dedup();
        if tokens.len() > 2 { Ok(tokens) } else { Err(format!("{tokens:?}")) }
    })
    .await;
    assert!(tokens.iter().all(|token| token.split('.').count() == 3), "each is whole: {tokens:?}");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_that_nothing_runs_go_when_the_disk_fills() {
    let mut node = Node::new().await;
    node.create(
        "p",
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "command": ["sleep", "1000"]}]}),
    )
    .await;
    node.until("p", "ready", ready).await;
    let store = node.images.clone();
    let names = async || {
        let images = store.list().await.unwrap();
        images.into_iter().flat_map(|image| image.names).collect::<Vec<_>>()
    };
    assert_eq!(names().await.len(), 2);
    node.kill().await;
    // As if the disk were always full.
    let images = images::Policy { high_percent: 0, low_percent: 0, min_age: Duration::ZERO };
    node.rounds = Rounds { collect: Duration::from_millis(100), images, ..node.rounds };
    node.start();
    let left = eventually("one image is left", async || match names().await {
        names if names.len() == 1 => Ok(names),
        names => Err(format!("{names:?}")),
    })
    .await;
    assert!(left[0].ends_with("busybox:test"), "{left:?}");
    node.end().await;
}

/// As a clean-up that failed would leave it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_no_pod_is_collected_in_time() {
    let mut node = Node::new().await;
    node.kill().await;
    node.rounds.collect = Duration::from_millis(100);
    node.start();
    let forever = json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "command": ["sleep", "1000"],
        "volumeMounts": [{"name": "e", "mountPath": "/e"}]}], "volumes": [{"name": "e", "emptyDir": {}}]});
    node.create("p", forever).await;
    let pod = node.until("p", "ready", ready).await;
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let state = async || {
        let logs = fs::read_dir(node.dir.path().join("logs")).unwrap().count();
        (logs, node.volumes.pods().unwrap(), node.images.snapshots().await.unwrap())
    };
    let before = state().await;
    fs::create_dir_all(node.dir.path().join("logs/default_ghost_1/c")).unwrap();
    fs::create_dir_all(node.dir.path().join("state/pods/1/volumes/e")).unwrap();
    let image = node.images.get("busybox:test").await.unwrap().unwrap();
    for id in ["1_c_0".to_owned(), format!("{uid}_c_7")] {
        node.images.prepare(&image, &id).await.unwrap();
    }
    eventually("only the pod's is left", async || match state().await {
        now if now == before => Ok(()),
        now => Err(format!("{now:?}")),
    })
    .await;
    node.end().await;
}

/// What is here of pods belongs to them, though the API does not tell of them yet.
#[tokio::test]
async fn nothing_is_collected_before_the_pods_are_known() {
    let mut node = Node::new().await;
    let script = "until [ -e /e/f ]; do echo kept > /e/f; done; sleep 1000";
    node.create(
        "p",
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "e", "mountPath": "/e"}]}], "volumes": [{"name": "e", "emptyDir": {}}]}),
    )
    .await;
    node.until("p", "ready", ready).await;
    node.kill().await;
    let identity = std::mem::replace(&mut node.identity, Identity::anonymous());
    let often = Duration::from_millis(50);
    node.rounds.collect = often;
    node.start();
    // Nothing tells of what is not done. The clock, stopped, goes on whenever nothing else does: a round is done before it.
    tokio::time::pause();
    tokio::time::sleep(often * 20).await;
    tokio::time::resume();
    assert_eq!(node.volumes.pods().unwrap().len(), 1);
    node.kill().await;
    node.identity = identity;
    node.start();
    node.until("p", "ready", ready).await;
    node.end().await;
}

/// Any other signal would be ignored for the whole grace period, which is longer than the test waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_says_how_it_is_stopped() {
    let node = Node::new().await;
    let script = "trap 'exit 0' USR1; echo armed; while :; do sleep 0.1; done";
    node.create(
        "p",
        json!({"terminationGracePeriodSeconds": 1000, "containers": [{"name": "c", "image": "busybox:usr1",
            "command": ["sh", "-c", script]}]}),
    )
    .await;
    eventually("the trap", async || match node.logs("p", "c").await {
        log if log == "armed\n" => Ok(()),
        log => Err(log),
    })
    .await;
    node.delete("p").await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_has_no_room_is_rejected() {
    let mut node = Node::new().await;
    let cpus = std::thread::available_parallelism().unwrap().get();
    let asks = |cpu: usize| {
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "command": ["sleep", "1000"],
            "resources": {"requests": {"cpu": cpu.to_string()}}}]})
    };
    node.create("fits", asks(cpus)).await;
    node.until("fits", "ready", ready).await;
    node.create("second", asks(1)).await;
    let pod = node.until("second", "rejected", phase("Failed")).await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    let message = pod["status"]["message"].as_str().unwrap();
    let (used, want) = (cpus * 1000, 1000);
    assert!(message.ends_with(&format!("cpu, requested: {want}, used: {used}, capacity: {used}")), "{message}");
    // A new agent gives room to what runs, whatever else has come meanwhile.
    node.kill().await;
    node.create("again", asks(cpus)).await;
    node.start();
    node.until("again", "rejected", phase("Failed")).await;
    node.until("fits", "ready", ready).await;
    node.delete("fits").await;
    node.create("third", asks(1)).await;
    node.until("third", "ready", ready).await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_agent_adopts_what_runs() {
    let mut node = Node::new().await;
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "command": ["sleep", "1000"]}]});
    node.create("kept", spec.clone()).await;
    node.create("gone", spec).await;
    let once =
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["sh", "-c", "sleep 2; exit 5"]}]});
    node.create("ends", once).await;
    for name in ["kept", "gone", "ends"] {
        node.until(name, "running", phase("Running")).await;
    }
    let before = node.until("kept", "running", ready).await;
    node.kill().await;
    let now = kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    node.pods().delete("gone", &now).await.unwrap();
    eventually("one ends while nobody looks", async || {
        let all = node.keeper.list().await.unwrap();
        let ended = all.iter().any(|c| matches!(&c.state, runtime::State::Exited { exit, .. } if exit.code == Some(5)));
        if ended { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    node.start();
    let pod = node.until("ends", "failed", phase("Failed")).await;
    assert_eq!(state(&pod, 0)["terminated"]["exitCode"], 5, "its exit code was kept");
    eventually("only one is left", async || match node.keeper.list().await.unwrap() {
        all if all.len() == 1 => Ok(()),
        all => Err(format!("{all:?}")),
    })
    .await;
    let after = node.until("kept", "running", ready).await;
    assert_eq!(before["status"]["containerStatuses"], after["status"]["containerStatuses"]);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_deleted_by_force_is_forgotten() {
    let node = Node::new().await;
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "command": ["sleep", "1000"]}]});
    node.create("forced", spec).await;
    node.until("forced", "running", phase("Running")).await;
    let now = kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    node.pods().delete("forced", &now).await.unwrap();
    eventually("the node knows it no more", async || match node.get("/pods").await.1 {
        pods if pods.contains("forced") => Err(pods),
        _ => Ok(()),
    })
    .await;
    node.end().await;
}
