//! What the file holds, in memory: where each key's values lie, and the newest commits for those who watch.
//! Values stay in the file.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io,
    ops::Bound,
    os::unix::fs::FileExt,
    sync::Arc,
};

use bytes::Bytes;

use crate::{Entry, Error, Event, Result, Rev};

/// Log bytes between two marks.
const MARK: u64 = 64 << 10;
/// Bytes of commits kept in memory for those who watch.
const TAIL: usize = 1 << 20;

/// One state of a key.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// The revision that made it.
    pub rev: u64,
    /// The revision that created the key; 0 when this version is its removal.
    pub created: u64,
    /// Where the value lies in the file.
    pub at: u64,
    /// The value's length.
    pub len: u32,
}

/// The newest version of a key, and those before it that are not compacted, oldest first.
struct History {
    now: Version,
    older: Vec<Version>,
}

impl History {
    fn at(&self, rev: u64) -> Option<&Version> {
        let found = if self.now.rev <= rev { Some(&self.now) } else { self.older.iter().rfind(|v| v.rev <= rev) };
        found.filter(|v| v.created > 0)
    }
}

/// One revision's changes.
pub struct Commit {
    /// Its revision.
    pub rev: u64,
    /// Its changes.
    pub events: Vec<Event>,
}

impl Commit {
    fn size(&self) -> usize {
        let event = |e: &Event| match e {
            Event::Put(entry) => entry.key.len() + entry.value.len() + 100,
            Event::Delete { key, .. } => key.len() + 100,
        };
        self.events.iter().map(event).sum()
    }
}

/// Where a key's value lies; read it once the lock is released.
pub struct Found {
    key: String,
    version: Version,
}

impl Found {
    /// The entry, its value read from `file`.
    pub fn read(self, file: &File) -> io::Result<Entry> {
        let mut value = vec![0; self.version.len as usize];
        file.read_exact_at(&mut value, self.version.at)?;
        let Version { rev, created, .. } = self.version;
        Ok(Entry { key: self.key, value: value.into(), created: Rev(created), modified: Rev(rev) })
    }
}

/// The index of a store file.
pub struct Index {
    /// The file that all places refer to.
    pub file: Arc<File>,
    /// Its salt.
    pub salt: u64,
    /// Where the next frame goes.
    pub end: u64,
    /// The newest revision.
    pub newest: u64,
    /// The oldest revision that can be read.
    pub compacted: u64,
    keys: BTreeMap<Box<str>, History>,
    /// Frames at least [`MARK`] apart: the newest revision before each, and where it begins.
    marks: VecDeque<(u64, u64)>,
    /// The newest commits, without gaps up to `newest`.
    tail: VecDeque<Arc<Commit>>,
    tail_size: usize,
}

impl Index {
    /// Of a file that holds nothing.
    pub fn new(file: Arc<File>, salt: u64, end: u64) -> Self {
        Self {
            file,
            salt,
            end,
            newest: 0,
            compacted: 0,
            keys: BTreeMap::new(),
            marks: VecDeque::new(),
            tail: VecDeque::new(),
            tail_size: 0,
        }
    }

    /// The revision to read at, if it can be read.
    pub fn readable(&self, at: Option<Rev>) -> Result<u64> {
        match at.map_or(self.newest, |rev| rev.0) {
            rev if rev > self.newest => Err(Error::Future { asked: Rev(rev), newest: Rev(self.newest) }),
            rev if rev < self.compacted => Err(Error::Compacted { asked: Rev(rev), oldest: Rev(self.compacted) }),
            rev => Ok(rev),
        }
    }

    /// The key's value at a readable revision.
    pub fn get(&self, key: &str, rev: u64) -> Option<Found> {
        let version = self.keys.get(key)?.at(rev)?;
        Some(Found { key: key.to_owned(), version: *version })
    }

    /// When the key was created and last written, if it exists now.
    pub fn current(&self, key: &str) -> Option<(u64, u64)> {
        self.keys.get(key).filter(|h| h.now.created > 0).map(|h| (h.now.created, h.now.rev))
    }

