//! When to compact.

use std::{collections::VecDeque, time::Duration};

use crate::Rev;

/// Keeps at least so much time; what is older may be compacted. Pure: the caller tells the time (since any fixed moment)
/// and compacts.
#[derive(Clone, Debug)]
pub struct Retention {
    time: Duration,
    /// Which revision was the newest when, oldest first.
    seen: VecDeque<(Duration, Rev)>,
}

impl Retention {
    /// Keeps at least `time`.
    pub fn new(time: Duration) -> Self {
        Self { time, seen: VecDeque::new() }
    }

    /// Notes the newest revision and tells the revision to compact at, if any. Call it a few times per `time`;
    /// nothing is kept longer than `time` plus the pause between two calls.
    pub fn due(&mut self, now: Duration, newest: Rev) -> Option<Rev> {
        if self.seen.back().is_none_or(|(_, rev)| *rev < newest) {
            self.seen.push_back((now, newest));
        }
        let mut due = None;
        // A revision seen at `then` was followed by the next at some moment after: all older ones are past.
        while let Some((then, rev)) = self.seen.front().copied()
            && then + self.time <= now
        {
            due = Some(rev);
            self.seen.pop_front();
        }
        due.filter(|rev| *rev > Rev(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keeps_what_it_promises(steps in prop::collection::vec((0u64..40, 0u64..30), 1..60)) {
            let mut retention = Retention::new(Duration::from_secs(60));
            let (mut now, mut newest, mut history) = (0, 0, vec![]);
            for (seconds, commits) in steps {
                now += seconds;
                newest += commits;
                history.push((now, newest));
                if let Some(Rev(at)) = retention.due(Duration::from_secs(now), Rev(newest)) {
                    // What a reader listed within the last minute can still be watched from.
                    prop_assert!(history.iter().all(|(when, rev)| when + 60 <= now || *rev >= at));
                }
            }
        }
    }

    #[test]
    fn compacts_in_the_end() {
        let mut retention = Retention::new(Duration::from_secs(60));
        assert_eq!(retention.due(Duration::ZERO, Rev(100)), None);
        assert_eq!(retention.due(Duration::from_secs(30), Rev(200)), None);
        assert_eq!(retention.due(Duration::from_secs(60), Rev(200)), Some(Rev(100)));
        assert_eq!(retention.due(Duration::from_secs(89), Rev(205)), None);
        assert_eq!(retention.due(Duration::from_secs(95), Rev(205)), Some(Rev(200)));
    }
}
