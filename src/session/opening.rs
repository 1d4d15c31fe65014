//! How a session is let in: caps, memory, pauses, a place, and then a child.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::entry::{ChildEnd, Newcomer, Tenancy, label, new_session_id};
use super::places::{Places, Sessions};
use super::{Audience, Backend, Cause, OpenError, Registry, Session, SpawnRequest};
use crate::auth::Principal;
use crate::bridge::{Bridge, End, FIRST_TENANT, Handshake, Host, Quota, Refusal};
use crate::metrics;

/// How long an opener waits for processes of ended sessions to go, if there are too many.
const ROOM_TIMEOUT: Duration = Duration::from_secs(6);

/// A session that is to be.
pub(super) struct Wanted<'a> {
    pub(super) id: &'a str,
    pub(super) principal: &'a Principal,
    pub(super) server: &'a Arc<str>,
    pub(super) audience: Audience,
    pub(super) opened: Instant,
    pub(super) last_active: Instant,
    /// A client waits for more than a stream.
    pub(super) is_awaited: bool,
    /// It has been before, and was written down.
    pub(super) is_kept: bool,
    pub(super) now: Instant,
}

impl<'a> Wanted<'a> {
    pub(super) fn with(&self, tenancy: Tenancy) -> Newcomer<'a> {
        Newcomer {
            id: self.id,
            principal: self.principal,
            server: self.server,
            audience: self.audience,
            opened: self.opened,
            tenancy,
            last_active: self.last_active,
            is_awaited: self.is_awaited,
            is_kept: self.is_kept,
        }
    }
}

/// What a try to take a place came to.
enum Reserve {
    Taken(Arc<Session>, Arc<Quota>),
    /// Somebody else has just revived it.
    Exists(Arc<Session>),
    /// Too many processes of ended sessions are still being stopped.
    TooManyEnding,
    /// The principal has all of its places.
    UserFull,
    Full,
}

/// A place that was taken.
pub(super) enum Place {
    Taken(Arc<Session>, Arc<Quota>),
    Exists(Arc<Session>),
}

impl Registry {
    /// Opens a session for `principal` on `server`: takes a place, then starts the child, or takes
    /// a parked one over. If the principal has all of its places, its stalest session makes room.
    /// `initialize` are the `params` of the request.
    ///
    /// # Errors
    /// [`OpenError`]; the place is free again then.
    pub(crate) fn open(
        &self,
        principal: &Principal,
        server: &Arc<str>,
        initialize: &str,
        now: Instant,
    ) -> Result<Arc<Session>, OpenError> {
        let id = new_session_id().ok_or(OpenError::NoRandomness)?;
        let wanted = Wanted {
            id: &id,
            principal,
            server,
            audience: Audience::OneClient,
            opened: now,
            last_active: now,
            is_awaited: true,
            is_kept: false,
            now,
        };
        if let Some(session) = self.adopt(&wanted, initialize) {
            return Ok(session);
        }
        self.admit(principal, server, now)?;
        let place = self.place(&wanted, |room_was_made| {
            room_was_made.then(|| self.adopt(&wanted, initialize))?
        })?;
        let (session, quota) = match place {
            Place::Taken(session, quota) => (session, quota),
            Place::Exists(session) => return Ok(session),
        };
        self.start(&session, quota, None, now)?;
        metrics::SESSIONS_OPENED.add(1);
        if self.policy(server).park.is_some() {
            metrics::PARKING_MISSES.add(1);
        }
        log::info!(
            "session opened sid={} user={} server={server}",
            session.label(),
            principal.name
        );
        Ok(session)
    }

    /// What may stand against another process, whatever the caps say.
    pub(super) fn admit(
        &self,
        principal: &Principal,
        server: &Arc<str>,
        now: Instant,
    ) -> Result<(), OpenError> {
        if self.is_draining() {
            return Err(OpenError::Draining);
        }
        let key = (principal.clone(), Arc::clone(server));
        if let Some((left, why)) = self.starts.pause(&key, now) {
            return Err(OpenError::Pause { left, why });
        }
        self.check_memory()
    }

    /// Parked children give way first.
    fn check_memory(&self) -> Result<(), OpenError> {
        let floor = self.options.min_free_memory;
        let is_low = || floor > 0 && (self.options.free_memory)().is_some_and(|it| it < floor);
        while is_low() {
            if !self.end_oldest_parked(Places::All) {
                return Err(OpenError::LowMemory);
            }
        }
        Ok(())
    }

