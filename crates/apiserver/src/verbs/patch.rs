//! An object changed by a patch of one of four types.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    create::insert,
    options,
    write::{self, Part, Tracking, modify},
};
use crate::{
    ApiError, Result,
    call::Call,
    merge::{apply, json as plain, strategic},
    wire::body,
};

/// The media type of a configuration to be applied.
const APPLY: &str = "application/apply-patch+yaml";

/// A patch, decoded.
pub(super) enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

/// Patches the object; an apply creates it when it does not exist.
pub(super) async fn run(call: &Call, part: Part) -> Result<Response> {
    let patch = Patch::decode(call)?;
    let name = &call.at.name;
    let Patch::Apply(config) = &patch else {
        let object = modify(call, name, part, Tracking::Update, |old| patch.on(call, old)).await?;
        return call.reply(StatusCode::OK, &object);
    };
    let changed = modify(call, name, part, Tracking::Applied, |old| applied(call, old, config)).await;
    match changed {
        Err(error) if error.code == StatusCode::NOT_FOUND && part == Part::Main => {
            if config["metadata"]["uid"].is_string() {
                let why = "the object does not exist, and the applied configuration has a uid";
                return Err(ApiError::conflict(&call.kind, name, why));
            }
            // A right to patch what there is is none to make what there is not.
            call.may("create")?;
            let object = insert(call, applied(call, &Value::Null, config)?, Tracking::Applied).await?;
            call.reply(StatusCode::CREATED, &object)
        }
        changed => call.reply(StatusCode::OK, &changed?),
    }
}

impl Patch {
    /// Reads the body by its media type.
    pub(super) fn decode(call: &Call) -> Result<Self> {
        let media = body::media(&call.headers);
        options::patch(call, media == APPLY)?;
        match media {
            "application/json-patch+json" => body::json(&call.body).map(|d| Self::Json(call.sound(d))),
            "application/merge-patch+json" => body::json(&call.body).map(|d| Self::Merge(call.sound(d))),
            "application/strategic-merge-patch+json" => body::json(&call.body).map(|d| Self::Strategic(call.sound(d))),
            APPLY => body::yaml(&call.body).and_then(|d| body::shape(call.sound(d))).map(Self::Apply),
            other => {
                let want = "application/json-patch+json, application/merge-patch+json, \
                            application/strategic-merge-patch+json, application/apply-patch+yaml";
                Err(ApiError::unsupported_media(other, want))
            }
        }
    }

    /// The patched object.
    pub(super) fn on(&self, call: &Call, object: &Value) -> Result<Value> {
        match self {
            Self::Json(patch) => plain::patch(object, patch),
            Self::Merge(patch) => plain::merge(object, patch),
            Self::Strategic(patch) => strategic::patch(&call.kind, object, patch),
            Self::Apply(config) => applied(call, object, config),
        }
    }
}

/// What applying `config` makes of `live` (null: of nothing).
fn applied(call: &Call, live: &Value, config: &Value) -> Result<Value> {
    let mut config = config.clone();
    if config["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil in an applied configuration"));
    }
    config["metadata"]["name"] = config["metadata"].get("name").cloned().unwrap_or_else(|| json!(call.at.name));
    let version = &config["metadata"]["resourceVersion"];
    if version.as_str().is_some_and(|v| !v.is_empty()) && live.is_null() {
        return Err(ApiError::conflict(
            &call.kind,
            &call.at.name,
            "the object to be applied at a revision does not exist",
        ));
    }
    // Decoding gives names and types their form (quantities stay as written), and finds unknown fields.
    let decoded = write::decode(call, config.clone())?;
    let mut stated = restrict(&config, &decoded);
    write::place(call, &mut stated)?;
    if let Some(item) = apply::twice(&call.kind, &stated) {
        return Err(ApiError::bad_request(format!("the applied configuration states an item twice: {item}")));
    }
    let (manager, now) = (call.manager(), call.now_text());
    let writer = write::writer(call, &manager, &now);
    apply::apply(live, &stated, &writer, call.flag("force")).map_err(|conflicts| {
        let count = conflicts.len();
        let listed: Vec<String> = conflicts.iter().map(|c| format!("conflict with {}: {}", c.manager, c.field)).collect();
        let message = format!(
            "Apply failed with {count} conflict{}: {}",
            if count == 1 { "" } else { "s" },
            listed.join(", ")
        );
        let mut error = ApiError::new(StatusCode::CONFLICT, "Conflict", message);
        let cause = |c: &apply::Conflict| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {}", c.manager), "field": c.field})
        };
        error.details = json!({"causes": conflicts.iter().map(cause).collect::<Vec<_>>()});
        error
    })
}

/// The fields that were stated, with the values that decoding made of them: what decoding adds is not stated.
fn restrict(stated: &Value, decoded: &Value) -> Value {
    match (stated, decoded) {
        (Value::Object(stated), Value::Object(decoded)) => {
            let kept = stated.iter().filter_map(|(k, v)| Some((k.clone(), restrict(v, decoded.get(k)?))));
            Value::Object(kept.collect())
        }
        (Value::Array(stated), Value::Array(decoded)) if stated.len() == decoded.len() => {
            stated.iter().zip(decoded).map(|(s, d)| restrict(s, d)).collect()
        }
        (_, decoded) => decoded.clone(),
    }
}
