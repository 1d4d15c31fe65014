//! The order of ending: what is in flight may finish, then all sessions end, side by side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select, unbounded};

use super::Stop;
use crate::edge::Edge;
use crate::session::Registry;
use crate::thread;

/// How often the drain looks whether everything is answered.
const DRAIN_TICK: Duration = Duration::from_millis(20);
/// How long clients may take to read the ends of their streams.
const CLIENT_GRACE: Duration = Duration::from_secs(1);

/// Lets what is in flight finish, then ends all sessions. Another signal ends them at once.
pub(super) fn shut_down(
    registry: &Arc<Registry>,
    edge: &Edge,
    stopped: &Receiver<Stop>,
    drain: Duration,
) {
    registry.drain();
    log::info!("shutting down sessions={}", registry.active());
    let is_drained = wait_drained(registry, stopped, drain);
    if !is_drained {
        registry.kill_all();
        edge.cut();
    }
    let stopping = Arc::clone(registry);
    let (done, is_done) = unbounded::<()>();
    let thread = thread::spawn("stop", move || {
        stopping.stop();
        drop(done);
    });
    if thread.is_err() {
        // Without a thread to watch for signals meanwhile.
        edge.cut();
        return registry.stop();
    }
    let patience = after(CLIENT_GRACE);
    loop {
        select! {
            recv(is_done) -> _ => return,
            // A client that does not read would hold the end up.
            recv(patience) -> _ => edge.cut(),
            recv(stopped) -> _ => {
                registry.kill_all();
                edge.cut();
            }
        }
    }
}

/// False if another signal came meanwhile.
fn wait_drained(registry: &Registry, stopped: &Receiver<Stop>, drain: Duration) -> bool {
    let deadline = Instant::now() + drain;
    let mut quiet = 0;
    // A request that is just being handed over is seen the second time.
    while quiet < 2 && Instant::now() < deadline {
        quiet = if registry.has_clients() { 0 } else { quiet + 1 };
        if let Ok(Stop::Signal) = stopped.recv_timeout(DRAIN_TICK) {
            log::warn!("second signal: stopping at once");
            return false;
        }
    }
    true
}
