//! A new object.

use axum::response::Response;
use http::StatusCode;
use rand::RngExt;
use serde_json::{Value, json};
use store::Expect;

use super::write::{self, Tracking};
use crate::{
    ApiError, Result,
    admission::{self, admit},
    cache::Item,
    call::Call,
    reviews,
    wire::accept::Form,
};

/// How often a create is tried again when its namespace changes under it.
const TRIES: usize = 8;
/// What generated names end in: no vowels, so no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Creates the object in the body.
pub(super) async fn run(call: &Call) -> Result<Response> {
    let object = insert(call, call.draft()?, Tracking::Update).await?;
    call.reply(StatusCode::CREATED, &object)
}

/// Answers the question in the body.
pub(super) async fn review(call: &Call) -> Result<Response> {
    if Form::of(&call.headers)? != Form::Plain {
        return Err(ApiError::not_acceptable("the answer is no object with metadata: it can be had as it is only"));
    }
    let mut object = write::decode(call, call.draft()?)?;
    (call.kind.strategy.default)(&mut object);
    let answer = reviews::answer(&call.server, &call.identity, &call.kind, &call.at.namespace, object).await?;
    call.reply(StatusCode::CREATED, &answer)
}

/// Stores a new object and gives it back with its revision.
pub(super) async fn insert(call: &Call, object: Value, tracking: Tracking) -> Result<Value> {
    let mut object = write::decode(call, object)?;
    if !matches!(&object["metadata"]["resourceVersion"], Value::Null | Value::String(_))
        || object["metadata"]["resourceVersion"].as_str().is_some_and(|v| !v.is_empty())
    {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let generated = name(call, &mut object)?;
    write::place(call, &mut object)?;
    let metadata = &mut object["metadata"];
    metadata["uid"] = json!(uuid::Uuid::new_v4());
    metadata["creationTimestamp"] = json!(call.now_text());
    if let Some(map) = metadata.as_object_mut() {
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"] {
            map.shift_remove(field);
        }
    }
    let dry_run = call.dry_run()?;
    for attempt in 0..TRIES {
        let checks = namespace(call, attempt > 0).await?;
        let mut new = object.clone();
        if generated {
            let base = new["metadata"]["generateName"].as_str().unwrap_or_default();
            new["metadata"]["name"] = json!(generate(base));
        }
        // Defaults may come from the name.
        (call.kind.strategy.default)(&mut new);
        (call.kind.strategy.before_create)(&mut new);
        let name = new["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let request = admission::Request {
            kind: &call.kind,
            verb: "create",
            subresource: "",
            namespace: call.namespace(),
            name: &name,
            identity: &call.identity,
            old: None,
            dry_run,
            warnings: &call.warnings,
        };
        admit(call.server.admission(), &request, &mut new).await?;
        write::validate(call, &name, &new, None)?;
        write::track(call, tracking, &Value::Null, &mut new);
        write::sized(call, &name, &new)?;
        let key = call.kind.key(call.namespace(), &name);
        if dry_run {
            call.server.cache().fresh().await?;
            return match call.shelf()?.get(&call.item_key(&name)) {
                Some(_) => Err(ApiError::already_exists(&call.kind, &name)),
                None => Ok(new),
            };
        }
        match write::commit(call, &key, &mut new, Expect::Absent, checks).await {
            Ok(()) => return Ok(new),
            Err(store::Error::Conflict { key: found, .. }) if found != key || generated => continue,
            Err(store::Error::Conflict { .. }) => return Err(ApiError::already_exists(&call.kind, &name)),
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::too_many("the namespace keeps changing; try again", 1))
}

/// Makes sure that there is a name, and that it can stand in a path. Whether it must be generated.
fn name(call: &Call, object: &mut Value) -> Result<bool> {
    let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    let (mut name, base) = (field("name"), field("generateName"));
    if name.is_empty() && !call.at.name.is_empty() {
        name.clone_from(&call.at.name);
        object["metadata"]["name"] = json!(name);
    }
    let mut faults = api::Faults::default();
    let at = api::Path::root().field("metadata");
    let (text, at) = if name.is_empty() { (&base, at.field("generateName")) } else { (&name, at.field("name")) };
    if text.is_empty() {
        let at = api::Path::root().field("metadata").field("name");
        faults.push(at, api::Cause::Required, "name or generateName is required");
    } else if text == "."
        || text == ".."
        || text.len() > 253
        || text.contains(['/', '%'])
        || text.chars().any(char::is_control)
    {
        faults.push(
            at,
            api::Cause::Invalid,
            "must be at most 253 characters, not '.' or '..', and contain neither '/' nor '%'",
        );
    }
    if faults.is_empty() { Ok(name.is_empty()) } else { Err(ApiError::invalid(&call.kind, text, &faults)) }
}

/// `web-` becomes `web-x7k2p`.
fn generate(base: &str) -> String {
    let mut name: String = base.chars().take(248).collect();
    let mut rng = rand::rng();
    name.extend((0..5).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char));
    name
}

/// The namespace must exist, and still be as it is now when the object is written.
async fn namespace(call: &Call, again: bool) -> Result<Vec<(String, Expect)>> {
    let namespaces = call.server.config().registry.resource("", "v1", "namespaces");
    let Some(kind) = namespaces.filter(|_| !call.namespace().is_empty()) else { return Ok(Vec::new()) };
    let name = call.namespace();
    let (cache, shelf) = (call.server.cache(), call.server.cache().shelf(kind)?);
    let item = match shelf.get(name) {
        // Good enough even if it is stale: the commit checks its revision.
        Some(item) if !again => item,
        _ => {
            cache.fresh().await?;
            shelf.get(name).ok_or_else(|| ApiError::not_found(kind, name))?
        }
    };
    if is_terminating(&item) {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut error = ApiError::refused(&call.kind, &call.at.name, &why);
        error.details["causes"] = json!([{
            "reason": "NamespaceTerminating", "field": "metadata.namespace",
            "message": format!("namespace {name} is being terminated"),
        }]);
        return Err(error);
    }
    Ok(vec![(kind.key("", name), Expect::Modified(item.rev))])
}

fn is_terminating(namespace: &Item) -> bool {
    let object = namespace.object();
    !object["metadata"]["deletionTimestamp"].is_null() || object["status"]["phase"] == "Terminating"
}
