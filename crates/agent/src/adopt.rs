//! What a new agent makes of what it finds: pods of the API, containers and sandboxes of the host. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};

use crate::{
    message,
    observe::{Ended, ImageId, Observed, Probing, Seen, Stage, State},
    pod::{self, ProbeKind, Role},
    spec::labels,
};

/// What is found on the host for one pod.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its sandbox is there and connected, with these addresses.
    pub sandbox: Option<Vec<IpAddr>>,
    /// Its containers, all instances.
    pub containers: Vec<runtime::Container>,
}

/// What is known of a pod that an earlier agent has looked after, or nobody yet.
pub fn observed(want: &Pod, found: Found, now: Timestamp) -> Observed {
    let status = want.status.as_ref();
    let over = matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    let start = status.and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    let mut instances: BTreeMap<String, BTreeMap<u32, runtime::Container>> = BTreeMap::new();
    for c in found.containers {
        if let Some((_, name, attempt)) = pod::parse_id(&c.spec.id) {
            instances.entry(name.to_string()).or_default().insert(attempt, c);
        }
    }
    let cleaned = over && found.sandbox.is_none() && instances.is_empty();
    let lost = found.sandbox.is_none();
    // Before a container stands in it, a sandbox may be half made: it is made again, which changes nothing that is there.
    let sandbox = found.sandbox.filter(|_| !instances.is_empty());
    let containers = pod::containers(want)
        .map(|(role, c)| {
            let all = instances.remove(&c.name).unwrap_or_default();
            (c.name.clone(), container(want, role, c, all, lost && !over, now))
        })
        .collect();
    Observed {
        since: Some(start.unwrap_or(now)),
        sandbox: sandbox.map_or(Stage::Absent, Stage::Ready),
        containers,
        cleaned,
        ..Observed::default()
    }
}

fn container(
    want: &Pod,
    role: Role,
    c: &Container,
    all: BTreeMap<u32, runtime::Container>,
    lost: bool,
    now: Timestamp,
) -> Seen {
    let told = told(want, role, &c.name);
    let remains = all.keys().copied().collect();
    let counted = told.and_then(|t| u32::try_from(t.restart_count).ok()).unwrap_or(0);
    let last = told
        .and_then(|t| t.last_state.as_ref()?.terminated.as_ref())
        .map(|t| from_status(t, counted.saturating_sub(1)));
    let Some((attempt, newest)) = all.iter().next_back().filter(|(a, _)| **a >= counted) else {
        return from_api(want, role, c, told, Seen { attempt: counted, last, remains, ..Seen::default() }, lost, now);
    };
    let time = |t: std::time::SystemTime| Timestamp::try_from(t).unwrap_or(now);
    let before = all.range(..*attempt).next_back().and_then(|(a, c)| match &c.state {
        runtime::State::Exited { since, exit } => Some(message::ended(*a, Some(time(*since)), exit, String::new())),
        _ => None,
    });
    let label = |key: &str| newest.spec.labels.get(key).cloned().unwrap_or_default();
    let image = ImageId { name: label(labels::IMAGE), id: label(labels::IMAGE_ID) };
    let seen = Seen {
        image: Stage::Ready(image),
        attempt: *attempt,
        last: before.or(last),
        hash: label(labels::HASH).parse().unwrap_or(0),
        hooked: true,
        remains,
        ..Seen::default()
    };
    match &newest.state {
        runtime::State::Creating => Seen { image: Stage::Absent, ..seen },
        runtime::State::Running { since, .. } => {
            let verdict = |kind, holds: bool| (kind, Probing { verdict: Some(holds), ..Probing::default() });
            let probes = [
                verdict(ProbeKind::Startup, told.and_then(|t| t.started).unwrap_or(false)),
                verdict(ProbeKind::Readiness, told.is_some_and(|t| t.ready)),
            ];
            let probes = probes.into_iter().filter(|(_, p)| p.verdict == Some(true)).collect();
            Seen { state: State::Running { since: time(*since) }, probes, ..seen }
        }
        runtime::State::Exited { since, exit } => {
            // The message was read by whoever saw the end, if anyone did.
            let message = told
                .filter(|_| counted == *attempt)
                .and_then(|t| t.state.as_ref()?.terminated.as_ref()?.message.clone())
                .unwrap_or_default();
            let ended = message::ended(*attempt, Some(time(*since)), exit, message);
            Seen { state: State::Exited(ended), crashes: attempt.saturating_add(1).min(6), ..seen }
        }
    }
}

/// A container that the host knows nothing of: the API's word is all there is.
fn from_api(
    want: &Pod,
    role: Role,
    c: &Container,
    told: Option<&ContainerStatus>,
    seen: Seen,
    lost: bool,
    now: Timestamp,
) -> Seen {
    let Some(told) = told.filter(|t| t.container_id.is_some()) else { return seen };
    let state = told.state.clone().unwrap_or_default();
    let image = Stage::Ready(ImageId { name: told.image.clone(), id: told.image_id.clone() });
    let ended = match (&state.terminated, &state.running, &seen.last) {
        (Some(t), _, _) => from_status(t, seen.attempt),
        // Backing off: the last end is the end of this instance.
        (None, None, Some(last)) => Ended { attempt: seen.attempt, ..last.clone() },
        (None, running, _) => Ended {
            attempt: seen.attempt,
            since: running.as_ref().and_then(|r| r.started_at.as_ref()).map(|t| t.0),
            at: now,
            code: None,
            signal: None,
            reason: "ContainerStatusUnknown".into(),
            message: "The container was gone when the agent came back; its exit code is not known.".into(),
        },
    };
    // With the sandbox gone (a reboot), what is to run again begins anew, init containers first.
    let again = matches!(role, Role::Init | Role::Sidecar) || pod::restart(want, role, c).again(ended.code);
    if lost && again {
        return Seen { attempt: seen.attempt.saturating_add(1), last: Some(ended), ..seen };
    }
    Seen { state: State::Exited(ended), image, crashes: 1, ..seen }
}

