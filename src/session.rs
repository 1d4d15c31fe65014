//! The registry: which session id belongs to whom and to which running child.
//!
//! A session is minted by an `initialize`, bound to the principal whose token came with it,
//! counted against two caps, and ended when its child dies, when nobody calls, when its
//! principal is revoked, on DELETE and at shutdown. The registry knows *to* spawn, not *how*:
//! it gets a [`SpawnFn`]. It returns values; statuses are chosen in `http`.

mod entry;
mod places;
pub(crate) mod reaper;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::auth::Principal;
use crate::bridge::Bridge;
use crate::thread::{self, Joined};
pub(crate) use entry::Session;
use entry::{ChildEnd, label, new_session_id};
use places::{Ending, Sessions};

/// How long an opener waits for processes of ended sessions to go, if there are too many.
const ROOM_TIMEOUT: Duration = Duration::from_secs(6);
/// However small the caps are, so many processes may be on their way out.
pub(crate) const ENDING_MIN: usize = 4;

/// A running child with its bridge, as a session sees it.
pub(crate) struct Backend {
    pub(crate) bridge: Bridge,
    /// Ends the child the polite way and returns when nothing of it is left. The bridge is
    /// closed by then.
    pub(crate) stop: Box<dyn FnOnce() + Send>,
    /// Ends the child at once; `stop` is still to be called.
    pub(crate) kill: Box<dyn Fn() + Send + Sync>,
}

/// What a spawn function needs to know.
pub(crate) struct SpawnRequest<'a> {
    pub(crate) server: &'a str,
    pub(crate) principal: &'a Principal,
    pub(crate) session: &'a str,
    pub(crate) label: &'a str,
    /// To be called once when the backend can serve no more, with the reason.
    pub(crate) ended: Box<dyn Fn(&str) + Send + Sync>,
}

/// Starts a backend, or says in one line why it cannot.
pub(crate) type SpawnFn = Box<dyn Fn(SpawnRequest<'_>) -> Result<Backend, String> + Send + Sync>;

/// The bounds of a registry; 0 means unlimited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) max_sessions: usize,
    pub(crate) max_sessions_per_user: usize,
    /// A session without a request for so long is ended; `None` means never.
    pub(crate) idle_timeout: Option<Duration>,
}

/// Why no session was opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// All `max_sessions` are taken.
    Full,
    /// The broker is shutting down.
    Draining,
    /// The child could not be started.
    Spawn(String),
    /// The operating system gave no random bytes.
    NoRandomness,
}

/// Why a session id was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FindError {
    /// Never existed here, has ended, or belongs to another server.
    Unknown,
    /// Belongs to another principal.
    Foreign,
}

/// All sessions of a broker.
pub(crate) struct Registry {
    options: Options,
    spawn: SpawnFn,
    sessions: Mutex<Sessions>,
    /// Signalled when a spawn, an end or a process is through.
    settled: Condvar,
    stopping: Mutex<Vec<Stopping>>,
    this: Weak<Registry>,
}

/// A thread that runs a stop ladder.
struct Stopping {
    /// `None` while [`Registry::stop`] waits for it.
    thread: Option<Joined<()>>,
    kill: Arc<dyn Fn() + Send + Sync>,
}

/// What a try to take a slot came to.
enum Reserve {
    Taken(Arc<Session>),
    /// Too many processes of ended sessions are still being stopped.
    TooManyEnding,
    /// The principal has all of its slots; these are its sessions.
    UserFull(Vec<Arc<Session>>),
}

