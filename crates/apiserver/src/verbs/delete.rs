//! Objects deleted: at once, after a grace, or when nothing holds them any more.

use api::Kind;
use axum::response::Response;
use futures::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};
use store::Expect;

use super::{
    bind,
    list::prefix,
    options,
    write::{self, Part, Tracking},
};
use crate::{
    ApiError, Result,
    admission::{self, admit},
    call::{Call, json_response, rfc3339},
    wire::{body, list},
};

/// How often a delete is tried again when another change comes first.
const TRIES: usize = 16;
/// How many deletes of a collection run side by side: they share commits.
const SIDE_BY_SIDE: usize = 32;

/// `metav1.DeleteOptions`, as far as they matter.
#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    grace: Option<i64>,
    propagation: Option<Propagation>,
    preconditions: Value,
    dry_run: bool,
}

/// What becomes of the object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What a delete does to an object.
#[derive(Clone, Debug, PartialEq)]
enum Plan {
    /// Gone now.
    Remove,
    /// Marked: a node or a finalizer is not done with it.
    Mark(Box<Value>),
    /// Marked so already.
    Leave,
}

/// What became of an object.
enum Outcome {
    Removed(Value),
    Marked(Value),
}

/// Deletes the object.
pub(super) async fn run(call: &Call) -> Result<Response> {
    let options = Options::decode(call, &call.options()?)?;
    match delete(call, &call.at.name, &options).await? {
        Outcome::Marked(object) => call.reply(StatusCode::OK, &object),
        Outcome::Removed(object) if call.kind.returns_deleted => call.reply(StatusCode::OK, &object),
        Outcome::Removed(object) => {
            let mut status = bind::success();
            status["code"] = json!(200);
            status["details"] = json!({
                "name": call.at.name, "group": call.kind.group, "kind": call.kind.plural, "uid": object["metadata"]["uid"],
            });
            Ok(json_response(StatusCode::OK, status.to_string().into()))
        }
    }
}

/// Deletes all objects that the query selects, and lists them as they were.
pub(super) async fn collection(call: &Call) -> Result<Response> {
    options::list(call, false)?;
    let options = Options::decode(call, &call.options()?)?;
    let (selector, applied) = (call.selector()?, call.server.cache().fresh().await?);
    let (items, _, rev) = call.shelf()?.list(&prefix(call), None, 0, applied, |i| i.is_selected(&selector));
    let deletes = items.iter().map(|item| async {
        match delete(&call.of(item.namespace(), item.name()), item.name(), &options).await {
            Err(error) if error.code != StatusCode::NOT_FOUND => Err(error),
            _ => Ok(()),
        }
    });
    stream::iter(deletes.collect::<Vec<_>>()).buffer_unordered(SIDE_BY_SIDE).try_collect::<()>().await?;
    Ok(list::respond(&list::head(&call.kind, rev, None, None), items, &call.headers))
}

/// Deletes a pod as the Eviction in the body says.
pub(super) async fn evict(call: &Call) -> Result<Response> {
    let (eviction, name) = (call.object()?, &call.at.name);
    if eviction["metadata"]["name"].as_str().is_some_and(|named| !named.is_empty() && named != name) {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = Options::decode(call, &eviction["deleteOptions"])?;
    if !options.dry_run {
        let doom = |pod: &Value| {
            write::preconditions(call, name, pod, &options.preconditions)?;
            Ok(doomed(pod, &call.now_text()))
        };
        write::modify(call, name, Part::Binding, Tracking::Update, doom).await?;
    }
    delete(call, name, &options).await?;
    Ok(json_response(StatusCode::CREATED, bind::success().to_string().into()))
}

/// A pod that is to be evicted, unless it ends anyway: who looks after it can tell that from a failure.
fn doomed(pod: &Value, now: &str) -> Value {
    let mut doomed = pod.clone();
    let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !over && pod["metadata"]["deletionTimestamp"].is_null() {
        let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "DisruptionTarget");
        conditions.push(json!({
            "type": "DisruptionTarget", "status": "True", "lastTransitionTime": now,
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        }));
        doomed["status"]["conditions"] = conditions.into();
    }
    doomed
}

