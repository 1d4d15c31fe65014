//! How many sessions there are, by what they are doing: for the operator.

use super::{Records, Registry};

/// The sessions of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Waiting for their child.
    pub(crate) starting: usize,
    /// With a child.
    pub(crate) active: usize,
    /// Ended, with a child that waits for another session.
    pub(crate) parked: usize,
    /// Without a child, until their owner comes back.
    pub(crate) dormant: usize,
    /// Ended, with a child that is being stopped.
    pub(crate) stopping: usize,
    /// Requests of all sessions without an answer yet.
    pub(crate) in_flight: usize,
}

impl Registry {
    pub(crate) fn counts(&self) -> Counts {
        let (parked, stopping) = {
            let sessions = self.sessions.lock();
            (sessions.parked.len(), sessions.ending.values().sum())
        };
        let mut counts = Counts {
            parked,
            stopping,
            dormant: self.records.as_ref().map_or(0, Records::resting),
            ..Counts::default()
        };
        for session in self.all() {
            match session.bridge() {
                Some(bridge) => {
                    counts.active += 1;
                    counts.in_flight += bridge.in_flight();
                }
                None => counts.starting += 1,
            }
        }
        counts
    }
}
