//! What is due from time to time: measuring, evicting, refreshing, rotating, collecting.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::{Instant, MissedTickBehavior, interval};
use volumes::Medium;

use crate::{
    act::chain,
    agent::{Agent, Scene},
    events, logs, mounts,
    observe::Failure,
    pod, spec,
};

/// How often local storage is measured and logs are rotated.
const MEASURE: Duration = Duration::from_secs(10);
/// How often files from the API are brought up to date.
const REFRESH: Duration = Duration::from_secs(60);
/// How often images and remains are collected.
const COLLECT: Duration = Duration::from_secs(300);

/// Runs until dropped.
pub(crate) async fn run(agent: &Agent) {
    let mut ticks = interval(MEASURE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut refreshed, mut collected) = (Instant::now(), Instant::now());
    loop {
        ticks.tick().await;
        let scenes = agent.scenes();
        for scene in scenes.iter().filter(|s| s.ready) {
            measure(agent, scene).await;
            rotate(agent, scene).await;
        }
        if refreshed.elapsed() >= REFRESH {
            refreshed = Instant::now();
            for scene in scenes.iter().filter(|s| s.ready && has_projected(&s.want)) {
                let _ = agent.make_volumes(scene, true).await;
            }
        }
        if collected.elapsed() >= COLLECT {
            collected = Instant::now();
            collect_images(agent).await;
        }
    }
}

fn has_projected(pod: &Pod) -> bool {
    pod::spec(pod).volumes.iter().flatten().any(mounts::is_projected)
}

/// Removes what belongs to no pod of `live`: addresses, volumes, writable layers. Each fault is told; none stops the rest.
pub(crate) async fn collect(agent: &Agent, live: &BTreeSet<String>) {
    let inner = &agent.0;
    if let Err(e) = inner.network.collect(live).await {
        tracing::warn!("collect addresses: {}", chain(e));
    }
    let (volumes, keep) = (inner.volumes.clone(), live.clone());
    match tokio::task::spawn_blocking(move || volumes.collect(&keep)).await {
        Ok(Err(e)) => tracing::warn!("collect volumes: {e}"),
        Err(e) => tracing::warn!("collect volumes: {e}"),
        Ok(Ok(())) => {}
    }
    for id in inner.images.snapshots().await.unwrap_or_default() {
        if let Some((uid, ..)) = pod::parse_id(&id)
            && !live.contains(uid)
            && let Err(e) = inner.images.discard(&id).await
        {
            tracing::warn!("discard {id}: {}", chain(e));
        }
    }
    let (logs, keep) = (inner.config.logs.clone(), live.clone());
    let _ = tokio::task::spawn_blocking(move || logs::collect(&logs, &keep)).await;
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
    match agent.0.images.collect(images::Policy::default(), used).await {
        Ok(done) if !done.images.is_empty() => tracing::info!(images = ?done.images, "unused images removed"),
        Ok(_) => {}
        Err(e) => tracing::warn!("collect images: {}", chain(e)),
    }
}

/// Evicts a pod that uses more local storage than it may.
async fn measure(agent: &Agent, scene: &Scene) {
    if !limited(&scene.want) {
        return;
    }
    if let Some(why) = excess(agent, scene).await {
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
    let mut total = 0u64;
    for volume in pod::spec(want).volumes.iter().flatten() {
        let Some(dir) = &volume.empty_dir else { continue };
        let medium = mounts::medium(want, dir.medium.as_deref(), dir.size_limit.as_ref());
        let (volumes, id, name) = (agent.0.volumes.clone(), uid.to_string(), volume.name.clone());
        let used = tokio::task::spawn_blocking(move || volumes.empty_dir_usage(&id, &name, medium)).await.ok()?;
        let most = dir.size_limit.as_ref().and_then(pod::quantity).and_then(|q| u64::try_from(q.units()).ok());
        let used = match used {
            Ok(used) => used,
            // Nested too deep to be measured: counts as over any limit.
            Err(volumes::Error::TooDeep(_)) => u64::MAX / 2,
            Err(_) => 0,
        };
        if let (Some(most), Some(text)) = (most.filter(|m| used > *m), dir.size_limit.as_ref()) {
            let _ = most;
            return Some(format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", volume.name, text.0));
        }
        if medium == Medium::Disk {
            total = total.saturating_add(used);
        }
    }
    let mut most = Some(0u64);
    for (role, c) in pod::containers(want) {
        let attempt = scene.remains.get(&c.name).map_or(0, |r| r.0);
        let layer = agent.0.images.usage(&pod::id(uid, &c.name, attempt)).await.map_or(0, |u| u.bytes);
        let log = spec::log(&agent.0.config.logs, want, &c.name, attempt);
        let used = layer.saturating_add(log.parent().map_or(0, |d| volumes::usage(d).unwrap_or(0)));
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
    for (name, (attempt, _)) in scene.remains.iter() {
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
