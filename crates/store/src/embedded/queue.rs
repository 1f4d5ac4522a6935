//! Where commits wait. Whoever commits stages its transaction itself, into the batch that is open; the writer takes whole
//! batches and tells each one's fate once. So the next frame grows, and the last one's callers go on, while the disk syncs.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
};

use tokio::sync::{oneshot, watch};

use super::{
    failed,
    format::Builder,
    index::{Commit, Found, Index, Version, event},
    rewrite::Rewritten,
};
use crate::{Error, Event, Expect, Rev, Txn, Write};

/// A batch takes no further transaction beyond this many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// The longest transaction.
const TXN_BYTES: usize = 64 << 20;

/// What else the writer is asked to do.
pub enum Job {
    Compact(Rev, oneshot::Sender<crate::Result<()>>),
    Rewritten(io::Result<Rewritten>),
}

/// Whether a batch became durable; none as long as nobody knows.
pub type Verdict = Option<Result<(), Arc<io::Error>>>;

/// One group commit.
pub struct Batch {
    pub frame: Builder,
    pub commits: Vec<(Arc<Commit>, Vec<Version>)>,
    pub verdict: watch::Sender<Verdict>,
    staged: Staged,
}

impl Batch {
    fn new() -> Self {
        Self { frame: Builder::new(), commits: Vec::new(), verdict: watch::Sender::new(None), staged: Staged::new() }
    }
}

/// The last change of each key in a batch: which of the commit's events it is.
type Staged = HashMap<String, (Arc<Commit>, usize)>;

/// All that is not durable yet. A batch builds on those before it, so they fail together.
#[derive(Default)]
pub struct Queue {
    pub jobs: VecDeque<Job>,
    /// No more commits come.
    pub closed: bool,
    /// Full batches, then the open one.
    waiting: VecDeque<Batch>,
    /// Of the batch that is being written.
    writing: Staged,
    /// The newest revision handed out, 0 when all are in the index.
    newest: u64,
}

impl Queue {
    /// Nobody takes from it any more.
    pub fn ended() -> Self {
        Self { closed: true, ..Self::default() }
    }

    /// Checks a transaction against what the queue will leave and adds its effect to the open batch. The outcome holds
    /// once the verdict is good.
    pub fn stage(&mut self, index: &Index, txn: Txn) -> (Result<Rev, Refusal>, watch::Receiver<Verdict>) {
        if self.waiting.back().is_none_or(|batch| batch.frame.len() >= BATCH_BYTES) {
            self.waiting.push_back(Batch::new());
        }
        let refused = txn.checks.iter().find_map(|(key, expect)| self.check(index, key, expect).err());
        let outcome = match refused {
            Some(refusal) => Err(refusal),
            None => Ok(self.add(index, txn.writes)),
        };
        let verdict = self.waiting.back().expect("there is an open batch").verdict.subscribe();
        (outcome, verdict)
    }

    /// The next batch to write.
    pub fn take(&mut self) -> Option<Batch> {
        let mut batch = self.waiting.pop_front()?;
        self.writing = std::mem::take(&mut batch.staged);
        Some(batch)
    }

    /// Ends the batch that was taken: it is in the index, or it failed and takes with it all that built on it, which are
    /// handed back.
    pub fn settle(&mut self, written: bool) -> VecDeque<Batch> {
        self.writing.clear();
        if written {
            return VecDeque::new();
        }
        self.newest = 0;
        std::mem::take(&mut self.waiting)
    }

    /// What became of a key, if it is not in the index yet.
    fn staged(&self, key: &str) -> Option<&Event> {
        let batches = self.waiting.iter().rev().map(|batch| &batch.staged).chain([&self.writing]);
        let (commit, place) = batches.into_iter().find_map(|staged| staged.get(key))?;
        Some(&commit.events[*place])
    }

    /// When the key was created and last written.
    fn current(&self, index: &Index, key: &str) -> Option<(u64, u64)> {
        match self.staged(key) {
            Some(Event::Put(entry)) => Some((entry.created.0, entry.modified.0)),
            Some(Event::Delete { .. }) => None,
            None => index.current(key),
        }
    }

