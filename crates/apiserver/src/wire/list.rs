//! Lists of encoded objects, written block by block.

use std::{io::Write, sync::Arc};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::JSON;
use crate::cache::Item;

/// About how many bytes are handed to the connection at a time.
const BLOCK: usize = 64 << 10;
/// Lists above this are compressed for those who take it.
const GZIP_FROM: usize = 128 << 10;

/// Answers with a list. `head` is the list object without `items`.
pub(crate) fn respond(head: &Value, items: Vec<Arc<Item>>, headers: &HeaderMap) -> Response {
    let mut open = head.to_string();
    open.truncate(open.len() - 1); // reopens the object
    open.push_str(",\"items\":[");
    let commas = items.len().saturating_sub(1);
    let size = open.len() + items.iter().map(|i| i.json().len()).sum::<usize>() + commas + 2;

    let response = Response::builder().status(StatusCode::OK).header(header::CONTENT_TYPE, JSON);
    let first = std::iter::once(Bytes::from(open));
    let between = items.into_iter().enumerate().flat_map(|(i, item)| {
        let comma = (i > 0).then(|| Bytes::from_static(b","));
        comma.into_iter().chain([item.json()])
    });
    let pieces = first.chain(between).chain([Bytes::from_static(b"]}")]);
    let response = if size > GZIP_FROM && takes_gzip(headers) {
        let body = Body::from_stream(stream::iter(gzip(pieces)));
        response.header(header::CONTENT_ENCODING, "gzip").header(header::VARY, "Accept-Encoding").body(body)
    } else {
        response.header(header::CONTENT_LENGTH, size).body(Body::from_stream(stream::iter(blocks(pieces))))
    };
    response.unwrap_or_default()
}

/// `kind: PodList`, `apiVersion`, `metadata`.
pub(crate) fn head(kind: &api::Kind, rev: store::Rev, next: Option<String>, remaining: Option<usize>) -> Value {
    let mut metadata = json!({"resourceVersion": rev.to_string()});
    if let Some(next) = next {
        metadata["continue"] = json!(next);
    }
    if let Some(remaining) = remaining.filter(|r| *r > 0) {
        metadata["remainingItemCount"] = json!(remaining);
    }
    json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata})
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|e| e.trim() == "gzip" || e.trim().starts_with("gzip;q=1"))
}

/// Joins pieces into blocks.
fn blocks(mut pieces: impl Iterator<Item = Bytes>) -> impl Iterator<Item = std::io::Result<Bytes>> {
    std::iter::from_fn(move || {
        let mut block = Vec::new();
        while block.len() < BLOCK {
            match pieces.next() {
                Some(piece) => block.extend_from_slice(&piece),
                None => break,
            }
        }
        (!block.is_empty()).then(|| Ok(block.into()))
    })
}

fn gzip(pieces: impl Iterator<Item = Bytes>) -> impl Iterator<Item = std::io::Result<Bytes>> {
    let mut blocks = blocks(pieces);
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    std::iter::from_fn(move || {
        let gz = encoder.as_mut()?;
        while gz.get_ref().len() < BLOCK / 4 {
            match blocks.next() {
                Some(block) => {
                    if let Err(error) = block.and_then(|b| gz.write_all(&b)) {
                        encoder = None;
                        return Some(Err(error));
                    }
                }
                None => return encoder.take().map(|gz| gz.finish().map(Bytes::from)),
            }
        }
        Some(Ok(std::mem::take(gz.get_mut()).into()))
    })
}
