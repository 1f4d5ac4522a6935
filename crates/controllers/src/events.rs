//! What controllers tell people: Events on Deployments, ReplicaSets and evicted pods, in the words of Kubernetes.
//!
//! They are written beside the work: [`Recorder::tell`] never waits, and what cannot be kept up with is dropped.

use std::collections::HashMap;

use http::Request;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    object::{Body, Object, rfc3339},
    ownership,
    step::{Kind, PODS},
};

/// Notes that wait to be written.
const WAITING: usize = 4096;
/// Different messages of one reason about one object; any more share one event.
const SIMILAR: usize = 10;
/// Objects whose events are counted on; beyond, counting begins anew.
const COUNTED: usize = 1024;

/// Something that was done, or could not be, for `owner` or to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    namespace: String,
    owner: OwnerReference,
    warning: bool,
    reason: &'static str,
    message: String,
}

impl Note {
    fn about(object: &Object, reason: &'static str, message: String) -> Option<Self> {
        let owner = object.controller()?.clone();
        Some(Self { namespace: object.namespace().to_owned(), owner, warning: false, reason, message })
    }

    /// An object was made.
    pub fn made(kind: &Kind, object: &Object) -> Option<Self> {
        match &**kind {
            "pods" => Self::about(object, "SuccessfulCreate", format!("Created pod: {}", object.name())),
            "replicasets.apps" => Self::scaled(0, object),
            _ => None,
        }
    }

    /// An object was deleted.
    pub fn deleted(kind: &Kind, object: &Object) -> Option<Self> {
        let pod = (*kind == PODS).then_some(object)?;
        Self::about(pod, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()))
    }

    /// A pod was driven from its node.
    pub fn evicted(pod: &Object) -> Self {
        let message = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
        let (namespace, owner) = (pod.namespace().to_owned(), ownership::reference("v1", "Pod", pod));
        Self { namespace, owner, warning: false, reason: "TaintManagerEviction", message }
    }

    /// A ReplicaSet has another size than `before`.
    pub fn scaled(before: i64, set: &Object) -> Option<Self> {
        let Body::ReplicaSet(body) = &set.body else { return None };
        let way = match body.replicas - before {
            0 => return None,
            1.. => "up",
            _ => "down",
        };
        let message = format!("Scaled {way} replica set {} from {before} to {}", set.name(), body.replicas);
        Self::about(set, "ScalingReplicaSet", message)
    }

    /// The API did not let `object` be made.
    pub fn refused(kind: &Kind, object: &Value, why: &str) -> Option<Self> {
        (*kind == PODS).then_some(())?;
        let owner: OwnerReference = serde_json::from_value(object["metadata"]["ownerReferences"][0].clone()).ok()?;
        let namespace = object["metadata"]["namespace"].as_str()?.to_owned();
        let message = format!("Error creating: {why}");
        Some(Self { namespace, owner, warning: true, reason: "FailedCreate", message })
    }
}

/// Takes notes.
pub struct Recorder(mpsc::Sender<Note>);

impl Recorder {
    /// A recorder that writes for as long as it exists.
    pub fn new(client: Client) -> Self {
        let (sender, notes) = mpsc::channel(WAITING);
        tokio::spawn(write_all(client, notes));
        Self(sender)
    }

    /// Has a note written some time, or dropped when too many wait.
    pub fn tell(&self, note: Note) {
        if let Err(error) = self.0.try_send(note) {
            tracing::debug!(%error, "controllers: event");
        }
    }
}

async fn write_all(client: Client, mut notes: mpsc::Receiver<Note>) {
    let mut ledger = Ledger::default();
    let mut batch = Vec::new();
    while notes.recv_many(&mut batch, WAITING).await > 0 {
        let now = Timestamp::now();
        for entry in ledger.enter(std::mem::take(&mut batch), now) {
            if let Err(error) = entry.write(&client, now).await {
                tracing::debug!(event = %entry.name, %error, "controllers: event");
            }
        }
    }
}

/// What is to be written of an event.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    note: Note,
    name: String,
    /// How often it happened in all.
    count: u64,
    /// Whether the event exists already.
    known: bool,
}

