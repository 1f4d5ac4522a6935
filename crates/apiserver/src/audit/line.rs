//! A record as a line.

use std::{collections::BTreeMap, net::IpAddr};

use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Record, Stage};
use crate::{Identity, attributes};

/// The longest request URI that is kept.
const LONGEST: usize = 4096;

/// Query parameters whose values tell nothing that a reader of the log may not know.
const HARMLESS: &[&str] = &[
    "allowWatchBookmarks",
    "container",
    "continue",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "follow",
    "force",
    "gracePeriodSeconds",
    "hash",
    "includeObject",
    "labelSelector",
    "limit",
    "limitBytes",
    "orphanDependents",
    "ports",
    "pretty",
    "previous",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "sinceSeconds",
    "sinceTime",
    "stderr",
    "stdin",
    "stdout",
    "stream",
    "tailLines",
    "timeout",
    "timeoutSeconds",
    "timestamps",
    "tty",
    "watch",
];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: &'a str,
    user: &'a Identity,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a Identity>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<IpAddr>,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<Object<'a>>,
    response_status: Value,
    request_received_timestamp: String,
    stage_timestamp: String,
    annotations: BTreeMap<&'static str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

/// The record in JSON, with a line feed.
pub(super) fn render(record: &Record<'_>) -> String {
    let at = record.attributes;
    let object_ref = at.is_resource.then_some(Object {
        resource: &at.resource,
        namespace: &at.namespace,
        name: &at.name,
        api_group: &at.group,
        api_version: &at.version,
        subresource: &at.subresource,
    });
    let refused = matches!(record.code, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let allowed = !refused || record.decision.contains(crate::rbac::ALLOWED);
    let event = Event {
        kind: "Event",
        api_version: "audit.k8s.io/v1",
        level: "Metadata",
        audit_id: record.id,
        stage: match record.stage {
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        },
        request_uri: uri(record.uri),
        verb: &at.verb,
        user: record.identity,
        impersonated_user: record.impersonated,
        source_ips: record.source.into_iter().collect(),
        user_agent: cut(record.user_agent, 1024),
        object_ref,
        response_status: json!({"metadata": {}, "code": record.code.as_u16()}),
        request_received_timestamp: time(record.received),
        stage_timestamp: time(record.at),
        annotations: BTreeMap::from([
            ("authorization.k8s.io/decision", if allowed { "allow" } else { "forbid" }),
            ("authorization.k8s.io/reason", record.decision),
        ]),
    };
    let mut line = serde_json::to_string(&event).unwrap_or_default();
    line.push('\n');
    line
}

/// The line that stands for `count` lost ones.
pub(super) fn lost(count: u64, at: Timestamp) -> String {
    let mut line = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "Panic", "verb": "audit",
        "stageTimestamp": time(at), "annotations": {"rastos.io/lost-records": count.to_string()},
    })
    .to_string();
    line.push('\n');
    line
}

/// The path, and the query with what may be secret replaced: of a command only the program is kept.
fn uri(uri: &http::Uri) -> String {
    let mut text = uri.path().to_owned();
    let (mut separator, mut program) = ('?', true);
    for (name, value) in attributes::pairs(uri) {
        let keep = HARMLESS.contains(&name.as_str()) || name == "command" && std::mem::take(&mut program);
        text.push(separator);
        separator = '&';
        text.push_str(&name);
        text.push('=');
        text.push_str(if keep { &value } else { "REDACTED" });
    }
    text.truncate(cut(&text, LONGEST).len());
    text
}

/// At most `length` bytes of a text.
fn cut(text: &str, length: usize) -> &str {
    &text[..text.floor_char_boundary(length)]
}

/// With microseconds, as `metav1.MicroTime`.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
