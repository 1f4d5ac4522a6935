//! All objects of one kind, and its latest changes.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashSet, VecDeque},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use api::Kind;
use store::{Entry, Rev};
use tokio::sync::watch;

use super::{Change, Item};
use crate::{ApiError, Result};

/// Changes kept for watchers: at most so many …
const RING: usize = 4096;
/// … and at most so many bytes.
const RING_BYTES: usize = 4 << 20;

pub(crate) struct Shelf {
    kind: Arc<Kind>,
    state: RwLock<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    items: BTreeSet<Keyed>,
    ring: VecDeque<Arc<Change>>,
    bytes: usize,
    /// Changes up to here are no longer in the ring.
    floor: Rev,
    /// The newest change.
    last: Rev,
}

/// Orders items by key without a second copy of it.
struct Keyed(Arc<Item>);

impl Shelf {
    pub(crate) fn new(kind: Arc<Kind>) -> Self {
        Self { kind, state: RwLock::default(), changed: watch::Sender::new(()) }
    }

    /// One object by `NAMESPACE/NAME` or `NAME`.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Item>> {
        self.read().items.get(key).map(|k| k.0.clone())
    }

    /// At most `limit` (0: all) objects that `keep` accepts, in key order, whose key starts with `prefix` and is
    /// greater than `after`; how many more there are; and the revision that they show, given that everything up
    /// to `applied` is on the shelf.
    pub(crate) fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        applied: Rev,
        keep: impl Fn(&Item) -> bool,
    ) -> (Vec<Arc<Item>>, usize, Rev) {
        let state = self.read();
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let range = state.items.range::<str, _>((from, Bound::Unbounded));
        let mut kept = range.map(|k| &k.0).take_while(|i| i.key.starts_with(prefix)).filter(|i| keep(i));
        let items = kept.by_ref().take(if limit == 0 { usize::MAX } else { limit }).cloned().collect();
        (items, kept.count(), applied.max(state.last))
    }

    /// All changes after `from`, and the revision that one is at with them, given that everything up to
    /// `applied` is on the shelf. Expired when some of them are no longer kept.
    pub(crate) fn changes(&self, from: Rev, applied: Rev) -> Result<(Vec<Arc<Change>>, Rev)> {
        let state = self.read();
        if from < state.floor {
            let message = format!("too old resource version: {from} ({}); list again", state.floor);
            return Err(ApiError::gone(message));
        }
        let start = state.ring.partition_point(|c| c.item.rev <= from);
        Ok((state.ring.range(start..).cloned().collect(), applied.max(state.last).max(from)))
    }

    /// Tells of every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// An object was written.
    pub(crate) fn put(&self, entry: Entry) {
        match Item::read(&self.kind, &entry.key, &entry.value, entry.modified) {
            Ok(item) => self.record([(Arc::new(item), false)]),
            Err(error) => tracing::error!(key = entry.key, "an object cannot be read: {error}"),
        }
    }

    /// An object was removed.
    pub(crate) fn delete(&self, key: &str, rev: Rev) {
        let prefix = self.kind.key("", "");
        if let Some(item) = self.get(key.strip_prefix(&prefix).unwrap_or(key)) {
            self.record([(Arc::new(item.deleted(&self.kind, rev)), true)]);
        }
    }

    /// Makes the shelf hold exactly `entries`, as they are at `rev`; what differs becomes changes.
    pub(crate) fn replace_all(&self, entries: Vec<Entry>, rev: Rev) {
        let prefix = self.kind.key("", "");
        let first = self.read().items.is_empty();
        let live: HashSet<&str> = entries.iter().map(|e| e.key.strip_prefix(&prefix).unwrap_or(&e.key)).collect();
        let gone: Vec<_> =
            self.read().items.iter().filter(|k| !live.contains(&*k.0.key)).map(|k| k.0.clone()).collect();
        let mut changes: Vec<(Arc<Item>, bool)> =
            gone.into_iter().map(|item| (Arc::new(item.deleted(&self.kind, rev)), true)).collect();
        for entry in &entries {
            match Item::read(&self.kind, &entry.key, &entry.value, entry.modified) {
                Ok(item) if self.get(&item.key).is_none_or(|old| old.rev < item.rev) => {
                    changes.push((Arc::new(item), false));
                }
                Ok(_) => {}
                Err(error) => tracing::error!(key = entry.key, "an object cannot be read: {error}"),
            }
        }
        changes.sort_by_key(|(item, _)| item.rev);
        self.record(changes);
        if first {
            let mut state = self.write();
            (state.ring, state.bytes, state.floor) = (VecDeque::new(), 0, rev);
        }
    }

    /// Drops changes that were seen longer ago than this.
    pub(crate) fn forget_before(&self, age: Duration) {
        let mut state = self.write();
        while state.ring.front().is_some_and(|c| c.seen.elapsed() > age) {
            state.pop();
        }
        if state.ring.is_empty() {
            state.ring.shrink_to_fit();
        }
    }

    fn record(&self, changes: impl IntoIterator<Item = (Arc<Item>, bool)>) {
        let mut state = self.write();
        for (item, deleted) in changes {
            let prev = if deleted { state.items.take(&*item.key) } else { state.items.replace(Keyed(item.clone())) };
            state.last = state.last.max(item.rev);
            state.bytes += item.line().len();
            let prev = prev.map(|k| k.0);
            state.ring.push_back(Arc::new(Change { item, prev, deleted, seen: tokio::time::Instant::now() }));
            while state.ring.len() > RING || (state.bytes > RING_BYTES && state.ring.len() > 1) {
                state.pop();
            }
        }
        drop(state);
        self.changed.send_replace(());
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pop(&mut self) {
        if let Some(change) = self.ring.pop_front() {
            self.bytes -= change.item.line().len();
            self.floor = self.floor.max(change.item.rev);
        }
    }
}

impl Borrow<str> for Keyed {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Keyed {}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.key.cmp(&other.0.key)
    }
}
