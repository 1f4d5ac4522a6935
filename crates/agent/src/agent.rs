//! The agent's state, and the loops that bring news into it. Nothing is resident per pod but its entry: effects are
//! tasks that end, and every wait is one entry of one timer queue.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use images::Images;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use network::Network;
use runtime::Runtime;
use tokio::sync::{SetOnce, broadcast::error::RecvError, mpsc};
use tokio_util::time::{DelayQueue, delay_queue};
use volumes::Volumes;

use crate::{
    act::chain,
    admit::{self, Demand},
    adopt::{self, Found},
    config::Config,
    decide::{self, Step},
    events::{self, Events},
    housekeeping, message,
    mounts::Tokens,
    node,
    objects::Objects,
    observe::{Ended, Failure, Observed, Outcome, Seen, State},
    pod, spec,
};

/// One node. Cheap to clone.
#[derive(Clone)]
pub struct Agent(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub config: Config,
    pub client: Client,
    pub runtime: Arc<dyn Runtime>,
    pub network: Arc<dyn Network>,
    pub images: Images,
    pub volumes: Volumes,
    pub objects: Objects,
    pub events: Events,
    pods: Mutex<HashMap<String, Entry>>,
    wake: mpsc::UnboundedSender<(String, Timestamp)>,
    woken: Mutex<Option<mpsc::UnboundedReceiver<(String, Timestamp)>>>,
    /// Once all pods of the node have been taken in.
    pub listed: SetOnce<()>,
}

pub(crate) struct Entry {
    pub want: Arc<Pod>,
    pub seen: Observed,
    pub demand: Demand,
    pub tokens: Arc<Tokens>,
}

impl Entry {
    /// Whether it runs or will; one that is only to be cleaned up after does not.
    fn takes_room(&self, now: Timestamp) -> bool {
        let alive = || pod::containers(&self.want).any(|(_, c)| decide::alive(&self.seen, &c.name));
        !self.seen.absent && (decide::over(&self.want, &self.seen, now).is_none() || alive())
    }
}

/// What an agent needs. All of it is shared with others.
pub struct Parts {
    /// The API.
    pub client: Client,
    /// Containers.
    pub runtime: Arc<dyn Runtime>,
    /// Addresses.
    pub network: Arc<dyn Network>,
    /// Images.
    pub images: Images,
    /// Volumes.
    pub volumes: Volumes,
}

impl Agent {
    /// An agent that does nothing yet. Must be called on a tokio runtime.
    pub fn new(config: Config, parts: Parts) -> Self {
        let (wake, woken) = mpsc::unbounded_channel();
        let events = Events::start(parts.client.clone(), config.node_name.clone());
        Self(Arc::new(Inner {
            objects: Objects::new(parts.client.clone()),
            client: parts.client,
            runtime: parts.runtime,
            network: parts.network,
            images: parts.images,
            volumes: parts.volumes,
            events,
            pods: Mutex::default(),
            wake,
            woken: Mutex::new(Some(woken)),
            listed: SetOnce::new(),
            config,
        }))
    }

