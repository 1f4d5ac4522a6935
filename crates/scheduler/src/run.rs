//! The loop: watches nodes and pods, binds what is pending, tells why the rest is not.

use std::{collections::HashSet, future::Future, pin::pin, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};

use crate::{
    choice::choose,
    queue::{Pending, Queue},
    report,
    view::View,
    wire::{Node, Pod},
};

/// The scheduler that pods name unless they say otherwise.
pub const NAME: &str = "default-scheduler";

/// Requests under way at once; further pods wait their turn.
const REQUESTS: usize = 32;
/// How long a pod waits after a request about it failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Schedules until `shutdown` resolves.
///
/// A pod counts as placed from the moment it is chosen a node for, so that decisions need not wait for
/// bindings; a binding that fails gives the room back and the pod its turn. Pods of another `schedulerName`, with
/// scheduling gates or on their way out are left alone. Faults of the API server are logged and retried.
pub async fn run(client: Client, shutdown: impl Future<Output = ()>) {
    let nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default()).default_backoff();
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .map(|event| event.map(|e| e.modify(|pod| pod.metadata.managed_fields = None)));
    let (mut nodes, mut pods, mut shutdown) = (pin!(nodes), pin!(pods), pin!(shutdown));
    let mut state = State::default();
    let mut requests: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
    let mut pauses = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return,
            Some(event) = nodes.next() => log(event).map(|e| state.node(e)).unwrap_or_default(),
            Some(event) = pods.next() => log(event).map(|e| state.pod(e)).unwrap_or_default(),
            Some(done) = requests.next() => {
                if let Some((priority, pod)) = state.done(done) {
                    pauses.push(async move { tokio::time::sleep(PAUSE).await; (priority, pod) });
                }
            }
            Some((priority, pod)) = pauses.next() => state.resume(priority, pod),
        }
        while state.synced()
            && requests.len() < REQUESTS
            && let Some(task) = state.next()
        {
            requests.push(Box::pin(act(client.clone(), task)));
        }
    }
}

fn log<T>(event: Result<T, watcher::Error>) -> Option<T> {
    event.inspect_err(|error| tracing::warn!(%error, "scheduler: watch")).ok()
}

/// What to do about a pod.
#[derive(Debug)]
enum Task {
    Bind(i32, Pending, String),
    Explain(i32, Pending, String),
}

/// How it went.
enum Done {
    Settled,
    NotBound(i32, Pending),
    NotTold(i32, Pending),
}

async fn act(client: Client, task: Task) -> Done {
    let now = Timestamp::now();
    match task {
        Task::Bind(priority, pod, node) => match report::bind(&client, &pod, &node).await {
            Ok(()) => {
                let message = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
                note(report::event(&client, &pod, "Normal", "Scheduled", &message, now).await, &pod);
                Done::Settled
            }
            Err(error) => {
                note(Err(error), &pod);
                Done::NotBound(priority, pod)
            }
        },
        Task::Explain(priority, pod, message) => {
            let since = pod.told.as_ref().and_then(|(_, since)| *since).unwrap_or(now);
            let told = note(report::unscheduled(&client, &pod, &message, since).await, &pod);
            note(report::event(&client, &pod, "Warning", "FailedScheduling", &message, now).await, &pod);
            if told { Done::Settled } else { Done::NotTold(priority, pod) }
        }
    }
}

/// Logs a failed write; false when it should be tried again. A pod that is gone or was bound by someone else needs
/// no further word.
fn note(result: Result<(), kube::Error>, pod: &Pending) -> bool {
    match result {
        Ok(()) => true,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            tracing::debug!(namespace = %pod.namespace, pod = %pod.name, why = %status.message, "scheduler: superseded");
            true
        }
        Err(error) => {
            tracing::warn!(namespace = %pod.namespace, pod = %pod.name, %error, "scheduler: write");
            false
        }
    }
}

#[derive(Default)]
struct State {
    view: View,
    queue: Queue,
    /// Pods chosen a node for whose binding did not come back by the watch yet.
    assumed: HashSet<String>,
    /// Pods that a request failed for and that wait.
    waiting: HashSet<String>,
    /// What a list that is being received has told so far.
    listed_nodes: HashSet<String>,
    listed_pods: HashSet<String>,
    nodes_known: bool,
    pods_known: bool,
}

impl State {
    /// Before both lists are in, a node would look emptier than it is.
    fn synced(&self) -> bool {
        self.nodes_known && self.pods_known
    }

