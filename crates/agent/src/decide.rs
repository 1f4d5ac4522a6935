//! What to do next for one pod: a pure function of what is wanted, what is known, and the time.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};

use crate::{
    observe::{Failure, Observed, Seen, Stage, State, Trouble, doubling},
    pod::{self, ProbeKind, Restart, Role},
    status,
};

/// An effect to be carried out. At most one of each [`Work`] is under way for a pod.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Step {
    /// Make the sandbox and connect it.
    Sandbox,
    /// Make the volumes.
    Volumes,
    /// Have a container's image here.
    Pull { container: String },
    /// Start an instance.
    Start { container: String, attempt: u32 },
    /// Run the postStart hook.
    PostStart { container: String, attempt: u32 },
    /// Run the preStop hook, then send the stop signal.
    Stop { container: String, grace: Duration, why: String },
    /// Bring the time of the kill forward: nothing to carry out.
    Hurry { container: String, grace: Duration },
    /// Send SIGKILL.
    Kill { container: String },
    /// Probe once; the next one is due a period later.
    Probe { container: String, kind: ProbeKind, period: Duration },
    /// Remove the remains of an instance.
    Forget { container: String, attempt: u32 },
    /// Write the status.
    Report(Box<PodStatus>),
    /// Remove everything but logs from the host.
    Clean,
    /// Remove logs, and the object from the API.
    Delete,
}

/// What an effect works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Work {
    Sandbox,
    Volumes,
    Pull(String),
    Start(String),
    PostStart(String),
    Stop(String),
    Kill(String),
    Probe(String, ProbeKind),
    Forget(String),
    Report,
    Clean,
    Delete,
}

impl Step {
    /// What it works on.
    pub fn work(&self) -> Work {
        match self {
            Self::Sandbox => Work::Sandbox,
            Self::Volumes => Work::Volumes,
            Self::Pull { container } => Work::Pull(container.clone()),
            Self::Start { container, .. } => Work::Start(container.clone()),
            Self::PostStart { container, .. } => Work::PostStart(container.clone()),
            Self::Stop { container, .. } | Self::Hurry { container, .. } => Work::Stop(container.clone()),
            Self::Kill { container } => Work::Kill(container.clone()),
            Self::Probe { container, kind, .. } => Work::Probe(container.clone(), *kind),
            Self::Forget { container, .. } => Work::Forget(container.clone()),
            Self::Report(_) => Work::Report,
            Self::Clean => Work::Clean,
            Self::Delete => Work::Delete,
        }
    }
}

/// What to do now, and when to ask again if nothing happens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Side by side.
    pub steps: Vec<Step>,
    /// The time that changes the answer.
    pub again: Option<Timestamp>,
}

/// Why a pod shall not run (any more).
#[derive(Clone, Debug, PartialEq)]
pub enum Over {
    /// Deleted in the API, with grace or without.
    Deleted,
    /// The node does not take it or wants it gone, for this reason.
    Evicted(Failure),
    /// It was active longer than `activeDeadlineSeconds`.
    Deadline,
    /// Its containers have done what they had to, or failed for good.
    Finished,
}

/// Restarts wait this long, doubling from the second one on.
pub const CRASH_FIRST: Duration = Duration::from_secs(10);
/// The longest wait before a restart or a pull.
pub const BACK_OFF_MOST: Duration = Duration::from_secs(300);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// What to do next. Level-triggered: depends on nothing but its arguments.
pub fn next(want: &Pod, seen: &Observed, now: Timestamp) -> Plan {
    let mut planner = Planner { want, seen, now, plan: Plan::default() };
    if !seen.gone {
        let status = status::of(want, seen, now);
        let told = seen.absent || status::told(want, seen, &status);
        match over(want, seen, now) {
            Some(why) => planner.wind_down(&why, told),
            None => planner.bring_up(),
        }
        planner.carry_on(told);
        if !told {
            planner.report(status);
        }
    }
    planner.plan
}

