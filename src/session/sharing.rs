//! The session that all modern requests of one sign-in of a principal share, one for each server
//! (2026-07-28, basic, "Statelessness"): it has a child like any other, a place like any other, and
//! an end. The next request opens it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::new_session_id;
use super::opening::{Place, Wanted};
use super::places::Shared;
use super::{Audience, Cause, OpenError, Registry, Session};
use crate::auth::Principal;
use crate::metrics;

/// How long a session that was just found to be ending is given to leave its place.
const LEAVING: Duration = Duration::from_millis(20);
/// How often.
const TRIES: usize = 100;

impl Registry {
    /// The session that modern requests of this principal to this server share, if it is there. One
    /// whose child was started with other credentials of the principal is not.
    pub(crate) fn find_shared(&self, principal: &Principal, server: &str) -> Option<Arc<Session>> {
        let session = self.find_any_shared(principal, server);
        session.filter(|it| it.is_for(principal))
    }

    fn find_any_shared(&self, principal: &Principal, server: &str) -> Option<Arc<Session>> {
        let sessions = self.sessions.lock();
        let id = sessions.shared_id(principal, server)?;
        sessions.by_id.get(id).cloned()
    }

    /// Opens it, if it is not there; of several callers one does, and all get the session, which
    /// may still be starting.
    ///
    /// # Errors
    /// [`OpenError`]; the place is free again then.
    pub(crate) fn share(
        &self,
        principal: &Principal,
        server: &Arc<str>,
        now: Instant,
    ) -> Result<Arc<Session>, OpenError> {
        for _ in 0..TRIES {
            if let Some(session) = self.find_any_shared(principal, server) {
                if !session.is_for(principal) {
                    self.close_session(&session, &Cause::Revoked, now);
                    self.forget_shared(std::slice::from_ref(principal));
                    continue;
                }
                if session.visit(now).is_some() {
                    return Ok(session);
                }
                let is_there = |sessions: &mut super::places::Sessions| sessions.holds(&session);
                let mut sessions = self.sessions.lock();
                self.settled
                    .wait_while_for(&mut sessions, is_there, LEAVING);
                continue;
            }
            self.admit(principal, server, now)?;
            let id = self.shared_id(principal, server)?;
            let wanted = Wanted {
                id: &id,
                principal,
                server,
                audience: Audience::AllOfPrincipal,
                opened: now,
                last_active: now,
                is_awaited: true,
                is_kept: false,
                now,
            };
            let (session, quota) = match self.place(&wanted, |_| None)? {
                Place::Taken(session, quota) => (session, quota),
                Place::Exists(_) => continue,
            };
            self.start(&session, quota, None, now)?;
            metrics::SESSIONS_OPENED.add(1);
            log::info!(
                "session opened sid={} user={} server={server} for all modern requests",
                session.label(),
                principal.name
            );
            return Ok(session);
        }
        Err(OpenError::Busy)
    }

    fn shared_id(&self, principal: &Principal, server: &Arc<str>) -> Result<String, OpenError> {
        let mut sessions = self.sessions.lock();
        if let Some(id) = sessions.shared_id(principal, server) {
            return Ok(id.to_owned());
        }
        let id = new_session_id().ok_or(OpenError::NoRandomness)?;
        let of_principal = sessions.shared.entry(principal.clone()).or_default();
        of_principal.push(Shared {
            server: Arc::clone(server),
            grant: principal.grant.clone(),
            id: id.clone(),
        });
        Ok(id)
    }

    /// These principals are no more, or not as they were.
    pub(crate) fn forget_shared(&self, revoked: &[Principal]) {
        let mut sessions = self.sessions.lock();
        for principal in revoked {
            let Some(of_principal) = sessions.shared.get_mut(principal) else {
                continue;
            };
            if principal.grant.is_some() {
                of_principal.retain(|it| it.grant != principal.grant);
            }
            if principal.grant.is_none() || of_principal.is_empty() {
                sessions.shared.remove(principal);
            }
        }
    }
}
