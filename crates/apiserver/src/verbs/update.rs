//! A whole object, or part of one, replaced.

use axum::response::Response;
use http::StatusCode;

use super::write::{Part, Tracking, modify};
use crate::{Result, call::Call};

/// Replaces the object by the one in the body.
pub(super) async fn run(call: &Call, part: Part) -> Result<Response> {
    let body = call.draft()?;
    let object = modify(call, &call.at.name, part, Tracking::Update, |_| Ok(body.clone())).await?;
    call.reply(StatusCode::OK, &object)
}
