//! A revisioned key-value store with watch.
//!
//! Every commit gets the next revision. Reads may name a revision that is not compacted yet; a watch
//! starts after a revision and misses nothing. [`Store`] is the seam: one test suite runs against every
//! implementation.

mod embedded;
mod memory;
mod retention;
pub mod suite;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use embedded::Embedded;
pub use memory::Memory;
pub use retention::Retention;

/// A revision of the whole store. Revisions only grow; 0 is the empty store before the first commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rev(pub u64);

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value, as some revision left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value, without the envelope it is stored in.
    pub value: Bytes,
    /// The revision that created the key (deletion and re-creation start anew).
    pub created: Rev,
    /// The revision that wrote this value.
    pub modified: Rev,
}

/// What must hold of a key for a [`Txn`] to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    Modified(Rev),
}

/// One change of a [`Txn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces the key.
    Put(String, Bytes),
    /// Removes the key; removing an absent key changes nothing.
    Delete(String),
}

/// Conditions and the writes that follow when all of them hold. One revision covers all writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Conditions, checked in order.
    pub checks: Vec<(String, Expect)>,
    /// Writes, applied in order.
    pub writes: Vec<Write>,
}

/// One key's change, as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was created or replaced (`entry.created == entry.modified` on creation).
    Put(Entry),
    /// The key was removed at this revision.
    Delete {
        /// The key.
        key: String,
        /// The revision of the removal.
        rev: Rev,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Event::Put(entry) => &entry.key,
            Event::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    pub fn rev(&self) -> Rev {
        match self {
            Event::Put(entry) => entry.modified,
            Event::Delete { rev, .. } => *rev,
        }
    }
}

/// The answer to a list: entries in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The revision that the whole page shows.
    pub rev: Rev,
    /// Whether entries beyond the limit exist.
    pub more: bool,
}

/// What a store could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A condition of a [`Txn`] did not hold; nothing was written.
    #[error("commit: {key} is not as expected; read it again and retry")]
    Conflict {
        /// The key whose condition failed.
        key: String,
        /// What the key holds now, if it exists.
        found: Option<Entry>,
    },
    /// The revision asked for is compacted away; list again and watch from there.
    #[error("revision {asked} is compacted, the oldest kept is {oldest}; list again")]
    Compacted {
        /// The revision asked for.
        asked: Rev,
        /// The oldest revision that can still be read.
        oldest: Rev,
    },
    /// The revision asked for lies in the future.
    #[error("revision {asked} does not exist yet, the newest is {newest}")]
    Future {
        /// The revision asked for.
        asked: Rev,
        /// The newest revision.
        newest: Rev,
    },
    /// The file was written by a newer or foreign program.
    #[error("open {path}: {why}")]
    Format {
        /// The store file.
        path: String,
        /// What is wrong and what to do about it.
        why: String,
    },
    /// Another process has the store open.
    #[error("open {path}: another process has it open; stop that one first")]
    Busy {
        /// The store file.
        path: String,
    },
    /// There is no room; nothing was written, and commits work again once there is.
    #[error("write {path}: no space left; free some and retry")]
    Full {
        /// The store file.
        path: String,
    },
    /// The disk or the engine failed; a commit that ends so may or may not be durable.
    #[error("{doing}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

/// A revisioned key-value store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest revision, at least that of every commit acknowledged before the call.
    async fn revision(&self) -> Result<Rev>;

    /// The entry at `key` as of `at` (`None`: now).
    async fn get(&self, key: &str, at: Option<Rev>) -> Result<Option<Entry>>;

    /// Entries whose key starts with `prefix` and is greater than `after`, at most `limit` (0: all), as of
    /// `at` (`None`: now).
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Rev>) -> Result<Page>;

    /// Applies all writes or none, in order: of several writes to one key the last one is what happens. A
    /// commit that changes nothing takes no revision and returns the newest.
    ///
    /// Guarantee: after `Ok` the writes survive power loss (assumes an honest
    /// fsync). Not guaranteed: that any watcher has seen them yet.
    async fn commit(&self, txn: Txn) -> Result<Rev>;

    /// Every change of keys under `prefix` after `from`, in revision order, without gap or duplicate. The
    /// stream ends only after an error; [`Error::Compacted`] when the watcher fell behind compaction.
    async fn watch(&self, prefix: &str, from: Rev) -> Result<BoxStream<'static, Result<Event>>>;

    /// Forgets what only revisions before `rev` need. Reads and watches below `rev` then fail with
    /// [`Error::Compacted`].
    async fn compact(&self, rev: Rev) -> Result<()>;
}
