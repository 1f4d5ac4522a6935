//! What a pod's spec says, read in the way the rest of the agent asks.

use std::time::Duration;

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus, Probe},
    apimachinery::pkg::api::resource::Quantity as Text,
};

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`).
    Sidecar,
    /// What the pod is for.
    Main,
    /// Added while the pod runs, to look into it: started at once and only once, and nothing waits for it.
    Ephemeral,
}

/// How the agent marks an ephemeral container, as a `restartPolicy` that the API allows to nobody.
const EPHEMERAL: &str = "Ephemeral";

/// Puts a pod's ephemeral containers behind its main ones, so that whoever looks for a container finds them.
pub fn line_up(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    let ephemeral = spec.ephemeral_containers.take().unwrap_or_default();
    spec.containers.extend(
        ephemeral.iter().map(|e| Container { restart_policy: Some(EPHEMERAL.into()), ..api::pod::as_container(e) }),
    );
}

/// What the API knows of containers of one role.
pub fn statuses(status: &PodStatus, role: Role) -> &[ContainerStatus] {
    let list = match role {
        Role::Init | Role::Sidecar => &status.init_container_statuses,
        Role::Main => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.as_deref().unwrap_or_default()
}

/// Whether an ended container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    fn read(text: Option<&str>) -> Option<Self> {
        match text? {
            "Always" => Some(Self::Always),
            "OnFailure" => Some(Self::OnFailure),
            "Never" => Some(Self::Never),
            _ => None,
        }
    }

    /// After an end with this exit code; an unknown code is a failure.
    pub fn again(self, code: Option<i32>) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != Some(0),
            Self::Never => false,
        }
    }
}

/// The pod's uid; empty for an object that never was in an API.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The pod's namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// The pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `NAME_NAMESPACE(UID)`, as upstream's messages name a pod.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The spec; an empty one when there is none.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Init containers in order, then the main ones, then the ephemeral ones.
pub fn containers(pod: &Pod) -> impl DoubleEndedIterator<Item = (Role, &Container)> {
    let spec = spec(pod);
    let init = spec.init_containers.iter().flatten().map(|c| match c.restart_policy.as_deref() {
        Some("Always") => (Role::Sidecar, c),
        _ => (Role::Init, c),
    });
    init.chain(spec.containers.iter().map(|c| match c.restart_policy.as_deref() {
        Some(EPHEMERAL) => (Role::Ephemeral, c),
        _ => (Role::Main, c),
    }))
}

/// A container by its name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Role, &'a Container)> {
    containers(pod).find(|(_, c)| c.name == name)
}

/// When a container is started again. An init container under `Always` is only repeated until it succeeds.
pub fn restart(pod: &Pod, role: Role, container: &Container) -> Restart {
    let pods = Restart::read(spec(pod).restart_policy.as_deref()).unwrap_or(Restart::Always);
    match role {
        Role::Sidecar => Restart::Always,
        Role::Init if pods == Restart::Always => Restart::OnFailure,
        Role::Init => pods,
        Role::Ephemeral => Restart::Never,
        Role::Main => Restart::read(container.restart_policy.as_deref()).unwrap_or(pods),
    }
}

/// How long the pod's containers get to end.
pub fn grace(pod: &Pod) -> Duration {
    let asked = pod.metadata.deletion_grace_period_seconds.filter(|_| pod.metadata.deletion_timestamp.is_some());
    seconds(asked.or(spec(pod).termination_grace_period_seconds).unwrap_or(30))
}

/// Seconds of the API; negative is none.
pub fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0))
}

/// A later time; the far future when it would overflow.
pub fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A container's id on this host: the same for the same attempt, so a start that is repeated finds the first one.
pub fn id(uid: &str, container: &str, attempt: u32) -> String {
    format!("{uid}_{container}_{attempt}")
}

/// The parts of an id: uid, container, attempt.
pub fn parse_id(id: &str) -> Option<(&str, &str, u32)> {
    let (rest, attempt) = id.rsplit_once('_')?;
    let (uid, container) = rest.split_once('_')?;
    Some((uid, container, attempt.parse().ok()?))
}

/// The three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// All of them, startup first.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As events call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// A request or limit of a container, e.g. `("memory", true)` for the limit on memory.
pub fn amount(container: &Container, resource: &str, limit: bool) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let map = if limit { &resources.limits } else { &resources.requests };
    quantity(map.as_ref()?.get(resource)?)
}

/// A quantity of the API; `None` when it cannot be read.
pub fn quantity(text: &Text) -> Option<Quantity> {
    text.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_back() {
        assert_eq!(parse_id(&id("6f-1", "web-a", 12)), Some(("6f-1", "web-a", 12)));
        for bad in ["", "a", "a_b", "a_b_c", "a_b_-1"] {
            assert_eq!(parse_id(bad), None, "{bad}");
        }
    }
}
