//! A session whose user has a newer token gets a new child, since the environment of the one it has
//! cannot change.
//!
//! The heir is started beside the old child and told all that that one knows. It takes over at the
//! first moment at which nothing is in flight; what comes just then waits. The streams go with it,
//! so that the client sees nothing. If it cannot be started, the session goes on as it was.
//!
//! A shared session has no streams that could go along, but clients that find the next one by
//! themselves: it ends as soon as nothing but subscriptions is open.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::entry::{ChildEnd, Tenancy, Waiting, label};
use super::opening::{parts, refusal};
use super::places::{Parked, Sessions};
use super::{Audience, Cause, OpenError, Registry, Session, Stopping};
use crate::bridge::{Bridge, End, FIRST_TENANT};
use crate::thread;

/// Heirs that are started or wait at a time.
const RESPAWNS_MAX: usize = 8;
/// How long an heir waits for a moment at which it can take over.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long until the next try, if one came to nothing.
pub(super) const RETRY: Duration = Duration::from_secs(30);
/// How often such a moment is looked for, beside when a request comes.
const LOOK: Duration = Duration::from_millis(10);
/// How long the streams may take to change hands: the old child's reader thread may have ended.
const HANDOVER: Duration = Duration::from_secs(1);

/// A child with what the session has of it.
pub(super) struct Seat {
    bridge: Arc<Bridge>,
    tenancy: Tenancy,
    /// `None` if somebody else ends it.
    end: Option<ChildEnd>,
}

/// A child that shall take another's place.
pub(super) struct Respawn {
    /// See [`Tenancy`].
    child: u64,
    state: State,
}

enum State {
    /// It is being started, or told what the other one knows.
    Starting,
    /// It knows all.
    Told,
    Ended(End),
    /// There is none until then.
    Paused(Instant),
}

/// Why there is no heir.
enum Vain {
    Open(OpenError),
    /// In words, for the log.
    Why(&'static str),
}

impl Session {
    /// Whether the child has a token that is not the newest of its user.
    pub(super) fn has_stale_token(&self) -> bool {
        let child = self.child.lock();
        let lease = child.as_ref().and_then(|child| child.lease.as_ref());
        lease.is_some_and(|lease| lease.is_superseded())
    }

    /// From now on this child takes over when it can; gives it back if it cannot be so.
    fn offer(&self, heir: Seat) -> Result<(), Seat> {
        match &mut *self.early.lock() {
            Waiting::Passed(ready @ None) => {
                *ready = Some(Box::new(heir));
                Ok(())
            }
            _ => Err(heir),
        }
    }

    /// The offer is off; `None` if it was taken.
    fn withdraw(&self) -> Option<Seat> {
        match &mut *self.early.lock() {
            Waiting::Passed(ready) => ready.take().map(|heir| *heir),
            _ => None,
        }
    }

    /// Whether the child that stands ready has not been told all that the one it has knows by now.
    fn has_outdated_heir(&self) -> bool {
        let (Waiting::Passed(Some(heir)), Some(bridge)) = (&*self.early.lock(), self.bridge())
        else {
            return false;
        };
        bridge.may_leave() && !bridge.may_be_succeeded_by(&heir.bridge)
    }

    /// Gives the session the child that stands ready, if this is the moment. What comes from now on
    /// waits until [`Session::pass_on`].
    pub(super) fn switch(&self, waiting: &mut Waiting) {
        let Waiting::Passed(ready @ Some(_)) = waiting else {
            return;
        };
        // Nobody begins to bring anything as long as the lock is held.
        if self.passing.load(Ordering::Acquire) > 0 {
            return;
        }
        let may_succeed = |heir: &Seat| {
            let bridge = self.bridge();
            bridge.is_some_and(|bridge| bridge.may_be_succeeded_by(&heir.bridge))
        };
        if let Some(heir) = ready.take_if(|heir| may_succeed(heir)) {
            let old = self.seat(*heir);
            *waiting = Waiting::Open(Vec::new(), old.map(Box::new));
        }
    }

    /// Gives the session this child, and takes the one it had.
    fn seat(&self, heir: Seat) -> Option<Seat> {
        // Whoever ends a child holds this too.
        let mut child = self.child.lock();
        let end = std::mem::replace(&mut *child, heir.end);
        let tenancy = std::mem::replace(&mut *self.tenancy.lock(), heir.tenancy);
        let bridge = self.bridge.lock().replace(heir.bridge)?;
        Some(Seat {
            bridge,
            tenancy,
            end,
        })
    }

    /// Looks whether this is the moment; gives the child that the session had before, once it has
    /// another.
    fn try_switch(&self) -> Option<Seat> {
        let mut waiting = self.early.lock();
        self.switch(&mut waiting);
        match &mut *waiting {
            Waiting::Open(_, old) => old.take().map(|old| *old),
            Waiting::Passed(_) | Waiting::Failed(_) => None,
        }
    }

