//! All objects of one kind, and its latest changes.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashSet, VecDeque},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use api::Kind;
use store::{Entry, Event, Rev};
use tokio::sync::watch;

use super::{Change, Item};
use crate::{ApiError, Result};

/// Changes kept for watchers: at most so many …
const RING: usize = 4096;
/// … and at most so many bytes.
const RING_BYTES: usize = 4 << 20;

pub(crate) struct Shelf {
    kind: Arc<Kind>,
    /// What the store's keys of this kind begin with.
    prefix: String,
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

/// What the store tells, read.
enum News {
    Put(Arc<Item>),
    Gone(Box<str>, Rev),
}

/// Orders items by key without a second copy of it.
struct Keyed(Arc<Item>);

impl Shelf {
    pub(crate) fn new(kind: Arc<Kind>) -> Self {
        Self { prefix: kind.key("", ""), kind, state: RwLock::default(), changed: watch::Sender::new(()) }
    }

    /// What lies here.
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
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

    /// Takes in what the store tells, all at once for those who read.
    pub(crate) fn take_in(&self, events: Vec<Event>) {
        let read = |event| match event {
            Event::Put(entry) => self.item(&entry).map(News::Put),
            Event::Delete { key, rev } => Some(News::Gone(self.suffix(&key).into(), rev)),
        };
        self.record(events.into_iter().filter_map(read).collect());
    }

    /// Makes the shelf hold exactly `entries`, as they are at `rev`; what differs becomes changes.
    pub(crate) fn replace_all(&self, entries: Vec<Entry>, rev: Rev) {
        let first = self.read().items.is_empty();
        let live: HashSet<&str> = entries.iter().map(|e| self.suffix(&e.key)).collect();
        let gone = |k: &Keyed| (!live.contains(&*k.0.key)).then(|| News::Gone(k.0.key.clone(), rev));
        let mut news: Vec<News> = self.read().items.iter().filter_map(gone).collect();
        let is_new = |e: &&Entry| self.get(self.suffix(&e.key)).is_none_or(|old| old.rev < e.modified);
        news.extend(entries.iter().filter(is_new).filter_map(|e| self.item(e)).map(News::Put));
        news.sort_by_key(News::rev);
        self.record(news);
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

    fn record(&self, news: Vec<News>) {
        let mut state = self.write();
        for news in news {
            let (item, prev, deleted) = match news {
                News::Put(item) => {
                    let prev = state.items.replace(Keyed(item.clone()));
                    (item, prev.map(|k| k.0), false)
                }
                News::Gone(key, rev) => {
                    let Some(Keyed(item)) = state.items.take(&*key) else { continue };
                    (Arc::new(item.deleted(&self.kind, rev)), Some(item), true)
                }
            };
            state.last = state.last.max(item.rev);
            state.bytes += item.line().len();
            state.ring.push_back(Arc::new(Change { item, prev, deleted, seen: tokio::time::Instant::now() }));
            while state.ring.len() > RING || (state.bytes > RING_BYTES && state.ring.len() > 1) {
                state.pop();
            }
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// An entry as an item; one that cannot be read is left out, and told.
    fn item(&self, entry: &Entry) -> Option<Arc<Item>> {
        Item::read(&self.kind, &entry.key, &entry.value, entry.modified).map(Arc::new).ok()
    }

    /// A key of the store without what all of this kind begin with.
    fn suffix<'k>(&self, key: &'k str) -> &'k str {
        key.strip_prefix(self.prefix.as_str()).unwrap_or(key)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News {
    fn rev(&self) -> Rev {
        match self {
            Self::Put(item) => item.rev,
            Self::Gone(_, rev) => *rev,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, rev: u64) -> Entry {
        let value = serde_json::json!({"metadata": {"name": name, "namespace": "default"}}).to_string();
        let key = format!("/registry/core/configmaps/default/{name}");
        Entry { key, value: value.into(), created: Rev(rev), modified: Rev(rev) }
    }

    /// When the watch of the store has broken it is listed again: who watches must still be told all that happened.
    #[test]
    fn what_was_missed_becomes_changes() {
        let shelf = Shelf::new(Arc::new(crate::testing::configmap()));
        shelf.replace_all(vec![entry("a", 1), entry("b", 2), entry("c", 3)], Rev(3));
        assert!(shelf.changes(Rev(2), Rev(3)).is_err(), "what came before is not known");
        shelf.replace_all(vec![entry("a", 1), entry("b", 5), entry("d", 6)], Rev(7));
        let (changes, rev) = shelf.changes(Rev(3), Rev(7)).expect("all of it is known");
        let told = |c: &Arc<Change>| (c.item.key.to_string(), c.item.rev.0, c.prev.is_some(), c.deleted);
        let told: Vec<_> = changes.iter().map(told).collect();
        let expected = [("b", 5, true, false), ("d", 6, false, false), ("c", 7, true, true)];
        assert_eq!(told, expected.map(|(name, rev, was, gone)| (format!("default/{name}"), rev, was, gone)));
        assert_eq!(rev, Rev(7));
        let (items, ..) = shelf.list("", None, 0, Rev(7), |_| true);
        assert_eq!(items.iter().map(|item| item.name()).collect::<Vec<_>>(), ["a", "b", "d"]);
    }
}
