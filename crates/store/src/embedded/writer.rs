//! The one thread that writes: each batch becomes one frame with one fsync.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Shared, failed,
    format::{self, Builder},
    index::{Commit, Version},
    queue::{Batch, Job, Queue},
    rewrite::{self, Rewritten},
};
use crate::{Result, Rev};

/// The file is rewritten when more than this and more than half of it is of no use.
const WASTE: u64 = 1 << 20;
/// Zeros written ahead of the frames. A sync in the middle of a file is the disk's alone; one that moves the end waits
/// for the file system's journal, and so for everyone else who writes.
const AHEAD: u64 = 1 << 20;

/// The writer's own state.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub path: PathBuf,
    /// How far the file reaches, with the zeros after the last frame.
    pub room: u64,
    /// A write failed and may have left bytes beyond the end.
    pub torn: bool,
    /// The file was created or replaced and its name may not be on disk yet.
    pub unnamed: bool,
    pub rewriting: bool,
}

impl Writer {
    /// Works until the queue is closed and empty, then releases the file.
    pub fn run(mut self) {
        loop {
            let (job, batch, closed) = {
                let mut queue = self.shared.queue();
                let job = queue.jobs.pop_front();
                let batch = if job.is_none() { queue.take() } else { None };
                (job, batch, queue.closed)
            };
            match (job, batch) {
                (Some(Job::Compact(rev, reply)), _) => {
                    // The caller may have gone away; the compaction stands all the same.
                    let _ = reply.send(self.compact(rev));
                }
                (Some(Job::Rewritten(done)), _) => self.adopt(done),
                (None, Some(batch)) => self.commit(batch),
                // A rewriting thread ends before another process may have the file.
                (None, None) if closed && !self.rewriting => break,
                (None, None) => std::thread::park(),
            }
        }
        let index = self.shared.read();
        if let Err(source) = index.file.set_len(index.end).and_then(|()| index.file.unlock()) {
            tracing::warn!(path = %self.path.display(), %source, "store: release the file");
        }
    }

    /// Makes a batch durable, then visible, and tells those who wait for it.
    fn commit(&mut self, mut batch: Batch) {
        let written = self.write(&mut batch.frame, batch.commits).map_err(Arc::new);
        let fallen = self.shared.queue().settle(written.is_ok());
        for verdict in fallen.into_iter().map(|batch| batch.verdict).chain([batch.verdict]) {
            verdict.send_replace(Some(written.clone()));
        }
    }

    fn write(&mut self, frame: &mut Builder, commits: Vec<(Arc<Commit>, Vec<Version>)>) -> io::Result<()> {
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

    /// Makes a frame durable. After a failure the file ends where it did before.
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
            self.room = end;
        }
        self.torn = true;
        file.write_all_at(frame.finish(salt, last), end)?;
        self.extend(&file, end + frame.len() as u64)?;
        file.sync_data()?;
        self.torn = false;
        Ok(())
    }

    /// Writes zeros after a frame that has used them up; a disk too full for that is full for the next frame only.
    fn extend(&mut self, file: &File, end: u64) -> io::Result<()> {
        if end <= self.room {
            return Ok(());
        }
        self.room = end;
        match file.write_all_at(&vec![0; AHEAD as usize], end) {
            Ok(()) => self.room += AHEAD,
            Err(_) => file.set_len(end)?,
        }
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
            let (shared, writer) = (self.shared.clone(), std::thread::current());
            // A thread of its own, so that commits go on.
            std::thread::spawn(move || {
                let done = plan.run();
                shared.queue().jobs.push_back(Job::Rewritten(done));
                writer.unpark();
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
            let mut index = self.shared.write();
            index.relocate(new.file.into(), new.cut, &new.kept, new.old_log, new.new_log);
            (self.torn, self.unnamed, self.room) = (false, true, index.end);
            Ok(())
        });
        if let Err(source) = adopted {
            tracing::warn!(path = %self.path.display(), %source, "store: rewrite the file; the old one stays");
        }
    }
}

impl Drop for Writer {
    /// Whatever ends the writer, nobody waits for it any more.
    fn drop(&mut self) {
        *self.shared.queue.lock().unwrap_or_else(|e| e.into_inner()) = Queue::ended();
    }
}

/// Writes an empty store file in place of whatever `path` names, and locks it.
pub fn create(path: &std::path::Path, salt: u64) -> io::Result<File> {
    let new = rewrite::Temporary::create(path)?;
    new.file.write_all_at(&format::header(salt), 0)?;
    new.install(path)
}