/// Whether the pod shall not run, and why.
pub fn over(want: &Pod, seen: &Observed, now: Timestamp) -> Option<Over> {
    let phase = want.status.as_ref().and_then(|s| s.phase.as_deref());
    if want.metadata.deletion_timestamp.is_some() || seen.absent {
        Some(Over::Deleted)
    } else if let Some(why) = &seen.evicted {
        Some(Over::Evicted(why.clone()))
    } else if matches!(phase, Some("Succeeded" | "Failed")) {
        Some(Over::Finished)
    } else if deadline(want, seen).is_some_and(|at| now >= at && (!finished(want, seen) || ended_since(seen, at))) {
        Some(Over::Deadline)
    } else {
        finished(want, seen).then_some(Over::Finished)
    }
}

/// Whether a container ran until then, so that its end is the deadline's doing and not its own.
fn ended_since(seen: &Observed, at: Timestamp) -> bool {
    seen.containers.values().any(|c| matches!(&c.state, State::Exited(e) if e.at >= at))
}

fn deadline(want: &Pod, seen: &Observed) -> Option<Timestamp> {
    let seconds = pod::spec(want).active_deadline_seconds?;
    Some(pod::after(seen.since?, pod::seconds(seconds)))
}

fn finished(want: &Pod, seen: &Observed) -> bool {
    let ended_for_good = |role, c: &Container| match &seen.container(&c.name).state {
        State::Exited(e) => !pod::restart(want, role, c).again(e.code),
        _ => false,
    };
    let mut mains = pod::containers(want).filter(|(role, _)| *role == Role::Main).peekable();
    let failed_init = pod::containers(want).any(|(role, c)| {
        let failed = matches!(&seen.container(&c.name).state, State::Exited(e) if e.code != Some(0));
        role == Role::Init && failed && ended_for_good(role, c)
    });
    failed_init || (mains.peek().is_some() && mains.all(|(role, c)| ended_for_good(role, c)))
}

/// Whether the container runs, or may at any moment.
pub fn alive(seen: &Observed, name: &str) -> bool {
    matches!(seen.container(name).state, State::Running { .. }) || seen.doing.contains(&Work::Start(name.into()))
}

/// Whether all init containers have done their part. Once a main container was started, they have.
pub fn initialized(want: &Pod, seen: &Observed) -> bool {
    pod::containers(want).all(|(role, c)| match role {
        Role::Init => matches!(&seen.container(&c.name).state, State::Exited(e) if e.code == Some(0)),
        Role::Sidecar => started(c, seen.container(&c.name)),
        Role::Main | Role::Ephemeral => true,
    }) || main_started(want, seen)
}

fn main_started(want: &Pod, seen: &Observed) -> bool {
    pod::containers(want).any(|(role, c)| {
        role == Role::Main && (alive(seen, &c.name) || !matches!(seen.container(&c.name).state, State::Waiting))
    })
}

/// Runs, its postStart hook is done and its startup probe has succeeded.
pub fn started(container: &Container, seen: &Seen) -> bool {
    matches!(seen.state, State::Running { .. })
        && (seen.hooked || post_start(container).is_none())
        && (container.startup_probe.is_none() || verdict(seen, ProbeKind::Startup) == Some(true))
}

/// Started, and its readiness probe says so.
pub fn ready(container: &Container, seen: &Seen) -> bool {
    started(container, seen)
        && seen.stop.is_none()
        && (container.readiness_probe.is_none() || verdict(seen, ProbeKind::Readiness) == Some(true))
}

fn verdict(seen: &Seen, kind: ProbeKind) -> Option<bool> {
    seen.probes.get(&kind)?.verdict
}

fn post_start(container: &Container) -> Option<()> {
    container.lifecycle.as_ref()?.post_start.as_ref().map(drop)
}

/// When an ended container is started again.
pub fn restart_due(seen: &Seen) -> Option<Timestamp> {
    match &seen.state {
        State::Exited(e) => Some(pod::after(e.at, crash_delay(seen))),
        _ => None,
    }
}

/// How long a restart waits after the end: the first one not at all.
pub fn crash_delay(seen: &Seen) -> Duration {
    doubling(seen.crashes.saturating_sub(1), CRASH_FIRST, BACK_OFF_MOST)
}

struct Planner<'a> {
    want: &'a Pod,
    seen: &'a Observed,
    now: Timestamp,
    plan: Plan,
}

