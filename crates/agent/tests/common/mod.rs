//! A node of its own for each test: real API server over a store in memory, real containers, real addresses.

#![allow(dead_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use agent::{Agent, Capacity, Config, Dns, Parts, Rounds};
use apiserver::{
    Audit, Authenticator, Identity, Nodes, Server, Version,
    rbac::{NODES, Rbac},
};
use async_trait::async_trait;
use axum::{body::Body, response::Response};
use http::Request;
use images::Images;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use network::{Network, Routed};
use runtime::{Keeper, Runtime};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::ServiceExt;
use volumes::Volumes;

pub struct Node {
    pub dir: tempfile::TempDir,
    pub client: Client,
    pub agent: Option<Agent>,
    pub server: Server,
    pub keeper: Arc<Keeper>,
    pub network: Arc<Routed>,
    pub images: Images,
    pub volumes: Volumes,
    pub node: String,
    /// What the next agent is told.
    pub rounds: Rounds,
    /// Who the next agent is.
    pub identity: Identity,
    /// Seconds that the API's clock is behind.
    pub behind: Arc<AtomicI64>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    running: Option<tokio::task::JoinHandle<()>>,
}

/// Waits until `state` gives a value; fails with what it said last, after half a minute.
pub async fn eventually<T>(what: &str, state: impl AsyncFn() -> Result<T, String>) -> T {
    within(30, what, state).await
}

/// [`eventually`], with another number of seconds.
pub async fn within<T>(seconds: u64, what: &str, state: impl AsyncFn() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match state().await {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < end, "{what}: still {last}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Nowhere;

#[async_trait]
impl Nodes for Nowhere {
    async fn forward(&self, _: &str, _: Request<Body>) -> Response {
        Response::new(Body::empty())
    }
}

impl Node {
    pub async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = std::process::id() % 100_000;
        let instance = format!("a{tag}-{n}");
        let store: Arc<dyn store::Store> = Arc::new(store::Memory::default());
        let pki = apiserver::pki::Pki::open(&dir.path().join("pki"), jiff::Timestamp::now()).unwrap();
        let holders = Arc::new(apiserver::authn::StoredHolders(store.clone()));
        let authenticator = Authenticator::new(&pki, holders, Arc::new(jiff::Timestamp::now)).unwrap();
        let behind = Arc::new(AtomicI64::new(0));
        let clock = {
            let behind = behind.clone();
            move || jiff::Timestamp::now() - jiff::SignedDuration::from_secs(behind.load(Ordering::Relaxed))
        };
        let authorizer = Rbac::open(store.clone(), jiff::Timestamp::now()).await.unwrap();
        let server = Server::new(apiserver::Config {
            store,
            registry: Arc::new(api::builtin()),
            authenticator: Arc::new(authenticator),
            authorizer,
            audit: Arc::new(Audit::open(&dir.path().join("audit.log"), 1 << 30, 1).unwrap()),
            nodes: Arc::new(Nowhere),
            doors: Vec::new(),
            version: Version::default(),
            clock: Arc::new(clock),
        });
        server.ready().await;
        let client = Client::new(server.local(Identity::system("system:admin", &["system:masters"])), "default");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        for name in ["default", "kube-node-lease"] {
            let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let keeper = Keeper::start(runtime::Config {
            run_dir: dir.path().join("run/runtime"),
            instance: instance.clone(),
            program: env!("CARGO_BIN_EXE_agent-helper").into(),
            args: vec![],
            backend: runtime::Backend::default(),
        })
        .await
        .unwrap();
        // A range of its own for each test process, out of 10.128.0.0/9.
        let third = (tag * 8 + n) % 32_768;
        let range = format!("10.{}.{}.0/24", 128 + third / 256, third % 256);
        let network = Routed::open(network::Config {
            instance,
            state_dir: dir.path().join("state/network"),
            pod_ranges: vec![range.parse().unwrap()],
            unmasqueraded: vec![],
            closed_ports: vec![],
            mtu: None,
        })
        .await
        .unwrap();
        let images = Images::open(&dir.path().join("state/images"), images::Config::default()).unwrap();
        images.load(&archive(dir.path())).await.unwrap();
        let volumes = Volumes::open(&dir.path().join("state"), &dir.path().join("run")).unwrap();
        let node = format!("node-{tag}-{n}");
        let network = Arc::new(network);
        let second = Duration::from_secs(1);
        let mut node = Self {
            rounds: Rounds { measure: second, refresh: second, ..Rounds::default() },
            // With the rights of a node, and no more.
            identity: Identity::system(&format!("node:{node}"), &[NODES]),
            behind,
            dir,
            client,
            agent: None,
            server,
            keeper,
            network,
            images,
            volumes,
            node,
            stop: None,
            running: None,
        };
        node.start();
        node
    }

    pub fn start(&mut self) {
        let config = Config {
            node_name: self.node.clone(),
            logs: self.dir.path().join("logs"),
            seccomp: self.dir.path().join("seccomp"),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            capacity: Capacity::of_host(Path::new("/"), 110),
            dns: Dns::default(),
            api: Some(("10.0.0.1".into(), 443)),
            ca: Some("a CA".into()),
            pids: Some(256),
            version: "test".into(),
            rounds: self.rounds,
        };
        let parts = Parts {
            client: Client::new(self.server.local(self.identity.clone()), "default"),
            runtime: self.keeper.clone(),
            network: self.network.clone(),
            images: self.images.clone(),
            volumes: self.volumes.clone(),
        };
        let agent = Agent::new(config, parts);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = agent.clone();
        self.running = Some(tokio::spawn(async move { running.run(async { drop(stopped.await) }).await }));
        (self.agent, self.stop) = (Some(agent), Some(stop));
    }

    /// Ends the agent, as abruptly as a task can be ended.
    pub async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
        self.agent = None;
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = self.node.clone().into();
        for list in ["containers", "initContainers"] {
            for c in spec[list].as_array_mut().into_iter().flatten() {
                if c["image"].is_null() {
                    c["image"] = "busybox:test".into();
                }
            }
        }
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
    }

    /// Waits until the pod is as asked; fails with its last state.
    pub async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name} is {what}"), async || {
            let pod = serde_json::to_value(self.pods().get_opt(name).await.unwrap()).unwrap();
            if holds(&pod) { Ok(pod) } else { Err(format!("{:#}", pod["status"])) }
        })
        .await
    }

    pub async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        self.until(name, "gone", Value::is_null).await;
    }

    pub async fn get(&self, uri: &str) -> (u16, String) {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let answer = self.agent.as_ref().unwrap().router().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    pub async fn logs(&self, pod: &str, container: &str) -> String {
        self.get(&format!("/containerLogs/default/{pod}/{container}")).await.1
    }

    /// Ends everything and looks whether anything is left.
    pub async fn end(mut self) {
        for pod in self.pods().list(&Default::default()).await.unwrap() {
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            let _ = self.pods().delete(pod.metadata.name.as_deref().unwrap(), &now).await;
        }
        eventually("nothing is left", async || match self.nothing_left().await {
            true => Ok(()),
            false => Err(format!(
                "{:?} {:?} {:?}",
                self.keeper.list().await,
                self.images.snapshots().await,
                self.volumes.pods()
            )),
        })
        .await;
        self.kill().await;
        self.network.teardown().await.unwrap();
        self.volumes.close().unwrap();
        self.keeper.stop().await.unwrap();
        self.server.stop();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(dir), "mounts are left below {dir}");
    }

    async fn nothing_left(&self) -> bool {
        self.keeper.list().await.unwrap().is_empty()
            && self.keeper.sandboxes().await.unwrap().is_empty()
            && self.network.attachments().await.unwrap().is_empty()
            && self.images.snapshots().await.unwrap().is_empty()
            && self.volumes.pods().unwrap().is_empty()
            && fs::read_dir(self.dir.path().join("logs")).map_or(0, Iterator::count) == 0
    }
}

