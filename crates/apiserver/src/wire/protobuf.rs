//! Request bodies in Kubernetes' protobuf envelope.

use serde_json::Value;

use crate::{ApiError, Result};

/// Decodes `application/vnd.kubernetes.protobuf` into the object's JSON form.
pub(crate) fn decode(_body: &[u8]) -> Result<Value> {
    Err(ApiError::unsupported_media("application/vnd.kubernetes.protobuf", "application/json, application/yaml"))
}
