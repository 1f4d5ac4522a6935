//! The newest state of every object as the bytes that clients get, and the latest changes for watchers.
//!
//! Fed by one watch of the store. Objects are kept encoded, with their labels and selectable fields beside
//! them; all readers share the bytes. Of each kind a bounded ring of changes is kept: a watcher that falls
//! behind it must list again.

pub(crate) mod item;
mod shelf;

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{Kind, Registry};
use futures::{FutureExt, StreamExt, stream::BoxStream};
use store::{Entry, Event, Rev, Store};
use tokio::sync::watch;

pub(crate) use item::{Change, Item};
pub(crate) use shelf::Shelf;

use crate::{ApiError, Result, status::chain};

/// Under which all objects lie in the store.
pub(crate) const ROOT: &str = "/registry/";

/// How long a reader waits for the cache to reach a revision.
const PATIENCE: Duration = Duration::from_secs(3);

/// Changes older than this are dropped from the rings.
const RING_AGE: Duration = Duration::from_secs(300);

pub(crate) struct Cache {
    /// By the prefix of their keys; of a kind that is served in several forms, one a form.
    shelves: HashMap<String, Vec<Arc<Shelf>>>,
    /// Everything up to this revision is on the shelves; `None` until the first list is.
    applied: watch::Sender<Option<Rev>>,
    store: Arc<dyn Store>,
}

impl Cache {
    pub(crate) fn new(store: Arc<dyn Store>, registry: &Registry) -> Arc<Self> {
        let mut shelves = HashMap::<String, Vec<Arc<Shelf>>>::new();
        for kind in registry.kinds().iter().filter(|k| k.stored) {
            shelves.entry(kind.key("", "")).or_default().push(Arc::new(Shelf::new(kind.clone())));
        }
        Arc::new(Self { shelves, applied: watch::Sender::new(None), store })
    }

    /// The objects of a kind.
    pub(crate) fn shelf(&self, kind: &Kind) -> Result<&Arc<Shelf>> {
        let forms = self.shelves.get(&kind.key("", "")).into_iter().flatten();
        forms.into_iter().find(|shelf| shelf.kind().group == kind.group).ok_or_else(ApiError::no_route)
    }

    /// Whether the first list has been read.
    pub(crate) fn is_ready(&self) -> bool {
        self.applied.borrow().is_some()
    }

    /// Waits until the first list has been read.
    pub(crate) async fn ready(&self) {
        // The sender is a part of this cache: it outlives the wait.
        let _ = self.applied.subscribe().wait_for(Option::is_some).await;
    }

    /// Everything up to here is on the shelves.
    pub(crate) fn applied(&self) -> Rev {
        self.applied.borrow().unwrap_or_default()
    }

    /// Waits until every commit acknowledged before this call is on the shelves.
    pub(crate) async fn fresh(&self) -> Result<Rev> {
        let rev = self.store.revision().await?;
        self.reach(rev).await
    }

    /// Waits for a revision that a client names; one that the store has not reached either is refused at once.
    pub(crate) async fn named(&self, rev: Rev) -> Result<Rev> {
        if rev > self.applied() && rev > self.store.revision().await? {
            return Err(self.too_new(rev));
        }
        self.reach(rev).await
    }

