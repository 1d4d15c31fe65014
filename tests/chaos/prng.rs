//! Where every choice of a run comes from: splitmix64 (Steele, Lea, Flood 2014), so that a seed
//! replays a run, scheduling apart. Each round of each client draws from a generator of its own:
//! one that was interrupted shifts no later choice.

/// A generator of pseudo-random numbers; not for secrets.
#[derive(Clone)]
pub(crate) struct Prng(u64);

impl Prng {
    /// The generator of one purpose: `path` tells it from all others of the same seed.
    pub(crate) fn derive(seed: u64, path: &[u64]) -> Self {
        let mut state = Self(seed);
        for step in path {
            state = Self(state.next() ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        state
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// An index below `count`, or 0.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        let count = count.max(1) as u64;
        usize::try_from(self.next() % count).unwrap_or_default()
    }

    pub(crate) fn pick<T: Copy>(&mut self, first: T, others: &[T]) -> T {
        match self.index(others.len() + 1) {
            0 => first,
            at => others.get(at - 1).copied().unwrap_or(first),
        }
    }
}
