//! What all writes share: decoding, rules of the kind, admission, field managers, the commit.

use std::io;

use serde_json::{Value, json};
use store::{Expect, Txn, Write};

use crate::{
    ApiError, Result,
    admission::{self, admit},
    cache::{Item, item::set_revision},
    call::Call,
    merge::managed::{Managed, Writer},
    wire::body,
};

/// How often a change is tried again when another comes first.
const TRIES: usize = 16;

/// The largest object that is stored: every reader and watcher pays for it.
const MAX_OBJECT: usize = 3 << 19;

/// Which part of an object a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Main,
    /// The status.
    Status,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
    /// What the server itself changes: no rules but its own.
    Binding,
}

/// How `managedFields` come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// From what changed.
    Update,
    /// They are in the object already.
    Applied,
}

/// Checks that an object is of the call's kind and form. Unknown fields are refused, told or dropped, as
/// `fieldValidation` says.
pub(super) fn decode(call: &Call, object: Value) -> Result<Value> {
    let mut object = body::shape(object)?;
    let (kind, version) = (&call.kind, call.kind.api_version());
    for (field, want) in [("apiVersion", version.as_str()), ("kind", &kind.kind)] {
        match object.get(field).and_then(Value::as_str).unwrap_or_default() {
            "" => object[field] = json!(want),
            got if got == want => {}
            got => {
                let message = format!("the {field} of the object ({got}) does not match what is served here ({want})");
                return Err(ApiError::bad_request(message));
            }
        }
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let decoded = (kind.strategy.decode)(&object).map_err(|faults| ApiError::undecodable(kind, &name, &faults))?;
    let unknown = kind.unknown_fields(&object, &decoded);
    call.stray(&unknown)?;
    body::shape(decoded)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Puts an object into the namespace of the path, or refuses one that says otherwise.
pub(super) fn place(call: &Call, object: &mut Value) -> Result<()> {
    let (want, metadata) = (call.namespace(), &mut object["metadata"]);
    match metadata["namespace"].as_str().unwrap_or_default() {
        got if got == want => {}
        "" => metadata["namespace"] = json!(want),
        got => {
            let message = format!(
                "the namespace of the provided object ({got}) does not match the namespace of the request ({want})"
            );
            return Err(ApiError::bad_request(message));
        }
    }
    let name = metadata["name"].as_str().unwrap_or_default();
    if !call.at.name.is_empty() && name != call.at.name {
        let message = format!("the name of the object ({name}) does not match the name on the URL ({})", call.at.name);
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

/// Refuses what the kind does not allow, all faults at once.
pub(super) fn validate(call: &Call, name: &str, new: &Value, old: Option<&Value>) -> Result<()> {
    let mut faults = api::Faults::default();
    (call.kind.strategy.validate)(new, &mut faults);
    if let Some(old) = old.filter(|_| faults.is_empty()) {
        (call.kind.strategy.validate_update)(new, old, &mut faults);
    }
    refuse(call, name, &faults)
}

fn refuse(call: &Call, name: &str, faults: &api::Faults) -> Result<()> {
    if faults.is_empty() { Ok(()) } else { Err(ApiError::invalid(&call.kind, name, faults)) }
}

/// Brings `managedFields` of `new` up to date; `old` is null on create.
pub(super) fn track(call: &Call, tracking: Tracking, old: &Value, new: &mut Value) {
    if tracking == Tracking::Applied {
        return;
    }
    // A client may clear the list by `[{}]`; anything else it sends is not its business.
    let cleared = new["metadata"]["managedFields"] == json!([{}]);
    let before = Managed::of(if cleared { &Value::Null } else { old });
    let mut managed = before.clone();
    let (manager, now) = (call.manager(), call.now_text());
    managed.updated(old, new, &writer(call, &manager, &now));
    managed.write(new);
}

/// The call's field manager.
pub(super) fn writer<'a>(call: &'a Call, manager: &'a str, now: &'a str) -> Writer<'a> {
    Writer { kind: &call.kind, manager, subresource: &call.at.subresource, now }
}

/// Counts what is written to it.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Refuses an object that is too large to be stored.
pub(super) fn sized(call: &Call, name: &str, object: &Value) -> Result<()> {
    let mut size = Size(0);
    serde_json::to_writer(&mut size, object).map_err(ApiError::internal)?;
    let Size(size) = size;
    if size <= MAX_OBJECT {
        return Ok(());
    }
    let message = format!("{} {name:?} would have {size} bytes; at most {MAX_OBJECT} are stored", call.kind.kind);
    Err(ApiError { message, ..ApiError::too_large(MAX_OBJECT) }.about(&call.kind, name))
}

/// Writes an object durably and puts its new revision into it.
pub(super) async fn commit(
    call: &Call,
    key: &str,
    object: &mut Value,
    expect: Expect,
    mut checks: Vec<(String, Expect)>,
) -> store::Result<()> {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.shift_remove("resourceVersion");
    }
    checks.push((key.to_owned(), expect));
    let stored = match call.kind.view {
        None => object.to_string(),
        Some(view) => {
            let mut stored = object.clone();
            (view.write)(&mut stored);
            stored.to_string()
        }
    };
    let writes = vec![Write::Put(key.to_owned(), stored.into())];
    let rev = call.server.config().store.commit(Txn { checks, writes }).await?;
    set_revision(object, rev);
    Ok(())
}

/// Removes an object as it is at this item's revision, and tells how it was.
pub(super) async fn remove(call: &Call, key: &str, item: &Item) -> store::Result<()> {
    let checks = vec![(key.to_owned(), Expect::Modified(item.rev))];
    call.server.config().store.commit(Txn { checks, writes: vec![Write::Delete(key.to_owned())] }).await?;
    Ok(())
}

/// Changes an object by a function of what it is now; tried again when another change comes first. A
/// `resourceVersion` or `uid` in what the function returns must still be the object's.
pub(super) async fn modify(
    call: &Call,
    name: &str,
    part: Part,
    tracking: Tracking,
    change: impl Fn(&Value) -> Result<Value>,
) -> Result<Value> {
    for _ in 0..TRIES {
        let item = call.current(name).await?;
        let old = item.object();
        let new = change(&old)?;
        match attempt(call, &item, &old, new, part, tracking).await? {
            Some(done) => return Ok(done),
            None => continue,
        }
    }
    Err(ApiError::conflict(&call.kind, name, "the object keeps changing; try again"))
}

/// One try; `None` when another change came first.
async fn attempt(
    call: &Call,
    item: &Item,
    old: &Value,
    mut new: Value,
    part: Part,
    tracking: Tracking,
) -> Result<Option<Value>> {
    let name = item.name();
    let strategy = &call.kind.strategy;
    if part != Part::Binding {
        new = decode(call, new)?;
        place(call, &mut new)?;
    }
    preconditions(call, name, old, &new["metadata"])?;
    keep_identity(&mut new, old);
    match part {
        Part::Main => {
            (strategy.default)(&mut new);
            (strategy.before_update)(&mut new, old);
        }
        Part::Status => (strategy.before_status)(&mut new, old),
        Part::Finalize => new = only(&new, old, "finalizers"),
        Part::EphemeralContainers => {
            new = only(&new, old, "ephemeralContainers");
            (strategy.default)(&mut new);
            (strategy.before_update)(&mut new, old);
        }
        Part::Binding => {}
    }
    let dry_run = call.dry_run()?;
    let request = admission::Request {
        kind: &call.kind,
        verb: &call.at.verb,
        subresource: &call.at.subresource,
        namespace: call.namespace(),
        name,
        identity: &call.identity,
        old: Some(old),
        dry_run,
        warnings: &call.warnings,
    };
    admit(call.server.admission(), &request, &mut new).await?;
    match part {
        Part::Main | Part::Status => validate(call, name, &new, Some(old))?,
        Part::EphemeralContainers => {
            validate(call, name, &new, None)?;
            let mut faults = api::Faults::default();
            api::pod::validate_added(&new, old, &mut faults);
            refuse(call, name, &faults)?;
        }
        Part::Finalize | Part::Binding => {}
    }
    no_new_finalizers(call, name, &new, old)?;
    track(call, tracking, old, &mut new);
    sized(call, name, &new)?;

    let key = call.kind.key(call.namespace(), name);
    if is_released(&new) {
        if !dry_run && let Err(error) = remove(call, &key, item).await {
            return lost(error);
        }
        return Ok(Some(new));
    }
    if same(&new, old) {
        return Ok(Some(old.clone()));
    }
    if dry_run {
        return Ok(Some(new));
    }
    match commit(call, &key, &mut new, Expect::Modified(item.rev), Vec::new()).await {
        Ok(()) => Ok(Some(new)),
        Err(error) => lost(error),
    }
}

/// A conflict is worth another try, other errors are not.
pub(super) fn lost<T>(error: store::Error) -> Result<Option<T>> {
    match error {
        store::Error::Conflict { .. } => Ok(None),
        error => Err(error.into()),
    }
}

/// `resourceVersion` and `uid`, where given, must be those of the object.
pub(super) fn preconditions(call: &Call, name: &str, old: &Value, given: &Value) -> Result<()> {
    let differs = |field: &str| {
        let given = given[field].as_str().unwrap_or_default();
        !given.is_empty() && Some(given) != old["metadata"][field].as_str()
    };
    if differs("uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            given["uid"], old["metadata"]["uid"]
        );
        return Err(ApiError::conflict(&call.kind, name, &why));
    }
    if differs("resourceVersion") {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(ApiError::conflict(&call.kind, name, why));
    }
    Ok(())
}