    /// As [`Session::retire`], although somebody may wait for changes.
    fn retire_listened(&self) -> bool {
        let mut visitors = self.visitors.lock();
        if visitors.count == 0 && self.in_flight() == 0 {
            visitors.is_closed = true;
        }
        visitors.is_closed
    }
}

impl Registry {
    /// Sees to a new child for a session whose child has an old token, or to its end if the next
    /// request finds another by itself.
    pub(super) fn renew(&self, session: &Arc<Session>, now: Instant) {
        if !self.is_stale(session) {
            return;
        }
        match session.audience {
            Audience::AllOfPrincipal if session.retire_listened() => {
                self.close_session(session, &Cause::Refreshed, now);
            }
            Audience::AllOfPrincipal => {}
            Audience::OneClient => self.begin_respawn(session, now),
        }
    }

    /// Whether the child has a token that is not the newest, and its server says that it shall not.
    pub(super) fn is_stale(&self, session: &Session) -> bool {
        session.has_stale_token() && !self.policy(&session.server).keeps_old_token
    }

    /// A parked child with an old token is for nobody; nor is there another try to start one for a
    /// session that has ended.
    pub(super) fn tend_stale(&self) {
        let is_stale = |parked: &Parked| self.is_stale(&parked.session);
        self.end_parked_where(is_stale, "its user has a newer token");
        let mut sessions = self.sessions.lock();
        let Sessions {
            respawns, by_id, ..
        } = &mut *sessions;
        respawns.retain(|id, it| !matches!(it.state, State::Paused(_)) || by_id.contains_key(id));
    }

    fn begin_respawn(&self, session: &Arc<Session>, now: Instant) {
        // One that is at work would only keep the other waiting.
        if !session.bridge().is_some_and(|bridge| bridge.may_leave()) {
            return;
        }
        let Some(child) = self.enter_respawn(session, now) else {
            return;
        };
        let (this, its) = (self.this.clone(), Arc::clone(session));
        let name = format!("respawn:{}", session.label());
        let respawn = move || {
            if let Some(registry) = this.upgrade() {
                registry.run_respawn(&its, child, now);
            }
        };
        match thread::spawn_brief(name, respawn) {
            Ok(thread) => self.stopping.lock().push(Stopping {
                thread: Some(thread),
                kill: Arc::new(|| {}), // its child is killed when that is being stopped
            }),
            Err(error) => {
                log::error!("cannot start a thread to start a child: {error}");
                self.pause_respawn(session, now);
                self.settle();
            }
        }
    }

    /// Takes note of a respawn, and gives the number of its child; `None` if it is not to be.
    fn enter_respawn(&self, session: &Arc<Session>, now: Instant) -> Option<u64> {
        let mut sessions = self.sessions.lock();
        if sessions.draining || !sessions.holds(session) {
            return None;
        }
        let is_paused = |it: &Respawn| matches!(it.state, State::Paused(_));
        match sessions.respawns.get(&session.id).map(|it| &it.state) {
            None => {}
            Some(State::Paused(until)) if now >= *until => {}
            Some(_) => return None,
        }
        let at_work = sessions.respawns.values().filter(|it| !is_paused(it));
        if at_work.count() >= RESPAWNS_MAX {
            return None;
        }
        sessions.last_child += 1;
        sessions.unsettled += 1;
        let respawn = Respawn {
            child: sessions.last_child,
            state: State::Starting,
        };
        let child = respawn.child;
        sessions.respawns.insert(session.id.clone(), respawn);
        Some(child)
    }

    fn run_respawn(&self, session: &Arc<Session>, child: u64, now: Instant) {
        let respawned = catch_unwind(AssertUnwindSafe(|| self.respawn(session, child, now)))
            .unwrap_or(Err(Vain::Why("a fault in the broker")));
        let label = session.label();
        match respawned {
            Ok(()) => log::info!(
                "session sid={label} user={} has a new child, for its user has a newer token",
                session.principal.name
            ),
            Err(why) => {
                self.pause_respawn(session, now);
                match why {
                    Vain::Open(OpenError::SignInAgain) => {
                        self.close_session(session, &Cause::Revoked, Instant::now());
                    }
                    Vain::Open(why) => log::warn!("session sid={label} keeps its child: {why:?}"),
                    Vain::Why(why) => log::info!("session sid={label} keeps its child: {why}"),
                }
            }
        }
        self.settle();
    }

    /// The next try is made after a while, if the session is still there then.
    fn pause_respawn(&self, session: &Arc<Session>, now: Instant) {
        let mut sessions = self.sessions.lock();
        let is_there = sessions.holds(session);
        if let Some(respawn) = sessions.respawns.get_mut(&session.id) {
            respawn.state = State::Paused(now + RETRY);
        }
        if !is_there {
            sessions.respawns.remove(&session.id);
        }
    }

