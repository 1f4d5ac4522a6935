//! The pod's status as the API shows it: pure, from what is wanted and what is known.

use std::hash::{DefaultHasher, Hasher};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::{Value, json};

use crate::{
    decide::{self, Over},
    observe::{Ended, Observed, Seen, Stage, State},
    pod::{self, Role},
    resources,
};

/// What an exit code is when nobody knows it: no process can end with it.
pub const UNKNOWN_CODE: i32 = -1;

/// The status that is due now. Keeps what others wrote (conditions of theirs, fields the agent does not own).
pub fn of(want: &Pod, seen: &Observed, now: Timestamp) -> PodStatus {
    let old = want.status.clone().unwrap_or_default();
    if matches!(old.phase.as_deref(), Some("Succeeded" | "Failed")) && seen.sent.is_none() {
        return old; // Over before this agent saw it: there is nothing to add.
    }
    let over = decide::over(want, seen, now);
    let phase = phase(want, seen, over.as_ref());
    let terminal = matches!(phase, "Succeeded" | "Failed");
    let (reason, message) = match (&over, terminal) {
        (Some(Over::Evicted(why)), true) => (Some(why.reason.into()), Some(why.message.clone())),
        (Some(Over::Deadline), true) => (
            Some("DeadlineExceeded".into()),
            Some("Pod was active on the node longer than the specified deadline".into()),
        ),
        _ => (old.reason.clone(), old.message.clone()),
    };
    let of_roles = |roles: &[Role]| -> Vec<ContainerStatus> {
        pod::containers(want)
            .filter(|(role, _)| roles.contains(role))
            .map(|(role, c)| container(want, seen, role, c, terminal))
            .collect()
    };
    let (init, ephemeral) = (of_roles(&[Role::Init, Role::Sidecar]), of_roles(&[Role::Ephemeral]));
    let ips = seen.sandbox.ready().filter(|ips| !ips.is_empty());
    let start = old.start_time.clone().or(seen.since.map(second));
    PodStatus {
        conditions: Some(conditions(want, seen, phase, &old, now)),
        container_statuses: Some(of_roles(&[Role::Main])),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        init_container_statuses: (!init.is_empty()).then_some(init),
        pod_ip: ips.map(|ips| ips[0].to_string()).or(old.pod_ip.clone()),
        pod_ips: ips.map(|ips| ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()).or(old.pod_ips.clone()),
        qos_class: Some(resources::qos(want).to_string()),
        observed_generation: want.metadata.generation,
        start_time: start,
        phase: Some(phase.into()),
        reason,
        message,
        ..old
    }
}

/// Adds the node's addresses, which are the same for all.
pub fn on_host(mut status: PodStatus, addresses: &[std::net::IpAddr]) -> PodStatus {
    status.host_ip = addresses.first().map(ToString::to_string);
    status.host_ips = Some(addresses.iter().map(|ip| HostIP { ip: ip.to_string() }).collect());
    status
}

/// The conditions that the agent writes.
const OWN: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// What the agent writes of a status, as a strategic merge patch. Conditions that others wrote are theirs to change: they
/// may be newer than they are known here.
pub fn own(status: &PodStatus) -> Value {
    let mut patch = json!(status);
    if let Some(conditions) = patch["conditions"].as_array_mut() {
        conditions.retain(|condition| OWN.iter().any(|own| condition["type"] == *own));
    }
    for addresses in ["podIPs", "hostIPs"] {
        if let Some(list) = patch.get_mut(addresses).and_then(Value::as_array_mut) {
            list.push(json!({"$patch": "replace"}));
        }
    }
    patch
}

/// Whether the API knows this status, as far as we can tell.
pub fn told(want: &Pod, seen: &Observed, status: &PodStatus) -> bool {
    let essence = essence(status);
    match seen.sent {
        Some(sent) => sent == essence,
        None => want.status.as_ref().is_some_and(|old| self::essence(old) == essence),
    }
}

/// All of a status but the times of transitions.
pub fn essence(status: &PodStatus) -> u64 {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_transition_time = None;
    }
    (status.host_ip, status.host_ips) = (None, None);
    let mut hasher = DefaultHasher::new();
    hasher.write(&serde_json::to_vec(&status).unwrap_or_default());
    hasher.finish()
}

