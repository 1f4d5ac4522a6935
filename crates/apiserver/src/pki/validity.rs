//! When a certificate is to be made anew. Pure: the moments are passed in.

use jiff::Timestamp;

use super::read;

/// From when until when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub from: Timestamp,
    /// Its last.
    pub until: Timestamp,
}

impl Validity {
    /// That of the first certificate in a PEM text; `None` when there is none.
    pub fn of(pem: &str) -> Option<Self> {
        read(pem, |cert| {
            let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
            Some(Self { from: at(cert.validity().not_before)?, until: at(cert.validity().not_after)? })
        })
    }

    /// Whether it holds.
    pub fn holds(&self, now: Timestamp) -> bool {
        (self.from..=self.until).contains(&now)
    }

    /// Whether it is time for another: a third of its life or less is left, or it does not hold yet, for the clock was
    /// wrong when it was made. Who looks at least once in each third never has one that has ended.
    pub fn is_due(&self, now: Timestamp) -> bool {
        now < self.from || now >= self.until - self.from.duration_until(self.until) / 3
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;
    use crate::pki::SKEW;

    /// As certificates are made.
    fn made(now: Timestamp, life: SignedDuration) -> Validity {
        Validity { from: now - SKEW, until: now + life }
    }

    proptest! {
        #[test]
        fn who_looks_in_each_third_never_has_a_dead_one(
            minutes in 10_i64..60 * 24 * 3650,
            looks in proptest::collection::vec(1_i64..=1000, 1..200),
        ) {
            let life = SignedDuration::from_mins(minutes);
            let mut now = Timestamp::UNIX_EPOCH;
            let mut held = made(now, life);
            for look in looks {
                prop_assert!(!held.is_due(now), "as good as new");
                let third = held.from.duration_until(held.until) / 3;
                now += SignedDuration::from_secs(third.as_secs() * look / 1000);
                prop_assert!(held.holds(now), "{held:?} at {now}");
                if held.is_due(now) {
                    held = made(now, life);
                }
            }
        }

        #[test]
        fn once_due_is_due_until_it_is_replaced(minutes in 10_i64..60 * 24 * 3650, a: u32, b: u32) {
            let held = made(Timestamp::UNIX_EPOCH, SignedDuration::from_mins(minutes));
            let at = |seconds: u32| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds.into());
            let (early, late) = (at(a.min(b)), at(a.max(b)));
            prop_assert!(!held.is_due(early) || held.is_due(late));
            prop_assert!(held.holds(late) || held.is_due(late));
        }
    }

    #[test]
    fn one_of_a_clock_that_was_ahead_is_due() {
        let held =
            made(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 30), SignedDuration::from_hours(24));
        assert!(held.is_due(Timestamp::UNIX_EPOCH));
        assert_eq!(Validity::of("nonsense"), None);
    }
}
