//! What is bounded in number, so that no one takes what belongs to all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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

#[cfg(test)]
mod tests {
    use super::*;

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
