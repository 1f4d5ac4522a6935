//! What a token is bound to: it is good as long as that exists.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use store::Store;

use crate::{ApiError, Result};

/// An object that a token may be bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its uid: another object of the same name is not meant.
    pub uid: String,
    /// When its deletion was asked for.
    pub deleted: Option<Timestamp>,
}

/// Finds them.
#[async_trait]
pub trait Holders: Send + Sync + 'static {
    /// The object of the core group; `None` when there is none.
    async fn find(&self, plural: &str, namespace: &str, name: &str) -> Result<Option<Held>>;
}

/// Those in a store.
pub struct StoredHolders(pub Arc<dyn Store>);

#[derive(Deserialize)]
struct Object {
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    uid: String,
    deletion_timestamp: Option<Timestamp>,
}

#[async_trait]
impl Holders for StoredHolders {
    async fn find(&self, plural: &str, namespace: &str, name: &str) -> Result<Option<Held>> {
        let entry = self.0.get(&format!("/registry/core/{plural}/{namespace}/{name}"), None).await?;
        let Some(entry) = entry else { return Ok(None) };
        let object: Object = serde_json::from_slice(&entry.value).map_err(ApiError::internal)?;
        Ok(Some(Held { uid: object.metadata.uid, deleted: object.metadata.deletion_timestamp }))
    }
}