    /// Starts an heir and lets it take over.
    fn respawn(&self, session: &Arc<Session>, child: u64, now: Instant) -> Result<(), Vain> {
        let told = session
            .bridge()
            .ok_or(Vain::Why("it has none"))?
            .handshake();
        let tenancy = Tenancy {
            no: child,
            label: label(&session.id).into(),
            since: now,
            tenant: FIRST_TENANT,
        };
        let quota = {
            let max = self.options.max_in_flight_per_user;
            self.sessions.lock().quota(&session.principal, max)
        };
        let replay = Some((told, Instant::now()));
        let backend = self.spawn_child(session, &tenancy, quota, replay);
        let (bridge, end) = parts(backend.map_err(Vain::Open)?);
        let heir = Seat {
            bridge,
            tenancy,
            end: Some(end),
        };
        if !self.wait_until_told(session, &heir) {
            self.stop_seat(session, heir);
            return Err(Vain::Why("the new one did not begin"));
        }
        let offered = session.offer(heir);
        let Err(heir) = offered.map_or_else(Err, |()| self.wait_for_switch(session, child)) else {
            return Ok(());
        };
        self.stop_seat(session, heir);
        Err(Vain::Why("it was never idle, or is no more"))
    }

    /// Waits until the new child knows what the old one did; false if that does not come.
    fn wait_until_told(&self, session: &Arc<Session>, heir: &Seat) -> bool {
        loop {
            let mut sessions = self.sessions.lock();
            match sessions.respawns.get(&session.id).map(|it| &it.state) {
                Some(State::Told) => return true,
                Some(State::Starting) => {}
                _ => return false,
            }
            if sessions.draining || !sessions.holds(session) {
                return false;
            }
            self.settled.wait_for(&mut sessions, LOOK * 10);
            drop(sessions);
            // It does not answer for ever.
            heir.bridge.tick(Instant::now());
        }
    }

    /// Waits for the moment at which the new child can take over, and lets it; gives it back if
    /// that does not come.
    fn wait_for_switch(&self, session: &Arc<Session>, child: u64) -> Result<(), Seat> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(old) = session.try_switch() {
                self.finish_switch(session, child, old);
                return Ok(());
            }
            let is_over = {
                let mut sessions = self.sessions.lock();
                let respawn = sessions.respawns.get(&session.id);
                let is_there = respawn.is_some_and(|it| matches!(it.state, State::Told))
                    && !sessions.draining
                    && sessions.holds(session);
                if is_there {
                    self.settled.wait_for(&mut sessions, LOOK);
                }
                !is_there || Instant::now() >= deadline
            };
            let is_over = is_over || session.has_outdated_heir();
            // It may have been taken just now.
            if is_over && let Some(heir) = session.withdraw() {
                return Err(heir);
            }
        }
    }

    /// The session has another child.
    fn finish_switch(&self, session: &Arc<Session>, child: u64, old: Seat) {
        if let Some(bridge) = session.bridge() {
            // Nothing is sent, and the other end is dropped.
            let _ = old.bridge.bequeath(&bridge).recv_timeout(HANDOVER);
        }
        self.stop_seat(session, old);
        let (is_held, is_draining, respawn) = {
            let mut sessions = self.sessions.lock();
            let respawn = sessions.respawns.remove(&session.id);
            (sessions.holds(session), sessions.draining, respawn)
        };
        if !is_held {
            // Whoever has ended it may have seen the other child.
            session.fail(&refusal(session, &OpenError::Lost));
            return self.check_connected(session, "ended while it got another child");
        }
        if let Some(bridge) = session.bridge() {
            if is_draining {
                bridge.drain();
            }
            self.keep(child, &session.id, &bridge.handshake());
        }
        session.pass_on();
        if let Some(Respawn {
            state: State::Ended(end),
            ..
        }) = respawn
        {
            self.child_ended(child, end, Instant::now());
        }
    }

    fn stop_seat(&self, session: &Session, seat: Seat) {
        match seat.end {
            Some(end) => self.stop_its(session, &seat.bridge, end, &seat.tenancy),
            None => seat.bridge.close(),
        }
    }

    /// A child has been told all that it needs to know; false if it is none that is to take
    /// another's place.
    pub(super) fn note_told(&self, child: u64, id: &str) -> bool {
        let mut sessions = self.sessions.lock();
        let respawn = sessions.respawns.get_mut(id);
        let Some(respawn) = respawn.filter(|it| it.child == child) else {
            return false;
        };
        if matches!(respawn.state, State::Starting) {
            respawn.state = State::Told;
        }
        drop(sessions);
        self.settled.notify_all();
        true
    }

    /// A child has ended; gives that back if it is none that is to take another's place.
    pub(super) fn note_heir_ended(&self, child: u64, end: End) -> Option<End> {
        let mut sessions = self.sessions.lock();
        let mut respawns = sessions.respawns.values_mut();
        match respawns.find(|it| it.child == child) {
            Some(respawn) if !matches!(respawn.state, State::Paused(_)) => {
                respawn.state = State::Ended(end);
            }
            _ => return Some(end),
        }
        drop(sessions);
        self.settled.notify_all();
        None
    }
}
