//! Pod create -> running, one at a time, beside `crun run` and `podman run` of the same.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams, WatchEvent},
};
use tests::Instance;

use crate::{
    cluster,
    figure::{Row, Times},
    peers,
};

const ROUNDS: usize = 20;
/// Not counted: the image is pulled, caches are filled.
const WARM: usize = 2;

pub async fn measure() -> Result<Vec<Row>> {
    let instance = tokio::task::block_in_place(Instance::up);
    let pods: Api<Pod> = Api::default_namespaced(cluster::client(&instance).await?);
    let image = format!("{}/busybox:1", tests::registry());
    let [mut ours, mut crun, mut begun, mut podman] = [(); 4].map(|()| Times::default());
    for round in 0..WARM + ROUNDS {
        let name = format!("start-{round}");
        let times = [
            pod(&pods, &name).await?,
            peers::time(peers::crun(&["run", &name])?)?,
            create_and_start(&name)?,
            peers::time(peers::podman(&["run", "--rm", "--network", "podman", &image, "true"])?)?,
        ];
        if round >= WARM {
            for (all, time) in [&mut ours, &mut crun, &mut begun, &mut podman].into_iter().zip(times) {
                all.add(time);
            }
        }
    }
    let (by_median, by_min) = ours.over(&crun);
    let (faster, faster_min) = podman.over(&ours);
    let (begin, begin_min) = ours.over(&begun);
    Ok(vec![
        Row::judged(
            "start: pod create -> Running / crun run",
            "<= 1.5x",
            by_median <= 1.5,
            format!("{by_median:.2}x (min {by_min:.2}x): {}", ours.words()),
            format!("crun run {}", crun.words()),
        ),
        Row::judged(
            "start: faster than podman run on a bridge",
            ">= 8x",
            faster >= 8.0,
            format!("{faster:.1}x (min {faster_min:.1}x)"),
            format!("podman run {}", podman.words()),
        ),
        Row::told(
            "start: pod create -> Running / crun create, start",
            format!("{begin:.2}x (min {begin_min:.2}x)"),
            format!("crun create, start {}", begun.words()),
        ),
    ])
}

/// From the request to the first status that is not Pending, as a watcher sees it.
async fn pod(pods: &Api<Pod>, name: &str) -> Result<Duration> {
    let pod = cluster::pod(name, &["true"])?;
    let mut events = cluster::watch(pods).await?;
    let began = Instant::now();
    pods.create(&PostParams::default(), &pod).await?;
    cluster::next(&mut events, |event| match event {
        WatchEvent::Modified(pod) => (cluster::phase(pod) != "Pending").then_some(()),
        _ => None,
    })
    .await?;
    let took = began.elapsed();
    pods.delete(name, &DeleteParams::default()).await?;
    cluster::next(&mut events, |event| matches!(event, WatchEvent::Deleted(_)).then_some(())).await?;
    Ok(took)
}

/// Until a container of crun's has started, without its end.
fn create_and_start(name: &str) -> Result<Duration> {
    let took = peers::time(peers::crun(&["create", name])?)? + peers::time(peers::crun(&["start", name])?)?;
    peers::time(peers::crun(&["delete", "--force", name])?)?;
    Ok(took)
}
