//! The store in one file: an append-only log of group commits and an index of it in memory.
//!
//! `docs/decisions/embedded-store.md` says why it is a log of our own.
//!
//! Guarantees: a commit is acknowledged after its frame is on disk; a process killed at any moment loses no
//! acknowledged commit and leaves none half done; two processes never write the same file. Assumes: an honest
//! fsync, local file locks, and that a frame cut short at the end of the file was never acknowledged. Damage
//! before the end is told at open, never skipped. Not guaranteed: that damage to values is seen before the next open.
//!
//! Memory: about 150 bytes a key and 32 bytes an older version that is not compacted, plus 1 MiB of the
//! newest commits for watchers. Values are read from the file, which the kernel caches.

mod format;
mod index;
mod queue;
mod rewrite;
mod watch;
mod writer;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::oneshot;

use crate::{Entry, Error, Event, Page, Result, Rev, Store, Txn};
use format::{FRAME, Frames, HEADER, Next, Record, Records};
use index::{Index, Version};
use queue::{Job, Queue};
use writer::Writer;

/// What the writer, those who commit and all readers share. Whoever takes both locks takes the queue first.
struct Shared {
    path: PathBuf,
    index: RwLock<Index>,
    queue: Mutex<Queue>,
    /// The newest revision, for those who wait for it.
    news: tokio::sync::watch::Sender<Rev>,
    batches: AtomicU64,
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().expect("the index is whole: no code that holds it panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().expect("the index is whole: no code that holds it panics")
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("the queue is whole: no code that holds it panics")
    }

    fn get(&self, key: &str, at: Option<Rev>) -> Result<Option<Entry>> {
        let (found, file) = {
            let index = self.read();
            (index.get(key, index.readable(at)?), index.file.clone())
        };
        found.map(|f| f.read(&file)).transpose().map_err(|source| failed("read", &self.path, source))
    }
}

/// A store in one file of this machine.
pub struct Embedded {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the store file, or creates it in its existing directory. Blocks while it reads the whole file.
    ///
    /// Errors: [`Error::Busy`] when a process has it open, [`Error::Format`] when it is of a newer program,
    /// foreign or damaged, [`Error::Io`] otherwise.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let index = load(lock(path)?, path)?;
        let news = tokio::sync::watch::Sender::new(Rev(index.newest));
        let room = index.file.metadata().map_err(|source| failed("open", path, source))?.len();
        let shared = Arc::new(Shared {
            path: path.into(),
            index: RwLock::new(index),
            queue: Mutex::default(),
            news,
            batches: AtomicU64::new(0),
        });
        let writer =
            Writer { shared: shared.clone(), path: path.into(), room, torn: false, unnamed: true, rewriting: false };
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run())
            .map_err(|source| failed("start the writer of", path, source))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// How many group commits were written since the store was opened.
    pub fn batches(&self) -> u64 {
        self.shared.batches.load(Ordering::Relaxed)
    }

    /// Bytes of the store file.
    pub fn size(&self) -> u64 {
        self.shared.read().end
    }

    /// Has the writer look at the queue.
    fn wake(&self) {
        if let Some(writer) = &self.writer {
            writer.thread().unpark();
        }
    }

    fn closed(&self) -> Error {
        failed("write", &self.shared.path, io::Error::other("the writer has ended; restart the program"))
    }
}

impl Drop for Embedded {
    /// Writes what is queued and releases the file.
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.wake();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has told so already.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn revision(&self) -> Result<Rev> {
        Ok(Rev(self.shared.read().newest))
    }

    async fn get(&self, key: &str, at: Option<Rev>) -> Result<Option<Entry>> {
        self.shared.get(key, at)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Rev>) -> Result<Page> {
        let (mut found, file, rev) = {
            let index = self.shared.read();
            let rev = index.readable(at)?;
            let take = if limit == 0 { usize::MAX } else { limit.saturating_add(1) };
            (index.list(prefix, after, rev).take(take).collect::<Vec<_>>(), index.file.clone(), Rev(rev))
        };
        let more = limit > 0 && found.len() > limit;
        if more {
            found.truncate(limit);
        }
        let path = self.shared.path.clone();
        blocking(move || {
            let entries = found.into_iter().map(|f| f.read(&file)).collect::<io::Result<_>>();
            Ok(Page { entries: entries.map_err(|source| failed("read", &path, source))?, rev, more })
        })
        .await
    }

