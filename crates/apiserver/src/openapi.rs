//! OpenAPI v2 and v3 documents of what is served.

use axum::Router;

use crate::Server;

/// `/openapi/v2`, `/openapi/v3` and `/openapi/v3/{path}`.
pub(crate) fn routes() -> Router<Server> {
    Router::new()
}
