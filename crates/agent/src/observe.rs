//! What is known of one pod on this node: a value that effects report into and that decisions read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::{
    decide::{Step, Work},
    pod::{self, ProbeKind},
    status,
};

/// One pod on this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// When the agent first saw the pod.
    pub since: Option<Timestamp>,
    /// Its namespaces and addresses.
    pub sandbox: Stage<Vec<IpAddr>>,
    /// Its volumes.
    pub volumes: Stage<()>,
    /// Its containers by name.
    pub containers: BTreeMap<String, Seen>,
    /// Why the node does not take it, or wants it gone.
    pub evicted: Option<Failure>,
    /// Effects under way.
    pub doing: BTreeSet<Work>,
    /// The essence of the status last written.
    pub sent: Option<u64>,
    /// Why the last status write, clean-up or delete failed.
    pub trouble: BTreeMap<Work, Trouble>,
    /// Nothing of it is left on the host but logs.
    pub cleaned: bool,
    /// The API has no such pod (any more).
    pub absent: bool,
    /// Nothing is left to do, here or in the API.
    pub gone: bool,
    /// Ends that were told before the start was.
    pub early: BTreeMap<String, Ended>,
}

/// Something that takes an effect to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stage<T> {
    /// Not tried yet.
    #[default]
    Absent,
    /// There.
    Ready(T),
    /// Tried in vain.
    Failed(Trouble),
}

impl<T> Stage<T> {
    /// What is there.
    pub fn ready(&self) -> Option<&T> {
        match self {
            Self::Ready(t) => Some(t),
            _ => None,
        }
    }

    fn set(&mut self, result: Result<T, Failure>, now: Timestamp) {
        *self = match (result, &*self) {
            (Ok(t), _) => Self::Ready(t),
            (Err(f), Self::Failed(before)) => Self::Failed(before.again(f, now)),
            (Err(f), _) => Self::Failed(Trouble::new(f, now)),
        }
    }
}

/// What went wrong: a reason as `waiting.reason` or `status.reason` has it, and a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// CamelCase, e.g. `ErrImagePull`.
    pub reason: &'static str,
    /// In plain words.
    pub message: String,
}

/// A failure and how often it came in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// The last failure.
    pub failure: Failure,
    /// When it was.
    pub at: Timestamp,
    /// Failures in a row.
    pub tries: u32,
    /// A status has said so.
    pub told: bool,
}

impl Trouble {
    fn new(failure: Failure, at: Timestamp) -> Self {
        Self { failure, at, tries: 1, told: false }
    }

    fn again(&self, failure: Failure, at: Timestamp) -> Self {
        Self { tries: self.tries.saturating_add(1), ..Self::new(failure, at) }
    }

    /// When to try again: after `first`, doubling up to `most`.
    pub fn due(&self, first: Duration, most: Duration) -> Timestamp {
        pod::after(self.at, doubling(self.tries, first, most))
    }
}

/// `first` for 1, twice that for 2, and so on up to `most`; nothing for 0.
pub fn doubling(n: u32, first: Duration, most: Duration) -> Duration {
    match n {
        0 => Duration::ZERO,
        n => first.saturating_mul(1 << (n - 1).min(16)).min(most),
    }
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Its image.
    pub image: Stage<ImageId>,
    /// How far the pull of its image is.
    pub pulling: Option<String>,
    /// Counts its instances from 0: the restart count.
    pub attempt: u32,
    /// Where the instance is.
    pub state: State,
    /// How the instance before ended.
    pub last: Option<Ended>,
    /// Ends in a row without a long run between.
    pub crashes: u32,
    /// Why it could not be started.
    pub error: Option<Trouble>,
    /// The definition it was started with.
    pub hash: u64,
    /// The postStart hook has run.
    pub hooked: bool,
    /// What probes found.
    pub probes: BTreeMap<ProbeKind, Probing>,
    /// It must be ended, for this reason.
    pub failing: Option<String>,
    /// It is being ended.
    pub stop: Option<Stop>,
    /// Instances whose remains are still on the host.
    pub remains: BTreeSet<u32>,
}

