//! A thousand pods at once: how fast they run, what they cost, and that nothing stays of them.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{PostParams, WatchEvent},
};
use tests::Instance;

use crate::{cluster, figure::Row, idle::QUIET, memory};

const PODS: usize = 1000;
/// Requests under way at a time.
const CLIENTS: usize = 16;

pub async fn measure() -> Result<Vec<Row>> {
    let mut instance = Instance::prepared();
    instance.pods_from(format!("10.{}.0.0/16", 64 + instance.port() % 16));
    tokio::task::block_in_place(|| instance.start());
    let pods: Api<Pod> = Api::default_namespaced(cluster::client(&instance).await?);
    // The first pod of a class of service makes the class's cgroup, which stays as long as the instance.
    run_all(&pods, 1).await?;
    cluster::clear(&pods).await?;
    tokio::time::sleep(QUIET).await;
    let (idle, _) = memory::of_rast()?;
    let host = Traces::of(&instance)?;
    let clean = host.count();

    let took = run_all(&pods, PODS).await?;
    tokio::time::sleep(QUIET).await;
    let (full, _) = memory::of_rast()?;
    let each = full.saturating_sub(idle) as f64 / PODS as f64;

    let began = Instant::now();
    cluster::clear(&pods).await?;
    let deleted = began.elapsed().as_secs_f64();
    let left = host.settled(clean).await;
    let rate = PODS as f64 / took.as_secs_f64();
    Ok(vec![
        Row::judged(
            "burst: 1,000 pods, first POST -> last Running",
            ">= 30 pods/s",
            rate >= 30.0,
            format!("{rate:.1} pods/s ({:.1} s)", took.as_secs_f64()),
            "reference 4.1 pods/s".into(),
        ),
        Row::judged(
            "burst: memory per pod above idle, 60 s later",
            "<= 256 KiB",
            each <= 256.0,
            format!("{each:.0} KiB ({:.1} MiB, idle {:.1})", full as f64 / 1024.0, idle as f64 / 1024.0),
            "a containerd-shim 3400 KiB".into(),
        ),
        Row::judged(
            "burst: mounts, links, cgroups left when deleted",
            "none",
            left == clean,
            format!("{left:?} (before {clean:?}), gone in {deleted:.1} s"),
            String::new(),
        ),
    ])
}

/// Creates them all and waits until the last runs.
async fn run_all(pods: &Api<Pod>, count: usize) -> Result<Duration> {
    let mut events = cluster::watch(pods).await?;
    let began = Instant::now();
    let created = stream::iter(0..count)
        .map(|n| async move {
            let pod = cluster::pod(&format!("burst-{n}"), &["sh", "-c", "echo up; exec sleep 100000"])?;
            anyhow::Ok(pods.create(&PostParams::default(), &pod).await?)
        })
        .buffer_unordered(CLIENTS)
        .try_for_each(|_| async { Ok(()) });
    let running = async {
        let mut running = HashSet::new();
        while running.len() < count {
            let name = cluster::next(&mut events, |event| match event {
                WatchEvent::Modified(pod) if cluster::phase(pod) == "Running" => pod.metadata.name.clone(),
                _ => None,
            });
            running.insert(name.await?);
        }
        anyhow::Ok(began.elapsed())
    };
    let ((), took) = tokio::try_join!(created, running)?;
    Ok(took)
}

/// Where an instance leaves traces on its host.
struct Traces {
    root: String,
    name: String,
}

impl Traces {
    fn of(instance: &Instance) -> Result<Self> {
        let name = memory::argument("--instance")?.context("the helper is told the instance's name")?;
        Ok(Self { root: instance.root().display().to_string(), name })
    }

    /// Mounts below its root, links that carry its name, and its cgroups.
    fn count(&self) -> [usize; 3] {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = table.lines().filter(|line| line.contains(&self.root)).count();
        let prefix = format!("{}_", self.name);
        let links = names(Path::new("/sys/class/net")).filter(|name| name.starts_with(&prefix)).count();
        let controllers = names(Path::new("/sys/fs/cgroup"));
        let cgroups = controllers.map(|c| directories(&Path::new("/sys/fs/cgroup").join(c).join(&self.name))).sum();
        [mounts, links, cgroups]
    }

    /// What is left once it is as `clean` was, or a minute later: links go after their pods do.
    async fn settled(&self, clean: [usize; 3]) -> [usize; 3] {
        let end = Instant::now() + QUIET;
        loop {
            let left = self.count();
            if left == clean || Instant::now() > end {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn names(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Directories below `dir`.
fn directories(dir: &Path) -> usize {
    let below = fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    below.map(|e| 1 + directories(&e.path())).sum()
}
