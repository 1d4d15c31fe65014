//! Tells the service manager that the broker is alive, as long as it is: thread `watchdog`.
//!
//! Alive means that connections are accepted, that a request gets through tiny_http to the accept
//! loop, and that the reaper still comes round. A broker that hangs is not pinged for, and the
//! service manager starts another one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::thread::{self, Joined};

/// What counts the turns of a loop that should never stand still.
pub(super) type Turns = Arc<AtomicU64>;

/// A loop that is slower than this is not stuck, just busy.
const TURN_MIN: Duration = Duration::from_secs(1);

/// The running watchdog; dropping it ends the thread.
pub(super) struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<Joined<()>>,
}

impl Watchdog {
    /// Calls `ping` at half of `interval` as long as `turns` grows and `is_felt`.
    ///
    /// # Errors
    /// The OS error if no thread can be started.
    pub(super) fn start(
        interval: Duration,
        turns: Turns,
        is_felt: impl Fn(Duration) -> bool + Send + 'static,
        ping: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = thread::spawn("watchdog", move || {
            let mut reaper = Reaper::new(turns, Instant::now());
            loop {
                let is_turning = reaper.is_turning(interval, Instant::now());
                if is_turning && is_felt(interval) {
                    ping();
                } else {
                    log::error!(
                        "the broker hangs: reaper turning={is_turning}, not pinging the watchdog"
                    );
                }
                if stopped.recv_timeout(interval / 2) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take());
    }
}

/// The reaper, as seen from outside.
struct Reaper {
    turns: Turns,
    last: u64,
    since: Instant,
}

impl Reaper {
    fn new(turns: Turns, now: Instant) -> Self {
        Self {
            turns,
            last: 0,
            since: now,
        }
    }

    /// Whether it came round within `interval`.
    fn is_turning(&mut self, interval: Duration, now: Instant) -> bool {
        let turns = self.turns.load(Ordering::Relaxed);
        if turns != self.last {
            (self.last, self.since) = (turns, now);
        }
        now.saturating_duration_since(self.since) < interval.max(TURN_MIN)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use crossbeam_channel::unbounded;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn a_reaper_that_stands_still_is_noticed() {
        let turns = Turns::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reaper = Reaper::new(Arc::clone(&turns), start);
        let interval = Duration::from_secs(10);
        assert!(reaper.is_turning(interval, at(5)));
        turns.fetch_add(1, Ordering::Relaxed);
        assert!(reaper.is_turning(interval, at(9)));
        assert!(reaper.is_turning(interval, at(18)));
        assert!(!reaper.is_turning(interval, at(19)));
        turns.fetch_add(1, Ordering::Relaxed);
        assert!(reaper.is_turning(interval, at(30)));
    }

    #[test]
    fn pings_while_the_edge_is_felt_and_not_otherwise() {
        let turns = Turns::default();
        let felt = Arc::new(AtomicBool::new(true));
        let (ping, pings) = unbounded();
        let (asked, questions) = unbounded();
        let is_felt = {
            let (turns, felt) = (Arc::clone(&turns), Arc::clone(&felt));
            move |_| {
                turns.fetch_add(1, Ordering::Relaxed);
                asked.send(()).unwrap();
                felt.load(Ordering::Relaxed)
            }
        };
        let interval = Duration::from_millis(10);
        let watchdog =
            Watchdog::start(interval, turns, is_felt, move || ping.send(()).unwrap()).unwrap();
        for _ in 0..3 {
            pings.recv_timeout(DEADLINE).unwrap();
        }
        felt.store(false, Ordering::Relaxed);
        // One answer may be on its way.
        for _ in 0..2 {
            questions.recv_timeout(DEADLINE).unwrap();
        }
        while questions.try_recv().is_ok() {}
        questions.recv_timeout(DEADLINE).unwrap();
        while pings.try_recv().is_ok() {}
        for _ in 0..3 {
            questions.recv_timeout(DEADLINE).unwrap();
        }
        assert!(pings.is_empty());
        drop(watchdog);
    }
}
