//! What others need to check service account tokens by themselves: OpenID Connect discovery (RFC 8414) and the keys.

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::{ApiError, Server, authn::ISSUER};

/// Where the keys are.
const KEYS: &str = "/openid/v1/jwks";

/// Both documents; RBAC's role `system:service-account-issuer-discovery` opens them.
pub(crate) fn routes() -> Router<Server> {
    Router::new().route("/.well-known/openid-configuration", get(configuration)).route(KEYS, get(keys))
}

async fn configuration(State(server): State<Server>, request: Request) -> Response {
    if server.config().authenticator.tokens().is_none() {
        return ApiError::no_route().into_response();
    }
    let host = request.headers().get(header::HOST).and_then(|v| v.to_str().ok());
    let base = match request.uri().authority().map(|a| a.as_str()).or(host) {
        // Who got here can get there.
        Some(authority) => format!("https://{authority}"),
        None => ISSUER.to_owned(),
    };
    let body = json!({
        "issuer": ISSUER, "jwks_uri": format!("{base}{KEYS}"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    });
    reply("application/json", &body)
}

async fn keys(State(server): State<Server>) -> Response {
    match server.config().authenticator.tokens() {
        Some(tokens) => reply("application/jwk-set+json", &tokens.jwks()),
        None => ApiError::no_route().into_response(),
    }
}

fn reply(media: &'static str, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "public, max-age=3600")];
    (StatusCode::OK, headers, body.to_string()).into_response()
}
