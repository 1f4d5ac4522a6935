//! One object.

use axum::response::Response;
use http::StatusCode;

use crate::{
    ApiError, Result,
    call::{Call, json_response},
    wire::accept::Form,
};

/// Answers with the object, never staler than the last acknowledged write (`resourceVersion=0` takes any).
pub(super) async fn run(call: &Call) -> Result<Response> {
    let name = &call.at.name;
    let item = if call.query("resourceVersion") == "0" && call.server.cache().is_ready() {
        call.shelf()?.get(&call.item_key(name)).ok_or_else(|| ApiError::not_found(&call.kind, name))?
    } else {
        call.current(name).await?
    };
    match Form::of(&call.headers)? {
        Form::Plain => Ok(json_response(StatusCode::OK, item.json())),
        _ => call.reply(StatusCode::OK, &item.object()),
    }
}
