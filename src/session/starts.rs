//! Slows down the starts of a child that keeps dying, so that a client that tries again and again
//! makes no storm of processes. Pure; time is passed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::auth::Principal;

/// A child that ends sooner than this by itself has failed.
pub(super) const SHORT_LIFE: Duration = Duration::from_secs(10);
/// So many failures in a row are let pass.
const FREE_FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Failures are forgotten after so long without another.
const MEMORY: Duration = Duration::from_mins(10);

/// Whose starts of which server: what fails for one principal may work for another.
type Key = (Principal, Arc<str>);

/// Counts failures in a row.
#[derive(Default)]
pub(super) struct Starts(Mutex<HashMap<Key, Failures>>);

struct Failures {
    count: u32,
    last: Instant,
    /// What the child said last.
    why: String,
}

impl Failures {
    fn pause(&self) -> Duration {
        match self.count.checked_sub(FREE_FAILURES) {
            None => Duration::ZERO,
            Some(over) => FIRST_PAUSE
                .saturating_mul(1 << over.min(10))
                .min(LONGEST_PAUSE),
        }
    }
}

impl Starts {
    /// How long to wait before the next start, and why; `None` if there is nothing to wait for.
    pub(super) fn pause(&self, key: &Key, now: Instant) -> Option<(Duration, String)> {
        let starts = self.0.lock();
        let failures = starts.get(key)?;
        let pause = failures.pause();
        if pause.is_zero() {
            return None; // although the last one may be later than a `now` of some time ago
        }
        let left = (failures.last + pause).saturating_duration_since(now);
        (!left.is_zero()).then(|| (left, failures.why.clone()))
    }

    /// A child has ended that should not have.
    pub(super) fn failed(&self, key: Key, why: String, now: Instant) {
        let mut starts = self.0.lock();
        starts.retain(|_, known| now.saturating_duration_since(known.last) < MEMORY);
        let count = starts.get(&key).map_or(0, |known| known.count);
        let failures = Failures {
            count: count.saturating_add(1),
            last: now,
            why,
        };
        starts.insert(key, failures);
    }

    /// A child has done what it should.
    pub(super) fn succeeded(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_forgotten() {
        let (starts, start) = (Starts::default(), Instant::now());
        let key = (Principal::anonymous(), Arc::from("a"));
        let other = (Principal::anonymous(), Arc::from("b"));
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let pause = |key: &Key, seconds| {
            let pause = starts.pause(key, at(seconds));
            pause.map_or(0, |(pause, _)| pause.as_secs())
        };
        let mut seen = Vec::new();
        for _ in 0..11 {
            starts.failed(key.clone(), "exit status 1".to_owned(), at(0));
            seen.push(pause(&key, 0));
        }
        assert_eq!(seen, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(&other, 0), 0);
        starts.failed(other.clone(), String::new(), at(5));
        assert_eq!(pause(&other, 0), 0);
        assert_eq!((pause(&key, 59), pause(&key, 60)), (1, 0));
        starts.failed(key.clone(), String::new(), at(60));
        assert_eq!(pause(&key, 60), 60);
        starts.failed(key.clone(), String::new(), at(60 + 600));
        assert_eq!(pause(&key, 660), 0);
        for _ in 0..5 {
            starts.failed(key.clone(), String::new(), at(660));
        }
        starts.succeeded(&key);
        assert_eq!(pause(&key, 660), 0);
    }
}
