//! A limit on log lines: what children write costs neither the disk nor the broker.

use std::time::{Duration, Instant};

const LOGGED_LINES_PER_SECOND: u32 = 50;

/// Whether one more line may be logged.
pub(crate) enum Verdict {
    /// Yes; so many were suppressed before.
    Log {
        suppressed: u32,
    },
    Suppress,
}

/// Counts the lines of one source.
pub(crate) struct Rate {
    since: Instant,
    logged: u32,
    suppressed: u32,
}

impl Rate {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            logged: 0,
            suppressed: 0,
        }
    }

    /// Asks for one more line.
    pub(crate) fn take(&mut self, now: Instant) -> Verdict {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            let suppressed = self.suppressed;
            *self = Self {
                since: now,
                logged: 1,
                suppressed: 0,
            };
            return Verdict::Log { suppressed };
        }
        if self.logged < LOGGED_LINES_PER_SECOND {
            self.logged += 1;
            return Verdict::Log { suppressed: 0 };
        }
        self.suppressed = self.suppressed.saturating_add(1);
        Verdict::Suppress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_a_bounded_number_of_lines_a_second() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let logged = |rate: &mut Rate, at| matches!(rate.take(at), Verdict::Log { .. });
        let count = (0..1000).filter(|_| logged(&mut rate, start)).count();
        assert_eq!(count, 50);
        let later = start + Duration::from_secs(1);
        assert!(matches!(rate.take(later), Verdict::Log { suppressed: 950 }));
    }
}
