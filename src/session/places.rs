//! Who takes a place: sessions, and processes of ended ones that are still being stopped.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::entry::Session;
use super::{ENDING_MIN, Options, Registry};
use crate::auth::Principal;

/// The sessions there are, and what else takes their place.
#[derive(Default)]
pub(super) struct Sessions {
    pub(super) by_id: HashMap<String, Arc<Session>>,
    /// Spawns, and ends of sessions that have left the map, that are under way.
    pub(super) unsettled: usize,
    /// Processes of ended sessions that are being stopped, by whose they are.
    pub(super) ending: HashMap<Principal, usize>,
    pub(super) draining: bool,
    /// Children are no longer asked to end, but killed.
    pub(super) killing: bool,
}

impl Sessions {
    /// A session that has ended leaves its place at once, but its process needs a while; so many
    /// of those may there be again as of sessions.
    pub(super) fn too_many_ending(&self, options: &Options, principal: &Principal) -> bool {
        let own = self.ending.get(principal).copied().unwrap_or(0);
        let all: usize = self.ending.values().sum();
        let is_reached = |max: usize, count| max > 0 && count >= max.max(ENDING_MIN);
        is_reached(options.max_sessions_per_user, own) || is_reached(options.max_sessions, all)
    }
}

/// A process on its way out, counted from here until this is dropped.
pub(super) struct Ending {
    registry: Weak<Registry>,
    principal: Principal,
}

impl Ending {
    pub(super) fn begin(registry: &Weak<Registry>, principal: &Principal) -> Self {
        let (registry, principal) = (registry.clone(), principal.clone());
        if let Some(registry) = registry.upgrade() {
            *registry
                .sessions
                .lock()
                .ending
                .entry(principal.clone())
                .or_default() += 1;
        }
        Self {
            registry,
            principal,
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(registry) = self.registry.upgrade() else {
            return;
        };
        let mut sessions = registry.sessions.lock();
        if let Some(count) = sessions.ending.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                sessions.ending.remove(&self.principal);
            }
        }
        drop(sessions);
        registry.settled.notify_all();
    }
}
