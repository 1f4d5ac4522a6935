//! Following a part of the store.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use store::{Event, Rev, Store};

/// How long to wait after the store failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What happens to the objects that are followed.
pub(super) enum Change<'a> {
    /// Forget all: what there is follows.
    Anew,
    /// An object is there, or is another now.
    Put {
        /// Its key.
        key: &'a str,
        /// Its JSON.
        value: &'a [u8],
    },
    /// An object is gone.
    Delete {
        /// Its key.
        key: &'a str,
    },
}

/// Tells every change below a prefix, from the first object on.
pub(super) struct Follower<F> {
    store: Arc<dyn Store>,
    prefix: &'static str,
    tell: F,
}

impl<F: Fn(Change<'_>) + Send + Sync + 'static> Follower<F> {
    pub(super) fn new(store: Arc<dyn Store>, prefix: &'static str, tell: F) -> Self {
        Self { store, prefix, tell }
    }

    /// Tells what there is, then goes on in a task of its own as long as the process lives.
    pub(super) async fn start(self) -> store::Result<()> {
        let mut rev = self.list().await?;
        tokio::spawn(async move {
            loop {
                if let Err(error) = self.watch(&mut rev).await {
                    tracing::warn!("following {} in the store: {error}; reading it anew", self.prefix);
                }
                match self.list().await {
                    Ok(listed) => rev = listed,
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        });
        Ok(())
    }

    async fn list(&self) -> store::Result<Rev> {
        let page = self.store.list(self.prefix, None, 0, None).await?;
        (self.tell)(Change::Anew);
        for entry in &page.entries {
            (self.tell)(Change::Put { key: &entry.key, value: &entry.value });
        }
        Ok(page.rev)
    }

    async fn watch(&self, rev: &mut Rev) -> store::Result<()> {
        let mut events = self.store.watch(self.prefix, *rev).await?;
        while let Some(event) = events.next().await {
            match event? {
                Event::Put(entry) => (self.tell)(Change::Put { key: &entry.key, value: &entry.value }),
                Event::Delete { key, .. } => (self.tell)(Change::Delete { key: &key }),
            }
        }
        Ok(())
    }
}
