//! What is to be looked at: each thing at most once, never twice at a time, some not before a moment.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::step::Id;

/// Which controller looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    ReplicaSet,
    Deployment,
    Garbage,
    Namespace,
    Account,
    Node,
    Eviction,
    Orphan,
    Ended,
}

/// One thing to look at.
pub type Work = (Part, Id);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The queue.
#[derive(Default)]
pub struct Queue {
    due: VecDeque<Work>,
    queued: HashSet<Work>,
    busy: HashSet<Work>,
    later: BTreeSet<(Instant, Work)>,
    when: HashMap<Work, Instant>,
    failures: HashMap<Work, u32>,
}

impl Queue {
    /// Something about it changed.
    pub fn push(&mut self, work: Work) {
        if self.queued.insert(work.clone()) && !self.busy.contains(&work) {
            self.due.push_back(work);
        }
    }

    /// It is to be looked at after a while; this replaces what was said before.
    pub fn push_later(&mut self, work: Work, at: Instant) {
        if let Some(before) = self.when.insert(work.clone(), at) {
            self.later.remove(&(before, work.clone()));
        }
        self.later.insert((at, work));
    }

    /// It is to be looked at after a while, unless that was said before.
    pub fn push_once(&mut self, work: Work, at: Instant) {
        if !self.when.contains_key(&work) {
            self.push_later(work, at);
        }
    }

    /// When the next one becomes due.
    pub fn next_at(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Moves what has become due.
    pub fn tick(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, work)) = self.later.pop_first()
        {
            self.when.remove(&work);
            self.push(work);
        }
    }

    /// The next one; it is busy until [`Queue::done`].
    pub fn pop(&mut self) -> Option<Work> {
        let work = self.due.pop_front()?;
        self.queued.remove(&work);
        self.busy.insert(work.clone());
        Some(work)
    }

    /// It was looked at, with or without success; after failures it waits longer each time.
    pub fn done(&mut self, work: Work, success: bool, now: Instant) {
        self.busy.remove(&work);
        if self.queued.contains(&work) {
            self.due.push_back(work.clone());
        }
        if success {
            self.failures.remove(&work);
            return;
        }
        let failures = self.failures.entry(work.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(10)).min(LONGEST_PAUSE);
        *failures += 1;
        self.push_later(work, now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::NODES;

    fn node(name: &str) -> Work {
        (Part::Node, Id::new(NODES, "", name))
    }

    #[test]
    fn never_twice_at_a_time_and_never_forgotten() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(node("a"));
        queue.push(node("a"));
        assert_eq!(queue.pop(), Some(node("a")));
        queue.push(node("a"));
        assert_eq!(queue.pop(), None);
        queue.done(node("a"), true, now);
        assert_eq!(queue.pop(), Some(node("a")));
        queue.done(node("a"), true, now);
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_limit() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for _ in 0..20 {
            queue.push(node("a"));
            let work = queue.pop().unwrap();
            queue.done(work, false, now);
        }
        assert_eq!(queue.next_at(), Some(now + LONGEST_PAUSE));
        queue.tick(now + LONGEST_PAUSE);
        assert_eq!(queue.pop(), Some(node("a")));
    }

    #[test]
    fn the_last_word_on_when_counts() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let after = |s| now + Duration::from_secs(s);
        queue.push_later(node("a"), after(1));
        queue.push_later(node("a"), after(5));
        queue.tick(after(2));
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.next_at(), Some(after(5)));
    }
}
