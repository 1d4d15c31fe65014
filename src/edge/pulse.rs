//! Whether the edge gets on with its work, for whoever has to restart it if not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;

/// Tells whether connections are accepted and requests get through to the accept loop.
pub(crate) struct Pulse(Arc<Shared>);

impl Pulse {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// Asks both, and waits for an answer of each: `timeout` for the first, as long as any
    /// connection to tiny_http may take for the second. An edge that is stopping is as alive as
    /// it should be.
    pub(crate) fn is_felt(&self, timeout: Duration) -> bool {
        let shared = &self.0;
        // An answer that came too late for an earlier question is none to this one.
        let _ = shared.awake.1.try_recv();
        shared.wake();
        let is_accepting = shared.awake.1.recv_timeout(timeout).is_ok();
        let is_served = is_accepting && shared.pool.prove(&shared.stopping).is_ok();
        is_served || shared.stopping.load(Ordering::Acquire)
    }
}