/// An image as a status names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageId {
    /// The name asked for.
    pub name: String,
    /// `registry/repository@sha256:…`, or the image's id.
    pub id: String,
}

/// Where an instance of a container is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum State {
    /// Not started yet.
    #[default]
    Waiting,
    /// Running.
    Running {
        /// Since.
        since: Timestamp,
    },
    /// Ended.
    Exited(Ended),
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Which one.
    pub attempt: u32,
    /// When it was started, if ever.
    pub since: Option<Timestamp>,
    /// When it ended.
    pub at: Timestamp,
    /// Its exit code, if it is known.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// Its termination message.
    pub message: String,
}

/// What the probes of one kind found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probing {
    /// When the next one is due; `None` before the first.
    pub next: Option<Timestamp>,
    /// Successes in a row.
    pub good: u32,
    /// Failures in a row.
    pub bad: u32,
    /// What it comes to, once the threshold was reached.
    pub verdict: Option<bool>,
}

/// A container that is being ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// Since when.
    pub since: Timestamp,
    /// How long it was given.
    pub grace: Duration,
    /// When it is killed.
    pub deadline: Timestamp,
}

/// What an effect, or the world, has to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The sandbox with its addresses.
    Sandbox(Result<Vec<IpAddr>, Failure>),
    /// The volumes.
    Volumes(Result<(), Failure>),
    /// The volumes' files from the API were brought up to date, or not: those from before stay.
    Refreshed,
    /// How far the pull of a container's image is, in words.
    Pulling(String, String),
    /// A container's image.
    Image(String, Result<ImageId, Failure>),
    /// A container runs.
    Started {
        /// The container.
        name: String,
        /// The instance.
        attempt: u32,
        /// The definition it was started with.
        hash: u64,
        /// Since when, or why not.
        result: Result<Timestamp, Failure>,
    },
    /// A container could not be started, for its image is not (wholly) here any more.
    NoImage(String, u32, Failure),
    /// A container's program could not be started.
    NotStarted(String, Ended),
    /// A container ended.
    Exited(String, Ended),
    /// The postStart hook ended.
    Hooked(String, u32, Result<(), String>),
    /// preStop has run and the signal was sent.
    Signalled(String),
    /// SIGKILL was sent.
    Killed(String),
    /// A probe succeeded, or failed; `None` when it could not be made, which says nothing of the container.
    Probed(String, u32, ProbeKind, Option<bool>),
    /// The remains of an instance are gone.
    Forgotten(String, u32),
    /// The status was written, with this essence.
    Reported(Result<u64, Failure>),
    /// The API does not know the pod.
    Absent,
    /// All of it but logs was removed.
    Cleaned(Result<(), Failure>),
    /// The API object was removed.
    Deleted(Result<(), Failure>),
}

/// A run this long forgives earlier crashes.
pub const FORGIVEN: Duration = Duration::from_secs(600);
/// SIGKILL is sent again until the end is seen.
const KILL_AGAIN: Duration = Duration::from_secs(5);
/// What a container gets after a preStop hook that took all the time there was.
const LEAST_GRACE: Duration = Duration::from_secs(2);

impl Observed {
    /// A container; an untouched one when nothing is known.
    pub fn container(&self, name: &str) -> &Seen {
        static NEW: std::sync::LazyLock<Seen> = std::sync::LazyLock::new(Seen::default);
        self.containers.get(name).unwrap_or(&NEW)
    }

    /// Notes that an effect begins.
    pub fn begin(&mut self, step: &Step, now: Timestamp) {
        match step {
            Step::Stop { container, grace, .. } => {
                let deadline = pod::after(now, *grace);
                self.seen(container).stop = Some(Stop { since: now, grace: *grace, deadline });
            }
            Step::Hurry { container, grace } => {
                if let Some(stop) = &mut self.seen(container).stop {
                    stop.grace = *grace;
                    stop.deadline = stop.deadline.min(pod::after(stop.since, *grace));
                }
                return;
            }
            Step::Kill { container } => {
                if let Some(stop) = &mut self.seen(container).stop {
                    stop.deadline = pod::after(now, KILL_AGAIN);
                }
            }
            Step::Start { container, attempt } => {
                let seen = self.seen(container);
                if let State::Exited(ended) = std::mem::take(&mut seen.state) {
                    seen.last = Some(ended);
                }
                seen.attempt = *attempt;
                seen.remains.insert(*attempt);
            }
            Step::Probe { container, kind, period } => {
                self.seen(container).probes.entry(*kind).or_default().next = Some(pod::after(now, *period));
            }
            Step::Report(_) => {
                for seen in self.containers.values_mut() {
                    if let Stage::Failed(trouble) = &mut seen.image {
                        trouble.told = true;
                    }
                }
            }
            _ => {}
        }
        self.doing.insert(step.work());
    }