    fn node(&mut self, event: watcher::Event<Node>) {
        match event {
            watcher::Event::Init => self.listed_nodes.clear(),
            watcher::Event::InitApply(node) => {
                self.listed_nodes.extend(node.metadata.name.clone());
                self.set_node(node);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed_nodes);
                self.view.retain_nodes(|name| listed.contains(name));
                self.nodes_known = true;
                self.queue.retry_all();
            }
            watcher::Event::Apply(node) => self.set_node(node),
            watcher::Event::Delete(node) => {
                self.view.remove_node(node.metadata.name.as_deref().unwrap_or_default());
                self.queue.retry_all(); // the reasons count nodes
            }
        }
    }

    fn set_node(&mut self, node: Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if self.view.set_node(&name, node.view()) {
            self.queue.retry_all();
        }
    }

    fn pod(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed_pods.clear(),
            watcher::Event::InitApply(pod) => {
                self.listed_pods.extend(pod.metadata.uid.clone());
                self.set_pod(&pod);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed_pods);
                let known = self.view.placed().chain(self.queue.uids());
                let gone: Vec<_> = known.filter(|uid| !listed.contains(*uid)).map(str::to_owned).collect();
                for uid in gone {
                    self.remove_pod(&uid);
                }
                self.pods_known = true;
            }
            watcher::Event::Apply(pod) => self.set_pod(&pod),
            watcher::Event::Delete(pod) => self.remove_pod(pod.metadata.uid.as_deref().unwrap_or_default()),
        }
    }

    fn set_pod(&mut self, pod: &Pod) {
        let Some(uid) = pod.metadata.uid.as_deref() else { return };
        match &pod.spec.node_name {
            _ if !pod.lives() => self.remove_pod(uid),
            Some(node) if !node.is_empty() => {
                self.assumed.remove(uid);
                self.waiting.remove(uid);
                self.queue.remove(uid);
                self.view.place(uid, node, pod.spec.demand());
            }
            _ => {
                let ours = pod.spec.scheduler_name.as_deref().is_none_or(|name| name.is_empty() || name == NAME);
                let leaving = pod.metadata.deletion_timestamp.is_some();
                if !ours || leaving || !pod.spec.scheduling_gates.is_empty() {
                    self.waiting.remove(uid);
                    self.queue.remove(uid);
                    // Its binding is refused, or comes back by the watch.
                    if self.assumed.remove(uid) {
                        self.view.remove(uid);
                    }
                } else if !self.assumed.contains(uid)
                    && !self.waiting.contains(uid)
                    && let Some(pending) = Pending::of(pod)
                {
                    self.queue.add(pod.spec.priority, pending);
                }
            }
        }
    }

    fn remove_pod(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.assumed.remove(uid);
        self.waiting.remove(uid);
        if self.view.remove(uid) {
            self.queue.retry_all();
        }
    }

    /// The next thing to do, decided and noted as if it were done.
    fn next(&mut self) -> Option<Task> {
        loop {
            let (priority, pod) = self.queue.pop()?;
            match choose(&self.view, &pod.wish) {
                Ok(node) => {
                    let node = node.to_owned();
                    self.view.place(&pod.uid, &node, pod.wish.demand.clone());
                    self.assumed.insert(pod.uid.clone());
                    return Some(Task::Bind(priority, pod, node));
                }
                Err(unfit) => {
                    let message = unfit.to_string();
                    let known = pod.told.as_ref().is_some_and(|(told, _)| *told == message);
                    let mut pod = pod;
                    let task = (!known).then(|| Task::Explain(priority, pod.clone(), message.clone()));
                    let since = pod.told.and_then(|(_, since)| since);
                    pod.told = Some((message, since));
                    self.queue.put_aside(priority, pod);
                    if task.is_some() {
                        return task;
                    }
                }
            }
        }
    }

    /// Notes how a task went; hands back a pod that is to be tried again after a pause.
    fn done(&mut self, done: Done) -> Option<(i32, Pending)> {
        let (priority, pod) = match done {
            Done::Settled => return None,
            Done::NotBound(priority, pod) => {
                if !self.assumed.remove(&pod.uid) {
                    return None;
                }
                self.view.remove(&pod.uid);
                self.queue.retry_all();
                (priority, pod)
            }
            Done::NotTold(priority, pod) => {
                if !self.queue.contains(&pod.uid) {
                    return None;
                }
                self.queue.remove(&pod.uid);
                (priority, pod)
            }
        };
        self.waiting.insert(pod.uid.clone());
        Some((priority, pod))
    }

    fn resume(&mut self, priority: i32, pod: Pending) {
        if self.waiting.remove(&pod.uid) {
            self.queue.add(priority, pod);
        }
    }
}