fn second(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn phase(want: &Pod, seen: &Observed, over: Option<&Over>) -> &'static str {
    let old = want.status.as_ref().and_then(|s| s.phase.as_deref());
    match old {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    let states = || pod::containers(want).map(|(role, c)| (role, c, seen.container(&c.name)));
    if let Some(over) = over
        && !states().any(|(_, c, _)| decide::alive(seen, &c.name))
    {
        let succeeded = |(role, _, s): (Role, &Container, &Seen)| {
            role != Role::Main || matches!(&s.state, State::Exited(e) if e.code == Some(0))
        };
        let forced = matches!(over, Over::Evicted(_) | Over::Deadline);
        return if !forced && states().all(succeeded) { "Succeeded" } else { "Failed" };
    }
    let new = |(role, _, s): (Role, &Container, &Seen)| {
        role == Role::Main && matches!(s.state, State::Waiting) && s.last.is_none()
    };
    if !decide::initialized(want, seen) || states().any(new) { "Pending" } else { "Running" }
}

fn container(want: &Pod, seen: &Observed, role: Role, c: &Container, terminal: bool) -> ContainerStatus {
    let known = seen.container(&c.name);
    let terminated = |e: &Ended| ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(want, c, e.attempt)),
            exit_code: e.code.unwrap_or(UNKNOWN_CODE),
            signal: e.signal,
            started_at: e.since.map(second),
            finished_at: Some(second(e.at)),
            reason: Some(e.reason.clone()),
            message: (!e.message.is_empty()).then(|| e.message.clone()),
        }),
        ..ContainerState::default()
    };
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message }),
        ..ContainerState::default()
    };
    let mut last = known.last.as_ref().map(terminated);
    let state = match &known.state {
        State::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(second(*since)) }),
            ..ContainerState::default()
        },
        State::Exited(e) if !terminal && decide::will_restart(want, role, c, e.code) && !over_soon(want, seen) => {
            match backing_off(want, c, known, e) {
                Some((reason, message)) => {
                    last = Some(terminated(e));
                    waiting(reason, message)
                }
                None => terminated(e),
            }
        }
        State::Exited(e) => terminated(e),
        State::Waiting => {
            let (reason, message) = why_waiting(want, seen, role, c, known);
            waiting(&reason, message)
        }
    };
    let running = state.running.is_some();
    let done = role == Role::Init && state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    let image = known.image.ready().cloned().or_else(|| reported_image(want, role, c)).unwrap_or_default();
    let exists = !matches!(known.state, State::Waiting);
    ContainerStatus {
        name: c.name.clone(),
        image: if image.name.is_empty() { c.image.clone().unwrap_or_default() } else { image.name },
        image_id: if exists || known.last.is_some() { image.id } else { String::new() },
        container_id: exists.then(|| container_id(want, c, known.attempt)),
        restart_count: i32::try_from(known.attempt).unwrap_or(i32::MAX),
        ready: done || decide::ready(c, known),
        started: Some(running && decide::started(c, known)),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn reported_image(want: &Pod, role: Role, c: &Container) -> Option<crate::observe::ImageId> {
    let old = pod::statuses(want.status.as_ref()?, role).iter().find(|s| s.name == c.name)?;
    Some(crate::observe::ImageId { name: old.image.clone(), id: old.image_id.clone() })
}

fn over_soon(want: &Pod, seen: &Observed) -> bool {
    want.metadata.deletion_timestamp.is_some() || seen.absent || seen.evicted.is_some()
}

fn container_id(want: &Pod, c: &Container, attempt: u32) -> String {
    format!("rast://{}", pod::id(pod::uid(want), &c.name, attempt))
}

/// What a container that ended waits for before it is started again; `None` when it is at once.
fn backing_off(want: &Pod, c: &Container, known: &Seen, e: &Ended) -> Option<(&'static str, Option<String>)> {
    if e.reason == "StartError" {
        return Some(("RunContainerError", Some(e.message.clone())));
    }
    if let Stage::Failed(t) = &known.image {
        return Some((t.failure.reason, Some(t.failure.message.clone())));
    }
    let delay = decide::crash_delay(known);
    if delay.is_zero() {
        return None;
    }
    let full = pod::full_name(want);
    let text = format!("back-off {} restarting failed container={} pod={full}", short(delay), c.name);
    Some(("CrashLoopBackOff", Some(text)))
}

/// A whole number of seconds as Go prints it: `40s`, `2m40s`.
fn short(delay: std::time::Duration) -> String {
    match (delay.as_secs() / 60, delay.as_secs() % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}

fn why_waiting(want: &Pod, seen: &Observed, role: Role, c: &Container, known: &Seen) -> (String, Option<String>) {
    if let Stage::Failed(t) = &known.image {
        let name = c.image.as_deref().unwrap_or_default();
        let f = &t.failure;
        return match (f.reason, t.told) {
            ("ErrImagePull", true) => (
                "ImagePullBackOff".into(),
                Some(format!("Back-off pulling image \"{name}\": ErrImagePull: {}", f.message)),
            ),
            _ => (f.reason.into(), Some(f.message.clone())),
        };
    }
    if let Some(t) = &known.error {
        return (t.failure.reason.into(), Some(t.failure.message.clone()));
    }
    let inits = pod::containers(want).any(|(r, _)| matches!(r, Role::Init | Role::Sidecar));
    let first = role == Role::Ephemeral || pod::containers(want).next().is_some_and(|(_, f)| f.name == c.name);
    let message = match (&seen.sandbox, &seen.volumes) {
        (Stage::Failed(t), _) | (_, Stage::Failed(t)) => Some(t.failure.message.clone()),
        _ => known.pulling.clone(),
    };
    let initializing = inits && !decide::initialized(want, seen) && (role == Role::Main || !first);
    (if initializing { "PodInitializing" } else { "ContainerCreating" }.into(), message)
}

fn conditions(want: &Pod, seen: &Observed, phase: &str, old: &PodStatus, now: Timestamp) -> Vec<PodCondition> {
    let names = |hold: &dyn Fn(Role, &Container, &Seen) -> bool| {
        pod::containers(want)
            .filter(|(role, c)| hold(*role, c, seen.container(&c.name)))
            .map(|(_, c)| c.name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let unready = names(&|role, c, s| !matches!(role, Role::Init | Role::Ephemeral) && !decide::ready(c, s));
    let initialized = decide::initialized(want, seen);
    let incomplete = names(&|role, c, s| match role {
        Role::Init => !matches!(&s.state, State::Exited(e) if e.code == Some(0)),
        Role::Sidecar => !decide::started(c, s),
        Role::Main | Role::Ephemeral => false,
    });
    let completed = (phase == "Succeeded").then_some(("PodCompleted", String::new()));
    let failed = (phase == "Failed").then_some(("PodFailed", String::new()));
    let not_ready = || {
        completed.clone().or(failed.clone()).or_else(|| {
            (!unready.is_empty())
                .then(|| ("ContainersNotReady", format!("containers with unready status: [{unready}]")))
        })
    };
    let not_initialized = || {
        (!initialized && phase != "Succeeded")
            .then(|| ("ContainersNotInitialized", format!("containers with incomplete status: [{incomplete}]")))
    };
    let gate = pod::spec(want)
        .readiness_gates
        .iter()
        .flatten()
        .find(|g| !old.conditions.iter().flatten().any(|c| c.type_ == g.condition_type && c.status == "True"));
    let gated = gate.map(|g| {
        ("ReadinessGatesNotReady", format!("the status of pod readiness gate \"{}\" is not \"True\"", g.condition_type))
    });
    let sandbox = seen.sandbox.ready().is_some() && !seen.cleaned;
    type Why = Option<(&'static str, String)>;
    let own: [(bool, Why); 5] = [
        (sandbox, None),
        (not_initialized().is_none(), not_initialized().or(completed.clone())),
        (not_ready().is_none() && gated.is_none(), not_ready().or(gated)),
        (not_ready().is_none(), not_ready()),
        (true, None),
    ];
    let before = |name: &str| old.conditions.iter().flatten().find(|c| c.type_ == name);
    let mut all: Vec<PodCondition> = std::iter::zip(OWN, own)
        .map(|(name, (holds, why))| {
            let status = if holds { "True" } else { "False" };
            let same = before(name).filter(|c| c.status == status);
            let (reason, message) = why.unzip();
            PodCondition {
                type_: name.into(),
                status: status.into(),
                reason: reason.map(Into::into),
                message: message.filter(|m| !m.is_empty()),
                last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or(Some(second(now))),
                observed_generation: want.metadata.generation,
                ..PodCondition::default()
            }
        })
        .collect();
    all.extend(old.conditions.iter().flatten().filter(|theirs| !OWN.contains(&&*theirs.type_)).cloned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_left_to_them() {
        let status = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}], "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "DisruptionTarget", "status": "True"}]});
        let patch = own(&serde_json::from_value(status).unwrap());
        assert_eq!(patch["conditions"], json!([{"type": "Ready", "status": "True"}]));
        assert_eq!(patch["podIPs"], json!([{"ip": "10.0.0.2"}, {"$patch": "replace"}]));
    }
}
