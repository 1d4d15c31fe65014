//! How sessions end: alone, by time, by revocation, and all together.

use std::sync::Arc;
use std::time::Instant;

use super::entry::{ChildEnd, Tenancy};
use super::places::{Ending, Parked, Sessions};
use super::starts::SHORT_LIFE;
use super::{Audience, Cause, Registry, Session, Stopping};
use crate::auth::Principal;
use crate::bridge::{Bridge, End};
use crate::metrics;
use crate::thread::{self, Joined};

impl Registry {
    /// Ends a session, for whatever reason; does nothing if it has ended. Returns at once: the
    /// child is stopped by a thread of its own, or parked.
    pub(crate) fn close(&self, id: &str, cause: Cause, now: Instant) {
        // First, so that a session that is just being revived is stopped there or found here.
        if !cause.is_revivable() {
            self.forget(id);
        }
        let session = self.sessions.lock().by_id.get(id).cloned();
        if let Some(session) = session {
            self.close_session(&session, &cause, now);
        }
    }

    /// The same of this very session: another one may bear its id by now.
    pub(crate) fn close_session(&self, session: &Arc<Session>, cause: &Cause, now: Instant) {
        let may_park = self.may_park(session, cause);
        if !cause.is_revivable() || session.is_unborn() {
            session.end_for_good();
            self.forget(&session.id);
        }
        let is_parked = {
            let mut sessions = self.sessions.lock();
            if !sessions.remove(session) {
                return;
            }
            sessions.unsettled += 1;
            // Not while another child is to take the place of this one.
            let is_parked =
                may_park && !sessions.draining && !sessions.respawns.contains_key(&session.id);
            if is_parked {
                sessions.parked.push(Parked {
                    session: Arc::clone(session),
                    since: now,
                    is_free: false,
                });
            }
            is_parked
        };
        metrics::SESSIONS_ENDED.add(cause.for_metrics());
        self.lay_to_rest(session);
        if !matches!(cause, Cause::Backend(_)) {
            let key = (session.principal.clone(), Arc::clone(&session.server));
            self.starts.succeeded(&key);
        }
        if !is_parked {
            self.end(session, &cause.to_string());
        } else if session.bridge().is_some_and(|bridge| bridge.park()) {
            log_end(session, &format!("{cause}; its child is parked"));
        } else {
            log_end(session, &cause.to_string());
            self.child_parked(session.child_no(), false);
        }
        self.settle();
    }

    /// Ends the child of a session that has left the map.
    pub(super) fn end(&self, session: &Arc<Session>, why: &str) {
        // Without a child it is still starting: `begin` will find it ended.
        if session.bridge().is_some() && self.stop_child(session) {
            log_end(session, why);
        }
    }

    /// Runs the stop ladder on another thread; false if there is no child.
    pub(super) fn stop_child(&self, session: &Arc<Session>) -> bool {
        let (bridge, end, tenancy) = {
            // Whoever gives it another child holds this.
            let mut child = session.child.lock();
            let Some(bridge) = session.bridge() else {
                return false;
            };
            let Some(end) = child.take() else {
                return false;
            };
            (bridge, end, session.tenancy())
        };
        self.stop_its(session, &bridge, end, &tenancy);
        true
    }

    /// The same of a child that the session has not, or not any more.
    pub(super) fn stop_its(
        &self,
        session: &Session,
        bridge: &Bridge,
        end: ChildEnd,
        tenancy: &Tenancy,
    ) {
        let ChildEnd { stop, kill, .. } = end;
        bridge.close();
        let kill: Arc<dyn Fn() + Send + Sync> = Arc::from(kill);
        let ending = Ending::begin(&self.this, &session.principal);
        let label = &tenancy.label;
        let stop = move || {
            stop();
            drop(ending);
        };
        match thread::spawn_brief(format!("stop:{label}"), stop) {
            Ok(thread) => {
                self.stopping.lock().push(Stopping {
                    thread: Some(thread),
                    kill: Arc::clone(&kill),
                });
                // `kill_all` either finds it there, or is seen here.
                if self.sessions.lock().killing {
                    kill();
                }
            }
            // With its `stop`, the child was dropped, which has killed it.
            Err(error) => log::error!("cannot start a thread to stop sid={label}: {error}"),
        }
    }

    /// A bridge can serve no more.
    pub(super) fn child_ended(&self, child: u64, end: End, now: Instant) {
        let Some(end) = self.note_heir_ended(child, end) else {
            return;
        };
        let of_child = || self.sessions.lock().of_child(child);
        let Some(session) = of_child() else {
            return;
        };
        self.count_end(&session, &end, now);
        let cause = Cause::Backend(end);
        let is_its = |parked: &Parked| parked.session.child_no() == child;
        // Meanwhile it may be parked, and be taken over.
        while let Some(session) = of_child() {
            self.close_session(&session, &cause, now);
            self.end_parked_where(is_its, "it ended by itself");
        }
    }

