//! `autoscaling/v1` Scale of anything that has `spec.replicas`.

use api::{
    Verb,
    scale::{apply_scale, scale_of},
};
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{
    patch::Patch,
    write::{Part, Tracking, modify},
};
use crate::{
    ApiError, Result,
    call::{Call, json_response},
};

/// The scale of the object.
pub(super) async fn get(call: &Call) -> Result<Response> {
    let object = call.current(&call.at.name).await?.object();
    Ok(json_response(StatusCode::OK, scale_of(&object).to_string().into()))
}

/// Sets `spec.replicas` by a Scale or a patch of one.
pub(super) async fn set(call: &Call, verb: Verb) -> Result<Response> {
    let body = if verb == Verb::Update { Some(call.object()?) } else { None };
    let patch = if verb == Verb::Patch { Some(Patch::decode(call)?) } else { None };
    let change = |old: &Value| {
        let wanted = match (&body, &patch) {
            (_, Some(Patch::Apply(config))) => config.clone(),
            (_, Some(patch)) => patch.on(call, &scale_of(old))?,
            (Some(body), None) => body.clone(),
            (None, None) => scale_of(old),
        };
        let mut new = old.clone();
        let refused = |faults| ApiError::invalid(&call.kind, &call.at.name, &faults);
        apply_scale(&mut new, &wanted).map_err(refused)?;
        if let Some(uid) = wanted["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
            new["metadata"]["uid"] = uid.into();
        }
        Ok(new)
    };
    let object = modify(call, &call.at.name, Part::Main, Tracking::Update, change).await?;
    Ok(json_response(StatusCode::OK, scale_of(&object).to_string().into()))
}