/// The events so far: by object and reason, and therein by message, their names and counts.
#[derive(Default)]
struct Ledger(HashMap<(String, &'static str), HashMap<String, Counted>>);

/// An event's name, and how often it happened.
type Counted = (String, u64);

impl Ledger {
    /// Counts notes; gives what is to be written, each event once.
    fn enter(&mut self, notes: Vec<Note>, now: Timestamp) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        if self.0.len() > COUNTED {
            self.0.clear();
        }
        for (i, mut note) in notes.into_iter().enumerate() {
            let events = self.0.entry((note.owner.uid.clone(), note.reason)).or_default();
            let own = events.contains_key(&note.message) || events.len() < SIMILAR;
            let key = if own { note.message.clone() } else { String::new() };
            if !own {
                note.message.insert_str(0, "(combined from similar events): ");
            }
            let name = || format!("{}.{:x}", note.owner.name, now.as_nanosecond() + i as i128);
            let (name, count) = events.entry(key).or_insert_with(|| (name(), 0));
            *count += 1;
            match entries.iter_mut().find(|e| e.name == *name) {
                Some(entry) => (entry.note, entry.count) = (note, *count),
                None => entries.push(Entry { note, name: name.clone(), count: *count, known: *count > 1 }),
            }
        }
        entries
    }
}

impl Entry {
    async fn write(&self, client: &Client, now: Timestamp) -> Result<(), kube::Error> {
        let events = format!("/api/v1/namespaces/{}/events", self.note.namespace);
        if self.known {
            let more = json!({"count": self.count, "lastTimestamp": rfc3339(now), "message": self.note.message});
            let request = Request::patch(format!("{events}/{}", self.name));
            let request = request.header("content-type", "application/merge-patch+json");
            match send(client, request, &more).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {} // forgotten meanwhile
                other => return other,
            }
        }
        send(client, Request::post(events).header("content-type", "application/json"), &self.event(now)).await
    }

    fn event(&self, now: Timestamp) -> Value {
        let Note { namespace, owner, warning, reason, message } = &self.note;
        let by = format!("{}-controller", owner.kind.to_lowercase());
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": self.name},
            "involvedObject": {
                "apiVersion": owner.api_version, "kind": owner.kind,
                "namespace": namespace, "name": owner.name, "uid": owner.uid,
            },
            "type": if *warning { "Warning" } else { "Normal" },
            "reason": reason,
            "message": message,
            "source": {"component": by},
            "reportingComponent": by,
            "firstTimestamp": rfc3339(now),
            "lastTimestamp": rfc3339(now),
            "count": self.count,
        })
    }
}

async fn send(client: &Client, request: http::request::Builder, body: &Value) -> Result<(), kube::Error> {
    let request = request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        let owner = OwnerReference { name: "web".into(), uid: "u".into(), ..OwnerReference::default() };
        let message = message.to_owned();
        Note { namespace: "a".into(), owner, warning: false, reason: "SuccessfulCreate", message }
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut ledger = Ledger::default();
        let first = ledger.enter(vec![note("x"), note("x"), note("y")], Timestamp::UNIX_EPOCH);
        let shown = |e: &Entry| (e.note.message.clone(), e.count, e.known);
        assert_eq!(first.iter().map(shown).collect::<Vec<_>>(), [("x".into(), 2, false), ("y".into(), 1, false)]);
        let again = ledger.enter(vec![note("x")], Timestamp::UNIX_EPOCH);
        assert_eq!(again, [Entry { count: 3, known: true, ..first[0].clone() }]);
    }

    #[test]
    fn many_similar_ones_share_an_event() {
        let mut ledger = Ledger::default();
        let notes = (0..100).map(|i| note(&format!("Created pod: web-{i}"))).collect();
        let entries = ledger.enter(notes, Timestamp::UNIX_EPOCH);
        assert_eq!(entries.len(), SIMILAR + 1);
        assert_eq!(entries[SIMILAR].count, 90);
        assert_eq!(entries[SIMILAR].note.message, "(combined from similar events): Created pod: web-99");
    }
}