    /// Takes a place before any spawn, so that the caps hold however many arrive at once. `instead`
    /// is asked before each try whether there is another way; it is told whether a session had to
    /// make room.
    pub(super) fn place(
        &self,
        wanted: &Wanted<'_>,
        instead: impl Fn(bool) -> Option<Arc<Session>>,
    ) -> Result<Place, OpenError> {
        let Wanted { principal, now, .. } = *wanted;
        let deadline = Instant::now() + ROOM_TIMEOUT;
        let mut room_was_made = false;
        loop {
            if let Some(session) = instead(room_was_made) {
                return Ok(Place::Exists(session));
            }
            match self.reserve(wanted)? {
                Reserve::Taken(session, quota) => return Ok(Place::Taken(session, quota)),
                Reserve::Exists(session) => return Ok(Place::Exists(session)),
                Reserve::TooManyEnding if self.wait_for_room(principal, deadline) => {}
                Reserve::TooManyEnding => return Err(OpenError::Full),
                Reserve::UserFull => {
                    if self.end_oldest_parked(Places::Of(principal)) {
                        continue;
                    }
                    let Some(stalest) = self.stalest(principal)? else {
                        continue; // they have just ended
                    };
                    self.close_session(&stalest, &Cause::Evicted, now);
                    room_was_made = true;
                }
                Reserve::Full if self.end_oldest_parked(Places::All) => {}
                Reserve::Full => return Err(OpenError::Full),
            }
        }
    }

    fn reserve(&self, wanted: &Wanted<'_>) -> Result<Reserve, OpenError> {
        let Wanted { id, principal, .. } = *wanted;
        let mut sessions = self.sessions.lock();
        if sessions.draining {
            return Err(OpenError::Draining);
        }
        if let Some(session) = sessions.by_id.get(id) {
            return Ok(Reserve::Exists(Arc::clone(session)));
        }
        if sessions.too_many_ending(&self.options, principal) {
            return Ok(Reserve::TooManyEnding);
        }
        let per_user = self.options.max_sessions_per_user;
        if per_user > 0 && sessions.taken(Places::Of(principal)) >= per_user {
            return Ok(Reserve::UserFull);
        }
        let max = self.options.max_sessions;
        if max > 0 && sessions.taken(Places::All) >= max {
            return Ok(Reserve::Full);
        }
        sessions.last_child += 1;
        let session = Arc::new(Session::new(wanted.with(Tenancy {
            no: sessions.last_child,
            label: label(id).into(),
            since: wanted.now,
            tenant: FIRST_TENANT,
        })));
        let quota = sessions.quota(principal, self.options.max_in_flight_per_user);
        sessions.by_id.insert(id.to_owned(), Arc::clone(&session));
        sessions.unsettled += 1;
        Ok(Reserve::Taken(session, quota))
    }

    /// Waits until there is room beside the processes on their way out; false if none came in time.
    fn wait_for_room(&self, principal: &Principal, deadline: Instant) -> bool {
        let is_full = |sessions: &mut Sessions| sessions.too_many_ending(&self.options, principal);
        !self
            .settled
            .wait_while_until(&mut self.sessions.lock(), is_full, deadline)
            .timed_out()
    }

    /// The session of this principal that was not used for longest, and that has nothing in flight
    /// if there is such a one; `None` if there is none at all.
    ///
    /// # Errors
    /// [`OpenError::UserStarting`] if there are none but such as are still starting: each that
    /// comes would only undo the work for one that came before.
    fn stalest(&self, principal: &Principal) -> Result<Option<Arc<Session>>, OpenError> {
        let own = self.all().into_iter();
        let own: Vec<_> = own.filter(|it| it.principal == *principal).collect();
        let begun = own.iter().filter(|session| !session.is_starting());
        match begun.min_by_key(|session| (session.in_flight() > 0, session.last_asked())) {
            None if !own.is_empty() => Err(OpenError::UserStarting),
            stalest => Ok(stalest.cloned()),
        }
    }