    /// Looks after the node's pods until `shutdown`. Containers go on running then, and when the process is killed:
    /// the next agent adopts them.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let Some(woken) = self.lock(&self.0.woken).take() else { return };
        let state = self.state_dir();
        tokio::select! {
            () = shutdown => {}
            () = node::keep(self.0.client.clone(), self.0.config.clone(), state) => {}
            () = self.follow_pods() => {}
            () = self.follow_runtime() => {}
            () = self.follow_time(woken) => {}
            () = housekeeping::run(self) => {}
        }
    }

    /// Where disk is measured.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.0.config.logs.ancestors().find(|p| p.exists()).unwrap_or(std::path::Path::new("/")).into()
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pods of this node, as the API has them.
    async fn follow_pods(&self) {
        let api: Api<Pod> = Api::all(self.0.client.clone());
        let ours = watcher::Config::default().fields(&format!("spec.nodeName={}", self.0.config.node_name));
        let mut news = watcher(api, ours).default_backoff().boxed();
        let mut all: Option<Vec<Pod>> = None;
        loop {
            match news.try_next().await {
                Ok(Some(watcher::Event::Init)) => all = Some(vec![]),
                Ok(Some(watcher::Event::InitApply(pod))) => all.get_or_insert_default().push(slim(pod)),
                Ok(Some(watcher::Event::InitDone)) => self.replace(all.take().unwrap_or_default()).await,
                Ok(Some(watcher::Event::Apply(pod))) => self.want(slim(pod), None),
                Ok(Some(watcher::Event::Delete(pod))) => self.absent(slim(pod)),
                Ok(None) => return,
                Err(e) => tracing::warn!("watch of this node's pods: {e}"),
            }
        }
    }

    /// Takes in the whole list: pods seen for the first time are adopted, those missing have gone from the API, and what
    /// the host has of no pod at all is removed.
    async fn replace(&self, mut pods: Vec<Pod>) {
        // Room is given to those that have it, then first come, first served.
        pods.sort_by_cached_key(|pod| (started(pod).is_none(), pod.metadata.creation_timestamp.clone()));
        let mut found = loop {
            match self.find().await {
                Ok(found) => break found,
                Err(e) => tracing::warn!("what runs on this node: {e}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        // Before a pod is adopted: layers that no container stands on are from before a reboot, and what was written to
        // them may be torn. An instance that is started anew would take them for its own.
        let known = self.uids();
        let stand: BTreeSet<String> = found.values().flat_map(|f| &f.containers).map(|c| c.spec.id.clone()).collect();
        let gone =
            |uid: &str, name: &str, attempt| !known.contains(uid) && !stand.contains(&pod::id(uid, name, attempt));
        housekeeping::discard(self, gone).await;
        let listed: BTreeSet<String> = pods.iter().map(|p| pod::uid(p).to_string()).collect();
        for pod in pods {
            let host = found.remove(pod::uid(&pod));
            self.want(pod, Some(host.unwrap_or_default()));
        }
        let known = self.uids();
        for uid in known.difference(&listed) {
            self.learn(uid, Outcome::Absent);
        }
        for uid in found.keys().filter(|uid| !known.contains(*uid)) {
            tracing::info!(uid, "removing what is left of a pod that the API does not know");
            if let Err(e) = self.0.runtime.remove_sandbox(uid).await {
                tracing::warn!("sandbox {uid}: {e}");
            }
        }
        let live: BTreeSet<String> = known.union(&listed).cloned().collect();
        if let Err(e) = self.0.network.collect(&live).await {
            tracing::warn!("collect addresses: {}", chain(e));
        }
        let _ = self.0.listed.set(());
        housekeeping::collect(self).await;
    }

    /// What the host has, by pod uid.
    async fn find(&self) -> Result<HashMap<String, Found>, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let sandboxes = self.0.runtime.sandboxes().await.map_err(|e| text(&e))?;
        let containers = self.0.runtime.list().await.map_err(|e| text(&e))?;
        let attached = self.0.network.attachments().await.map_err(|e| text(&e))?;
        let mut addresses: HashMap<_, _> = attached.into_iter().map(|a| (a.request.id, a.addresses)).collect();
        let mut found: HashMap<String, Found> = HashMap::new();
        for s in sandboxes {
            let ips =
                if s.spec.host_network { Some(self.0.config.addresses.clone()) } else { addresses.remove(&s.spec.id) };
            found.entry(s.spec.id).or_default().sandbox = ips;
        }
        for c in containers {
            found.entry(c.spec.sandbox.clone()).or_default().containers.push(c);
        }
        Ok(found)
    }

    /// Takes in a pod as the API has it. An older version than the one known is passed over.
    pub(crate) fn want(&self, pod: Pod, found: Option<Found>) {
        let uid = pod::uid(&pod).to_string();
        {
            let mut pods = self.lock(&self.0.pods);
            match pods.get_mut(&uid) {
                Some(entry) if version(&pod) >= version(&entry.want) => entry.want = Arc::new(pod),
                Some(_) => {}
                None => {
                    let mut seen = adopt::observed(&pod, found.unwrap_or_default(), Timestamp::now());
                    let demand = Demand::of(&pod);
                    if started(&pod).is_none() {
                        seen.evicted = self.refusal(demand, &pods);
                    }
                    if let Some(Failure { reason, message }) = &seen.evicted {
                        self.0.events.warning(events::about(&pod, None), reason, message.clone());
                    }
                    pods.insert(uid.clone(), Entry { want: Arc::new(pod), seen, demand, tokens: Arc::default() });
                }
            }
        }
        self.kick(&uid);
    }

    /// Why there is no room for a pod that nobody has started yet.
    fn refusal(&self, want: Demand, pods: &HashMap<String, Entry>) -> Option<Failure> {
        let capacity = self.0.config.capacity;
        // Most pods ask for nothing and come to a node with places left: no need to look at all others.
        if want.is_none() && pods.len() < capacity.pods as usize {
            return None;
        }
        let now = Timestamp::now();
        admit::refusal(want, capacity, pods.values().filter(|e| e.takes_room(now)).map(|e| e.demand))
    }

    fn absent(&self, pod: Pod) {
        let uid = pod::uid(&pod).to_string();
        if let Some(entry) = self.lock(&self.0.pods).get_mut(&uid) {
            entry.want = Arc::new(pod);
        }
        self.learn(&uid, Outcome::Absent);
    }

    /// Decides what is next for a pod and begins it.
    pub(crate) fn kick(&self, uid: &str) {
        let now = Timestamp::now();
        let begun = {
            let mut pods = self.lock(&self.0.pods);
            let Some(entry) = pods.get_mut(uid) else { return };
            let mut plan = decide::next(&entry.want, &entry.seen, now);
            if plan.steps.iter().any(|s| matches!(s, Step::Hurry { .. })) {
                plan.steps.iter().for_each(|s| entry.seen.begin(s, now));
                plan.steps.retain(|s| !matches!(s, Step::Hurry { .. }));
                plan.again = Some(now);
            } else {
                plan.steps.iter().for_each(|s| entry.seen.begin(s, now));
            }
            if (entry.seen.gone || (entry.seen.absent && entry.seen.cleaned)) && plan.steps.is_empty() {
                pods.remove(uid);
                return;
            }
            if let Some(at) = plan.again {
                // Under the lock: an older decision must not have the last word.
                let _ = self.0.wake.send((uid.to_string(), at));
            }
            let scene = Scene::of(entry);
            plan.steps.into_iter().map(|s| (s, scene.clone())).collect::<Vec<_>>()
        };
        for (step, scene) in begun {
            let (agent, uid) = (self.clone(), uid.to_string());
            tokio::spawn(async move {
                let outcome = agent.carry_out(&scene, step).await;
                agent.learn(&uid, outcome);
            });
        }
    }

    /// Takes in what happened, and goes on from there.
    pub(crate) fn learn(&self, uid: &str, outcome: Outcome) {
        if let Some(entry) = self.lock(&self.0.pods).get_mut(uid) {
            let want = entry.want.clone();
            entry.seen.learn(&want, outcome, Timestamp::now());
        }
        self.kick(uid);
    }

    /// Takes in a newer version of a pod that is known, without deciding anew.
    pub(crate) fn renew(&self, pod: Pod) {
        let pod = slim(pod);
        self.with(pod::uid(&pod).to_string().as_str(), |entry| {
            if version(&pod) >= version(&entry.want) {
                entry.want = Arc::new(pod);
            }
        });
    }

    /// Looks at a pod's entry.
    pub(crate) fn with<T>(&self, uid: &str, look: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.lock(&self.0.pods).get_mut(uid).map(look)
    }

    /// Uids of all pods of this node.
    pub(crate) fn uids(&self) -> BTreeSet<String> {
        self.lock(&self.0.pods).keys().cloned().collect()
    }

    /// All pods of this node.
    pub(crate) fn scenes(&self) -> Vec<Scene> {
        self.lock(&self.0.pods).values().map(Scene::of).collect()
    }

    async fn follow_runtime(&self) {
        let mut events = self.0.runtime.events();
        loop {
            match events.recv().await {
                Ok(runtime::Event::Exited { id, exit }) => self.exited(&id, exit),
                Ok(runtime::Event::Resync) | Err(RecvError::Lagged(_)) => self.resync().await,
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    /// Asks the runtime what it has, since its word was lost.
    pub(crate) async fn resync(&self) {
        let listed = match self.0.runtime.list().await {
            Ok(listed) => listed,
            Err(e) => return tracing::warn!("containers of this node: {e}"),
        };
        let ids: BTreeSet<&str> = listed.iter().map(|c| c.spec.id.as_str()).collect();
        let mut lost = vec![];
        for (uid, entry) in self.lock(&self.0.pods).iter() {
            for (name, seen) in &entry.seen.containers {
                let id = pod::id(uid, name, seen.attempt);
                if matches!(seen.state, State::Running { .. }) && !ids.contains(id.as_str()) {
                    lost.push(id);
                }
            }
        }
        for id in lost {
            self.exited(&id, runtime::Exit { code: None, signal: None, oom: false, at: std::time::SystemTime::now() });
        }
        for c in listed {
            if let runtime::State::Exited { exit, .. } = c.state {
                self.exited(&c.spec.id, exit);
            }
        }
    }

    /// A container ended: reads its last words and takes that in.
    pub(crate) fn exited(&self, id: &str, exit: runtime::Exit) {
        let Some((uid, name, attempt)) = pod::parse_id(id) else { return };
        let known = self.with(uid, |entry| {
            let seen = entry.seen.container(name);
            let since = match seen.state {
                State::Running { since } if seen.attempt == attempt => Some(since),
                State::Exited(_) if seen.attempt == attempt => return None,
                _ => None,
            };
            Some((entry.want.clone(), since))
        });
        let Some((want, since)) = known.flatten() else { return };
        let (agent, uid, name) = (self.clone(), uid.to_string(), name.to_string());
        tokio::task::spawn_blocking(move || {
            let ended = agent.last_words(&want, &name, attempt, since, &exit);
            agent.learn(&uid, Outcome::Exited(name, ended));
        });
    }

    fn last_words(
        &self,
        want: &Pod,
        name: &str,
        attempt: u32,
        since: Option<Timestamp>,
        exit: &runtime::Exit,
    ) -> Ended {
        let fallback = pod::container(want, name)
            .is_some_and(|(_, c)| c.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"));
        let file = self.0.volumes.file_path(pod::uid(want), &termination_file(name, attempt)).ok();
        let log = spec::log(&self.0.config.logs, want, name, attempt);
        let text = message::read(file.as_deref(), &log, fallback, exit.code != Some(0));
        message::ended(attempt, since, exit, text)
    }

    /// One queue for everything that waits: back-offs, probes, deadlines.
    async fn follow_time(&self, mut woken: mpsc::UnboundedReceiver<(String, Timestamp)>) {
        let mut queue: DelayQueue<String> = DelayQueue::new();
        let mut keys: HashMap<String, delay_queue::Key> = HashMap::new();
        loop {
            tokio::select! {
                asked = woken.recv() => {
                    let Some((uid, at)) = asked else { return };
                    let wait = wait(at, Timestamp::now());
                    match keys.get(&uid) {
                        // A decision made meanwhile knows best: the last word counts.
                        Some(key) => queue.reset(key, wait),
                        None => {
                            keys.insert(uid.clone(), queue.insert(uid, wait));
                        }
                    }
                }
                Some(due) = queue.next() => {
                    let uid = due.into_inner();
                    keys.remove(&uid);
                    self.kick(&uid);
                }
            }
        }
    }
}

/// How long to sleep until then. At most a day: [`DelayQueue`] takes two years, users ask for thousands, and who wakes
/// early decides anew.
fn wait(at: Timestamp, now: Timestamp) -> Duration {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    Duration::try_from(at.duration_since(now)).unwrap_or_default().min(DAY)
}

/// What an effect sees of a pod: the moment at which it was decided.
#[derive(Clone)]
pub(crate) struct Scene {
    pub want: Arc<Pod>,
    pub ips: Arc<[std::net::IpAddr]>,
    pub tokens: Arc<Tokens>,
    pub remains: Arc<BTreeMap<String, (u32, BTreeSet<u32>)>>,
    pub running: Arc<[(String, u32)]>,
    pub ready: bool,
}

impl Scene {
    pub fn of(entry: &Entry) -> Self {
        let running = |(name, seen): (&String, &Seen)| {
            matches!(seen.state, State::Running { .. }).then(|| (name.clone(), seen.attempt))
        };
        Self {
            running: entry.seen.containers.iter().filter_map(running).collect(),
            want: entry.want.clone(),
            ips: entry.seen.sandbox.ready().map(|ips| ips.as_slice()).unwrap_or_default().into(),
            tokens: entry.tokens.clone(),
            remains: Arc::new(
                entry.seen.containers.iter().map(|(n, s)| (n.clone(), (s.attempt, s.remains.clone()))).collect(),
            ),
            ready: entry.seen.volumes.ready().is_some() && !entry.seen.cleaned,
        }
    }

    pub fn uid(&self) -> &str {
        pod::uid(&self.want)
    }
}

/// The file behind a container's terminationMessagePath.
pub(crate) fn termination_file(container: &str, attempt: u32) -> String {
    format!("termination-{container}-{attempt}")
}

/// What nobody here reads is not kept.
fn slim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    if let Some(notes) = &mut pod.metadata.annotations {
        notes.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    #[cfg(feature = "mutate")]
    {
        pod.spec = pod.spec.map(forgetful);
    }
    pod::line_up(&mut pod);
    pod
}

#[cfg(feature = "mutate")]
fn forgetful(spec: k8s_openapi::api::core::v1::PodSpec) -> k8s_openapi::api::core::v1::PodSpec {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    api::mutate::forget("io.k8s.api.core.v1.PodSpec", &mut value);
    serde_json::from_value(value).unwrap_or_default()
}

/// When an agent first took the pod in.
fn started(pod: &Pod) -> Option<&Time> {
    pod.status.as_ref()?.start_time.as_ref()
}

/// Revisions of our API are numbers that only grow.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_wait_is_too_long_for_the_queue() {
        let now = Timestamp::now();
        let mut queue = DelayQueue::new();
        let key = queue.insert((), wait(Timestamp::MAX, now));
        queue.reset(&key, wait(pod::after(now, pod::seconds(i64::MAX)), now));
        assert_eq!(wait(Timestamp::MIN, now), Duration::ZERO);
    }
}