    /// Takes in what happened.
    pub fn learn(&mut self, want: &Pod, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Sandbox(result) => {
                self.doing.remove(&Work::Sandbox);
                self.sandbox.set(result, now);
            }
            Outcome::Volumes(result) => {
                self.doing.remove(&Work::Volumes);
                self.volumes.set(result, now);
            }
            Outcome::Refreshed => {
                self.doing.remove(&Work::Volumes);
            }
            Outcome::NoImage(name, attempt, failure) => {
                self.started(&name, attempt, Err(failure), now);
                self.seen(&name).image = Stage::Absent;
            }
            Outcome::Pulling(name, far) => {
                if self.doing.contains(&Work::Pull(name.clone())) {
                    self.seen(&name).pulling = Some(far);
                }
            }
            Outcome::Image(name, result) => {
                self.doing.remove(&Work::Pull(name.clone()));
                let seen = self.seen(&name);
                seen.pulling = None;
                seen.image.set(result, now);
            }
            Outcome::Started { name, attempt, hash, result } => {
                self.started(&name, attempt, result, now);
                self.seen(&name).hash = hash;
            }
            Outcome::NotStarted(name, ended) => {
                self.doing.remove(&Work::Start(name.clone()));
                self.ended(want, &name, ended);
            }
            Outcome::Exited(name, ended) => self.exited(want, name, ended),
            Outcome::Hooked(name, attempt, result) => {
                self.doing.remove(&Work::PostStart(name.clone()));
                let seen = self.seen(&name);
                if seen.attempt == attempt && matches!(seen.state, State::Running { .. }) {
                    seen.hooked = true;
                    seen.failing = result.err();
                }
            }
            Outcome::Signalled(name) => {
                self.doing.remove(&Work::Stop(name.clone()));
                if let Some(stop) = &mut self.seen(&name).stop
                    && stop.deadline > stop.since
                {
                    stop.deadline = stop.deadline.max(pod::after(now, LEAST_GRACE));
                }
            }
            Outcome::Killed(name) => {
                self.doing.remove(&Work::Kill(name));
            }
            Outcome::Probed(name, attempt, kind, result) => {
                self.doing.remove(&Work::Probe(name.clone(), kind));
                self.probed(want, &name, attempt, kind, result);
            }
            Outcome::Forgotten(name, attempt) => {
                self.doing.remove(&Work::Forget(name.clone()));
                self.seen(&name).remains.remove(&attempt);
            }
            Outcome::Reported(result) => match self.settle(Work::Report, result, now) {
                Some(essence) => self.sent = Some(essence),
                None => self.sent = None,
            },
            Outcome::Absent => {
                self.doing.remove(&Work::Report);
                self.doing.remove(&Work::Delete);
                self.absent = true;
            }
            Outcome::Cleaned(result) => self.cleaned = self.settle(Work::Clean, result, now).is_some(),
            Outcome::Deleted(result) => self.gone = self.settle(Work::Delete, result, now).is_some(),
        }
    }

    /// Notes that the volumes are about to be refreshed; false when there is nothing to refresh, or not any more.
    pub fn begin_refresh(&mut self) -> bool {
        let there = self.volumes.ready().is_some() && !self.cleaned && !self.doing.contains(&Work::Clean);
        there && self.doing.insert(Work::Volumes)
    }

    fn seen(&mut self, name: &str) -> &mut Seen {
        self.containers.entry(name.into()).or_default()
    }

    fn settle<T>(&mut self, work: Work, result: Result<T, Failure>, now: Timestamp) -> Option<T> {
        self.doing.remove(&work);
        let before = self.trouble.remove(&work);
        result
            .map_err(|failure| {
                let trouble = match before {
                    Some(before) => before.again(failure, now),
                    None => Trouble::new(failure, now),
                };
                self.trouble.insert(work, trouble)
            })
            .ok()
    }

    fn started(&mut self, name: &str, attempt: u32, result: Result<Timestamp, Failure>, now: Timestamp) {
        self.doing.remove(&Work::Start(name.into()));
        let early = self.early.remove(name).filter(|e| e.attempt == attempt);
        let seen = self.seen(name);
        match result {
            Ok(since) => {
                let fresh = Seen {
                    image: std::mem::take(&mut seen.image),
                    attempt,
                    state: State::Running { since },
                    last: seen.last.take(),
                    crashes: seen.crashes,
                    remains: std::mem::take(&mut seen.remains),
                    ..Seen::default()
                };
                *seen = fresh;
            }
            // Something of it may remain: the runtime's answer can have been lost.
            Err(failure) => {
                seen.error = Some(match &seen.error {
                    Some(before) => before.again(failure, now),
                    None => Trouble::new(failure, now),
                });
            }
        }
        if let Some(ended) = early {
            self.finish(name, ended, false);
        }
    }

    fn exited(&mut self, want: &Pod, name: String, ended: Ended) {
        if self.doing.contains(&Work::Start(name.clone())) && self.container(&name).attempt == ended.attempt {
            self.early.insert(name, ended);
        } else if self.container(&name).attempt == ended.attempt {
            self.ended(want, &name, ended);
        }
    }

    fn ended(&mut self, want: &Pod, name: &str, ended: Ended) {
        let always = pod::container(want, name).is_some_and(|(_, c)| c.image_pull_policy.as_deref() == Some("Always"));
        self.finish(name, ended, always);
    }

    fn finish(&mut self, name: &str, mut ended: Ended, pull_again: bool) {
        let seen = self.seen(name);
        match &seen.state {
            State::Exited(_) => return,
            // Who saw it end may not have known yet that it had started.
            State::Running { since } => ended.since = ended.since.or(Some(*since)),
            State::Waiting => {}
        }
        let ran = ended.since.and_then(|s| Duration::try_from(ended.at.duration_since(s)).ok()).unwrap_or_default();
        seen.crashes = if ran >= FORGIVEN { 0 } else { seen.crashes.saturating_add(1) };
        seen.state = State::Exited(ended);
        (seen.stop, seen.failing, seen.error) = (None, None, None);
        seen.probes.clear();
        if pull_again {
            // The image id stays in the status until the next start; only the step is due again.
            seen.image = Stage::Absent;
        }
    }

    fn probed(&mut self, want: &Pod, name: &str, attempt: u32, kind: ProbeKind, result: Option<bool>) {
        let Some(probe) = pod::container(want, name).and_then(|(_, c)| kind.of(c)) else { return };
        let at_least = |n: Option<i32>, default| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(default).max(1);
        let seen = self.seen(name);
        if seen.attempt != attempt || !matches!(seen.state, State::Running { .. }) || seen.stop.is_some() {
            return;
        }
        let probing = seen.probes.entry(kind).or_default();
        match result {
            None => {}
            Some(true) => {
                (probing.good, probing.bad) = (probing.good.saturating_add(1), 0);
                if probing.good >= at_least(probe.success_threshold, 1) {
                    probing.verdict = Some(true);
                }
            }
            Some(false) => {
                (probing.good, probing.bad) = (0, probing.bad.saturating_add(1));
                if probing.bad >= at_least(probe.failure_threshold, 3) {
                    probing.verdict = Some(false);
                    if kind != ProbeKind::Readiness {
                        let what = kind.title().to_lowercase();
                        seen.failing = Some(format!("Container {name} failed {what} probe, will be restarted"));
                    }
                }
            }
        }
    }
}

/// What of a status is worth writing: all but the times of transitions.
pub fn essence(status: &PodStatus) -> u64 {
    status::essence(status)
}