async fn delete(call: &Call, name: &str, options: &Options) -> Result<Outcome> {
    for _ in 0..TRIES {
        let item = call.current(name).await?;
        let object = item.object();
        write::preconditions(call, name, &object, &options.preconditions)?;
        let request = admission::Request {
            kind: &call.kind,
            verb: "delete",
            subresource: &call.at.subresource,
            namespace: call.namespace(),
            name,
            identity: &call.identity,
            old: Some(&object),
            dry_run: options.dry_run,
            warnings: &call.warnings,
        };
        admit(call.server.admission(), &request, &mut object.clone()).await?;
        let key = call.kind.key(call.namespace(), name);
        let done = match plan(&call.kind, &object, options, call.now) {
            Plan::Leave => Some(Outcome::Marked(object)),
            Plan::Remove if options.dry_run => Some(Outcome::Removed(object)),
            Plan::Mark(marked) if options.dry_run => Some(Outcome::Marked(*marked)),
            Plan::Remove => match write::remove(call, &key, &item).await {
                Ok(()) => Some(Outcome::Removed(object)),
                Err(error) => write::lost(error)?,
            },
            Plan::Mark(mut marked) => {
                match write::commit(call, &key, &mut marked, Expect::Modified(item.rev), Vec::new()).await {
                    Ok(()) => Some(Outcome::Marked(*marked)),
                    Err(error) => write::lost(error)?,
                }
            }
        };
        if let Some(done) = done {
            return Ok(done);
        }
    }
    Err(ApiError::conflict(&call.kind, name, "the object keeps changing; try again"))
}