/// busybox as `docker save` writes it.
fn archive(dir: &Path) -> PathBuf {
    let mut layer = tar::Builder::new(vec![]);
    let mut put = |name: &str, mode: u32, bytes: &[u8]| {
        let mut h = tar::Header::new_ustar();
        h.set_size(bytes.len() as u64);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(0);
        h.set_mode(mode);
        layer.append_data(&mut h, name, bytes).unwrap();
    };
    put("bin/busybox", 0o755, &fs::read("/usr/bin/busybox").unwrap());
    put("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n");
    put("etc/group", 0o644, b"root:x:0:\nweb:x:1000:\n");
    for applet in [
        "sh", "sleep", "cat", "echo", "env", "id", "ls", "true", "false", "dd", "nc", "httpd", "touch", "mkdir",
        "stat", "hostname", "grep", "seq",
    ] {
        let mut h = tar::Header::new_ustar();
        h.set_entry_type(tar::EntryType::Symlink);
        h.set_size(0);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(0);
        h.set_mode(0o777);
        layer.append_link(&mut h, format!("bin/{applet}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let config = |signal: &str| {
        json!({"architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }, "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "StopSignal": signal},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(&layer)))]}})
        .to_string()
    };
    let image = |tag: &str| json!({"Config": format!("{tag}.json"), "RepoTags": [format!("busybox:{tag}")], "Layers": ["layer.tar"]});
    let manifest = json!([image("test"), image("usr1")]);
    let path = dir.join("busybox.tar");
    let mut out = tar::Builder::new(fs::File::create(&path).unwrap());
    for (name, bytes) in [
        ("test.json", config("SIGTERM").into_bytes()),
        ("usr1.json", config("SIGUSR1").into_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        let mut h = tar::Header::new_ustar();
        h.set_size(bytes.len() as u64);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(0);
        h.set_mode(0o644);
        out.append_data(&mut h, name, &bytes[..]).unwrap();
    }
    out.finish().unwrap();
    path
}
