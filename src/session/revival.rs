//! Sessions without a child: their owner comes back with the id, and a new child is told what the
//! old one knew.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::opening::{Place, Wanted};
use super::records::{Owner, Record};
use super::{Audience, FindError, Found, OpenError, Registry, Session};
use crate::auth::Principal;
use crate::bridge::{Handshake, Refusal};
use crate::metrics;

/// How often the use of a session is written down.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

impl Registry {
    pub(super) fn find_resting(
        &self,
        id: &str,
        principal: &Principal,
        server: &str,
    ) -> Result<Found, FindError> {
        let found = self.records.as_ref().and_then(|records| records.find(id));
        let (owner, _) = found.ok_or(FindError::Unknown)?;
        if !owner.is(principal) {
            return Err(FindError::Foreign);
        }
        if owner.server != server || self.policy(server).revive.is_none() {
            return Err(FindError::Unknown);
        }
        Ok(Found::Resting)
    }

    /// Gives a resting session a new child; of several callers one does, and all get the session.
    /// A request that `is_use` wakes an idle session too.
    ///
    /// # Errors
    /// [`OpenError`]; the session rests on, unless it is [`OpenError::Ended`].
    pub(crate) fn revive(
        &self,
        id: &str,
        principal: &Principal,
        server: &Arc<str>,
        is_use: bool,
        now: Instant,
    ) -> Result<Arc<Session>, OpenError> {
        match self.find(id, principal, server) {
            Ok(Found::Running(session)) => return Ok(session),
            Ok(Found::Resting) => {}
            Err(_) => return Err(OpenError::Ended),
        }
        let records = self.records.as_ref().ok_or(OpenError::Ended)?;
        let (_, last_used) = records.find(id).ok_or(OpenError::Ended)?;
        let last_used = self.calendar.instant(last_used, now);
        let unused = now.saturating_duration_since(last_used);
        let is_idle = |timeout: Duration| unused >= timeout;
        if !is_use && self.options.idle_timeout.is_some_and(is_idle) {
            return Err(OpenError::Asleep);
        }
        let record = match records.read(id) {
            Ok(Some(record)) => record,
            Ok(None) => {
                records.forget(id);
                return Err(OpenError::Ended);
            }
            Err(error) => return Err(OpenError::Spawn(format!("cannot revive: {error}"))),
        };
        let opened = self.calendar.instant(record.opened, now);
        if self.is_too_old(opened, now) {
            records.forget(id);
            return Err(OpenError::Ended);
        }
        self.admit(principal, server, now)?;
        let wanted = Wanted {
            id,
            principal,
            server,
            audience: Audience::OneClient,
            opened,
            // Only a request that is use makes it younger.
            last_active: if is_use { now } else { last_used },
            is_awaited: is_use,
            is_kept: true,
            now,
        };
        let (session, quota) = match self.place(&wanted, |_| None)? {
            Place::Taken(session, quota) => (session, quota),
            Place::Exists(session) => return Ok(session),
        };
        // It may have been deleted meanwhile.
        if !records.wake(id) {
            self.sessions.lock().remove(&session);
            self.settle();
            session.fail(&Refusal::SessionEnded);
            return Err(OpenError::Ended);
        }
        if let Err(why) = self.start(&session, quota, Some(record.handshake), now) {
            self.lay_to_rest(&session);
            return Err(why);
        }
        metrics::SESSIONS_REVIVED.add(1);
        log::info!(
            "session revived sid={} user={} server={server}",
            session.label(),
            principal.name
        );
        Ok(session)
    }

    /// Writes down what a new child of the session would have to be told, as its child has it.
    pub(super) fn keep(&self, child: u64, id: &str, handshake: &Handshake) {
        if self.note_told(child, id) {
            return;
        }
        let session = self.sessions.lock().by_id.get(id).cloned();
        let Some((records, session)) = self.records.as_ref().zip(session) else {
            return;
        };
        // The session may have another child by now.
        if session.child_no() != child {
            return;
        }
        if self.policy(&session.server).revive.is_none() {
            return;
        }
        let record = Record {
            owner: Owner::new(&session.principal, &session.server),
            opened: self.calendar.wall(session.opened),
            handshake: handshake.clone(),
        };
        let last_used = self.calendar.wall(session.last_active());
        if let Err(why) = records.save(id, &record, last_used, session.begin_to_keep()) {
            log::error!("session sid={} cannot be revived: {why}", session.label());
            records.forget(id);
        }
        // It may have ended while it was written down.
        if session.is_over() {
            records.forget(id);
        } else if !self.sessions.lock().holds(&session) {
            self.lay_to_rest(&session);
        }
    }

    /// A session has lost its child.
    pub(super) fn lay_to_rest(&self, session: &Session) {
        let Some(records) = &self.records else {
            return;
        };
        if let Some(bridge) = session.bridge()
            && records.find(&session.id).is_some()
        {
            bridge.rest();
        }
        records.rest(&session.id, self.calendar.wall(session.last_active()));
        // It may have been revived before that was said.
        if self.sessions.lock().by_id.contains_key(&session.id) {
            records.wake(&session.id);
        }
    }

    /// Nobody can come back to the session.
    pub(super) fn forget(&self, id: &str) {
        if let Some(records) = &self.records {
            records.forget(id);
        }
    }

    /// Writes down which sessions are in use, and forgets those that nobody came back to.
    pub(super) fn tend_records(&self, now: Instant) {
        let Some(records) = &self.records else {
            return;
        };
        let today = SystemTime::now();
        if let Some(shift) = self.calendar.adjust(Instant::now(), today) {
            log::info!("the clock was set: sessions at rest keep their age");
            records.move_all(|noted| shift.apply(noted, today));
        }
        for session in self.all() {
            if session.must_note(NOTE_INTERVAL) {
                records.note(&session.id, self.calendar.wall(session.last_active()));
            }
        }
        records.expire(|server| self.policy(server).revive, self.calendar.wall(now));
    }
}
