//! What is due from time to time: measuring, evicting, refreshing, rotating, collecting.

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use volumes::Medium;

use crate::{
    act::chain,
    agent::{Agent, Scene},
    events, logs, mounts,
    observe::{Failure, Outcome},
    pod, spec,
};

/// Pods measured at the same time, and how long each may take.
const SIDE_BY_SIDE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs until dropped. Loops of their own: what is slow for one pod holds up nothing else.
pub(crate) async fn run(agent: &Agent) {
    tokio::join!(measuring(agent), rotating(agent), refreshing(agent), collecting(agent));
}

async fn measuring(agent: &Agent) {
    let mut due = every(agent.0.config.rounds.measure);
    loop {
        due.tick().await;
        let ready = agent.scenes().into_iter().filter(|s| s.ready && limited(&s.want));
        stream::iter(ready).for_each_concurrent(SIDE_BY_SIDE, |scene| measure(agent.clone(), scene)).await;
    }
}

async fn rotating(agent: &Agent) {
    let mut due = every(agent.0.config.rounds.measure);
    loop {
        due.tick().await;
        for scene in agent.scenes() {
            rotate(agent, &scene).await;
        }
    }
}

async fn refreshing(agent: &Agent) {
    let mut due = every(agent.0.config.rounds.refresh);
    loop {
        due.tick().await;
        for scene in agent.scenes().into_iter().filter(|s| has_projected(&s.want)) {
            refresh(agent, scene.uid()).await;
        }
    }
}

async fn collecting(agent: &Agent) {
    // Until the pods are known, all that is here seems to belong to none.
    agent.0.listed.wait().await;
    let mut due = every(agent.0.config.rounds.collect);
    loop {
        due.tick().await;
        collect(agent).await;
        collect_images(agent).await;
    }
}

/// Ticks for the first time after a period.
fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Brings a pod's files from the API up to date, unless it is about to be cleaned up by now.
async fn refresh(agent: &Agent, uid: &str) {
    let begun = agent.with(uid, |entry| entry.seen.begin_refresh().then(|| Scene::of(entry)));
    if let Some(scene) = begun.flatten() {
        let _ = agent.make_volumes(&scene, true).await;
        agent.learn(uid, Outcome::Refreshed);
    }
}

fn has_projected(pod: &Pod) -> bool {
    pod::spec(pod).volumes.iter().flatten().any(mounts::is_projected)
}

/// Removes what belongs to no pod, or to no instance that is known: volumes, writable layers, logs. What is here is listed
/// first and the pods are asked for then, since a pod is known before anything of it is made. Each fault is told; none
/// stops the rest.
pub(crate) async fn collect(agent: &Agent) {
    let inner = &agent.0;
    let (volumes, logs, live) = (inner.volumes.clone(), inner.config.logs.clone(), agent.clone());
    let work = move || {
        let done = volumes.collect(|| live.uids());
        logs::collect(&logs, || live.uids());
        done.map_err(|e| e.to_string())
    };
    if let Err(e) = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.to_string())) {
        tracing::warn!("collect volumes: {e}");
    }
    discard(agent, |uid, name, attempt| {
        let kept = agent.with(uid, |entry| entry.seen.container(name).remains.contains(&attempt));
        kept != Some(true)
    })
    .await;
}

/// Discards the writable layers of instances that are gone.
pub(crate) async fn discard(agent: &Agent, gone: impl Fn(&str, &str, u32) -> bool) {
    for id in agent.0.images.snapshots().await.unwrap_or_default() {
        if let Some((uid, name, attempt)) = pod::parse_id(&id)
            && gone(uid, name, attempt)
            && let Err(e) = agent.0.images.discard(&id).await
        {
            tracing::warn!("discard {id}: {}", chain(e));
        }
    }
}

async fn collect_images(agent: &Agent) {
    let mut used = HashSet::new();
    for scene in agent.scenes() {
        for (_, c) in pod::containers(&scene.want) {
            if let Ok(Some(image)) = agent.0.images.get(c.image.as_deref().unwrap_or_default()).await {
                used.insert(image.id);
            }
        }
    }
    match agent.0.images.collect(agent.0.config.rounds.images, used).await {
        Ok(done) if !done.images.is_empty() => tracing::info!(images = ?done.images, "unused images removed"),
        Ok(_) => {}
        Err(e) => tracing::warn!("collect images: {}", chain(e)),
    }
}

