//! Carries steps out through the API, the only door.

use std::{collections::HashMap, sync::Arc, time::Duration};

use either::Either;
use futures::{StreamExt, stream};
use http::{Method, Request};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams},
    core::ApiResource,
};
use serde_json::{Value, json};

use crate::{
    ending::{self, Left},
    events::Note,
    object::{Object, Wire},
    step::{Id, Kind, Merge, NAMESPACES, PODS, Step},
};

/// Creations and deletions of one plan that are under way at once.
const TOGETHER: usize = 16;
/// When to look at a namespace again that is not empty yet, if none of its objects goes before.
const EMPTYING: Duration = Duration::from_secs(2);
/// The finalizer of namespaces.
const FINALIZER: &str = "kubernetes";

/// A kind as the API serves it.
pub struct Served {
    pub api: ApiResource,
    pub namespaced: bool,
}

/// The API, with the kinds that can be watched.
#[derive(Clone)]
pub struct Door {
    pub client: Client,
    pub kinds: Arc<HashMap<Kind, Served>>,
}

/// What came of some steps.
#[derive(Default)]
pub struct Outcome {
    /// Objects as the answers told them.
    pub answers: Vec<(Kind, Object)>,
    /// Objects that are gone or will be.
    pub doomed: Vec<(Id, String)>,
    /// When to look again.
    pub again: Option<Duration>,
    /// What people are told of it.
    pub notes: Vec<Note>,
    /// Why a creation was refused.
    pub refused: Option<String>,
    /// What failed; the steps after it were not tried.
    pub error: Option<kube::Error>,
}

