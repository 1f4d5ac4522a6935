//! What a Deployment reports: counts, and whether it is available and gets anywhere.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::apps::v1::{DeploymentCondition, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{Deployment, Member, rollout::Strategy, seconds};
use crate::object::Object;

/// The reason of a rollout that is done.
const DONE: &str = "NewReplicaSetAvailable";
/// The reason of one that takes too long.
const LATE: &str = "ProgressDeadlineExceeded";

/// The status as it should be.
pub fn status(
    object: &Object,
    d: &Deployment,
    new: Option<&Member<'_>>,
    old: &[Member<'_>],
    now: Timestamp,
) -> DeploymentStatus {
    let now = now.round(jiff::Unit::Second).unwrap_or(now);
    let all = || old.iter().chain(new);
    let sum = |f: fn(&Member<'_>) -> i32| all().map(f).sum::<i32>();
    let some = |n: i32| (n > 0).then_some(n);
    let wanted: i64 = all().map(|m| m.set.replicas).sum();
    let available = sum(|m| m.set.status.available_replicas.unwrap_or(0));
    let mut status = DeploymentStatus {
        replicas: some(sum(|m| m.set.status.replicas)),
        updated_replicas: new.and_then(|m| some(m.set.status.replicas)),
        ready_replicas: some(sum(|m| m.set.status.ready_replicas.unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some((wanted - i64::from(available)).clamp(0, i32::MAX.into()) as i32),
        observed_generation: object.meta.generation,
        conditions: d.status.conditions.clone(),
        ..d.status.clone()
    };
    let least = match d.strategy {
        Strategy::Rolling { unavailable, .. } => d.replicas - unavailable,
        Strategy::Recreate => d.replicas,
    };
    let enough = i64::from(available) >= least;
    let (value, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, condition("Available", value, reason, message.into()), now, false);
    progress(d, &mut status, new, now);
    failure(&mut status, new, old, now);
    status
}

/// Whether the rollout is done.
pub fn complete(d: &Deployment, status: &DeploymentStatus) -> bool {
    let all = |n: Option<i32>| i64::from(n.unwrap_or(0)) == d.replicas;
    all(status.updated_replicas) && all(status.replicas) && all(status.available_replicas)
}

fn progress(d: &Deployment, status: &mut DeploymentStatus, new: Option<&Member<'_>>, now: Timestamp) {
    let before = &d.status;
    let known = find(before, "Progressing").cloned();
    let reason = known.as_ref().and_then(|c| c.reason.as_deref()).unwrap_or_default();
    if d.paused {
        if reason != LATE && reason != "DeploymentPaused" {
            let paused = condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".into());
            set(status, paused, now, true);
        }
        return;
    }
    let Some(new) = new else {
        if reason == "DeploymentPaused" {
            let resumed = condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".into());
            set(status, resumed, now, true);
        } else if before.observed_generation != status.observed_generation {
            // Recreate makes its ReplicaSet once the old pods have gone: what was said of the former template is no
            // word on this one.
            let message = "The old pods are on their way out.".to_owned();
            set(status, condition("Progressing", "True", "ReplicaSetUpdated", message), now, true);
        }
        return;
    };
    let name = new.object.name();
    if complete(d, status) {
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        return set(status, condition("Progressing", "True", DONE, message), now, reason != DONE);
    }
    let count = |n: Option<i32>| n.unwrap_or(0);
    let old_left = |s: &DeploymentStatus| count(s.replicas) - count(s.updated_replicas);
    let moved = count(status.updated_replicas) > count(before.updated_replicas)
        || old_left(status) < old_left(before)
        || count(status.ready_replicas) > count(before.ready_replicas)
        || count(status.available_replicas) > count(before.available_replicas);
    // A finished rollout that lost a pod is no rollout; a new generation starts one.
    let started = before.observed_generation != status.observed_generation;
    if moved || started && reason == DONE || known.is_none() || reason == "DeploymentPaused" {
        let message = format!("ReplicaSet \"{name}\" is progressing.");
        set(status, condition("Progressing", "True", "ReplicaSetUpdated", message), now, true);
    } else if reason != DONE && reason != LATE && deadline(d, before, now) == Some(Duration::ZERO) {
        let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
        set(status, condition("Progressing", "False", LATE, message), now, true);
    }
}

/// How long until a rollout that gets nowhere is late; none when it is not under way or has no deadline.
pub fn deadline(d: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let progressing = find(status, "Progressing")?;
    if d.paused || matches!(progressing.reason.as_deref(), Some(DONE | LATE)) {
        return None;
    }
    let since = progressing.last_update_time.as_ref()?.0;
    let late = since.checked_add(SignedDuration::from_secs(d.deadline?)).unwrap_or(Timestamp::MAX);
    Some(seconds(late.duration_since(now).as_secs()))
}

/// Passes on why pods cannot be created.
fn failure(status: &mut DeploymentStatus, new: Option<&Member<'_>>, old: &[Member<'_>], now: Timestamp) {
    let failed = |m: &Member<'_>| {
        let conditions = m.set.status.conditions.iter().flatten();
        conditions.into_iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True").cloned()
    };
    match new.into_iter().chain(old).find_map(failed) {
        Some(cause) => {
            let (reason, message) = (cause.reason.unwrap_or_default(), cause.message.unwrap_or_default());
            set(status, condition("ReplicaFailure", "True", &reason, message), now, false);
        }
        None => status.conditions.iter_mut().for_each(|all| all.retain(|c| c.type_ != "ReplicaFailure")),
    }
}

fn condition(kind: &str, value: &str, reason: &str, message: String) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message),
        ..DeploymentCondition::default()
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Puts a condition in its place; its times change when it does, or (`renew`) when something moved.
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition, now: Timestamp, renew: bool) {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|c| c.type_ == condition.type_);
    let time = Some(Time(now));
    (condition.last_update_time, condition.last_transition_time) = (time.clone(), time);
    let Some(i) = known else { return conditions.push(condition) };
    let same = (&conditions[i].status, &conditions[i].reason) == (&condition.status, &condition.reason);
    if conditions[i].status == condition.status {
        condition.last_transition_time = conditions[i].last_transition_time.clone();
    }
    if same && !renew {
        condition.last_update_time = conditions[i].last_update_time.clone();
    }
    conditions[i] = condition;
}
