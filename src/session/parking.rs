//! Children between two sessions: hosted clients are known to open a session for every call.
//!
//! A parked child is handed to nobody but the same principal, for the same server, and a client
//! that says of itself what the one before said. It takes the place of a session, and gives way
//! before any session does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Session;
use super::opening::Wanted;
use super::places::{Parked, Places, Sessions};
use super::{Cause, Registry};
use crate::metrics;

/// How long an opener waits for a child that is just letting go of its last session.
pub(super) const PARKING_TIMEOUT: Duration = Duration::from_millis(250);
/// How long such a child may take to show that it still listens.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

impl Registry {
    /// Whether the child of a session that ends may wait for the next one.
    pub(super) fn may_park(&self, session: &Session, cause: &Cause) -> bool {
        cause.frees_child()
            && self.policy(&session.server).park.is_some()
            && !self.is_stale(session)
            && session.bridge().is_some_and(|bridge| bridge.may_park())
    }

    /// Opens a session over a parked child, if there is one for it.
    pub(super) fn adopt(&self, wanted: &Wanted<'_>, initialize: &str) -> Option<Arc<Session>> {
        let fits = |parked: &Parked| {
            let old = &parked.session;
            old.principal == *wanted.principal
                // Its credentials are in the child's environment.
                && old.principal.env == wanted.principal.env
                && !self.is_stale(old)
                && old.server == *wanted.server
        };
        let candidates: Vec<Arc<Session>> = {
            let sessions = self.sessions.lock();
            let mut parked: Vec<_> = sessions.parked.iter().filter(|it| fits(it)).collect();
            // The oldest first, of those that need not be waited for.
            parked.sort_by_key(|parked| !parked.is_free);
            let parked = parked.into_iter();
            parked.map(|parked| Arc::clone(&parked.session)).collect()
        };
        let deadline = Instant::now() + PARKING_TIMEOUT;
        let is_of_same_client = |old: &Arc<Session>| {
            let bridge = old.bridge();
            bridge.is_some_and(|bridge| bridge.handshake().is_of_same_client(initialize))
        };
        candidates
            .iter()
            .filter(|old| is_of_same_client(old))
            .find_map(|old| self.take_over(old, wanted, deadline))
    }

    /// Gives the child of a parked session to a new one; `None` if somebody else was faster, or
    /// the child is not free in time.
    fn take_over(
        &self,
        old: &Arc<Session>,
        wanted: &Wanted<'_>,
        deadline: Instant,
    ) -> Option<Arc<Session>> {
        let session = {
            let mut sessions = self.sessions.lock();
            let is_parking = |sessions: &mut Sessions| {
                sessions
                    .parked_at(old)
                    .is_some_and(|at| !sessions.parked[at].is_free)
            };
            self.settled
                .wait_while_until(&mut sessions, is_parking, deadline);
            if sessions.draining {
                return None;
            }
            let at = sessions.parked_at(old)?;
            if !sessions.parked[at].is_free {
                return None;
            }
            let mut tenancy = sessions.parked.remove(at).session.tenancy();
            tenancy.tenant += 1;
            let session = Arc::new(Session::new(wanted.with(tenancy)));
            sessions
                .by_id
                .insert(wanted.id.to_owned(), Arc::clone(&session));
            sessions.unsettled += 1;
            session
        };
        let child = old.child.lock().take();
        *session.child.lock() = child;
        let tenancy = session.tenancy();
        if let Some(bridge) = old.bridge() {
            bridge.hand_over(wanted.id, tenancy.tenant);
            session.set_bridge(&bridge);
            session.pass_on();
        }
        self.check_connected(&session, "ended while it began");
        self.settle();
        metrics::SESSIONS_OPENED.add(1);
        metrics::PARKING_HITS.add(1);
        log::info!(
            "session opened sid={} user={} server={} over the parked child of sid={}",
            session.label(),
            wanted.principal.name,
            wanted.server,
            tenancy.label
        );
        Some(session)
    }

    /// A bridge has let go of the session it had, or could not.
    pub(super) fn child_parked(&self, child: u64, is_free: bool) {
        let refused = {
            let mut sessions = self.sessions.lock();
            let at = sessions
                .parked
                .iter()
                .position(|parked| parked.session.child_no() == child);
            match at {
                Some(at) if is_free => {
                    sessions.parked[at].is_free = true;
                    None
                }
                Some(at) => {
                    sessions.unsettled += 1;
                    Some(sessions.parked.remove(at).session)
                }
                None => None,
            }
        };
        match refused {
            Some(session) => self.end_parked(&session, "something of its session is left"),
            None => _ = self.settled.notify_all(),
        }
    }

    /// Ends the child that has been parked for longest; false if there is none.
    pub(super) fn end_oldest_parked(&self, places: Places<'_>) -> bool {
        let oldest = {
            let mut sessions = self.sessions.lock();
            let oldest = sessions.take_oldest_parked(places);
            sessions.unsettled += usize::from(oldest.is_some());
            oldest
        };
        let Some(session) = oldest else {
            return false;
        };
        self.end_parked(&session, "its place is needed");
        true
    }

    /// Ends the parked children for which this holds.
    pub(super) fn end_parked_where(&self, is_over: impl Fn(&Parked) -> bool, why: &str) {
        let over: Vec<Arc<Session>> = {
            let mut sessions = self.sessions.lock();
            let over = sessions.parked.extract_if(.., |parked| is_over(parked));
            let over: Vec<_> = over.map(|parked| parked.session).collect();
            sessions.unsettled += over.len();
            over
        };
        for session in over {
            self.end_parked(&session, why);
        }
    }

    /// Ends the parked children that have waited long enough.
    pub(super) fn end_overdue_parked(&self, now: Instant) {
        let waited = |parked: &Parked| now.saturating_duration_since(parked.since);
        let hangs = |parked: &Parked| !parked.is_free && waited(parked) >= PROOF_TIMEOUT;
        self.end_parked_where(hangs, "it does not answer a ping");
        let is_over = |parked: &Parked| {
            let park = self.policy(&parked.session.server).park;
            waited(parked) >= park.unwrap_or_default()
        };
        self.end_parked_where(is_over, "nobody came for it");
    }

    fn end_parked(&self, session: &Arc<Session>, why: &str) {
        log::info!("parked child of sid={} ends: {why}", session.label());
        self.stop_child(session);
        self.settle();
    }
}
