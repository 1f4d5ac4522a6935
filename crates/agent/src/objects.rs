//! ConfigMaps and Secrets that pods refer to: fetched when needed, kept for a short while.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

/// What kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Source {
    ConfigMap,
    Secret,
}

impl Source {
    /// As upstream's messages call it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// The entries of an object.
pub type Entries = Arc<BTreeMap<String, Vec<u8>>>;

/// Many pods that start at once ask once; a change is seen by starts this much later.
const FRESH: Duration = Duration::from_secs(2);
const MOST: usize = 256;

type Key = (Source, String, String);

/// Fetches objects by name.
pub struct Objects {
    client: Client,
    kept: Mutex<HashMap<Key, (Instant, Option<Entries>)>>,
}

impl Objects {
    /// Through this client.
    pub fn new(client: Client) -> Self {
        Self { client, kept: Mutex::default() }
    }

    /// The entries of an object; `None` when there is no such object. At most [`FRESH`] old when it exists; a missing
    /// one is asked for each time.
    pub async fn get(&self, source: Source, namespace: &str, name: &str) -> Result<Option<Entries>, kube::Error> {
        let key = (source, namespace.to_string(), name.to_string());
        if let Some((at, Some(entries))) = self.kept().get(&key)
            && at.elapsed() < FRESH
        {
            return Ok(Some(entries.clone()));
        }
        let entries = match source {
            Source::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                api.get_opt(name).await?.map(|o| {
                    let text = o.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes()));
                    text.chain(o.binary_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0))).collect()
                })
            }
            Source::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
                api.get_opt(name)
                    .await?
                    .map(|o| o.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect())
            }
        };
        let entries: Option<Entries> = entries.map(Arc::new);
        let mut kept = self.kept();
        if kept.len() >= MOST {
            kept.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if kept.len() < MOST {
            kept.insert(key, (Instant::now(), entries.clone()));
        }
        Ok(entries)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (Instant, Option<Entries>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