    /// Tells those who decide about the next start how this child did.
    fn count_end(&self, session: &Session, end: &End, now: Instant) {
        let key = (session.principal.clone(), Arc::clone(&session.server));
        let life = now.saturating_duration_since(session.tenancy.lock().since);
        match end {
            End::Exited { .. } if life >= SHORT_LIFE => self.starts.succeeded(&key),
            End::StartFailed { detail, .. } | End::Exited { detail, .. } => {
                self.starts.failed(key, detail.clone(), now);
            }
            End::ClientGone | End::Fault => {}
        }
    }

    /// Does what time brings: ends idle and old sessions and parked children, wakes bridges that
    /// have something due, joins the threads of sessions that have stopped.
    pub(crate) fn tick(&self, now: Instant) {
        // In one pass: a session that nobody uses is in no cache.
        for session in self.all() {
            self.close_overdue(&session, now);
            if let Some(bridge) = session.bridge() {
                bridge.tick(now);
            }
            if self.renews {
                self.renew(&session, now);
            }
        }
        if self.renews {
            self.tend_stale();
        }
        self.end_overdue_parked(now);
        self.tend_records(now);
        let stopped: Vec<Stopping> = self
            .stopping
            .lock()
            .extract_if(.., |it| it.thread.as_ref().is_some_and(Joined::is_finished))
            .collect();
        drop(stopped);
    }

    /// Ends a session that is too old, or without a request for `idle_timeout`. As long as a
    /// client waits for an answer, its session is in use; an open GET is no use.
    fn close_overdue(&self, session: &Arc<Session>, now: Instant) {
        if self.is_too_old(session.opened, now) {
            return self.close_session(session, &Cause::Expired, now);
        }
        let Some(timeout) = self.options.idle_timeout else {
            return;
        };
        if session.has_clients() {
            session.is_waited_on(now);
        } else if now.saturating_duration_since(session.last_active()) >= timeout
            && (session.audience == Audience::OneClient || session.retire())
        {
            self.close_session(session, &Cause::Idle, now);
        }
    }

    pub(super) fn is_too_old(&self, opened: Instant, now: Instant) -> bool {
        let age = now.saturating_duration_since(opened);
        self.options.max_age.is_some_and(|max| age >= max)
    }

    /// Ends all that these principals have, or what came of one sign-in: see
    /// [`Principal::covers`].
    pub(crate) fn close_principals(&self, revoked: &[Principal], now: Instant) {
        let is_revoked = |session: &Session| revoked.iter().any(|it| it.covers(&session.principal));
        for session in self.all() {
            if is_revoked(&session) {
                self.close_session(&session, &Cause::Revoked, now);
            }
        }
        self.forget_shared(revoked);
        let is_theirs = |parked: &Parked| is_revoked(&parked.session);
        self.end_parked_where(is_theirs, "its user was revoked");
        if let Some(records) = &self.records {
            records.forget_principals(revoked);
        }
    }

    /// From now on no session is opened and no request is taken.
    pub(crate) fn drain(&self) {
        self.sessions.lock().draining = true;
        for session in self.all() {
            if let Some(bridge) = session.bridge() {
                bridge.drain();
            }
        }
    }

    /// Ends all sessions side by side, and returns when nothing of them is left.
    pub(crate) fn stop(&self) {
        self.drain();
        let now = Instant::now();
        for session in self.all() {
            self.close_session(&session, &Cause::Shutdown, now);
        }
        self.end_parked_where(|_| true, "the broker is shutting down");
        let is_unsettled = |sessions: &mut Sessions| sessions.unsettled > 0;
        self.settled
            .wait_while(&mut self.sessions.lock(), is_unsettled);
        // What is waited for stays in the list, where `kill_all` finds it.
        let next = || {
            let mut stopping = self.stopping.lock();
            stopping.iter_mut().find_map(|it| it.thread.take())
        };
        while let Some(thread) = next() {
            thread.join();
        }
        self.stopping.lock().clear();
    }

    /// Ends all children at once: those that run, that are being stopped, and that come yet.
    pub(crate) fn kill_all(&self) {
        let parked: Vec<_> = {
            let mut sessions = self.sessions.lock();
            sessions.killing = true;
            let parked = sessions.parked.iter();
            parked.map(|parked| Arc::clone(&parked.session)).collect()
        };
        for session in self.all().iter().chain(&parked) {
            if let Some(child) = session.child.lock().as_ref() {
                (child.kill)();
            }
        }
        let kills: Vec<_> = self
            .stopping
            .lock()
            .iter()
            .map(|it| Arc::clone(&it.kill))
            .collect();
        kills.iter().for_each(|kill| kill());
    }
}

fn log_end(session: &Session, why: &str) {
    log::info!(
        "session ended sid={} user={}: {why}",
        session.label(),
        session.principal.name
    );
}