/// What no client changes.
fn keep_identity(new: &mut Value, old: &Value) {
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "selfLink",
        "resourceVersion",
        "name",
        "namespace",
    ] {
        let Some(metadata) = new["metadata"].as_object_mut() else { return };
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.shift_remove(field),
        };
    }
}

/// The old object with one field of the new one's spec.
fn only(new: &Value, old: &Value, field: &str) -> Value {
    let mut result = old.clone();
    if let Some(spec) =
        result.as_object_mut().map(|o| o.entry("spec").or_insert_with(|| json!({}))).and_then(Value::as_object_mut)
    {
        match new["spec"].get(field) {
            Some(value) => spec.insert(field.into(), value.clone()),
            None => spec.shift_remove(field),
        };
    }
    result
}

fn no_new_finalizers(call: &Call, name: &str, new: &Value, old: &Value) -> Result<()> {
    if old["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let list = |o: &Value| o["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let (had, mut faults) = (list(old), api::Faults::default());
    for finalizer in list(new).iter().filter(|f| !had.contains(f)) {
        let at = api::Path::root().field("metadata").field("finalizers");
        let message = format!("no new finalizers can be added if the object is being deleted, found {finalizer}");
        faults.push(at, api::Cause::Forbidden, message);
    }
    refuse(call, name, &faults)
}

/// Whether an object was marked for deletion and nothing holds it any more.
pub(super) fn is_released(object: &Value) -> bool {
    let metadata = &object["metadata"];
    !metadata["deletionTimestamp"].is_null()
        && is_empty(&metadata["finalizers"])
        && (object["kind"] != "Namespace" || is_empty(&object["spec"]["finalizers"]))
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

/// Whether two states of an object differ in nothing but the times of their managers.
fn same(new: &Value, old: &Value) -> bool {
    let content = |object: &Value| {
        let mut object = object.clone();
        let managed: Vec<_> =
            Managed::of(&object).0.into_iter().map(|e| (e.manager, e.subresource, e.fields)).collect();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.shift_remove("managedFields");
            metadata.shift_remove("resourceVersion");
        }
        (object, managed)
    };
    content(new) == content(old)
}