    /// Keys under `prefix` beyond `after` at a readable revision, in order.
    pub fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, rev: u64) -> impl Iterator<Item = Found> + 'a {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.keys
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, history)| Some(Found { key: key.to_string(), version: *history.at(rev)? }))
    }

    /// Notes a new version of a key.
    pub fn set(&mut self, key: &str, version: Version) {
        match self.keys.get_mut(key) {
            Some(history) => history.older.push(std::mem::replace(&mut history.now, version)),
            None if version.created > 0 => {
                self.keys.insert(key.into(), History { now: version, older: Vec::new() });
            }
            None => {}
        }
        self.newest = self.newest.max(version.rev);
    }

    /// Notes that a frame of `len` bytes with changes or a compaction was written at the end.
    pub fn advance(&mut self, len: u64, kept: bool) {
        if !kept && self.marks.back().is_none_or(|(_, at)| self.end >= at + MARK) {
            self.marks.push_back((self.newest, self.end));
        }
        self.end += len;
    }

    /// Where to begin reading the log for what follows `rev`.
    pub fn seek(&self, rev: u64) -> u64 {
        let after = self.marks.partition_point(|(before, _)| *before <= rev);
        after.checked_sub(1).map_or(self.end, |i| self.marks[i].1)
    }

    /// Keeps a commit in memory for those who watch.
    pub fn remember(&mut self, commit: Arc<Commit>) {
        self.tail_size += commit.size();
        self.tail.push_back(commit);
        while self.tail_size > TAIL
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_size -= oldest.size();
        }
    }

    /// Up to `limit` commits after `rev`, unless memory no longer has them.
    pub fn recent(&self, rev: u64, limit: usize) -> Option<Vec<Arc<Commit>>> {
        let skip = (rev + 1).checked_sub(self.tail.front()?.rev)?;
        Some(self.tail.iter().skip(skip as usize).take(limit).cloned().collect())
    }

    /// Forgets what only revisions before `rev` need.
    pub fn compact(&mut self, rev: u64) {
        self.compacted = rev;
        self.newest = self.newest.max(rev);
        self.keys.retain(|_, history| {
            if history.now.rev <= rev {
                history.older = Vec::new();
                return history.now.created > 0;
            }
            let kept = history.older.partition_point(|v| v.rev <= rev).saturating_sub(1);
            history.older.drain(..kept);
            history.older.shrink_to_fit();
            true
        });
        while self.marks.get(1).is_some_and(|(before, _)| *before <= rev) {
            self.marks.pop_front();
        }
    }

    /// About how many bytes a rewrite would leave, and how many of them are the log after the compacted revision.
    pub fn live(&self) -> u64 {
        let kept: u64 = self.kept().map(|(key, v)| key.len() as u64 + u64::from(v.len) + 40).sum();
        kept + self.end - self.seek(self.compacted)
    }

    /// What the compacted revision shows, in key order.
    pub fn kept(&self) -> impl Iterator<Item = (&str, Version)> {
        self.keys.iter().filter_map(|(key, history)| Some((&**key, *history.at(self.compacted)?)))
    }

    /// Points at a rewritten file: values up to revision `cut` now lie where `kept` (in key order) says, the log
    /// that began at `old` begins at `new`.
    pub fn relocate(&mut self, file: Arc<File>, cut: u64, kept: &[(Box<str>, u64)], old: u64, new: u64) {
        let mut kept = kept.iter().peekable();
        for (key, history) in &mut self.keys {
            while kept.next_if(|(k, _)| k < key).is_some() {}
            for version in history.older.iter_mut().chain([&mut history.now]) {
                if version.created == 0 {
                    continue;
                }
                if version.rev > cut {
                    version.at = version.at - old + new;
                } else if let Some((_, at)) = kept.peek().filter(|(k, _)| k == key) {
                    version.at = *at;
                }
            }
        }
        self.marks.retain(|(_, at)| *at >= old);
        for (_, at) in &mut self.marks {
            *at = *at - old + new;
        }
        self.end = self.end - old + new;
        self.file = file;
    }
}

/// The change as a watcher is told.
pub fn event(key: &str, rev: u64, put: Option<(u64, Bytes)>) -> Event {
    let key = key.to_owned();
    match put {
        Some((created, value)) => Event::Put(Entry { key, value, created: Rev(created), modified: Rev(rev) }),
        None => Event::Delete { key, rev: Rev(rev) },
    }
}
