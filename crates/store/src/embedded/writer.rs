//! The one thread that writes: everything queued becomes one frame with one fsync.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Shared, failed,
    format::{self, Builder},
    index::{Commit, Index, Version, event},
    rewrite::{self, Rewritten},
};
use crate::{Entry, Error, Expect, Result, Rev, Txn, Write};

/// A frame takes no further transaction beyond this many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// The longest transaction.
const TXN_BYTES: usize = 64 << 20;
/// The file is rewritten when more than this and more than half of it is of no use.
const WASTE: u64 = 1 << 20;

/// What the thread is asked to do.
pub enum Job {
    Commit(Txn, oneshot::Sender<Result<Rev>>),
    Compact(Rev, oneshot::Sender<Result<()>>),
    Rewritten(io::Result<Rewritten>),
}

/// A transaction's outcome if its frame becomes durable.
type Outcome = (oneshot::Sender<Result<Rev>>, Result<Rev>);
/// The value of each key as the frame under construction leaves it.
type Staged = HashMap<String, Option<Entry>>;

/// The writer's own state.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub path: PathBuf,
    /// For the rewriting thread to report to.
    pub jobs: mpsc::WeakSender<Job>,
    /// A write failed and may have left bytes beyond the end.
    pub torn: bool,
    /// The file was created or replaced and its name may not be on disk yet.
    pub unnamed: bool,
    pub rewriting: bool,
}

