//! One object.

use axum::response::Response;
use http::StatusCode;
use store::Rev;

use super::list::revision;
use crate::{
    ApiError, Result,
    call::{Call, json_response},
    wire::accept::Form,
};

/// Answers with the object, never staler than the last acknowledged write, or than the revision that the client names
/// (`resourceVersion=0` takes any).
pub(super) async fn run(call: &Call) -> Result<Response> {
    let name = &call.at.name;
    let cache = call.server.cache();
    match revision(call.query("resourceVersion"))? {
        Some(Rev(0)) if cache.is_ready() => cache.applied(),
        None | Some(Rev(0)) => cache.fresh().await?,
        Some(rev) => cache.named(rev).await?,
    };
    let item = call.shelf()?.get(&call.item_key(name)).ok_or_else(|| ApiError::not_found(&call.kind, name))?;
    match Form::of(&call.headers)? {
        Form::Plain => Ok(json_response(StatusCode::OK, item.json())),
        _ => call.reply(StatusCode::OK, &item.object()),
    }
}
