//! OpenAPI documents of what is served: v3, one for each group and version, and v2 for older clients.
//!
//! They are made when someone asks first, and only their compressed form is kept (about 200 KiB in all).

mod document;
mod gnostic;
mod paths;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    sync::Arc,
};

use axum::{
    Extension, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderMap, StatusCode, Uri, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::{ApiError, Result, Server, attributes::query};

const JSON: &str = "application/json";
/// What kubectl asks for in `Accept`: older versions with an `@`, which no media type may contain, so none is
/// answered with it.
const ASKED: [&str; 2] = ["application/com.github.proto-openapi.spec.v2@v1.0+protobuf", PROTOBUF];
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2`, `/openapi/v3` and `/openapi/v3/{path}`.
pub(crate) fn routes() -> Router<Server> {
    Router::new()
        .route("/openapi/v2", get(v2))
        .route("/openapi/v3", get(index))
        .route("/openapi/v3/{*path}", get(v3))
        .layer(Extension(Arc::<Documents>::default()))
}

/// What was asked for so far.
#[derive(Default)]
struct Documents {
    v2: OnceCell<Document>,
    v2_protobuf: OnceCell<Document>,
    v3: OnceCell<BTreeMap<String, Document>>,
}

impl Documents {
    async fn v3(&self, server: &Server) -> Result<&BTreeMap<String, Document>> {
        let registry = server.config().registry.clone();
        let make = move || {
            let documents = document::v3(&registry).into_iter();
            documents.map(|(path, value)| (path, Document::new(value.to_string().as_bytes()))).collect()
        };
        self.v3.get_or_try_init(|| away(make)).await
    }
}

/// Runs what takes its time where it holds up no other request.
async fn away<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(make).await.map_err(ApiError::internal)
}

async fn v2(
    State(server): State<Server>,
    Extension(documents): Extension<Arc<Documents>>,
    headers: HeaderMap,
) -> Result<Response> {
    let registry = server.config().registry.clone();
    let accept = text(&headers, header::ACCEPT);
    let (document, media) = match ASKED.iter().any(|media| accept.contains(media)) {
        true => {
            let make = move || Document::new(&gnostic::encode(&document::v2(&registry)));
            (documents.v2_protobuf.get_or_try_init(|| away(make)).await?, PROTOBUF)
        }
        false => {
            let make = move || Document::new(document::v2(&registry).to_string().as_bytes());
            (documents.v2.get_or_try_init(|| away(make)).await?, JSON)
        }
    };
    Ok(document.answer(media, &headers, false))
}

async fn index(State(server): State<Server>, Extension(documents): Extension<Arc<Documents>>) -> Result<Response> {
    let url = |(path, document): (&String, &Document)| {
        (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={}", document.hash)}))
    };
    let paths: serde_json::Map<String, Value> = documents.v3(&server).await?.iter().map(url).collect();
    Ok(axum::Json(json!({"paths": paths})).into_response())
}

async fn v3(
    State(server): State<Server>,
    Extension(documents): Extension<Arc<Documents>>,
    Path(path): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let document = documents.v3(&server).await?.get(&path).ok_or_else(ApiError::no_route)?;
    let pinned = query(&uri, "hash").is_some_and(|hash| hash == document.hash);
    Ok(document.answer(JSON, &headers, pinned))
}

/// A document as it is kept.
struct Document {
    gzip: Bytes,
    hash: String,
}

impl Document {
    fn new(bytes: &[u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        // Writing to memory does not fail.
        let _ = encoder.write_all(bytes);
        let gzip = encoder.finish().unwrap_or_default().into();
        let hash = Sha256::digest(bytes)[..16].iter().map(|b| format!("{b:02X}")).collect();
        Self { gzip, hash }
    }

    /// The document for a client, or that it has it already. Behind a URL with its hash it never changes.
    fn answer(&self, media: &'static str, headers: &HeaderMap, pinned: bool) -> Response {
        let tag = format!("\"{}\"", self.hash);
        let caching = if pinned { "public, immutable, max-age=31536000" } else { "no-cache, private" };
        let common = [
            (header::ETAG, tag.clone()),
            (header::CACHE_CONTROL, caching.to_owned()),
            (header::VARY, "Accept, Accept-Encoding".to_owned()),
        ];
        if text(headers, header::IF_NONE_MATCH).split(',').any(|known| known.trim() == tag) {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        let media = [(header::CONTENT_TYPE, media)];
        if text(headers, header::ACCEPT_ENCODING).contains("gzip") {
            return (common, media, [(header::CONTENT_ENCODING, "gzip")], self.gzip.clone()).into_response();
        }
        (common, media, self.plain()).into_response()
    }

    fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        // We wrote it ourselves.
        let _ = GzDecoder::new(&self.gzip[..]).read_to_end(&mut plain);
        plain
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
