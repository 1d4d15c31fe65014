//! The thread that lets time pass: ends idle sessions and those of revoked tokens, and does what
//! else is to be done now and then.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::Registry;
use crate::auth::Principal;
use crate::thread::{self, Joined};

/// Well below the second within which a slow answer becomes a stream and a new token is honoured.
const TICK: Duration = Duration::from_millis(650);

/// The running reaper; dropping it ends the thread.
pub(crate) struct Reaper {
    stop: Option<Sender<()>>,
    thread: Option<Joined<()>>,
}

impl Reaper {
    /// Starts the thread; `revoked` is asked each time who has lost access since the last time, and
    /// `tick` is called after that.
    ///
    /// # Errors
    /// The OS error if no thread can be started.
    pub(crate) fn start(
        registry: Arc<Registry>,
        mut revoked: impl FnMut() -> Vec<Principal> + Send + 'static,
        tick: impl Fn(Instant) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = thread::spawn("reaper", move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                registry.tick(Instant::now());
                let revoked = revoked();
                if !revoked.is_empty() {
                    registry.close_principals(&revoked, Instant::now());
                }
                tick(Instant::now());
            }
        })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take());
    }
}
