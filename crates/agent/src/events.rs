//! Events: what `kubectl describe` shows. Told asynchronously; nothing waits for them and some may be lost.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::mpsc;

use crate::pod::{self, Role};

/// Events that wait to be written; more are dropped.
const QUEUE: usize = 4096;
/// Different events remembered for counting repeats.
const REMEMBERED: usize = 1024;
/// Events of one object at once, then one more each [`REFILL`].
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(30);

struct Told {
    about: ObjectReference,
    warning: bool,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// Takes events and writes them from one task.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Told>,
}

impl Events {
    /// Starts the task that writes; it ends with the last clone.
    pub fn start(client: Client, node: String) -> Self {
        let (queue, told) = mpsc::channel(QUEUE);
        tokio::spawn(write(client, node, told));
        Self { queue }
    }

    /// Something normal.
    pub fn normal(&self, about: ObjectReference, reason: &'static str, message: impl Into<String>) {
        self.tell(about, false, reason, message.into());
    }

    /// Something to look at.
    pub fn warning(&self, about: ObjectReference, reason: &'static str, message: impl Into<String>) {
        self.tell(about, true, reason, message.into());
    }

    fn tell(&self, about: ObjectReference, warning: bool, reason: &'static str, message: String) {
        let told = Told { about, warning, reason, message, at: Timestamp::now() };
        if self.queue.try_send(told).is_err() {
            tracing::debug!(reason, "event dropped: too many are waiting");
        }
    }
}

/// A reference to a pod, or to one of its containers.
pub fn about(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let field_path = container.and_then(|name| {
        let list = match pod::container(pod, name)?.0 {
            Role::Main => "containers",
            Role::Init | Role::Sidecar => "initContainers",
            Role::Ephemeral => "ephemeralContainers",
        };
        Some(format!("spec.{list}{{{name}}}"))
    });
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}

/// What was written, for the next time the same is told.
struct Written {
    name: String,
    count: i32,
}

struct Allowance {
    left: u32,
    since: Instant,
}

async fn write(client: Client, node: String, mut queue: mpsc::Receiver<Told>) {
    let mut written: HashMap<u64, Written> = HashMap::new();
    let mut allowances: HashMap<String, Allowance> = HashMap::new();
    while let Some(told) = queue.recv().await {
        if !allowed(&mut allowances, told.about.uid.as_deref().unwrap_or_default()) {
            continue;
        }
        let key = key(&told);
        let namespace = told.about.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let again = match written.get_mut(&key) {
            Some(before) => {
                before.count += 1;
                let patch = serde_json::json!({"count": before.count, "lastTimestamp": Time(told.at)});
                api.patch(&before.name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok()
            }
            None => false,
        };
        if !again {
            let event = event(&told, &node);
            let name = event.metadata.name.clone().unwrap_or_default();
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => {
                    if written.len() >= REMEMBERED {
                        written.clear();
                    }
                    written.insert(key, Written { name, count: 1 });
                }
                Err(e) => tracing::debug!("event {}: {e}", told.reason),
            }
        }
    }
}

fn allowed(all: &mut HashMap<String, Allowance>, uid: &str) -> bool {
    let now = Instant::now();
    if all.len() > REMEMBERED {
        all.retain(|_, a| now.duration_since(a.since) < REFILL * BURST);
    }
    let a = all.entry(uid.into()).or_insert(Allowance { left: BURST, since: now });
    let refill = u32::try_from(now.duration_since(a.since).as_secs() / REFILL.as_secs()).unwrap_or(BURST);
    if refill > 0 {
        (a.left, a.since) = (a.left.saturating_add(refill).min(BURST), now);
    }
    let ok = a.left > 0;
    a.left = a.left.saturating_sub(1);
    ok
}

fn key(told: &Told) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&told.about.uid, &told.about.field_path, told.reason, &told.message).hash(&mut hasher);
    hasher.finish()
}

fn event(told: &Told, node: &str) -> Event {
    let name = told.about.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:016x}", told.at.as_nanosecond() as u64 ^ (key(told) & 0xffff))),
            namespace: Some(told.about.namespace.clone().unwrap_or_else(|| "default".into())),
            ..ObjectMeta::default()
        },
        involved_object: told.about.clone(),
        reason: Some(told.reason.into()),
        message: Some(told.message.chars().take(1024).collect()),
        type_: Some(if told.warning { "Warning" } else { "Normal" }.into()),
        count: Some(1),
        first_timestamp: Some(Time(told.at)),
        last_timestamp: Some(Time(told.at)),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.into()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.into()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noisy_object_is_held_back() {
        let mut all = HashMap::new();
        assert_eq!((0..100).filter(|_| allowed(&mut all, "u")).count(), BURST as usize);
        assert!(allowed(&mut all, "other"));
    }
}
