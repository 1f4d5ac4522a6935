//! A machine's own: what its kernel lacks for containers, and its end, before which containers go, each with its own grace.

use std::{collections::HashMap, path::Path, thread, time::Duration};

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use os::modules::{self, Modules};
use runtime::{Container, Runtime, State};
use rustix::process::setpriority_process;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

/// The grace of a pod that the API does not know any more.
const GRACE: Duration = Duration::from_secs(30);
/// The most that any has: PID 1 gives all of us 45 s, and a cloud gives PID 1 a minute.
const MOST: Duration = Duration::from_secs(38);
/// How long who was killed may take to be gone.
const LAST: Duration = Duration::from_secs(4);
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Loads the kernel modules that containers and their network need, and hands the cgroups' controllers on. Whatever else
/// wants the processor goes first: the API answers meanwhile.
pub async fn prepare() {
    let (done, prepared) = oneshot::channel();
    thread::spawn(move || {
        // Of this thread alone.
        let _as_it_was = setpriority_process(None, 19);
        let loaded = Modules::open(Path::new(modules::MACHINE)).and_then(|modules| modules.want(modules::NODE));
        let loaded = loaded.map_err(anyhow::Error::from);
        let _nobody_waits = done.send([loaded, os::init::mounts::hand_on_controllers().map_err(anyhow::Error::from)]);
    });
    for error in prepared.await.into_iter().flatten().filter_map(Result::err) {
        tracing::error!("{error:#}");
    }
}

/// How long the containers of each pod may take to end, by the pod's uid, which is its sandbox's name.
pub type Graces = HashMap<String, Duration>;

/// What the API says of the pods' graces.
pub async fn graces(client: kube::Client) -> Result<Graces> {
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await?;
    let grace = |pod: Pod| {
        let seconds = pod.spec?.termination_grace_period_seconds?;
        Some((pod.metadata.uid?, Duration::from_secs(seconds.try_into().ok()?)))
    };
    Ok(pods.items.into_iter().filter_map(grace).collect())
}

/// Tells all containers to end, waits for each as long as it may take, and kills it then. The pods stay as they are, to
/// run again after the next boot.
pub async fn end(runtime: &dyn Runtime, graces: &Graces) {
    let mut events = runtime.events();
    let begun = Instant::now();
    for container in running(runtime).await {
        signal(runtime, &container, SIGTERM).await;
    }
    loop {
        // Whatever happened while we did not look is seen in the list.
        let left = running(runtime).await;
        let (over, wait) = judge(left.iter().map(|c| grace(graces, c)), begun.elapsed());
        for (container, _) in left.iter().zip(over).filter(|(_, over)| *over) {
            signal(runtime, container, SIGKILL).await;
        }
        match wait {
            Some(wait) => drop(timeout(wait, events.recv()).await),
            None if left.is_empty() => return,
            None => return tracing::warn!("{} containers do not end", left.len()),
        }
    }
}

fn grace(graces: &Graces, container: &Container) -> Duration {
    graces.get(&container.spec.sandbox).copied().unwrap_or(GRACE).min(MOST)
}

/// Whose grace is over after so long, and how long to wait until the next look; none when it is of no use.
fn judge(graces: impl Iterator<Item = Duration>, elapsed: Duration) -> (Vec<bool>, Option<Duration>) {
    let graces: Vec<Duration> = graces.collect();
    let next = graces.iter().map(|grace| if *grace > elapsed { *grace } else { MOST + LAST }).min();
    let wait = next.map(|next| next.saturating_sub(elapsed)).filter(|wait| !wait.is_zero());
    (graces.iter().map(|grace| *grace <= elapsed).collect(), wait)
}

async fn signal(runtime: &dyn Runtime, container: &Container, signal: i32) {
    if let Err(error) = runtime.kill(&container.spec.id, signal).await {
        tracing::debug!("signal {signal} to {}: {error}", container.spec.id);
    }
}

async fn running(runtime: &dyn Runtime) -> Vec<Container> {
    let mut all = runtime.list().await.unwrap_or_default();
    all.retain(|container| matches!(container.state, State::Running { .. }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_grace() {
        let seconds = Duration::from_secs;
        let at = |now: u64| judge([seconds(0), seconds(5), seconds(30)].into_iter(), seconds(now));
        assert_eq!(at(0), (vec![true, false, false], Some(seconds(5))));
        assert_eq!(at(5), (vec![true, true, false], Some(seconds(25))));
        assert_eq!(at(30), (vec![true, true, true], Some(MOST + LAST - seconds(30))));
        assert_eq!(at(60).1, None, "what cannot be killed is not waited for");
        assert_eq!(judge(std::iter::empty(), seconds(0)), (vec![], None));
    }
}
