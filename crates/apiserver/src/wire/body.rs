//! Request bodies.

use std::time::Duration;

use api::{Path, read};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::{JSON, protobuf};
use crate::{ApiError, Result};

/// The largest body that is read.
pub(crate) const LIMIT: usize = 3 << 20;

/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body, decoded, with the fields that were given twice.
pub(crate) type Decoded = (Value, Vec<Path>);

/// Reads a body to its end, or refuses one that is too large.
pub(crate) async fn collect(body: Body) -> Result<Bytes> {
    let read = tokio::time::timeout(PATIENCE, Limited::new(body, LIMIT).collect()).await;
    match read.map_err(|_| ApiError::timeout("the body did not come in time"))? {
        Ok(all) => Ok(all.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(LIMIT)),
        Err(error) => Err(ApiError::bad_request(format!("the body could not be read: {error}"))),
    }
}

/// The media type of a body, without parameters.
pub(crate) fn media(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or(JSON);
    value.split(';').next().unwrap_or_default().trim()
}

/// Decodes an object: JSON, YAML or protobuf.
pub(crate) fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Decoded> {
    let (value, duplicates) = match media(headers) {
        "application/json" | "" => json(body)?,
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(body)?,
        "application/vnd.kubernetes.protobuf" => (protobuf::decode(body)?, Vec::new()),
        other => {
            let want = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
            return Err(ApiError::unsupported_media(other, want));
        }
    };
    Ok((shape(value)?, duplicates))
}

/// Reads JSON.
pub(crate) fn json(body: &[u8]) -> Result<Decoded> {
    let refused = |e| ApiError::bad_request(format!("the body cannot be decoded as JSON: {e}"));
    read::json(body).map_err(refused).map(decoded)
}

/// Reads YAML, of which JSON is a part: one document.
pub(crate) fn yaml(body: &[u8]) -> Result<Decoded> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::bad_request("the body is not UTF-8"))?;
    let refused = |e| ApiError::bad_request(format!("the body cannot be decoded as YAML: {e}"));
    let mut documents = read::yaml(text).map_err(refused)?;
    match documents.pop() {
        Some(document) if documents.is_empty() => Ok(decoded(document)),
        Some(_) => Err(ApiError::bad_request("the body must be one YAML document")),
        None => Err(ApiError::bad_request("the body is empty")),
    }
}

fn decoded(document: read::Document) -> Decoded {
    (document.value, document.duplicates.into_iter().map(|(path, _)| path).collect())
}

/// Makes sure that the parts which the server itself looks at have their form: an object with `metadata`.
pub(crate) fn shape(mut value: Value) -> Result<Value> {
    let Some(map) = value.as_object_mut() else {
        return Err(ApiError::bad_request("the body must be an object"));
    };
    let metadata = map.entry("metadata").or_insert(Value::Null);
    if metadata.is_null() {
        *metadata = Value::Object(Default::default());
    }
    if metadata.is_object() { Ok(value) } else { Err(ApiError::bad_request("metadata must be an object")) }
}