impl Planner<'_> {
    fn push(&mut self, step: Step) {
        let work = step.work();
        if !self.seen.doing.contains(&work) && !self.plan.steps.iter().any(|s| s.work() == work) {
            self.plan.steps.push(step);
        }
    }

    /// Whether the time has come; if not, notes it.
    fn due(&mut self, at: Timestamp) -> bool {
        if self.now < at {
            self.plan.again = Some(self.plan.again.map_or(at, |b| b.min(at)));
        }
        self.now >= at
    }

    fn retry(&mut self, trouble: Option<&Trouble>) -> bool {
        trouble.is_none_or(|t| self.due(t.due(RETRY_FIRST, RETRY_MOST)))
    }

    fn stage<T>(&mut self, stage: &Stage<T>, step: Step) {
        let go = match stage {
            Stage::Ready(_) => false,
            Stage::Absent => true,
            Stage::Failed(t) => self.retry(Some(t)),
        };
        if go {
            self.push(step);
        }
    }

    fn bring_up(&mut self) {
        let (want, seen) = (self.want, self.seen);
        self.stage(&seen.sandbox, Step::Sandbox);
        self.stage(&seen.volumes, Step::Volumes);
        if let Some(at) = deadline(want, seen) {
            self.due(at);
        }
        let initialized = main_started(want, seen);
        let mut blocked = false;
        for (role, c) in pod::containers(want) {
            let known = seen.container(&c.name);
            // Images come side by side, whatever the order of starts.
            if matches!(known.state, State::Waiting) {
                self.image(c, known);
            }
            if role == Role::Ephemeral {
                self.container(role, c, known);
                continue;
            }
            let done =
                role == Role::Init && (initialized || matches!(&known.state, State::Exited(e) if e.code == Some(0)));
            if done || blocked {
                continue;
            }
            self.container(role, c, known);
            blocked = !initialized
                && match role {
                    Role::Init => true,
                    Role::Sidecar => !started(c, known),
                    Role::Main | Role::Ephemeral => false,
                };
        }
    }

    /// Whether the image is here; if not, sees to it.
    fn image(&mut self, c: &Container, known: &Seen) -> bool {
        match &known.image {
            Stage::Ready(id) if Some(&id.name) == c.image.as_ref() => return true,
            // Never asked for, or another image is wanted now.
            Stage::Ready(_) | Stage::Absent => self.push(Step::Pull { container: c.name.clone() }),
            Stage::Failed(t) => {
                if self.due(t.due(CRASH_FIRST, BACK_OFF_MOST)) {
                    self.push(Step::Pull { container: c.name.clone() });
                }
            }
        }
        false
    }

    fn container(&mut self, role: Role, c: &Container, known: &Seen) {
        let attempt = match &known.state {
            State::Running { .. } => return self.running(c, known),
            State::Waiting if !self.retry(known.error.as_ref()) => return,
            State::Waiting => known.attempt,
            State::Exited(e) => {
                let again = pod::restart(self.want, role, c).again(e.code);
                if !again || !self.due(pod::after(e.at, crash_delay(known))) {
                    return;
                }
                known.attempt + 1
            }
        };
        let base = self.seen.sandbox.ready().is_some() && self.seen.volumes.ready().is_some();
        if self.image(c, known) && base {
            self.push(Step::Start { container: c.name.clone(), attempt });
        }
    }

    fn running(&mut self, c: &Container, known: &Seen) {
        if known.stop.is_some() {
            return;
        }
        let changed = known.hash != 0 && known.hash != definition(c);
        let why = match &known.failing {
            Some(why) => why.clone(),
            None if changed => format!("Container {} definition changed, will be restarted", c.name),
            None => return self.attend(c, known),
        };
        let own = [ProbeKind::Startup, ProbeKind::Liveness]
            .into_iter()
            .filter(|k| verdict(known, *k) == Some(false))
            .find_map(|k| k.of(c)?.termination_grace_period_seconds);
        let grace = own.map_or_else(|| pod::grace(self.want), pod::seconds);
        self.push(Step::Stop { container: c.name.clone(), grace, why });
    }

    /// The hook and the probes of a running container.
    fn attend(&mut self, c: &Container, known: &Seen) {
        let State::Running { since } = known.state else { return };
        if post_start(c).is_some() && !known.hooked {
            return self.push(Step::PostStart { container: c.name.clone(), attempt: known.attempt });
        }
        let up = started(c, known);
        for kind in ProbeKind::ALL {
            let Some(probe) = kind.of(c) else { continue };
            if (kind == ProbeKind::Startup) == up {
                continue;
            }
            let delay = pod::seconds(probe.initial_delay_seconds.unwrap_or(0).into());
            let next = known.probes.get(&kind).and_then(|p| p.next).unwrap_or_else(|| pod::after(since, delay));
            let period = pod::seconds(probe.period_seconds.unwrap_or(10).max(1).into());
            if self.due(next) {
                self.push(Step::Probe { container: c.name.clone(), kind, period });
            }
        }
    }

    fn wind_down(&mut self, why: &Over, told: bool) {
        let (want, seen) = (self.want, self.seen);
        let mut alive_later = false;
        // Main and init containers at once; then the sidecars, last one first.
        for (role, c) in pod::containers(want).rev() {
            if !alive(seen, &c.name) {
                continue;
            }
            let known = seen.container(&c.name);
            let turn = role != Role::Sidecar || !alive_later;
            if turn && known.stop.is_none() && matches!(known.state, State::Running { .. }) {
                let grace = self.rest_of_grace(role);
                self.push(Step::Stop {
                    container: c.name.clone(),
                    grace,
                    why: format!("Stopping container {}", c.name),
                });
            }
            alive_later = true;
        }
        // A pull writes to nothing of the pod's: a registry that takes its time shall not keep the pod.
        let busy = seen.doing.iter().any(|w| !matches!(w, Work::Report | Work::Forget(_) | Work::Pull(_)));
        if alive_later || busy {
            return;
        }
        if !seen.cleaned {
            // What ended how must be in the API before the host forgets it.
            if told && self.retry(seen.trouble.get(&Work::Clean)) {
                self.push(Step::Clean);
            }
        } else if *why == Over::Deleted && told && self.retry(seen.trouble.get(&Work::Delete)) {
            self.push(Step::Delete);
        }
    }

    /// Sidecars get what the main containers left of the grace.
    fn rest_of_grace(&self, role: Role) -> Duration {
        let grace = pod::grace(self.want);
        let asked = self.want.metadata.deletion_timestamp.as_ref().map(|t| t.0);
        match (role, asked) {
            (Role::Sidecar, Some(end)) if !grace.is_zero() => Duration::try_from(end.duration_since(self.now))
                .unwrap_or_default()
                .max(Duration::from_secs(2))
                .min(grace),
            _ => grace,
        }
    }

    /// Stops that have begun, and remains that nobody needs.
    fn carry_on(&mut self, told: bool) {
        let deleted = self.want.metadata.deletion_timestamp.is_some();
        for (name, known) in &self.seen.containers {
            if let (Some(stop), State::Running { .. }) = (&known.stop, &known.state) {
                let grace = pod::grace(self.want);
                if self.due(stop.deadline) {
                    self.push(Step::Kill { container: name.clone() });
                } else if deleted && grace < stop.grace {
                    self.plan.steps.push(Step::Hurry { container: name.clone(), grace });
                }
            }
            let old = known.remains.iter().find(|a| **a < known.attempt);
            if let (Some(attempt), true, false) = (old, told, self.seen.cleaned) {
                self.push(Step::Forget { container: name.clone(), attempt: *attempt });
            }
        }
    }

    fn report(&mut self, status: PodStatus) {
        if self.retry(self.seen.trouble.get(&Work::Report)) {
            self.push(Step::Report(Box::new(status)));
        }
    }
}

/// What of a container's definition may not change under a running instance (0 is never a result).
pub fn definition(container: &Container) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    container.image.hash(&mut hasher);
    hasher.finish() | 1
}

/// Whether an ended container will be started again while the pod lives.
pub fn will_restart(want: &Pod, role: Role, container: &Container, code: Option<i32>) -> bool {
    pod::restart(want, role, container) != Restart::Never && pod::restart(want, role, container).again(code)
}
