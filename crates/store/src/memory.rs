//! The plainest store: every revision's whole state, in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};

use crate::{Entry, Error, Event, Expect, Page, Result, Rev, Store, Txn, Write};

/// A store for tests, and the reference that others are compared with. Nothing is durable, everything is kept.
pub struct Memory {
    states: Arc<Mutex<States>>,
    news: tokio::sync::watch::Sender<()>,
}

struct Watcher {
    states: Arc<Mutex<States>>,
    news: tokio::sync::watch::Receiver<()>,
    prefix: String,
    seen: Rev,
    ready: VecDeque<Event>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.news.mark_unchanged();
            let caught_up = {
                let states = lock(&self.states);
                let newest = states.at(None)?.0;
                states.at(Some(self.seen))?;
                let caught_up = self.seen == newest;
                if !caught_up {
                    self.seen.0 += 1;
                    let events = &states.all[self.seen.0 as usize].events;
                    self.ready.extend(events.iter().filter(|e| e.key().starts_with(&self.prefix)).cloned());
                }
                caught_up
            };
            if caught_up && self.news.changed().await.is_err() {
                return Err(Error::Io { doing: "watch".into(), source: "the store was closed".into() });
            }
        }
    }
}

fn lock(states: &Mutex<States>) -> MutexGuard<'_, States> {
    states.lock().expect("no code that holds the states panics")
}

#[derive(Clone, Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    events: Vec<Event>,
}

struct States {
    /// By revision.
    all: Vec<State>,
    compacted: u64,
}

impl States {
    fn at(&self, at: Option<Rev>) -> Result<(Rev, &State)> {
        let newest = Rev(self.all.len() as u64 - 1);
        let rev = at.unwrap_or(newest);
        if rev.0 < self.compacted {
            return Err(Error::Compacted { asked: rev, oldest: Rev(self.compacted) });
        }
        let state = self.all.get(rev.0 as usize).ok_or(Error::Future { asked: rev, newest })?;
        Ok((rev, state))
    }
}

impl Default for Memory {
    fn default() -> Self {
        let states = States { all: vec![State::default()], compacted: 0 };
        Self { states: Arc::new(Mutex::new(states)), news: tokio::sync::watch::Sender::new(()) }
    }
}

impl Memory {
    fn states(&self) -> MutexGuard<'_, States> {
        lock(&self.states)
    }
}

#[async_trait]
impl Store for Memory {
    async fn revision(&self) -> Result<Rev> {
        Ok(self.states().at(None)?.0)
    }

    async fn get(&self, key: &str, at: Option<Rev>) -> Result<Option<Entry>> {
        Ok(self.states().at(at)?.1.entries.get(key).cloned())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Rev>) -> Result<Page> {
        let states = self.states();
        let (rev, state) = states.at(at)?;
        let wanted = |e: &&Entry| e.key.starts_with(prefix) && after.is_none_or(|after| e.key.as_str() > after);
        let mut entries: Vec<_> = state.entries.values().filter(wanted).cloned().collect();
        let more = limit > 0 && entries.len() > limit;
        if more {
            entries.truncate(limit);
        }
        Ok(Page { entries, rev, more })
    }

    async fn commit(&self, txn: Txn) -> Result<Rev> {
        let mut states = self.states();
        let (Rev(newest), before) = states.at(None)?;
        for (key, expect) in txn.checks {
            let found = before.entries.get(&key);
            let holds = match expect {
                Expect::Absent => found.is_none(),
                Expect::Modified(rev) => found.is_some_and(|e| e.modified == rev),
            };
            if !holds {
                return Err(Error::Conflict { found: found.cloned(), key });
            }
        }
        let rev = Rev(newest + 1);
        let mut entries = before.entries.clone();
        let mut touched: Vec<String> = Vec::new();
        for write in txn.writes {
            let key = match write {
                Write::Put(key, value) => {
                    let created = entries.get(&key).map_or(rev, |e| e.created);
                    entries.insert(key.clone(), Entry { key: key.clone(), value, created, modified: rev });
                    key
                }
                Write::Delete(key) => {
                    entries.remove(&key);
                    key
                }
            };
            if !touched.contains(&key) {
                touched.push(key);
            }
        }
        let change = |key: String| match entries.get(&key) {
            Some(entry) => Some(Event::Put(entry.clone())),
            None => before.entries.contains_key(&key).then_some(Event::Delete { key, rev }),
        };
        let events: Vec<_> = touched.into_iter().filter_map(change).collect();
        if events.is_empty() {
            return Ok(Rev(newest));
        }
        states.all.push(State { entries, events });
        drop(states);
        self.news.send_replace(());
        Ok(rev)
    }

    async fn watch(&self, prefix: &str, from: Rev) -> Result<BoxStream<'static, Result<Event>>> {
        self.states().at(Some(from))?;
        let watcher = Watcher {
            states: self.states.clone(),
            news: self.news.subscribe(),
            prefix: prefix.into(),
            seen: from,
            ready: VecDeque::new(),
        };
        let next = |watcher: Option<Watcher>| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(event) => Some((Ok(event), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        };
        Ok(futures::stream::unfold(Some(watcher), next).boxed())
    }

    async fn compact(&self, rev: Rev) -> Result<()> {
        let mut states = self.states();
        if rev.0 > states.compacted {
            states.at(Some(rev))?;
            states.compacted = rev.0;
            drop(states);
            self.news.send_replace(());
        }
        Ok(())
    }
}