/// Decides what a delete does. Grace once given can only become shorter.
fn plan(kind: &Kind, object: &Value, options: &Options, now: jiff::Timestamp) -> Plan {
    let metadata = &object["metadata"];
    let mut marked = object.clone();
    let finalizers = finalizers(object, options.propagation);
    if finalizers.is_empty() {
        if let Some(metadata) = marked["metadata"].as_object_mut() {
            metadata.shift_remove("finalizers");
        }
    } else {
        marked["metadata"]["finalizers"] = json!(finalizers);
    }
    let deleting = !metadata["deletionTimestamp"].is_null();
    let before = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let grace = (kind.strategy.grace)(object, options.grace);
    let grace = if deleting { grace.min(before) } else { grace };
    if !deleting || grace < before {
        let at = now.checked_add(jiff::SignedDuration::from_secs(grace.clamp(0, 1 << 31))).unwrap_or(now);
        marked["metadata"]["deletionTimestamp"] = json!(rfc3339(at));
        marked["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    }
    if !deleting && let Some(generation) = metadata["generation"].as_i64() {
        marked["metadata"]["generation"] = json!(generation + 1);
    }
    if object["kind"] == "Namespace" {
        marked["status"]["phase"] = json!("Terminating");
    }
    if write::is_released(&marked) {
        Plan::Remove
    } else if &marked == object {
        Plan::Leave
    } else {
        Plan::Mark(Box::new(marked))
    }
}

/// The object's finalizers once propagation is asked for by its own.
fn finalizers(object: &Value, propagation: Option<Propagation>) -> Vec<String> {
    const FOREGROUND: &str = "foregroundDeletion";
    const ORPHAN: &str = "orphan";
    let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    let mut list: Vec<String> = list.filter_map(|f| f.as_str().map(str::to_owned)).collect();
    if let Some(propagation) = propagation {
        list.retain(|f| f != FOREGROUND && f != ORPHAN);
        match propagation {
            Propagation::Foreground => list.push(FOREGROUND.into()),
            Propagation::Orphan => list.push(ORPHAN.into()),
            Propagation::Background => {}
        }
    }
    list
}

impl Options {
    /// From the body, where it says nothing from the query.
    fn decode(call: &Call, body: &Value) -> Result<Self> {
        let grace = match (&body["gracePeriodSeconds"], call.query("gracePeriodSeconds")) {
            (Value::Null, "") => None,
            (Value::Null, text) => Some(text.parse().ok()),
            (value, _) => Some(value.as_i64()),
        };
        let grace = match grace {
            None => None,
            Some(Some(n @ 0..)) => Some(n),
            Some(_) => return Err(ApiError::bad_request("gracePeriodSeconds must be a number that is not negative")),
        };
        let policy = body["propagationPolicy"].as_str().unwrap_or_else(|| call.query("propagationPolicy"));
        let queried = call.given("orphanDependents").then(|| call.flag("orphanDependents"));
        let orphan = body["orphanDependents"].as_bool().or(queried);
        options::delete(policy, orphan)?;
        let propagation = match (policy, orphan) {
            ("Foreground", _) => Some(Propagation::Foreground),
            ("Orphan", _) | (_, Some(true)) => Some(Propagation::Orphan),
            ("Background", _) | (_, Some(false)) => Some(Propagation::Background),
            _ => None,
        };
        let dry_run = call.dry_run()? || body["dryRun"].as_array().is_some_and(|d| d.iter().any(|v| v == "All"));
        Ok(Self { grace, propagation, preconditions: body["preconditions"].clone(), dry_run })
    }
}

impl Call {
    /// The body as `DeleteOptions`; null when it is empty.
    fn options(&self) -> Result<Value> {
        if self.body.is_empty() {
            Ok(Value::Null)
        } else {
            body::decode(&self.headers, &self.body).map(|(value, _)| value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> jiff::Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn pod() -> Kind {
        let mut kind = crate::testing::configmap();
        kind.strategy.grace = |_, asked| asked.unwrap_or(30);
        kind
    }

    fn metadata(plan: Plan) -> Value {
        match plan {
            Plan::Mark(object) => object["metadata"].clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_holds_it() {
        let object = json!({"metadata": {"name": "a"}});
        assert_eq!(plan(&crate::testing::configmap(), &object, &Options::default(), at()), Plan::Remove);
    }

    #[test]
    fn grace_only_becomes_shorter() {
        let object = json!({"metadata": {"name": "a", "generation": 1}});
        let marked = metadata(plan(&pod(), &object, &Options::default(), at()));
        assert_eq!(marked["deletionTimestamp"], "2026-01-02T03:04:35Z");
        assert_eq!((&marked["deletionGracePeriodSeconds"], &marked["generation"]), (&json!(30), &json!(2)));
        let object = json!({"metadata": marked});
        let with = |grace| Options { grace: Some(grace), ..Options::default() };
        assert_eq!(plan(&pod(), &object, &with(60), at()), Plan::Leave);
        assert_eq!(metadata(plan(&pod(), &object, &with(5), at()))["deletionTimestamp"], "2026-01-02T03:04:10Z");
        assert_eq!(plan(&pod(), &object, &with(0), at()), Plan::Remove);
    }

    #[test]
    fn propagation_leaves_a_finalizer() {
        let object = json!({"metadata": {"name": "a", "finalizers": ["x", "orphan"]}});
        let with = |p| Options { propagation: Some(p), ..Options::default() };
        let after = |p| metadata(plan(&crate::testing::configmap(), &object, &with(p), at()))["finalizers"].clone();
        assert_eq!(after(Propagation::Background), json!(["x"]));
        assert_eq!(after(Propagation::Foreground), json!(["x", "foregroundDeletion"]));
        assert_eq!(after(Propagation::Orphan), json!(["x", "orphan"]));
    }

    #[test]
    fn a_namespace_waits_for_its_finalizer() {
        let object = json!({"kind": "Namespace", "metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        let Plan::Mark(marked) = plan(&crate::testing::configmap(), &object, &Options::default(), at()) else {
            panic!()
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert_eq!(plan(&crate::testing::configmap(), &marked, &Options::default(), at()), Plan::Leave);
    }
}