    fn too_new(&self, rev: Rev) -> ApiError {
        let mut error = ApiError::timeout(format!("Too large resource version: {rev}, current: {}", self.applied()));
        error.details = serde_json::json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        });
        error
    }

    /// Waits until `rev` is on the shelves; an error when that takes too long.
    pub(crate) async fn reach(&self, rev: Rev) -> Result<Rev> {
        let there = |at: &Option<Rev>| at.is_some_and(|at| at >= rev);
        if there(&self.applied.borrow()) {
            return Ok(self.applied());
        }
        let mut applied = self.applied.subscribe();
        // What the wait gives holds a read lock: a second one, with a writer waiting in between, would never come.
        let reached = tokio::time::timeout(PATIENCE, applied.wait_for(there)).await.is_ok();
        if reached { Ok(self.applied()) } else { Err(self.too_new(rev)) }
    }

    /// Follows the store for ever; an error of the watch is answered by listing again.
    pub(crate) async fn follow(self: Arc<Self>) {
        loop {
            if let Err(error) = self.follow_once().await {
                tracing::warn!("watch of the store ended, listing again: {}", chain(&error));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn follow_once(&self) -> store::Result<()> {
        let rev = self.list_all().await?;
        let mut events = self.store.watch(ROOT, rev).await?;
        let mut age = tokio::time::interval(RING_AGE / 5);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.take_in(event?, &mut events)?,
                    None => return Ok(()),
                },
                _ = age.tick() => self.shelves.values().flatten().for_each(|s| s.forget_before(RING_AGE)),
            }
        }
    }

    /// Brings all shelves to one revision, page by page.
    async fn list_all(&self) -> store::Result<Rev> {
        let rev = self.store.revision().await?;
        for (prefix, forms) in &self.shelves {
            let mut seen: Vec<Entry> = Vec::new();
            loop {
                let after = seen.last().map(|e| e.key.clone());
                let page = self.store.list(prefix, after.as_deref(), 500, Some(rev)).await?;
                let more = page.more;
                seen.extend(page.entries);
                if !more {
                    break;
                }
            }
            forms.iter().for_each(|shelf| shelf.replace_all(seen.clone(), rev));
        }
        self.applied.send_replace(Some(rev));
        Ok(rev)
    }

    /// Takes in an event and those that are there behind it: the events of one revision come together, and no
    /// reader may see a part of them.
    fn take_in(&self, first: Event, events: &mut BoxStream<'static, store::Result<Event>>) -> store::Result<()> {
        let mut batch = vec![first];
        // Unconstrained: tokio's budget must not end the batch within a revision.
        while let Some(Some(event)) = tokio::task::unconstrained(events.next()).now_or_never() {
            batch.push(event?);
        }
        let last = batch.last().map(Event::rev);
        let mut runs = HashMap::<String, Vec<Event>>::new();
        for event in batch {
            // `/registry/GROUP/PLURAL/`: what comes up to the fourth slash.
            let end = event.key().match_indices('/').nth(3).map_or(0, |(at, _)| at + 1);
            runs.entry(event.key()[..end].to_owned()).or_default().push(event);
        }
        for (prefix, events) in runs {
            for shelf in self.shelves.get(&prefix).into_iter().flatten() {
                shelf.take_in(events.clone());
            }
        }
        self.applied.send_replace(last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{atomic::AtomicBool, atomic::Ordering::Relaxed, mpsc};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_revision_that_nobody_has_seen_is_refused_at_once() {
        let cache = Cache::new(Arc::new(store::Memory::default()), &Registry::new(vec![]));
        let before = tokio::time::Instant::now();
        assert!(cache.named(Rev(9_999_999)).await.unwrap_err().message.contains("Too large resource version"));
        assert!(before.elapsed() < PATIENCE);
    }

    /// Whoever waits for a revision must not read the newest one while it still holds what told it of it: with a writer
    /// in between neither would ever go on. So many readers and waits that one of them is interrupted just there.
    #[test]
    fn reaching_a_revision_never_blocks_the_one_that_brings_it() {
        const READERS: usize = 16;
        const WAITS: usize = 10_000;
        let cache = Cache::new(Arc::new(store::Memory::default()), &Registry::new(vec![]));
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let (cache, over) = (cache.clone(), over.clone());
            std::thread::spawn(move || {
                while !over.load(Relaxed) {
                    cache.applied.send_modify(|at| *at = Some(Rev(at.unwrap_or_default().0 + 1)));
                }
            });
        }
        let (done, ended) = mpsc::channel();
        for _ in 0..READERS {
            let (cache, done) = (cache.clone(), done.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
                runtime.block_on(async {
                    for _ in 0..WAITS {
                        cache.reach(Rev(cache.applied().0 + 2)).await.expect("it comes");
                    }
                });
                done.send(())
            });
        }
        for _ in 0..READERS {
            ended.recv_timeout(Duration::from_secs(120)).expect("a reader hangs");
        }
        over.store(true, Relaxed);
    }
}