impl Door {
    /// Carries steps out in order, until one fails. Of creations and deletions that follow each other the first
    /// goes alone: where it fails, the others would too.
    pub async fn carry_out(&self, steps: Vec<Step>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut steps = steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            let kind = std::mem::discriminant(&step);
            let many = matches!(step, Step::Create { .. } | Step::Delete { .. });
            outcome.note(self.step(step).await);
            if many && outcome.error.is_none() {
                let mut alike = Vec::new();
                while let Some(step) = steps.next_if(|s| std::mem::discriminant(s) == kind) {
                    alike.push(step);
                }
                let mut results = stream::iter(alike).map(|s| self.step(s)).buffer_unordered(TOGETHER);
                while let Some(result) = results.next().await {
                    outcome.note(result);
                }
            }
            if outcome.error.is_some() {
                break;
            }
        }
        outcome
    }

    async fn step(&self, step: Step) -> Result<Done, Failed> {
        match step {
            Step::Create { kind, namespace, object } => {
                let path = self.path(&kind, &namespace)?;
                let wire = self.send::<Wire>(Method::POST, &path, "application/json", &object).await;
                match wire {
                    Ok(wire) => {
                        let made = Object::lift(&kind, wire);
                        let note = Note::made(&kind, &made);
                        Ok(Done::Answer(kind, made, note))
                    }
                    Err(error) => {
                        let error = anonymous(error, &object);
                        let note = refusal(&error).and_then(|why| Note::refused(&kind, &object, why));
                        Err(Failed::Create(error, note.map(Box::new)))
                    }
                }
            }
            Step::Patch { id, merge, patch } => self.patch(id, "", merge, &patch).await,
            Step::Scale { id, from, patch } => match self.patch(id, "", Merge::Json, &patch).await? {
                Done::Answer(kind, set, _) => {
                    let note = Note::scaled(from, &set);
                    Ok(Done::Answer(kind, set, note))
                }
                done => Ok(done),
            },
            Step::Status { id, merge, patch } => self.patch(id, "/status", merge, &patch).await,
            Step::Delete { id, uid, propagation } => {
                self.delete(id, uid, json!({"propagationPolicy": propagation})).await
            }
            Step::Finish { id, uid } => self.delete(id, uid, json!({"gracePeriodSeconds": 0})).await,
            Step::Collect { id, uid, owners, propagation } => {
                for owner in &owners {
                    match self.exists(owner, &id.namespace).await? {
                        Some(false) => {}
                        Some(true) => return Ok(Done::Again(Duration::from_secs(1))),
                        None => return Ok(Done::Nothing),
                    }
                }
                self.delete(id, uid, json!({"propagationPolicy": propagation})).await
            }
            Step::Empty { namespace, now } => self.empty(&namespace, now).await,
            Step::Again(wait) => Ok(Done::Again(wait)),
        }
    }

    fn path(&self, kind: &Kind, namespace: &str) -> Result<String, Failed> {
        let served = self.kinds.get(kind).ok_or_else(|| Failed::Unserved(kind.clone()))?;
        Ok(Wire::url_path(&served.api, Some(namespace).filter(|_| served.namespaced)))
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: &Value,
    ) -> kube::Result<T> {
        let request = Request::builder().method(method).uri(path).header("content-type", content);
        self.client.request(request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)?).await
    }

    async fn patch(&self, id: Id, part: &str, merge: Merge, patch: &Value) -> Result<Done, Failed> {
        let path = format!("{}/{}{part}", self.path(&id.kind, &id.namespace)?, id.name);
        let content = match merge {
            Merge::Json => "application/merge-patch+json",
            Merge::Strategic => "application/strategic-merge-patch+json",
        };
        let wire = self.send::<Wire>(Method::PATCH, &path, content, patch).await;
        wire.map(|wire| Done::Answer(id.kind.clone(), Object::lift(&id.kind, wire), None)).or_else(gone)
    }

    async fn delete(&self, id: Id, uid: String, mut options: Value) -> Result<Done, Failed> {
        let path = format!("{}/{}", self.path(&id.kind, &id.namespace)?, id.name);
        options["apiVersion"] = "v1".into();
        options["kind"] = "DeleteOptions".into();
        options["preconditions"]["uid"] = uid.as_str().into();
        let request = Request::delete(&path).header("content-type", "application/json");
        let request = request.body(options.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
        match self.client.request_status::<Wire>(request).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Done::Doomed(id, uid, None)),
            // Replaced by a namesake, which is not ours to delete; or it merely kept changing.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                match self.send::<Wire>(Method::GET, &path, "application/json", &Value::Null).await {
                    Ok(wire) if wire.metadata.uid.as_deref() == Some(&uid) => Err(kube::Error::Api(status).into()),
                    Err(error) if !matches!(&error, kube::Error::Api(s) if s.code == 404) => Err(error.into()),
                    _ => Ok(Done::Doomed(id, uid, None)),
                }
            }
            Err(error) => Err(error.into()),
            Ok(Either::Left(wire)) => {
                let object = Object::lift(&id.kind, wire);
                Ok(Done::Doomed(id, uid, Some(object)))
            }
            Ok(Either::Right(_)) => Ok(Done::Doomed(id, uid, None)),
        }
    }

    /// Whether this very owner exists; of one of a kind that is not served nobody knows.
    async fn exists(&self, owner: &OwnerReference, namespace: &str) -> Result<Option<bool>, Failed> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let served = self.kinds.values().find(|s| s.api.group == group && s.api.kind == owner.kind);
        let Some(served) = served else { return Ok(None) };
        let namespace = Some(namespace).filter(|_| served.namespaced);
        let path = format!("{}/{}", Wire::url_path(&served.api, namespace), owner.name);
        match self.send::<Wire>(Method::GET, &path, "application/json", &Value::Null).await {
            Ok(wire) => Ok(Some(wire.metadata.uid.as_deref() == Some(&owner.uid))),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Some(false)),
            Err(error) => Err(error.into()),
        }
    }

    async fn empty(&self, namespace: &str, now: Timestamp) -> Result<Done, Failed> {
        let path = format!("{}/{namespace}", self.path(&NAMESPACES, "")?);
        let mut object: Value = match self.send(Method::GET, &path, "application/json", &Value::Null).await {
            Ok(object) => object,
            Err(error) => return gone(error),
        };
        let mut left = Vec::new();
        let failure = self.clear(namespace, &mut left).await.err();
        if failure.is_some() || !left.is_empty() {
            let why = failure.as_ref().map(ToString::to_string);
            if let Some(patch) = ending::told(&object, &left, why.as_deref(), now) {
                self.patch(Id::new(NAMESPACES, "", namespace), "/status", Merge::Json, &patch).await?;
            }
            return failure.map_or(Ok(Done::Again(EMPTYING)), |error| Err(error.into()));
        }
        if let Some(finalizers) = object["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|f| f != FINALIZER);
        }
        let finalize = format!("{path}/finalize");
        self.send::<Value>(Method::PUT, &finalize, "application/json", &object)
            .await
            .map(|_| Done::Nothing)
            .or_else(gone)
    }

    /// Deletes what is in a namespace, pods first and the rest once none of them is left, and notes what still is.
    async fn clear(&self, namespace: &str, left: &mut Vec<Left>) -> kube::Result<()> {
        let kinds = self.kinds.iter().filter(|(_, served)| served.namespaced);
        let (pods, others): (Vec<_>, Vec<_>) = kinds.partition(|(kind, _)| **kind == PODS);
        for together in [pods, others] {
            for (kind, served) in together {
                let api: Api<Wire> = Api::namespaced_with(self.client.clone(), namespace, &served.api);
                // Asked of the API, not the caches: these may be behind, and what is left behind stays for ever.
                let found = api.list(&ListParams::default().limit(100)).await?;
                if found.items.is_empty() {
                    continue;
                }
                let more = found.metadata.remaining_item_count.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                left.push(Left::of(kind, &found.items, more));
                if found.items.iter().any(|o| o.metadata.deletion_timestamp.is_none()) {
                    api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
                }
            }
            if !left.is_empty() {
                left.sort_by(|a, b| a.kind.cmp(&b.kind));
                break;
            }
        }
        Ok(())
    }
}

