//! Counters of what would otherwise pass unseen.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Lines of children that were no message and went nowhere.
pub(crate) static CHILD_GARBAGE_LINES: Counter = Counter::new();
/// Messages of children that no client came to fetch.
pub(crate) static DROPPED_MESSAGES: Counter = Counter::new();
