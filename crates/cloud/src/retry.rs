//! When a failed request is tried again, and after how long. Pure.

use std::time::Duration;

/// How often a request is tried in all.
pub const ATTEMPTS: u32 = 6;
const FIRST: Duration = Duration::from_millis(400);
const LONGEST: Duration = Duration::from_secs(10);
/// A service that asks for more patience than this is told to the user instead.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It never left: nobody listens there now.
    NotSent,
    /// It left, and no whole answer came.
    Broken,
    /// It was answered.
    Status(u16, Option<Duration>),
}

/// How long to wait before trying again; `None` when the failure stands. `again` says that asking twice does no
/// more than asking once; `attempt` counts from 1; `chance` is between 0 and 1.
pub fn after(failure: Failure, again: bool, attempt: u32, chance: f64) -> Option<Duration> {
    if attempt >= ATTEMPTS {
        return None;
    }
    let wanted = match failure {
        Failure::NotSent => None,
        // Refused before anything was done.
        Failure::Status(429, after) => after,
        Failure::Status(408 | 500 | 502 | 503 | 504, after) if again => after,
        Failure::Broken if again => None,
        _ => return None,
    };
    match wanted {
        Some(wanted) => (wanted <= PATIENCE).then_some(wanted),
        // Between half and all of a doubling step, so that many clients do not come back at once.
        None => Some((FIRST * 2u32.pow(attempt - 1)).min(LONGEST).mul_f64(0.5 + chance / 2.0)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_was_not_done_is_done_again_blindly() {
        let tried = |failure, again| after(failure, again, 1, 0.0).is_some();
        for failure in [Failure::Broken, Failure::Status(500, None), Failure::Status(503, None)] {
            assert!(tried(failure, true) && !tried(failure, false), "{failure:?}");
        }
        for failure in [Failure::NotSent, Failure::Status(429, None)] {
            assert!(tried(failure, true) && tried(failure, false), "{failure:?}");
        }
        for status in [400, 401, 403, 404, 409, 413, 501] {
            assert!(!tried(Failure::Status(status, None), true), "{status}");
        }
    }

    #[test]
    fn a_service_s_own_wish_counts() {
        let wish = |seconds| Failure::Status(429, Some(Duration::from_secs(seconds)));
        assert_eq!(after(wish(7), false, 1, 0.3), Some(Duration::from_secs(7)));
        assert_eq!(after(wish(3600), false, 1, 0.3), None);
    }

    proptest! {
        #[test]
        fn it_ends_and_never_waits_long(chance in 0.0..1.0f64, attempt in 1u32..100) {
            match after(Failure::Broken, true, attempt, chance) {
                Some(wait) => prop_assert!(attempt < ATTEMPTS && wait <= LONGEST && wait >= FIRST / 2),
                None => prop_assert!(attempt >= ATTEMPTS),
            }
        }
    }
}
