//! Errors as clients see them: `metav1.Status`.

use api::{Cause, Faults, Kind};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{attributes::Attributes, identity::Identity};

/// A refusal or failure of a request. What a client may not know never gets into it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub code: StatusCode,
    /// `metav1.StatusReason`.
    pub reason: &'static str,
    /// What went wrong and what to do about it.
    pub message: String,
    /// `metav1.StatusDetails`; null when there are none. A `continue` goes to the status' own metadata.
    pub details: Value,
}

/// The result of anything that can end in a [`ApiError`].
pub type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    /// An error without details.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    /// An error about one object.
    pub fn about(self, kind: &Kind, name: &str) -> Self {
        Self { details: json!({"name": name, "group": kind.group, "kind": kind.plural}), ..self }
    }

    /// The object does not exist.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{} {name:?} not found", qualified(kind)))
            .about(kind, name)
    }

    /// Nothing is served at this path.
    pub fn no_route() -> Self {
        let error = Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource");
        // Clients tell it by details without a name from an object that is not there.
        Self { details: json!({}), ..error }
    }

    /// An object of that name exists already.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(kind));
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(kind, name)
    }

    /// The object is not in the state the request was made for.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(kind));
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    /// The object is well-formed and may not stand: 422, every fault a cause with its field.
    pub fn invalid(kind: &Kind, name: &str, faults: &Faults) -> Self {
        Self::unfit(&kind.group, &kind.kind, name, faults)
    }

    /// The same of something that is no object of its own, e.g. options.
    pub fn unfit(group: &str, kind: &str, name: &str, faults: &Faults) -> Self {
        let message = format!("{} {name:?} is invalid: {}", dotted(kind, group), listed(faults));
        let details = json!({"name": name, "group": group, "kind": kind, "causes": causes(faults)});
        Self { details, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message) }
    }

    /// The object is not of its kind's form: 400, every fault a cause with its field.
    pub fn undecodable(kind: &Kind, name: &str, faults: &Faults) -> Self {
        let message = format!("{} {name:?} cannot be decoded: {}", qualified_kind(kind), listed(faults));
        let mut error = Self::bad_request(message).about(kind, name);
        error.details["causes"] = causes(faults);
        error
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// This identity may not do this; `why` comes from the authoriser.
    pub fn forbidden(identity: &Identity, at: &Attributes, why: &str) -> Self {
        let what = if at.is_resource {
            let slash = if at.subresource.is_empty() { "" } else { "/" };
            let scope = match at.namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                ns => format!("in the namespace {ns:?}"),
            };
            format!(
                "cannot {} resource \"{}{slash}{}\" in API group {:?} {scope}",
                at.verb, at.resource, at.subresource, at.group
            )
        } else {
            format!("cannot {} path {:?}", at.verb, at.path)
        };
        let name = if at.name.is_empty() { String::new() } else { format!(" {:?}", at.name) };
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let subject = match at.group.as_str() {
            "" => at.resource.clone(),
            group => format!("{}.{group}", at.resource),
        };
        let message = format!("{subject}{name} is forbidden: User {:?} {what}{why}", identity.user);
        let mut error = Self::new(StatusCode::FORBIDDEN, "Forbidden", message.trim_start().to_owned());
        error.details = json!({"name": at.name, "group": at.group, "kind": at.resource});
        error
    }

    /// Admission refuses this object.
    pub fn refused(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", qualified(kind));
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(kind, name)
    }

    /// No or wrong credentials.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// The answer can be had in none of the forms that the client takes.
    pub fn not_acceptable(message: &str) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// A revision or continue token is too old: list again.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// Too much at once: try again after so many seconds.
    pub fn too_many(message: impl Into<String>, retry_seconds: u32) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        error.details = json!({"retryAfterSeconds": retry_seconds});
        error
    }

    /// Not in the time given.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    /// Not possible right now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// What would be changed could not be written to the audit log.
    pub fn unaudited() -> Self {
        let mut error = Self::unavailable(
            "nothing was changed: the audit log cannot be written, and too many records wait for it. To do: free space on \
             its disk (rast's own log tells the cause); reads go on, and changes work again once it can be written",
        );
        error.details = json!({"retryAfterSeconds": 1});
        error
    }

    /// The disk is full: nothing was written.
    pub fn full(what: impl std::fmt::Display) -> Self {
        let message = format!(
            "nothing was changed: {what}. To do: free space on the disk of the API's state, e.g. remove images that \
             no container uses (`rast images remove`); reads go on, and writes work again once there is room"
        );
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "InsufficientStorage", message)
    }

    /// The body is of a form that is not understood here.
    pub fn unsupported_media(got: &str, want: &str) -> Self {
        let message = format!("the body of the request was in an unknown format {got:?}; accepted are: {want}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// The body is larger than is taken.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body of the request is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// The resource exists and does not know this verb.
    pub fn method_not_allowed(verb: &str, resource: &str) -> Self {
        let message = format!("{verb} is not supported on {resource}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// A failure of the server: the cause goes to the log, the client gets the id to find it there.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let id = uuid::Uuid::new_v4();
        tracing::error!(%id, "internal error: {cause:#}");
        let message = format!("Internal error occurred; the server's log tells more under {id}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// The `metav1.Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        let mut details = self.details.clone();
        if let Some(rest) = details.as_object_mut().and_then(|details| details.shift_remove("continue")) {
            status["metadata"]["continue"] = rest;
        }
        if !details.is_null() {
            status["details"] = details;
        }
        status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.code, axum::Json(self.status())).into_response();
        if let Some(seconds) = self.details["retryAfterSeconds"].as_u64() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Compacted { .. } => Self::gone(error.to_string()),
            store::Error::Conflict { .. } => Self::new(StatusCode::CONFLICT, "Conflict", error.to_string()),
            store::Error::Future { .. } => Self::timeout(format!("Too large resource version: {error}")),
            store::Error::Full { .. } => Self::full("the disk is full"),
            error => Self::internal(chain(&error)),
        }
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// `deployments.apps`.
fn qualified(kind: &Kind) -> String {
    dotted(&kind.plural, &kind.group)
}

/// `Deployment.apps`.
fn qualified_kind(kind: &Kind) -> String {
    dotted(&kind.kind, &kind.group)
}

fn dotted(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

fn listed(faults: &Faults) -> String {
    let all: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
    if all.len() == 1 { all[0].clone() } else { format!("[{}]", all.join(", ")) }
}

fn causes(faults: &Faults) -> Value {
    let cause = |f: &api::Fault| {
        let reason = match f.cause {
            Cause::Required => "FieldValueRequired",
            Cause::Invalid => "FieldValueInvalid",
            Cause::NotSupported => "FieldValueNotSupported",
            Cause::Forbidden => "FieldValueForbidden",
            Cause::Duplicate => "FieldValueDuplicate",
            Cause::NotFound => "FieldValueNotFound",
        };
        json!({"reason": reason, "message": f.message, "field": f.path.to_string()})
    };
    faults.0.iter().map(cause).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_what_to_do() {
        let status = ApiError::from(store::Error::Full { path: "/secret/store".into() }).status();
        assert_eq!((&status["code"], &status["reason"]), (&json!(507), &json!("InsufficientStorage")));
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("nothing was changed: the disk is full. To do: free space"), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}