/// A refusal that is the same for every name that was made up: else each try would be news.
fn anonymous(error: kube::Error, object: &Value) -> kube::Error {
    match (error, object["metadata"]["generateName"].as_str()) {
        (kube::Error::Api(mut status), Some(prefix)) => {
            let name = status.details.as_ref().map(|d| d.name.clone()).filter(|name| name.starts_with(prefix));
            status.message = name.map_or(status.message.clone(), |name| status.message.replace(&name, prefix));
            kube::Error::Api(status)
        }
        (error, _) => error,
    }
}

/// Why the API does not let an object be made as it is.
fn refusal(error: &kube::Error) -> Option<&str> {
    match error {
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => Some(&status.message),
        _ => None,
    }
}

/// Nothing can be done to what is gone, and nothing need be.
fn gone(error: kube::Error) -> Result<Done, Failed> {
    match error {
        kube::Error::Api(status) if status.code == 404 => Ok(Done::Nothing),
        error => Err(error.into()),
    }
}

enum Done {
    Nothing,
    Answer(Kind, Object, Option<Note>),
    Doomed(Id, String, Option<Object>),
    Again(Duration),
}

enum Failed {
    Create(kube::Error, Option<Box<Note>>),
    Other(kube::Error),
    Unserved(Kind),
}

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        Self::Other(error)
    }
}

impl Outcome {
    fn note(&mut self, result: Result<Done, Failed>) {
        match result {
            Ok(Done::Nothing) => {}
            Ok(Done::Answer(kind, object, note)) => {
                self.answers.push((kind, object));
                self.notes.extend(note);
            }
            Ok(Done::Doomed(id, uid, object)) => {
                self.notes.extend(object.as_ref().and_then(|o| Note::deleted(&id.kind, o)));
                self.answers.extend(object.map(|o| (id.kind.clone(), o)));
                self.doomed.push((id, uid));
            }
            Ok(Done::Again(wait)) => self.again = Some(self.again.map_or(wait, |again| again.min(wait))),
            Err(Failed::Create(error, note)) => {
                self.notes.extend(note.map(|note| *note));
                self.refused = refusal(&error).map(str::to_owned).or(self.refused.take());
                self.error = Some(error);
            }
            Err(Failed::Other(error)) => self.error = Some(error),
            // Without the kind there are no objects of it either.
            Err(Failed::Unserved(kind)) => tracing::debug!(%kind, "controllers: not served"),
        }
    }
}