impl Registry {
    pub(crate) fn new(options: Options, spawn: SpawnFn) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            options,
            spawn,
            sessions: Mutex::default(),
            settled: Condvar::new(),
            stopping: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Opens a session for `principal` on `server`: takes a slot, then starts the child. If the
    /// principal has all of its slots, its stalest session makes room.
    ///
    /// # Errors
    /// [`OpenError`]; the slot is free again then.
    pub(crate) fn open(
        &self,
        principal: &Principal,
        server: &Arc<str>,
        now: Instant,
    ) -> Result<Arc<Session>, OpenError> {
        let id = new_session_id().ok_or(OpenError::NoRandomness)?;
        let deadline = Instant::now() + ROOM_TIMEOUT;
        let session = loop {
            match self.reserve(&id, principal, server, now)? {
                Reserve::Taken(session) => break session,
                Reserve::TooManyEnding if self.wait_for_room(principal, deadline) => {}
                Reserve::TooManyEnding => return Err(OpenError::Full),
                Reserve::UserFull(sessions) => {
                    if let Some(stalest) = stalest(sessions) {
                        self.close(&stalest.id, "made room for a newer one of the same user");
                    }
                }
            }
        };
        let (this, ended_id) = (self.this.clone(), id.clone());
        let request = SpawnRequest {
            server,
            principal,
            session: &id,
            label: label(&id),
            ended: Box::new(move |why| {
                if let Some(registry) = this.upgrade() {
                    registry.close(&ended_id, why);
                }
            }),
        };
        // A panic must give the slot back too.
        let spawned = catch_unwind(AssertUnwindSafe(|| (self.spawn)(request)))
            .unwrap_or_else(|_| Err("a fault in the broker".to_owned()))
            .map(|backend| self.begin(&session, backend));
        if spawned.is_err() {
            self.sessions.lock().by_id.remove(&id);
        }
        self.settle();
        spawned.map_err(OpenError::Spawn)?;
        log::info!(
            "session opened sid={} user={} server={server}",
            label(&id),
            principal.name
        );
        Ok(session)
    }

    /// Takes a slot before the spawn, so that the caps hold however many arrive at once.
    fn reserve(
        &self,
        id: &str,
        principal: &Principal,
        server: &Arc<str>,
        now: Instant,
    ) -> Result<Reserve, OpenError> {
        let mut sessions = self.sessions.lock();
        if sessions.draining {
            return Err(OpenError::Draining);
        }
        if sessions.too_many_ending(&self.options, principal) {
            return Ok(Reserve::TooManyEnding);
        }
        let own = || {
            sessions
                .by_id
                .values()
                .filter(|session| session.principal == *principal)
        };
        let per_user = self.options.max_sessions_per_user;
        if per_user > 0 && own().count() >= per_user {
            return Ok(Reserve::UserFull(own().cloned().collect()));
        }
        let max = self.options.max_sessions;
        if max > 0 && sessions.by_id.len() >= max {
            return Err(OpenError::Full);
        }
        let session = Arc::new(Session {
            id: id.to_owned(),
            principal: principal.clone(),
            server: Arc::clone(server),
            last_active: Mutex::new(now),
            bridge: OnceLock::new(),
            child: Mutex::new(None),
        });
        sessions.by_id.insert(id.to_owned(), Arc::clone(&session));
        sessions.unsettled += 1;
        Ok(Reserve::Taken(session))
    }

    /// Waits until there is room beside the processes on their way out; false if none came in time.
    fn wait_for_room(&self, principal: &Principal, deadline: Instant) -> bool {
        let is_full = |sessions: &mut Sessions| sessions.too_many_ending(&self.options, principal);
        !self
            .settled
            .wait_while_until(&mut self.sessions.lock(), is_full, deadline)
            .timed_out()
    }

    /// Puts the backend in its place. If the session was ended meanwhile, ends the backend too.
    fn begin(&self, session: &Arc<Session>, backend: Backend) {
        let Backend { bridge, stop, kill } = backend;
        *session.child.lock() = Some(ChildEnd { stop, kill });
        // Nobody else sets it.
        let _ = session.bridge.set(bridge);
        let still_open = self.sessions.lock().by_id.contains_key(&session.id);
        if !still_open {
            self.end(session, "ended while it started");
        }
    }

    /// The session of this id, if it is this principal's on this server.
    ///
    /// # Errors
    /// [`FindError`], which tells the principal nothing about sessions of others than that they
    /// are not its own.
    pub(crate) fn find(
        &self,
        id: &str,
        principal: &Principal,
        server: &str,
    ) -> Result<Arc<Session>, FindError> {
        let session = self
            .sessions
            .lock()
            .by_id
            .get(id)
            .cloned()
            .ok_or(FindError::Unknown)?;
        if session.principal != *principal {
            return Err(FindError::Foreign);
        }
        if *session.server != *server {
            return Err(FindError::Unknown);
        }
        Ok(session)
    }

    /// Ends a session, for whatever reason; does nothing if it has ended. Returns at once: the
    /// child is stopped by a thread of its own.
    pub(crate) fn close(&self, id: &str, why: &str) {
        let session = {
            let mut sessions = self.sessions.lock();
            let Some(session) = sessions.by_id.remove(id) else {
                return;
            };
            sessions.unsettled += 1;
            session
        };
        self.end(&session, why);
        self.settle();
    }

