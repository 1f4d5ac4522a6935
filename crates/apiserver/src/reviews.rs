//! Questions that are answered and forgotten: access and token reviews, and service account tokens.

use api::Kind;
use serde_json::Value;

use crate::{ApiError, Identity, Result, Server};

/// Answers a create of a kind that is not stored; the object is decoded and has its defaults.
pub(crate) async fn answer(
    _server: &Server,
    _identity: &Identity,
    kind: &Kind,
    _namespace: &str,
    _object: Value,
) -> Result<Value> {
    Err(ApiError::method_not_allowed("create", &kind.plural))
}

/// `serviceaccounts/NAME/token`: answers a TokenRequest for an account that exists.
pub(crate) async fn token(_server: &Server, _identity: &Identity, _account: &Value, _request: Value) -> Result<Value> {
    Err(ApiError::method_not_allowed("create", "serviceaccounts/token"))
}
