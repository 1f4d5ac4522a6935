//! Event: what happened to an object.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::{
    columns::{NAME, age, column, integer, number, text, wide},
    faults::{Faults, Path},
    registry::{Column, Kind, Scope, Strategy},
    typed::Typed,
};

/// Event, in the core group.
pub fn kind() -> Kind {
    Kind {
        short: &["ev"],
        columns: const {
            &[
                column("Last Seen", |o, now| last_seen(o, now).into()),
                column("Type", |o, _| text(o, "/type")),
                column("Reason", |o, _| text(o, "/reason")),
                column("Object", |o, _| object(o).into()),
                wide("Subobject", |o, _| text(o, "/involvedObject/fieldPath")),
                wide("Source", |o, _| source(o).into()),
                column("Message", |o, _| text(o, "/message").as_str().unwrap_or_default().trim().into()),
                wide("First Seen", |o, now| first_seen(o, now).into()),
                Column { wide: true, ..integer("Count", |o, _| number(o, "/count")) },
                Column { wide: true, ..NAME },
            ]
        },
        strategy: Strategy { fields, ..Strategy::of::<Event>() },
        ..Kind::of::<Event>("events", Scope::Namespaced)
    }
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
    vec![
        ("involvedObject.kind", value("/involvedObject/kind")),
        ("involvedObject.namespace", value("/involvedObject/namespace")),
        ("involvedObject.name", value("/involvedObject/name")),
        ("involvedObject.uid", value("/involvedObject/uid")),
        ("involvedObject.apiVersion", value("/involvedObject/apiVersion")),
        ("involvedObject.resourceVersion", value("/involvedObject/resourceVersion")),
        ("involvedObject.fieldPath", value("/involvedObject/fieldPath")),
        ("reason", value("/reason")),
        ("reportingComponent", value("/reportingComponent")),
        ("source", value("/source/component")),
        ("type", value("/type")),
    ]
}

impl Typed for Event {
    fn validate(&self, bad: &mut Faults) {
        let (own, involved) = (&self.metadata.namespace, &self.involved_object.namespace);
        // What happens to an object without a namespace is told in the default one.
        let expected = involved.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let at = Path::root().field("involvedObject").field("namespace");
        let good = own.as_deref().is_none_or(|own| own == expected);
        bad.unless(good, at, format!("must be the event's own namespace, {}", own.as_deref().unwrap_or_default()));
    }
}
