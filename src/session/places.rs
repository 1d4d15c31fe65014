//! Who takes a place: sessions, parked children, and processes of ended sessions that are still
//! being stopped.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::entry::Session;
use super::succession::Respawn;
use super::{ENDING_MIN, Options, Registry};
use crate::auth::Principal;
use crate::bridge::Quota;

/// The sessions there are, and what else takes their place.
#[derive(Default)]
pub(super) struct Sessions {
    pub(super) by_id: HashMap<String, Arc<Session>>,
    /// The sessions that are shared, or were and will be again, by whose they are.
    pub(super) shared: HashMap<Principal, Vec<Shared>>,
    /// Children that are to take another's place, by the id of their session.
    pub(super) respawns: HashMap<String, Respawn>,
    /// Ended sessions whose children wait for the next one, the oldest first.
    pub(super) parked: Vec<Parked>,
    /// Spawns, and ends of sessions that have left the map, that are under way.
    pub(super) unsettled: usize,
    /// Processes of ended sessions that are being stopped, by whose they are.
    pub(super) ending: HashMap<Principal, usize>,
    /// Requests in flight, by whose they are; those whom nobody uses are dropped now and then.
    pub(super) quotas: HashMap<Principal, Weak<Quota>>,
    pub(super) last_child: u64,
    pub(super) draining: bool,
    /// Children are no longer asked to end, but killed.
    pub(super) killing: bool,
}

/// The session of all modern requests to a server that come of one sign-in.
pub(super) struct Shared {
    pub(super) server: Arc<str>,
    pub(super) grant: Option<Arc<str>>,
    pub(super) id: String,
}

/// A child between two sessions.
pub(super) struct Parked {
    /// The one that has ended.
    pub(super) session: Arc<Session>,
    pub(super) since: Instant,
    /// Its bridge has let go of all that belonged to that session.
    pub(super) is_free: bool,
}

/// Whose place is wanted.
#[derive(Clone, Copy)]
pub(super) enum Places<'a> {
    All,
    Of(&'a Principal),
}

impl Places<'_> {
    fn include(self, session: &Session) -> bool {
        match self {
            Self::All => true,
            Self::Of(principal) => session.principal == *principal,
        }
    }
}

impl Sessions {
    /// How many places are taken.
    pub(super) fn taken(&self, places: Places<'_>) -> usize {
        let parked = self.parked.iter().map(|parked| &parked.session);
        let sessions = self.by_id.values().chain(parked);
        sessions.filter(|session| places.include(session)).count()
    }

    /// Takes out the child that has been parked for longest.
    pub(super) fn take_oldest_parked(&mut self, places: Places<'_>) -> Option<Arc<Session>> {
        let is_wanted = |parked: &Parked| places.include(&parked.session);
        let at = self.parked.iter().position(is_wanted)?;
        Some(self.parked.remove(at).session)
    }

    /// A session that has ended leaves its place at once, but its process needs a while; so many
    /// of those may there be again as of sessions.
    pub(super) fn too_many_ending(&self, options: &Options, principal: &Principal) -> bool {
        let own = self.ending.get(principal).copied().unwrap_or(0);
        let all: usize = self.ending.values().sum();
        let is_reached = |max: usize, count| max > 0 && count >= max.max(ENDING_MIN);
        is_reached(options.max_sessions_per_user, own) || is_reached(options.max_sessions, all)
    }

    /// The id of the session that modern requests of this principal share.
    pub(super) fn shared_id(&self, principal: &Principal, server: &str) -> Option<&str> {
        let mut shared = self.shared.get(principal)?.iter();
        let found = shared.find(|it| *it.server == *server && it.grant == principal.grant);
        found.map(|it| it.id.as_str())
    }

    /// What this principal has in flight.
    pub(super) fn quota(&mut self, principal: &Principal, max: usize) -> Arc<Quota> {
        if let Some(quota) = self.quotas.get(principal).and_then(Weak::upgrade) {
            return quota;
        }
        self.quotas.retain(|_, quota| quota.strong_count() > 0);
        let quota = Arc::new(Quota::new(max));
        self.quotas
            .insert(principal.clone(), Arc::downgrade(&quota));
        quota
    }

    /// Whether this very session is running; another one may bear its id by now.
    pub(super) fn holds(&self, session: &Arc<Session>) -> bool {
        let held = self.by_id.get(&session.id);
        held.is_some_and(|held| Arc::ptr_eq(held, session))
    }

    /// Takes a session out; false if it is not there any more.
    pub(super) fn remove(&mut self, session: &Arc<Session>) -> bool {
        self.holds(session) && self.by_id.remove(&session.id).is_some()
    }

    /// Where the child of this session waits.
    pub(super) fn parked_at(&self, session: &Arc<Session>) -> Option<usize> {
        let is_it = |parked: &Parked| Arc::ptr_eq(&parked.session, session);
        self.parked.iter().position(is_it)
    }

    /// The session of this child, which is either running or parked.
    pub(super) fn of_child(&self, no: u64) -> Option<Arc<Session>> {
        let parked = self.parked.iter().map(|parked| &parked.session);
        let mut sessions = self.by_id.values().chain(parked);
        sessions.find(|session| session.child_no() == no).cloned()
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
