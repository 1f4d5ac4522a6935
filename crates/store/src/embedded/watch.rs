//! Watching: from memory when the watcher is close behind, from the file when it is not. Nothing is queued
//! for a watcher, so a slow one costs nothing and loses nothing.

use std::{collections::VecDeque, sync::Arc};

use futures::{StreamExt, stream::BoxStream};

use super::{
    Shared, blocking, failed,
    format::{Frames, Next, Record, Records},
    index::event,
};
use crate::{Error, Event, Result, Rev};

/// Commits taken from memory at a time.
const COMMITS: usize = 64;
/// Bytes of the log read at a time; a longer frame is read whole.
const BYTES: u64 = 256 << 10;

/// Every change under `prefix` after `from`, a readable revision.
pub fn follow(shared: &Arc<Shared>, prefix: &str, from: Rev) -> BoxStream<'static, Result<Event>> {
    let watcher = Watcher {
        news: shared.news.subscribe(),
        shared: Arc::downgrade(shared),
        prefix: prefix.into(),
        seen: from.0,
        ready: VecDeque::new(),
    };
    futures::stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(event) => Some((Ok(event), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Watcher {
    /// Weak, so that a stream does not outlive its store.
    shared: std::sync::Weak<Shared>,
    news: tokio::sync::watch::Receiver<Rev>,
    prefix: Arc<str>,
    /// The revision up to which everything was handed out or is ready.
    seen: u64,
    ready: VecDeque<Event>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.news.mark_unchanged();
            if !self.fill().await? {
                self.news.changed().await.map_err(|_| closed())?;
            }
        }
    }

    /// Takes what is new; false when there is nothing yet.
    async fn fill(&mut self) -> Result<bool> {
        let shared = self.shared.upgrade().ok_or_else(closed)?;
        let mut frames = {
            let index = shared.read();
            index.readable(Some(Rev(self.seen)))?;
            if self.seen == index.newest {
                return Ok(false);
            }
            if let Some(commits) = index.recent(self.seen, COMMITS) {
                drop(index);
                for commit in commits {
                    self.seen = commit.rev;
                    self.ready.extend(commit.events.iter().filter(|e| e.key().starts_with(&*self.prefix)).cloned());
                }
                return Ok(true);
            }
            Frames::new(index.file.clone(), index.salt, index.seek(self.seen), index.end)
        };
        let (prefix, seen) = (self.prefix.clone(), self.seen);
        (self.ready, self.seen) =
            blocking(move || read(&mut frames, &prefix, seen).map_err(|source| failed("read", &shared.path, source)))
                .await?;
        Ok(true)
    }
}

/// The changes after `seen` from some frames, and up to which revision they go.
fn read(frames: &mut Frames, prefix: &str, seen: u64) -> std::io::Result<(VecDeque<Event>, u64)> {
    let damaged = |why: String| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
    let (mut events, mut newest, mut size) = (VecDeque::new(), seen, 0);
    while size < BYTES {
        let frame = match frames.next()? {
            Next::Frame(frame) => frame,
            Next::End => break,
            Next::Torn => return Err(damaged("a frame of the log is damaged".into())),
        };
        if frame.last <= seen {
            continue;
        }
        size += frame.records.len() as u64;
        newest = frame.last;
        let mut rev = 0;
        for record in Records::new(frame.records) {
            match record.map_err(damaged)? {
                Record::Revision(now) => rev = now,
                Record::Put { key, created, value, .. } if rev > seen && key.starts_with(prefix) => {
                    events.push_back(event(key, rev, Some((created, value.to_vec().into()))));
                }
                Record::Delete { key } if rev > seen && key.starts_with(prefix) => {
                    events.push_back(event(key, rev, None));
                }
                _ => {}
            }
        }
    }
    Ok((events, newest))
}

fn closed() -> Error {
    Error::Io { doing: "watch".into(), source: "the store was closed".into() }
}
