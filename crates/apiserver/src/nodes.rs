//! The way to the node of a pod: logs, exec, attach, port-forward.

use async_trait::async_trait;
use axum::{body::Body, response::Response};

/// Passes requests on to nodes.
#[async_trait]
pub trait Nodes: Send + Sync + 'static {
    /// Sends `request`, in the URL form of the kubelet, to `node` and gives back its answer. The request keeps
    /// its upgrade extension, so that a node in this process can take over the connection.
    async fn forward(&self, node: &str, request: http::Request<Body>) -> Response;
}
