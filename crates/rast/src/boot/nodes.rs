//! The API server's way to its nodes: the one in this process.

use std::sync::OnceLock;

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
};
use http::{Request, StatusCode};
use tower::ServiceExt as _;

/// The node of this process, once it has joined.
pub struct Here {
    name: String,
    router: OnceLock<Router>,
}

impl Here {
    /// A node that has not joined yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), router: OnceLock::new() }
    }

    /// From now on requests go to this router.
    pub fn join(&self, router: Router) {
        let _joined_before = self.router.set(router);
    }
}

#[async_trait]
impl apiserver::Nodes for Here {
    async fn forward(&self, node: &str, request: Request<Body>) -> Response {
        match self.router.get().filter(|_| node == self.name) {
            Some(router) => router.clone().oneshot(request).await.into_response(),
            None => (StatusCode::BAD_GATEWAY, format!("node {node:?} is not connected")).into_response(),
        }
    }
}
