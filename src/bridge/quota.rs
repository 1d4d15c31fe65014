//! How many requests one principal may have in flight, in all of its sessions together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound that several bridges share.
pub(crate) struct Quota {
    used: AtomicUsize,
    /// 0 means unlimited.
    max: usize,
}

impl Quota {
    pub(crate) fn new(max: usize) -> Self {
        let used = AtomicUsize::new(0);
        Self { used, max }
    }

    /// Takes room for `count` requests; false if there is not enough.
    pub(super) fn take(&self, count: usize) -> bool {
        let fits = |used: usize| {
            let next = used + count;
            (self.max == 0 || next <= self.max).then_some(next)
        };
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        taken.is_ok()
    }

    /// Gives room back.
    pub(super) fn give(&self, count: usize) {
        self.used.fetch_sub(count, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_the_sum() {
        let quota = Quota::new(3);
        assert!(quota.take(2));
        assert!(!quota.take(2));
        assert!(quota.take(1));
        assert!(!quota.take(1));
        quota.give(3);
        assert!(quota.take(3));
        assert!(Quota::new(0).take(1_000_000));
    }
}
