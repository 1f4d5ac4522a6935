//! Event: what happened to an object.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Event, ObjectReference},
    events::v1::Event as Renamed,
};
use serde_json::Value;

use crate::{
    columns::{NAME, age, column, number, text, wide},
    faults::{Faults, Path},
    registry::{Column, Kind, Scope, Strategy, View},
    typed::Typed,
};

/// Event, in the core group: as which events are kept.
pub fn kind() -> Kind {
    Kind {
        short: &["ev"],
        columns: COLUMNS,
        strategy: Strategy { fields, ..Strategy::of::<Event>() },
        ..Kind::of::<Event>("events", Scope::Namespaced)
    }
}

/// Event of `events.k8s.io`: the same events with other names for their fields.
pub fn renamed() -> Kind {
    Kind {
        columns: COLUMNS,
        view: Some(View {
            group: "",
            read: |event| rename(event, "events.k8s.io/v1", |(kept, shown)| (kept, shown)),
            write: |event| rename(event, "v1", |(kept, shown)| (shown, kept)),
        }),
        strategy: Strategy { fields: renamed_fields, ..Strategy::of::<Renamed>() },
        ..Kind::of::<Renamed>("events", Scope::Namespaced)
    }
}

/// What fields are called in the core group, and in `events.k8s.io`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(event: &mut Value, version: &str, way: fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Some(fields) = event.as_object_mut() else { return };
    fields.insert("apiVersion".into(), version.into());
    for (from, to) in NAMES.map(way) {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.into(), value);
        }
    }
}

const COLUMNS: &[Column] = &[
    column("Last Seen", |o, now| last_seen(&kept(o), now).into()),
    column("Type", |o, _| text(o, "/type")),
    column("Reason", |o, _| text(o, "/reason")),
    column("Object", |o, _| object(&kept(o)).into()),
    wide("Subobject", |o, _| text(&kept(o), "/involvedObject/fieldPath")),
    wide("Source", |o, _| source(&kept(o)).into()),
    column("Message", |o, _| text(&kept(o), "/message").as_str().unwrap_or_default().trim().into()),
    wide("First Seen", |o, now| first_seen(&kept(o), now).into()),
    wide("Count", |o, _| number(&kept(o), "/count")),
    Column { wide: true, ..NAME },
];

/// The event in the form in which it is kept.
fn kept(event: &Value) -> Cow<'_, Value> {
    if event["apiVersion"] == "v1" {
        return Cow::Borrowed(event);
    }
    let mut event = event.clone();
    rename(&mut event, "v1", |(kept, shown)| (shown, kept));
    Cow::Owned(event)
}

/// The moments of an event, later fields first: `series`, `lastTimestamp`, `eventTime`.
fn last_seen(event: &Value, now: Timestamp) -> String {
    let moments = ["/series/lastObservedTime", "/lastTimestamp"];
    match moments.iter().find_map(|p| event.pointer(p).filter(|v| !v.is_null())) {
        Some(moment) => age(Some(moment), now),
        None => first_seen(event, now),
    }
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    age(["/firstTimestamp", "/eventTime"].iter().find_map(|p| event.pointer(p).filter(|v| !v.is_null())), now)
}

fn object(event: &Value) -> String {
    let involved = &event["involvedObject"];
    let (kind, name) = (involved["kind"].as_str().unwrap_or_default(), involved["name"].as_str().unwrap_or_default());
    if name.is_empty() { kind.to_lowercase() } else { format!("{}/{name}", kind.to_lowercase()) }
}

fn source(event: &Value) -> String {
    let component = event.pointer("/source/component").and_then(Value::as_str).filter(|s| !s.is_empty());
    let component = component.or_else(|| event["reportingComponent"].as_str()).unwrap_or_default();
    match event.pointer("/source/host").and_then(Value::as_str).filter(|s| !s.is_empty()) {
        Some(host) => format!("{component}, {host}"),
        None => component.to_owned(),
    }
}

