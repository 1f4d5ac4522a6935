//! One object, encoded.

use std::sync::Arc;

use api::Kind;
use bytes::Bytes;
use serde_json::{Value, json};
use store::Rev;

use crate::{ApiError, Result, selector::Selector};

/// An object as clients get it, with what selects it.
pub(crate) struct Item {
    /// `NAMESPACE/NAME`, or `NAME`.
    pub(crate) key: Box<str>,
    /// The revision that wrote it (of a deleted one: that deleted it).
    pub(crate) rev: Rev,
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[(&'static str, Box<str>)]>,
    /// The JSON of the object, then `}` and a newline: the end of a watch event.
    line: Bytes,
}

/// What a watcher is told.
pub(crate) struct Change {
    /// The object after the change; a deleted one as it last was.
    pub(crate) item: Arc<Item>,
    /// The object before.
    pub(crate) prev: Option<Arc<Item>>,
    /// Whether it is gone.
    pub(crate) deleted: bool,
    /// When the cache saw it.
    pub(crate) seen: tokio::time::Instant,
}

impl Item {
    /// Reads a value of the store and puts in the revision; a value that is no JSON is an error, and logged.
    pub(crate) fn read(kind: &Kind, key: &str, value: &[u8], rev: Rev) -> Result<Self> {
        let mut object: Value =
            serde_json::from_slice(value).map_err(|e| ApiError::internal(format!("decode {key}: {e}")))?;
        if let Some(view) = kind.view {
            (view.read)(&mut object);
        }
        Ok(Self::of(kind, key, object, rev))
    }

    /// Encodes an object at a revision.
    pub(crate) fn of(kind: &Kind, key: &str, mut object: Value, rev: Rev) -> Self {
        let key = key.strip_prefix(kind.key("", "").as_str()).unwrap_or(key);
        set_revision(&mut object, rev);
        let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(k, v)| Some((k.as_str().into(), v.as_str()?.into()))).collect();
        let fields = (kind.strategy.fields)(&object).into_iter().map(|(k, v)| (k, v.into_boxed_str())).collect();
        // Values from memory always encode.
        let mut line = serde_json::to_vec(&object).unwrap_or_default();
        line.extend_from_slice(b"}\n");
        Self { key: key.into(), rev, labels, fields, line: line.into() }
    }

    /// The same object, gone at `rev`.
    pub(crate) fn deleted(&self, kind: &Kind, rev: Rev) -> Self {
        Self::of(kind, &self.key, self.object(), rev)
    }

    /// The JSON of the object.
    pub(crate) fn json(&self) -> Bytes {
        self.line.slice(..self.line.len() - 2)
    }

    /// What follows `{"type":"…","object":` in a watch event.
    pub(crate) fn line(&self) -> Bytes {
        self.line.clone()
    }

    /// The object, decoded.
    pub(crate) fn object(&self) -> Value {
        serde_json::from_slice(&self.json()).unwrap_or_default()
    }

    /// The namespace; empty for cluster-scoped kinds.
    pub(crate) fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(ns, _)| ns)
    }

    /// The name.
    pub(crate) fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// Whether a selector selects it.
    pub(crate) fn is_selected(&self, selector: &Selector) -> bool {
        let label = |key: &str| self.labels.iter().find(|(k, _)| **k == *key).map(|(_, v)| &**v);
        let field = |key: &str| match key {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => self.fields.iter().find(|(k, _)| *k == key).map(|(_, v)| &**v),
        };
        selector.matches(label, field)
    }
}

/// Writes the revision into an object.
pub(crate) fn set_revision(object: &mut Value, rev: Rev) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.insert("resourceVersion".into(), json!(rev.to_string()));
    }
}