/// Evicts a pod that uses more local storage than it may.
async fn measure(agent: Agent, scene: Scene) {
    if let Some(why) = excess(&agent, &scene).await {
        let evicted = agent.with(scene.uid(), |entry| {
            let first = entry.seen.evicted.is_none() && !entry.seen.cleaned;
            entry.seen.evicted.get_or_insert_with(|| Failure { reason: "Evicted", message: why.clone() });
            first
        });
        if evicted == Some(true) {
            agent.0.events.warning(events::about(&scene.want, None), "Evicted", why);
            agent.kick(scene.uid());
        }
    }
}

const STORAGE: &str = "ephemeral-storage";

fn limited(pod: &Pod) -> bool {
    let dirs = pod::spec(pod).volumes.iter().flatten().filter_map(|v| v.empty_dir.as_ref());
    pod::containers(pod).any(|(_, c)| limit(c).is_some()) || dirs.into_iter().any(|d| d.size_limit.is_some())
}

fn limit(c: &Container) -> Option<u64> {
    pod::amount(c, STORAGE, true).and_then(|q| u64::try_from(q.units()).ok()).filter(|n| *n > 0)
}

async fn excess(agent: &Agent, scene: &Scene) -> Option<String> {
    let (want, uid) = (&scene.want, scene.uid());
    let until = std::time::Instant::now() + PATIENCE;
    // Containers have them mounted for writing: not to count them would be CVE-2020-8557.
    let (volumes, id) = (agent.0.volumes.clone(), uid.to_string());
    let files = tokio::task::spawn_blocking(move || volumes.files_usage(&id, until)).await.ok()?;
    let mut total = files.unwrap_or(0);
    for volume in pod::spec(want).volumes.iter().flatten() {
        let Some(dir) = &volume.empty_dir else { continue };
        let medium = mounts::medium(want, dir.medium.as_deref(), dir.size_limit.as_ref());
        let (volumes, id, name) = (agent.0.volumes.clone(), uid.to_string(), volume.name.clone());
        let used = move || volumes.empty_dir_usage(&id, &name, medium, until);
        let used = tokio::task::spawn_blocking(used).await.ok()?.unwrap_or(0);
        let most = dir.size_limit.as_ref().and_then(pod::quantity).and_then(|q| u64::try_from(q.units()).ok());
        if let (Some(_), Some(text)) = (most.filter(|m| used > *m), dir.size_limit.as_ref()) {
            return Some(format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", volume.name, text.0));
        }
        if medium == Medium::Disk {
            total = total.saturating_add(used);
        }
    }
    let mut most = Some(0u64);
    for (role, c) in pod::containers(want) {
        let attempt = scene.remains.get(&c.name).map_or(0, |r| r.0);
        let layer = agent.0.images.usage(&pod::id(uid, &c.name, attempt), until).await.map_or(0, |u| u.bytes);
        let log = spec::log(&agent.0.config.logs, want, &c.name, attempt);
        let logs = log.parent().map(|d| walk::usage(d, until).unwrap_or_default().bytes).unwrap_or(0);
        let used = layer.saturating_add(logs);
        if let Some(limit) = limit(c).filter(|l| used > *l) {
            let text = c.resources.as_ref().and_then(|r| r.limits.as_ref()?.get(STORAGE)).map(|q| q.0.clone());
            let text = text.unwrap_or_else(|| limit.to_string());
            return Some(format!("Container {} exceeded its local ephemeral storage limit \"{text}\". ", c.name));
        }
        total = total.saturating_add(used);
        if role != pod::Role::Init {
            most = most.zip(limit(c)).map(|(sum, l)| sum.saturating_add(l));
        }
    }
    let most = most.filter(|m| *m > 0 && total > *m)?;
    Some(format!(
        "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
        api::quantity::Quantity::from_bytes(i64::try_from(most).unwrap_or(i64::MAX))
    ))
}

async fn rotate(agent: &Agent, scene: &Scene) {
    for (name, attempt) in scene.running.iter() {
        let log = spec::log(&agent.0.config.logs, &scene.want, name, *attempt);
        match logs::rotate(&log, jiff::Timestamp::now()) {
            Ok(false) => {}
            Ok(true) => {
                let id = pod::id(scene.uid(), name, *attempt);
                if let Err(e) = agent.0.runtime.reopen_log(&id).await {
                    tracing::debug!("reopen the log of {id}: {}", chain(e));
                }
            }
            Err(e) => tracing::warn!("rotate {}: {e}", log.display()),
        }
    }
}