fn fields(event: &Value) -> Vec<(&'static str, String)> {
    let value = |pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    // Newer recorders name none but this.
    let reporter = || value("/reportingComponent");
    vec![
        ("involvedObject.kind", value("/involvedObject/kind")),
        ("involvedObject.namespace", value("/involvedObject/namespace")),
        ("involvedObject.name", value("/involvedObject/name")),
        ("involvedObject.uid", value("/involvedObject/uid")),
        ("involvedObject.apiVersion", value("/involvedObject/apiVersion")),
        ("involvedObject.resourceVersion", value("/involvedObject/resourceVersion")),
        ("involvedObject.fieldPath", value("/involvedObject/fieldPath")),
        ("reason", value("/reason")),
        ("reportingComponent", reporter()),
        ("source", Some(value("/source/component")).filter(|s| !s.is_empty()).unwrap_or_else(reporter)),
        ("type", value("/type")),
    ]
}

/// The same under the other names, and those that clients know from the core group.
fn renamed_fields(event: &Value) -> Vec<(&'static str, String)> {
    let kept = kept(event);
    let value = |pointer| kept.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut all = fields(&kept);
    all.extend([
        ("regarding.kind", value("/involvedObject/kind")),
        ("regarding.namespace", value("/involvedObject/namespace")),
        ("regarding.name", value("/involvedObject/name")),
        ("regarding.uid", value("/involvedObject/uid")),
        ("regarding.apiVersion", value("/involvedObject/apiVersion")),
        ("regarding.resourceVersion", value("/involvedObject/resourceVersion")),
        ("regarding.fieldPath", value("/involvedObject/fieldPath")),
        ("reportingController", value("/reportingComponent")),
    ]);
    all
}

impl Typed for Event {
    fn validate(&self, bad: &mut Faults) {
        placed(self.metadata.namespace.as_deref(), &self.involved_object, "involvedObject", bad);
    }
}

impl Typed for Renamed {
    fn validate(&self, bad: &mut Faults) {
        placed(self.metadata.namespace.as_deref(), &self.regarding.clone().unwrap_or_default(), "regarding", bad);
    }
}

/// What happens to an object without a namespace is told in the default one.
fn placed(own: Option<&str>, object: &ObjectReference, field: &str, bad: &mut Faults) {
    let expected = object.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
    let good = own.is_none_or(|own| own == expected);
    let message = format!("must be the event's own namespace, {}", own.unwrap_or_default());
    bad.unless(good, Path::root().field(field).field("namespace"), message);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_found_by_its_source_whichever_recorder_wrote_it() {
        let source = |event: Value| fields(&event).into_iter().find(|(name, _)| *name == "source").unwrap().1;
        assert_eq!(source(json!({"source": {"component": "kubelet"}, "reportingComponent": "other"})), "kubelet");
        assert_eq!(source(json!({"reportingComponent": "newer"})), "newer");
        assert_eq!(source(json!({"source": {}, "reportingComponent": "newer"})), "newer");
    }

    #[test]
    fn both_forms_say_the_same() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "type": "Normal",
            "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "R", "count": 2,
            "reportingComponent": "c", "reportingInstance": "i", "source": {"component": "s"},
            "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:04:06Z"});
        let view = renamed().view.unwrap();
        let mut shown = core.clone();
        (view.read)(&mut shown);
        assert_eq!((&shown["note"], &shown["regarding"]["name"]), (&json!("m"), &json!("p")));
        let decoded = (renamed().strategy.decode)(&shown).unwrap();
        assert_eq!(renamed().unknown_fields(&shown, &decoded), [], "the type has all of these fields");
        for (one, other) in kind().columns.iter().zip(renamed().columns) {
            let now = "2026-01-02T03:05:05Z".parse().unwrap();
            assert_eq!((one.value)(&core, now), (other.value)(&shown, now), "{}", one.name);
        }
        (view.write)(&mut shown);
        assert_eq!(shown, core);
    }
}