    /// Starts the child of a session that has taken a place.
    pub(super) fn start(
        &self,
        session: &Arc<Session>,
        quota: Arc<Quota>,
        replay: Option<Handshake>,
        now: Instant,
    ) -> Result<(), OpenError> {
        let replay = replay.map(|handshake| (handshake, now));
        let spawned = self.spawn_child(session, &session.tenancy(), quota, replay);
        let spawned = spawned.map(|backend| self.begin(session, backend));
        if let Err(why) = &spawned {
            self.sessions.lock().remove(session);
            session.fail(&refusal(session, why));
        }
        self.settle();
        spawned
    }

    /// Starts a child for a session that has a place.
    pub(super) fn spawn_child(
        &self,
        session: &Arc<Session>,
        tenancy: &Tenancy,
        quota: Arc<Quota>,
        replay: Option<(Handshake, Instant)>,
    ) -> Result<Backend, OpenError> {
        let request = SpawnRequest {
            server: &session.server,
            principal: &session.principal,
            audience: session.audience,
            session: &session.id,
            label: &tenancy.label,
            quota,
            replay,
            host: Box::new(ChildHost {
                registry: self.this.clone(),
                child: tenancy.no,
            }),
            check: &|| self.check_wanted(session),
        };
        // A panic must give the place back too.
        catch_unwind(AssertUnwindSafe(|| (self.spawn)(request)))
            .unwrap_or_else(|_| Err(OpenError::Spawn("a fault in the broker".to_owned())))
    }

    /// Whether a child that is yet to be started is still to be.
    fn check_wanted(&self, session: &Arc<Session>) -> Result<(), OpenError> {
        {
            let sessions = self.sessions.lock();
            if !sessions.holds(session) {
                return Err(OpenError::Lost);
            }
            if sessions.draining {
                return Err(OpenError::Draining);
            }
        }
        self.check_memory()
    }

    /// Puts the backend in its place. If the session was ended meanwhile, ends the backend too.
    fn begin(&self, session: &Arc<Session>, backend: Backend) {
        let (bridge, end) = parts(backend);
        *session.child.lock() = Some(end);
        session.set_bridge(&bridge);
        // Its user may have been revoked: nothing that waits may reach this child then. Who ends it
        // from here on finds the bridge, and closes it.
        let is_held = self.sessions.lock().holds(session);
        if is_held {
            session.pass_on();
        } else {
            session.fail(&refusal(session, &OpenError::Lost));
        }
        self.check_connected(session, "ended while it started");
    }

    /// What ended the session, or drains the broker, may not have seen its bridge yet.
    pub(super) fn check_connected(&self, session: &Arc<Session>, why: &str) {
        let (is_open, is_draining) = {
            let sessions = self.sessions.lock();
            (sessions.holds(session), sessions.draining)
        };
        if is_draining && let Some(bridge) = session.bridge() {
            bridge.drain();
        }
        if !is_open {
            // Whoever ended it has not seen its bridge, which must know that it can be revived.
            self.lay_to_rest(session);
            self.end(session, why);
        }
    }

    pub(super) fn settle(&self) {
        self.sessions.lock().unsettled -= 1;
        self.settled.notify_all();
    }
}

pub(super) fn parts(backend: Backend) -> (Arc<Bridge>, ChildEnd) {
    let Backend {
        bridge,
        stop,
        kill,
        lease,
    } = backend;
    (Arc::new(bridge), ChildEnd { stop, kill, lease })
}

/// What those are told who wait for a child that does not come.
pub(super) fn refusal(session: &Session, why: &OpenError) -> Refusal {
    match why {
        OpenError::Spawn(why) => Refusal::StartFailed(why.clone()),
        OpenError::Draining => Refusal::Draining,
        _ if session.audience == Audience::AllOfPrincipal => Refusal::EndedEarly,
        _ if session.is_over() => Refusal::SessionEnded,
        _ => Refusal::Resting,
    }
}

/// What a bridge tells the registry, whichever session it serves.
struct ChildHost {
    registry: Weak<Registry>,
    /// See [`Tenancy`].
    child: u64,
}

impl Host for ChildHost {
    fn ended(&self, end: End) {
        if let Some(registry) = self.registry.upgrade() {
            registry.child_ended(self.child, end, Instant::now());
        }
    }

    fn changed(&self, session: &str, handshake: &Handshake) {
        if let Some(registry) = self.registry.upgrade() {
            registry.keep(self.child, session, handshake);
        }
    }

    fn parked(&self, is_free: bool) {
        if let Some(registry) = self.registry.upgrade() {
            registry.child_parked(self.child, is_free);
        }
    }
}