    fn check(&self, index: &Index, key: &str, expect: &Expect) -> Result<(), Refusal> {
        let modified = self.current(index, key).map(|(_, modified)| Rev(modified));
        let holds = match expect {
            Expect::Absent => modified.is_none(),
            Expect::Modified(rev) => modified == Some(*rev),
        };
        if holds {
            return Ok(());
        }
        let found = match self.staged(key) {
            Some(event) => Holds::Staged(event.clone()),
            None => {
                index.get(key, index.newest).map_or(Holds::Nothing, |found| Holds::Written(found, index.file.clone()))
            }
        };
        Err(Refusal { key: key.to_owned(), found })
    }

    /// Adds writes to the open batch.
    fn add(&mut self, index: &Index, writes: Vec<Write>) -> Rev {
        let newest = self.newest.max(index.newest);
        let rev = newest + 1;
        let mut changes = Vec::with_capacity(writes.len());
        for (key, put) in effects(writes) {
            let before = self.current(index, &key);
            match put {
                Put::Removed if before.is_none() => {}
                Put::Removed => changes.push((key, None)),
                Put::Value { value, anew } => {
                    let created = before.filter(|_| !anew).map_or(rev, |(created, _)| created);
                    changes.push((key, Some((created, value))));
                }
            }
        }
        if changes.is_empty() {
            return Rev(newest);
        }
        let batch = self.waiting.back_mut().expect("there is an open batch");
        batch.frame.revision(rev);
        let (mut events, mut versions) = (Vec::with_capacity(changes.len()), Vec::with_capacity(changes.len()));
        for (key, put) in &changes {
            versions.push(match put {
                None => {
                    batch.frame.delete(key);
                    Version { rev, created: 0, at: 0, len: 0 }
                }
                Some((created, value)) => {
                    let at = batch.frame.put(key, *created, value) as u64;
                    Version { rev, created: *created, at, len: value.len() as u32 }
                }
            });
            events.push(event(key, rev, put.clone()));
        }
        let commit = Arc::new(Commit { rev, events });
        for (place, (key, _)) in changes.into_iter().enumerate() {
            batch.staged.insert(key, (commit.clone(), place));
        }
        batch.commits.push((commit, versions));
        self.newest = rev;
        Rev(rev)
    }
}

/// Refuses a transaction that no frame can hold.
pub fn fits(txn: &Txn) -> io::Result<()> {
    let size: usize = txn.writes.iter().map(|w| if let Write::Put(k, v) = w { k.len() + v.len() } else { 0 }).sum();
    if size <= TXN_BYTES {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{size} bytes, at most {TXN_BYTES}")))
}

/// A check that did not hold. What the key holds instead is read once nobody waits for the queue.
pub struct Refusal {
    key: String,
    found: Holds,
}

enum Holds {
    Nothing,
    Staged(Event),
    Written(Found, Arc<std::fs::File>),
}

impl Refusal {
    /// As the caller is told.
    pub fn read(self, path: &std::path::Path) -> Error {
        let found = match self.found {
            Holds::Staged(Event::Put(entry)) => Ok(Some(entry)),
            Holds::Staged(Event::Delete { .. }) | Holds::Nothing => Ok(None),
            Holds::Written(found, file) => found.read(&file).map(Some),
        };
        match found {
            Ok(found) => Error::Conflict { key: self.key, found },
            Err(source) => failed("read", path, source),
        }
    }
}

/// What a transaction does to a key in the end.
enum Put {
    Removed,
    /// `anew`: the transaction removes the key first.
    Value {
        value: bytes::Bytes,
        anew: bool,
    },
}

/// The last word on each key, in the order of its first mention.
fn effects(writes: Vec<Write>) -> Vec<(String, Put)> {
    let mut places = HashMap::new();
    let mut effects: Vec<(String, Put)> = Vec::with_capacity(writes.len());
    let single = writes.len() == 1;
    for write in writes {
        let (key, value) = match write {
            Write::Put(key, value) => (key, Some(value)),
            Write::Delete(key) => (key, None),
        };
        if single {
            return vec![(key, value.map_or(Put::Removed, |value| Put::Value { value, anew: false }))];
        }
        let place = *places.entry(key.clone()).or_insert(effects.len());
        let before = effects.get(place).map(|(_, put)| put);
        let anew = matches!(before, Some(Put::Removed | Put::Value { anew: true, .. }));
        let put = value.map_or(Put::Removed, |value| Put::Value { value, anew });
        match effects.get_mut(place) {
            Some(effect) => effect.1 = put,
            None => effects.push((key, put)),
        }
    }
    effects
}
