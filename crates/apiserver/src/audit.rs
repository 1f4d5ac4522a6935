//! The audit log: one line of JSON for every request (`audit.k8s.io/v1`, level `Metadata`).
//!
//! No body is ever in it, nor a header but `User-Agent`, nor the value of a query parameter that is not known to be
//! harmless.

mod file;
mod line;

use std::{
    io,
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Sender, SyncSender, channel, sync_channel},
    },
    thread::JoinHandle,
};

use http::StatusCode;

use crate::{Attributes, Identity};
use file::Rotated;

/// How many lines may wait for the disk. From half of it on nothing may change any more (`docs/decisions/audit-log.md`).
const WAITING: usize = 8192;

/// What is known of a request once it is answered (or, for a watch, begins and ends).
pub struct Record<'a> {
    /// The request's own id, also in the answer's `Audit-Id` header.
    pub id: &'a str,
    /// How far it is.
    pub stage: Stage,
    /// Who asked.
    pub identity: &'a Identity,
    /// On whose behalf, by impersonation.
    pub impersonated: Option<&'a Identity>,
    /// For what.
    pub attributes: &'a Attributes,
    /// Path and query as sent.
    pub uri: &'a http::Uri,
    /// From where; absent in process.
    pub source: Option<IpAddr>,
    /// `User-Agent`.
    pub user_agent: &'a str,
    /// The answer.
    pub code: StatusCode,
    /// Why the authoriser decided as it did; one that allowed says so ([`crate::Decision`]).
    pub decision: &'a str,
    /// When the request came.
    pub received: jiff::Timestamp,
    /// When this stage was reached.
    pub at: jiff::Timestamp,
}

/// `audit.k8s.io` stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A long answer (watch, exec, log) begins.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The handler died.
    Panic,
}

/// Where records go: a file that is written behind the requests' backs. The default one keeps nothing.
///
/// Guarantee: records wait in memory while the file cannot be written, and are written once it can. What changes
/// something is not served when its record might find no room there ([`Audit::keeps_up`]); records of reads that find
/// none are counted and named as lost in the file itself and in the program's log.
/// Not guaranteed: that a record survives a power loss right after the answer (no fsync), nor that the file holds it the
/// moment the client has its answer. Dropping the log writes all that waits, if the file can be written then.
#[derive(Default)]
pub struct Audit(Option<Writer>);

struct Writer {
    queue: Option<SyncSender<String>>,
    /// Dropped with the queue: the end of all patience.
    patience: Option<Sender<()>>,
    backlog: Arc<Backlog>,
    /// The most lines that may wait.
    waiting: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Records that are not in the file.
#[derive(Default)]
struct Backlog {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

impl Audit {
    /// Appends to `path` (mode 0600). A file that has grown beyond `limit` bytes becomes `path.1`, the one before
    /// `path.2` and so on; `kept` of these are kept.
    pub fn open(path: &Path, limit: u64, kept: u32) -> io::Result<Self> {
        Self::buffered(path, limit, kept, WAITING)
    }

    fn buffered(path: &Path, limit: u64, kept: u32, waiting: usize) -> io::Result<Self> {
        let file = Rotated::open(path, limit, kept)?;
        let (queue, lines) = sync_channel(waiting);
        let (patience, end) = channel();
        let backlog = Arc::<Backlog>::default();
        let thread = std::thread::Builder::new().name("audit".into()).stack_size(256 << 10).spawn({
            let backlog = backlog.clone();
            move || file::write(file, lines, &backlog, &end)
        })?;
        let thread = Mutex::new(Some(thread));
        Ok(Self(Some(Writer { queue: Some(queue), patience: Some(patience), backlog, waiting, thread })))
    }

    /// Whether a change may be made: there is room for its record, whatever becomes of the disk.
    pub fn keeps_up(&self) -> bool {
        self.0.as_ref().is_none_or(|writer| writer.backlog.waiting.load(Ordering::Relaxed) < writer.waiting / 2)
    }

    /// Keeps a record; never blocks the request and never fails it.
    pub fn record(&self, record: &Record<'_>) {
        let Some(writer) = &self.0 else { return };
        let Some(queue) = &writer.queue else { return };
        writer.backlog.waiting.fetch_add(1, Ordering::Relaxed);
        if queue.try_send(line::render(record)).is_err() {
            // The writer tells of it with its next line.
            writer.backlog.waiting.fetch_sub(1, Ordering::Relaxed);
            writer.backlog.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        (self.queue, self.patience) = (None, None); // the thread ends with its last line
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