impl Writer {
    /// Works until all senders are gone and the queue is empty, then releases the file.
    pub fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| queue.blocking_recv()) {
            match job {
                Job::Commit(txn, reply) => next = self.commit((txn, reply), &mut queue),
                Job::Compact(rev, reply) => {
                    // The caller may have gone away; the compaction stands all the same.
                    let _ = reply.send(self.compact(rev));
                }
                Job::Rewritten(done) => self.adopt(done),
            }
        }
        if let Err(source) = self.shared.read().file.unlock() {
            tracing::warn!(path = %self.path.display(), %source, "store: release the file");
        }
    }

    /// Commits this transaction with all that are queued behind it; hands back the first other job.
    fn commit(&mut self, first: (Txn, oneshot::Sender<Result<Rev>>), queue: &mut mpsc::Receiver<Job>) -> Option<Job> {
        let (mut frame, mut staged, mut commits) = (Builder::new(), Staged::new(), Vec::new());
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut next = Some(Job::Commit(first.0, first.1));
        let index = self.shared.read();
        while let Some(Job::Commit(txn, reply)) = next {
            let outcome = self.stage(&index, txn, &mut frame, &mut staged, &mut commits);
            outcomes.push((reply, outcome));
            next = if frame.len() < BATCH_BYTES { queue.try_recv().ok() } else { None };
        }
        drop(index);
        let written = self.write(&mut frame, commits);
        for (reply, outcome) in outcomes {
            // A caller that no longer waits does not undo its commit.
            let _ = reply.send(match &written {
                Ok(()) => outcome,
                Err(source) => Err(failed("write", &self.path, io::Error::new(source.kind(), source.to_string()))),
            });
        }
        next
    }

    /// Checks a transaction against what the frame so far leaves and adds its effect.
    fn stage(
        &self,
        index: &Index,
        txn: Txn,
        frame: &mut Builder,
        staged: &mut Staged,
        commits: &mut Vec<(Commit, Vec<Version>)>,
    ) -> Result<Rev> {
        for (key, expect) in &txn.checks {
            self.check(index, key, expect, staged)?;
        }
        let size: usize = txn.writes.iter().map(|w| if let Write::Put(k, v) = w { k.len() + v.len() } else { 0 }).sum();
        if size > TXN_BYTES {
            let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("{size} bytes, at most {TXN_BYTES}"));
            return Err(failed("commit to", &self.path, source));
        }
        let newest = commits.last().map_or(index.newest, |(c, _)| c.rev);
        let rev = newest + 1;
        let (mut events, mut versions) = (Vec::new(), Vec::new());
        for (key, put) in effects(txn.writes) {
            let before = current(index, &key, staged);
            if matches!(put, Put::Removed) && before.is_none() {
                continue;
            }
            if versions.is_empty() {
                frame.revision(rev);
            }
            match put {
                Put::Removed => {
                    frame.delete(&key);
                    versions.push(Version { rev, created: 0, at: 0, len: 0 });
                    events.push(event(&key, rev, None));
                    staged.insert(key, None);
                }
                Put::Value { value, anew } => {
                    let created = before.filter(|_| !anew).map_or(rev, |(created, _)| created);
                    let at = frame.put(&key, created, &value) as u64;
                    versions.push(Version { rev, created, at, len: value.len() as u32 });
                    events.push(event(&key, rev, Some((created, value.clone()))));
                    let (created, modified) = (Rev(created), Rev(rev));
                    staged.insert(key.clone(), Some(Entry { key, value, created, modified }));
                }
            }
        }
        if versions.is_empty() {
            return Ok(Rev(newest));
        }
        commits.push((Commit { rev, events }, versions));
        Ok(Rev(rev))
    }

    fn check(&self, index: &Index, key: &str, expect: &Expect, staged: &Staged) -> Result<()> {
        let modified = current(index, key, staged).map(|(_, modified)| Rev(modified));
        let holds = match expect {
            Expect::Absent => modified.is_none(),
            Expect::Modified(rev) => modified == Some(*rev),
        };
        if holds {
            return Ok(());
        }
        let found = match staged.get(key) {
            Some(entry) => entry.clone(),
            None => index
                .get(key, index.newest)
                .map(|found| found.read(&index.file))
                .transpose()
                .map_err(|e| failed("read", &self.path, e))?,
        };
        Err(Error::Conflict { key: key.to_owned(), found })
    }

    /// Makes a frame durable, then visible. After a failure the file ends where it did before.
    fn write(&mut self, frame: &mut Builder, commits: Vec<(Commit, Vec<Version>)>) -> io::Result<()> {
        let Some(last) = commits.last().map(|(c, _)| c.rev) else { return Ok(()) };
        self.append(frame, last)?;
        let mut index = self.shared.write();
        let start = index.end;
        index.advance(frame.len() as u64, false);
        for (commit, versions) in commits {
            for (event, version) in commit.events.iter().zip(versions) {
                index.set(event.key(), Version { at: version.at + start, ..version });
            }
            index.remember(commit);
        }
        drop(index);
        self.shared.batches.fetch_add(1, Ordering::Relaxed);
        self.shared.news.send_replace(Rev(last));
        Ok(())
    }

    fn append(&mut self, frame: &mut Builder, last: u64) -> io::Result<()> {
        let (file, end, salt) = {
            let index = self.shared.read();
            (index.file.clone(), index.end, index.salt)
        };
        // What a failed write left must not follow a shorter frame, nor a failed fsync be trusted later.
        if self.unnamed {
            rewrite::sync_name(&self.path)?;
            self.unnamed = false;
        }
        if self.torn {
            file.set_len(end)?;
        }
        self.torn = true;
        file.write_all_at(frame.finish(salt, last), end)?;
        file.sync_data()?;
        self.torn = false;
        Ok(())
    }

    fn compact(&mut self, rev: Rev) -> Result<()> {
        let newest = {
            let index = self.shared.read();
            if rev.0 <= index.compacted {
                return Ok(());
            }
            index.readable(Some(rev))?;
            index.newest
        };
        let mut frame = Builder::new();
        frame.compacted(rev.0);
        self.append(&mut frame, newest).map_err(|source| failed("compact", &self.path, source))?;
        let (live, end) = {
            let mut index = self.shared.write();
            index.advance(frame.len() as u64, false);
            index.compact(rev.0);
            (index.live(), index.end)
        };
        self.shared.news.send_modify(|_| ());
        if !self.rewriting && end > live + live.max(WASTE) {
            self.rewriting = true;
            let plan = rewrite::Plan::new(&self.shared.read(), &self.path);
            let jobs = self.jobs.upgrade();
            // A thread of its own, so that commits go on; a store that closes meanwhile needs no rewrite.
            std::thread::spawn(move || {
                if let Some(jobs) = jobs {
                    let _ = jobs.blocking_send(Job::Rewritten(plan.run()));
                }
            });
        }
        Ok(())
    }

    /// Puts a rewritten file in the old one's place.
    fn adopt(&mut self, done: io::Result<Rewritten>) {
        self.rewriting = false;
        let adopted = done.and_then(|new| {
            let (old, end) = {
                let index = self.shared.read();
                (index.file.clone(), index.end)
            };
            let new = new.catch_up(&old, end, &self.path)?;
            self.shared.write().relocate(new.file.into(), new.cut, &new.kept, new.old_log, new.new_log);
            (self.torn, self.unnamed) = (false, true);
            Ok(())
        });
        if let Err(source) = adopted {
            tracing::warn!(path = %self.path.display(), %source, "store: rewrite the file; the old one stays");
        }
    }
}

/// When the key was created and last written.
fn current(index: &Index, key: &str, staged: &Staged) -> Option<(u64, u64)> {
    match staged.get(key) {
        Some(entry) => entry.as_ref().map(|e| (e.created.0, e.modified.0)),
        None => index.current(key),
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

/// Writes an empty store file in place of whatever `path` names, and locks it.
pub fn create(path: &std::path::Path, salt: u64) -> io::Result<File> {
    let new = rewrite::Temporary::create(path)?;
    new.file.write_all_at(&format::header(salt), 0)?;
    new.install(path)
}
