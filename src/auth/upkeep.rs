//! The thread that sees to what grows old: children's tokens, an outside server's keys.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::thread::{self, Joined};

/// How often it looks at its watch.
const TICK: Duration = Duration::from_millis(500);

/// The thread `sign-in`; ends when it is dropped.
pub(crate) struct Upkeep {
    stop: Option<Sender<()>>,
    thread: Option<Joined<()>>,
}

impl Upkeep {
    /// `tend` is told the time, again and again.
    ///
    /// # Errors
    /// The OS error if no thread can be started.
    pub(crate) fn start(tend: impl Fn(SystemTime) + Send + 'static) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        // TLS needs more stack than the threads of sessions have.
        let thread = thread::spawn_brief("sign-in", move || run(&tend, &stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

fn run(tend: &dyn Fn(SystemTime), stopped: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
        // The panic has been logged by the hook; the next round may go better.
        let _ = catch_unwind(AssertUnwindSafe(|| tend(SystemTime::now())));
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop = None;
        drop(self.thread.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client library panics where the system has no thread left for it.
    #[test]
    fn a_panic_is_not_the_end() {
        let (count, counted) = crossbeam_channel::unbounded();
        let _upkeep = Upkeep::start(move |now| {
            count.send(now).unwrap();
            panic!("on purpose");
        });
        for _ in 0..2 {
            counted.recv_timeout(Duration::from_secs(10)).unwrap();
        }
    }
}