    async fn commit(&self, txn: Txn) -> Result<Rev> {
        let path = &self.shared.path;
        queue::fits(&txn).map_err(|source| failed("commit to", path, source))?;
        let (outcome, mut verdict) = {
            let mut queue = self.shared.queue();
            if queue.closed {
                return Err(self.closed());
            }
            queue.stage(&self.shared.read(), txn)
        };
        self.wake();
        let verdict = verdict.wait_for(Option::is_some).await.map_err(|_| self.closed())?.clone();
        match verdict {
            Some(Err(source)) => Err(failed("write", path, io::Error::new(source.kind(), source.to_string()))),
            _ => outcome.map_err(|refusal| refusal.read(path)),
        }
    }

    async fn watch(&self, prefix: &str, from: Rev) -> Result<BoxStream<'static, Result<Event>>> {
        self.shared.read().readable(Some(from))?;
        Ok(watch::follow(&self.shared, prefix, from))
    }

    async fn compact(&self, rev: Rev) -> Result<()> {
        let (reply, done) = oneshot::channel();
        {
            let mut queue = self.shared.queue();
            if queue.closed {
                return Err(self.closed());
            }
            queue.jobs.push_back(Job::Compact(rev, reply));
        }
        self.wake();
        done.await.map_err(|_| self.closed())?
    }
}

/// Runs file reads where they may block.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|e| Err(Error::Io { doing: "read the store".into(), source: e.into() }))
}

/// The error of a file operation.
fn failed(doing: &str, path: &Path, source: io::Error) -> Error {
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { path },
        _ => Error::Io { doing: format!("{doing} {path}"), source: source.into() },
    }
}

/// Opens the file (a new one if there is none) as its only user.
fn lock(path: &Path) -> Result<File> {
    let io = |source| failed("open", path, source);
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path: path.display().to_string() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // A rewrite of the former owner may have renamed a new file here just before it let go of the old one.
        let (ours, named) = (file.metadata().map_err(io)?, fs::metadata(path).map_err(io)?);
        if ours.ino() != named.ino() || ours.dev() != named.dev() {
            continue;
        }
        match fs::remove_file(rewrite::beside(path)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(io(source)),
            _ => {}
        }
        return if ours.len() > 0 {
            Ok(file)
        } else {
            writer::create(path, RandomState::new().hash_one(path)).map_err(io)
        };
    }
}

/// Builds the index from the file; cuts off a frame that was never finished.
fn load(file: File, path: &Path) -> Result<Index> {
    let io = |source| failed("read", path, source);
    let format = |why| Error::Format { path: path.display().to_string(), why };
    let len = file.metadata().map_err(io)?.len();
    let mut header = vec![0; HEADER.min(len as usize)];
    file.read_exact_at(&mut header, 0).map_err(io)?;
    let salt = format::salt(&header).map_err(format)?;
    let file = Arc::new(file);
    let mut index = Index::new(file.clone(), salt, HEADER as u64);
    let mut frames = Frames::new(file.clone(), salt, HEADER as u64, len);
    loop {
        match frames.next().map_err(io)? {
            Next::Frame(frame) => replay(&mut index, &frame).map_err(format)?,
            Next::End => return Ok(index),
            Next::Torn => break,
        }
    }
    if frames.only_zeros().map_err(io)? {
        return Ok(index); // written ahead
    }
    if frames.any_after_torn().map_err(io)? {
        return Err(format(format!("it is damaged at byte {}; restore a backup", index.end)));
    }
    tracing::warn!(path = %path.display(), at = index.end, lost = len - index.end, "store: drop an unfinished write");
    file.set_len(index.end).and_then(|()| file.sync_data()).map_err(io)?;
    Ok(index)
}

fn replay(index: &mut Index, frame: &format::Frame<'_>) -> std::result::Result<(), String> {
    index.advance((FRAME + frame.records.len()) as u64, frame.last == 0);
    let mut rev = 0;
    for record in Records::new(frame.records) {
        match record? {
            Record::Revision(now) => rev = now,
            Record::Compacted(at) => index.compact(at),
            Record::Put { .. } | Record::Delete { .. } if rev <= index.compacted => {}
            Record::Put { key, created, at, value } => {
                let at = frame.at + (FRAME + at) as u64;
                index.set(key, Version { rev, created, at, len: value.len() as u32 });
            }
            Record::Delete { key } => index.set(key, Version { rev, created: 0, at: 0, len: 0 }),
        }
    }
    Ok(())
}