    fn settle(&self) {
        self.sessions.lock().unsettled -= 1;
        self.settled.notify_all();
    }

    fn end(&self, session: &Session, why: &str) {
        // Without both it is still starting: `begin` will find it ended, and needs the child then.
        let bridge = session.bridge.get();
        let both = bridge.and_then(|bridge| Some((bridge, session.child.lock().take()?)));
        let Some((bridge, child)) = both else {
            return;
        };
        log::info!(
            "session ended sid={} user={}: {why}",
            session.label(),
            session.principal.name
        );
        bridge.close();
        let kill: Arc<dyn Fn() + Send + Sync> = Arc::from(child.kill);
        let ending = Ending::begin(&self.this, &session.principal);
        let stop = move || {
            (child.stop)();
            drop(ending);
        };
        match thread::spawn(format!("stop:{}", session.label()), stop) {
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
            Err(error) => {
                // With its `stop`, the child was dropped, which has killed it.
                log::error!(
                    "cannot start a thread to stop sid={}: {error}",
                    session.label()
                );
            }
        }
    }

    /// Does what time brings: ends idle sessions, wakes bridges that have something due, joins
    /// the threads of sessions that have stopped.
    pub(crate) fn tick(&self, now: Instant) {
        self.close_idle(now);
        for session in self.all() {
            if let Some(bridge) = session.bridge.get() {
                bridge.tick(now);
            }
        }
        let stopped: Vec<Stopping> = self
            .stopping
            .lock()
            .extract_if(.., |it| it.thread.as_ref().is_some_and(Joined::is_finished))
            .collect();
        drop(stopped);
    }

    /// Ends the sessions without a request for `idle_timeout`. As long as a client waits for an
    /// answer, its session is in use; an open GET is no use.
    fn close_idle(&self, now: Instant) {
        let Some(timeout) = self.options.idle_timeout else {
            return;
        };
        for session in self.all() {
            let has_clients = session.bridge.get().is_none_or(Bridge::has_clients);
            let idle = {
                let mut last_active = session.last_active.lock();
                if has_clients {
                    *last_active = now;
                }
                now.saturating_duration_since(*last_active)
            };
            if idle >= timeout {
                self.close(&session.id, "idle");
            }
        }
    }

    /// Ends all sessions of these principals.
    pub(crate) fn close_principals(&self, revoked: &[Principal]) {
        for session in self.all() {
            if revoked.contains(&session.principal) {
                self.close(&session.id, "the token was revoked or has expired");
            }
        }
    }

    /// From now on no session is opened and no request is taken.
    pub(crate) fn drain(&self) {
        self.sessions.lock().draining = true;
        for session in self.all() {
            if let Some(bridge) = session.bridge.get() {
                bridge.drain();
            }
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.sessions.lock().draining
    }

    /// Whether any client waits for an answer.
    pub(crate) fn has_clients(&self) -> bool {
        let waits = |session: &Arc<Session>| session.bridge.get().is_none_or(Bridge::has_clients);
        self.all().iter().any(waits)
    }

    /// Ends all sessions side by side, and returns when nothing of them is left.
    pub(crate) fn stop(&self) {
        self.drain();
        for session in self.all() {
            self.close(&session.id, "the broker is shutting down");
        }
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
        self.sessions.lock().killing = true;
        for session in self.all() {
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

    /// How many sessions there are, starting ones included.
    pub(crate) fn active(&self) -> usize {
        self.sessions.lock().by_id.len()
    }

    /// When the session was last used; `None` if there is no such session.
    #[cfg(test)]
    pub(crate) fn last_active(&self, id: &str) -> Option<Instant> {
        let session = self.sessions.lock().by_id.get(id).cloned()?;
        let last_active = *session.last_active.lock();
        Some(last_active)
    }

    fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().by_id.values().cloned().collect()
    }
}

/// The one that was not used for longest, and that has nothing in flight if there is such a one.
fn stalest(sessions: Vec<Arc<Session>>) -> Option<Arc<Session>> {
    sessions
        .into_iter()
        .min_by_key(|session| (session.in_flight() > 0, *session.last_active.lock()))
}

#[cfg(test)]
mod tests;
