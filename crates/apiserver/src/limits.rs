//! What is bounded in number, so that no one takes what belongs to all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Places for so many, of which each user may take so many.
pub(crate) struct Shares {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<String, usize>,
}

/// A place that is taken until this is dropped.
pub(crate) struct Share {
    of: Arc<Shares>,
    who: String,
}

impl Shares {
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, taken: Mutex::default() })
    }

    /// A place, if there is one for `who`.
    pub(crate) fn take(self: &Arc<Self>, who: &str) -> Option<Share> {
        let mut taken = self.taken();
        let own = taken.by.get(who).copied().unwrap_or(0);
        if taken.all >= self.all || own >= self.each {
            return None;
        }
        taken.all += 1;
        taken.by.insert(who.to_owned(), own + 1);
        Some(Share { of: self.clone(), who: who.to_owned() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.who) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.who);
            }
        }
    }
}

/// Turns: after a crowd of each user, one every so often.
pub(crate) struct Turns {
    every: Duration,
    crowd: u32,
    /// When the last turn that was given would be, had there been no crowd.
    given: Mutex<HashMap<String, Instant>>,
}

impl Turns {
    /// So many users are remembered before those are looked for who have been quiet long enough to be forgotten.
    const REMEMBERED: usize = 1024;

    pub(crate) fn new(every: Duration, crowd: usize) -> Self {
        Self { every, crowd: u32::try_from(crowd).unwrap_or(u32::MAX), given: Mutex::default() }
    }

    /// How long `who` has to wait for its turn.
    pub(crate) fn wait(&self, who: &str, now: Instant) -> Duration {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= Self::REMEMBERED {
            given.retain(|_, at| *at > now);
        }
        let before = given.get(who).copied().unwrap_or(now).max(now);
        given.insert(who.to_owned(), before + self.every);
        (before + self.every).saturating_duration_since(now).saturating_sub(self.every * self.crowd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_goes_at_once_and_the_rest_one_by_one() {
        let (turns, start) = (Turns::new(Duration::from_secs(1), 3), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let waits = |who, second| turns.wait(who, at(second)).as_secs();
        assert_eq!([(); 5].map(|()| waits("a", 0)), [0, 0, 0, 1, 2]);
        assert_eq!((waits("b", 0), waits("a", 2)), (0, 1));
        assert_eq!([(); 4].map(|()| waits("a", 100)), [0, 0, 0, 1]);
    }

    #[test]
    fn who_is_quiet_is_forgotten() {
        let (turns, now) = (Turns::new(Duration::from_secs(1), 3), Instant::now());
        for who in 0..Turns::REMEMBERED {
            turns.wait(&who.to_string(), now);
        }
        turns.wait("busy", now + Duration::from_secs(2));
        assert_eq!(turns.given.lock().unwrap().len(), 1);
    }

    #[test]
    fn no_one_takes_all_and_what_is_given_back_can_be_taken() {
        let shares = Shares::new(3, 2);
        let mut held: Vec<_> = (0..2).map(|_| shares.take("a").unwrap()).collect();
        assert!(shares.take("a").is_none());
        held.push(shares.take("b").unwrap());
        assert!(shares.take("c").is_none(), "all are taken");
        held.remove(0);
        held.push(shares.take("c").unwrap());
        drop(held);
        assert!(shares.taken().by.is_empty() && shares.taken().all == 0);
    }
}