fn told<'a>(want: &'a Pod, role: Role, name: &str) -> Option<&'a ContainerStatus> {
    pod::statuses(want.status.as_ref()?, role).iter().find(|s| s.name == name)
}

fn from_status(t: &ContainerStateTerminated, attempt: u32) -> Ended {
    Ended {
        attempt,
        since: t.started_at.as_ref().map(|t| t.0),
        at: t.finished_at.as_ref().map(|t| t.0).unwrap_or_default(),
        code: Some(t.exit_code).filter(|c| *c != crate::status::UNKNOWN_CODE),
        signal: t.signal,
        reason: t.reason.clone().unwrap_or_default(),
        message: t.message.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use runtime::ContainerSpec;
    use serde_json::json;

    use super::*;
    use crate::decide::{self, Step};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn pod(status: serde_json::Value, policy: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u", "name": "p"}, "spec": {"restartPolicy": policy,
            "initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "c", "image": "x"}]},
            "status": status}))
        .unwrap()
    }

    fn instance(name: &str, attempt: u32, state: runtime::State) -> runtime::Container {
        let spec = ContainerSpec { id: pod::id("u", name, attempt), ..ContainerSpec::default() };
        runtime::Container { spec, state }
    }

    fn exited(code: Option<i32>) -> runtime::State {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        runtime::State::Exited {
            since: SystemTime::UNIX_EPOCH,
            exit: runtime::Exit { code, signal: None, oom: false, at },
        }
    }

    fn running_status() -> serde_json::Value {
        json!({"phase": "Running", "startTime": "1970-01-01T00:00:00Z",
            "initContainerStatuses": [{"name": "i", "image": "x", "imageID": "x", "ready": true, "restartCount": 0,
                "containerID": "rast://u_i_0", "state": {"terminated": {"exitCode": 0}}}],
            "containerStatuses": [{"name": "c", "image": "x", "imageID": "x", "ready": true, "restartCount": 2,
                "started": true, "containerID": "rast://u_c_2", "state": {"running": {"startedAt": "1970-01-01T00:00:00Z"}}}]})
    }

    fn next(want: &Pod, found: Found) -> (Observed, Vec<Step>) {
        let seen = observed(want, found, NOW);
        let steps = decide::next(want, &seen, NOW).steps;
        (seen, steps)
    }

    #[test]
    fn what_runs_is_kept() {
        let want = pod(running_status(), "Always");
        let running = runtime::State::Running { pid: 1, since: SystemTime::UNIX_EPOCH };
        let found = Found {
            sandbox: Some(vec!["10.0.0.2".parse().unwrap()]),
            containers: vec![
                instance("i", 0, exited(Some(0))),
                instance("c", 1, exited(Some(3))),
                instance("c", 2, running),
            ],
        };
        let (seen, steps) = next(&want, found);
        assert_eq!(seen.container("c").attempt, 2);
        assert_eq!(seen.container("c").last.as_ref().unwrap().code, Some(3));
        assert!(!steps.iter().any(|s| matches!(s, Step::Start { .. } | Step::Stop { .. })), "{steps:?}");
    }

    #[test]
    fn an_end_while_away_is_seen() {
        let want = pod(running_status(), "Never");
        let containers = vec![instance("c", 2, exited(Some(7)))];
        let (seen, _) = next(&want, Found { sandbox: Some(vec![]), containers });
        assert!(matches!(&seen.container("c").state, State::Exited(e) if e.code == Some(7)));
    }

    #[test]
    fn a_sandbox_without_containers_is_finished() {
        let want = pod(json!({"phase": "Pending"}), "Always");
        let (_, steps) = next(&want, Found { sandbox: Some(vec!["10.0.0.2".parse().unwrap()]), containers: vec![] });
        assert!(steps.contains(&Step::Sandbox), "{steps:?}");
    }

    #[test]
    fn after_a_reboot_everything_begins_anew() {
        let want = pod(running_status(), "Always");
        let (seen, steps) = next(&want, Found::default());
        assert!(steps.contains(&Step::Sandbox));
        let c = seen.container("c");
        assert_eq!((c.attempt, c.last.as_ref().unwrap().code), (3, None));
        assert_eq!(seen.container("i").state, State::Waiting, "init containers run again");
    }

    #[test]
    fn a_job_that_a_reboot_ended_has_failed() {
        let want = pod(running_status(), "Never");
        let (seen, _) = next(&want, Found::default());
        assert!(matches!(&seen.container("c").state, State::Exited(e) if e.reason == "ContainerStatusUnknown"));
        assert_eq!(decide::over(&want, &seen, NOW), Some(decide::Over::Finished));
    }

    #[test]
    fn what_is_over_stays_so() {
        let want = pod(json!({"phase": "Succeeded"}), "Never");
        let (seen, steps) = next(&want, Found::default());
        assert!(seen.cleaned && steps.is_empty(), "{steps:?}");
        let (_, steps) = next(&want, Found { sandbox: Some(vec![]), containers: vec![] });
        assert_eq!(steps, [Step::Clean]);
    }
}
