//! When to try again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use super::Error;

/// Tries in all, of a registry that has answered before.
const TRIES: u32 = 5;
/// Tries of one that never did: it is down, or its name is wrong, and somebody waits for us to say so.
const TRIES_UNREACHED: u32 = 3;
/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(500);
/// All waits together.
const BUDGET: Duration = Duration::from_secs(60);

/// Exponential, with jitter, bounded in number and time; a registry that says when to come back is obeyed.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    waited: Duration,
}

impl Backoff {
    /// How long to wait before the next try, `None` if there is to be none. `reached`: whether the registry ever answered.
    pub(super) fn after(&mut self, error: &Error, reached: bool) -> Option<Duration> {
        self.failures += 1;
        let unreached = matches!(error, Error::Unreachable { .. }) && !reached;
        if !error.is_transient() || self.failures >= if unreached { TRIES_UNREACHED } else { TRIES } {
            return None;
        }
        let wait = error.retry_after().unwrap_or_else(|| {
            let doubled = FIRST.saturating_mul(1 << (self.failures - 1).min(16));
            // Half of it is certain, half is chance: clients that failed together don't come back together.
            let chance = RandomState::new().hash_one(self.failures) as u32;
            doubled / 2 + doubled.mul_f64(0.5 * f64::from(chance) / f64::from(u32::MAX))
        });
        self.waited = self.waited.saturating_add(wait);
        (self.waited <= BUDGET).then_some(wait)
    }

    /// Much was done since the last failure: what failed before says nothing any more.
    pub(super) fn forgive(&mut self) {
        *self = Self::default();
    }

    /// For the note: which try comes next.
    pub(super) fn next_try(&self) -> u32 {
        self.failures + 1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    fn refused(status: StatusCode, retry_after: Option<u64>) -> Error {
        Error::Refused {
            operation: "get".to_owned(),
            status,
            codes: Vec::new(),
            why: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    fn waits(error: &Error, reached: bool) -> Vec<Duration> {
        let mut backoff = Backoff::default();
        std::iter::from_fn(|| backoff.after(error, reached)).take(100).collect()
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let broken = Error::BrokenOff { operation: String::new(), why: String::new() };
        let unreachable = |for_good| Error::Unreachable { registry: String::new(), why: String::new(), for_good };
        let denied = Error::Denied { registry: String::new(), operation: String::new(), why: String::new() };
        let table = [
            (refused(StatusCode::TOO_MANY_REQUESTS, None), true, 4),
            (refused(StatusCode::REQUEST_TIMEOUT, None), true, 4),
            (refused(StatusCode::INTERNAL_SERVER_ERROR, None), true, 4),
            (refused(StatusCode::BAD_GATEWAY, None), false, 4),
            (refused(StatusCode::BAD_REQUEST, None), true, 0),
            (refused(StatusCode::NOT_IMPLEMENTED, None), true, 0),
            (broken, true, 4),
            (unreachable(false), true, 4),
            (unreachable(false), false, 2),
            (unreachable(true), true, 0),
            (denied, true, 0),
        ];
        for (error, reached, expected) in table {
            assert_eq!(waits(&error, reached).len(), expected, "{error}");
        }
    }

    #[test]
    fn waits_grow_and_a_registrys_wish_counts() {
        for _ in 0..50 {
            let waits = waits(&refused(StatusCode::INTERNAL_SERVER_ERROR, None), true);
            for (wait, full) in waits.iter().zip([500, 1000, 2000, 4000]) {
                assert!((full / 2..=full).contains(&u64::try_from(wait.as_millis()).unwrap()), "{waits:?}");
            }
        }
        let seconds = |after| waits(&refused(StatusCode::TOO_MANY_REQUESTS, Some(after)), true);
        assert_eq!(seconds(2), [Duration::from_secs(2); 4]);
        assert_eq!(seconds(25), [Duration::from_secs(25); 2]);
        assert_eq!(seconds(61), []);
    }

    #[test]
    fn progress_forgives() {
        let mut backoff = Backoff::default();
        let error = refused(StatusCode::INTERNAL_SERVER_ERROR, None);
        for _ in 0..20 {
            assert!(backoff.after(&error, true).is_some());
            backoff.forgive();
        }
    }
}
