//! The registry: which session id belongs to whom and to which running child.
//!
//! A session is minted by an `initialize`, bound to the principal whose token came with it,
//! counted against two caps, and ended when its child dies, when nobody calls, when its
//! principal is revoked, on DELETE and at shutdown. The registry knows *to* spawn, not *how*:
//! it gets a [`SpawnFn`]. It returns values; statuses are chosen in `http`.
//!
//! Requests of the modern era have no session of their own: all of a principal share one.
//!
//! `opening` lets sessions in · `sharing` finds the one that modern requests share · `ending` lets
//! them go · `parking` keeps a child for its client's next session · `records` keeps sessions whose
//! child is gone, for `revival` · `succession` gives one a new child while it goes on.

mod calendar;
mod cause;
mod counts;
mod ending;
mod entry;
mod opening;
mod parking;
mod places;
pub(crate) mod reaper;
mod records;
mod revival;
mod sharing;
mod starts;
mod succession;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use crate::auth::{LeaseState, Principal};
use crate::bridge::{Bridge, Handshake, Host, Quota};
use crate::thread::Joined;
use calendar::Calendar;
pub(crate) use cause::Cause;
pub(crate) use entry::Session;
use places::Sessions;
pub(crate) use records::Records;
use starts::Starts;

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
    /// Of the user's token that the child was given; `None` if it was given none.
    pub(crate) lease: Option<Arc<LeaseState>>,
}

/// Whom a session serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The legacy client that knows its id.
    OneClient,
    /// All modern requests of its principal, to whom its id means nothing.
    AllOfPrincipal,
}

/// What a spawn function needs to know.
pub(crate) struct SpawnRequest<'a> {
    pub(crate) server: &'a str,
    pub(crate) principal: &'a Principal,
    pub(crate) audience: Audience,
    pub(crate) session: &'a str,
    pub(crate) label: &'a str,
    /// Requests in flight of the principal.
    pub(crate) quota: Arc<Quota>,
    /// What the session's child before this one knew.
    pub(crate) replay: Option<(Handshake, Instant)>,
    pub(crate) host: Box<dyn Host>,
    /// Whether the child may be started, or why not any more: to be asked now and then while
    /// something else has to be done first, and after that.
    pub(crate) check: &'a dyn Fn() -> Result<(), OpenError>,
}

/// Starts a backend, or says why it cannot.
pub(crate) type SpawnFn = Box<dyn Fn(SpawnRequest<'_>) -> Result<Backend, OpenError> + Send + Sync>;

/// The bounds of a registry; 0 means unlimited, `None` for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) max_sessions: usize,
    pub(crate) max_sessions_per_user: usize,
    /// Requests in flight in all sessions of one principal.
    pub(crate) max_in_flight_per_user: usize,
    /// A session without a request for so long is ended.
    pub(crate) idle_timeout: Option<Duration>,
    /// A session older than this is ended.
    pub(crate) max_age: Option<Duration>,
    /// No child is started while less memory is available, in bytes.
    pub(crate) min_free_memory: u64,
    /// How much is available; `None` if nobody knows.
    pub(crate) free_memory: fn() -> Option<u64>,
}

/// What becomes of the children and the sessions of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy {
    /// For how long a session without a child can be given a new one.
    pub(crate) revive: Option<Duration>,
    /// How long a child without a session waits for one.
    pub(crate) park: Option<Duration>,
    /// A child stays although its user has a newer token, or has none at all.
    pub(crate) keeps_old_token: bool,
}

/// Why no session was opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// All `max_sessions` are taken.
    Full,
    /// All of the principal's are, and none of them has got as far as to make room.
    UserStarting,
    /// Less memory is available than `min_free_memory`.
    LowMemory,
    /// Its child has ended too soon too often; the next try may be made after so long.
    Pause { left: Duration, why: String },
    /// The broker is shutting down.
    Draining,
    /// The child could not be started.
    Spawn(String),
    /// The operating system gave no random bytes.
    NoRandomness,
    /// The session was ended before its child was started.
    Lost,
    /// Too much is being started or stopped just now.
    Busy,
    /// There is no such session to revive any more.
    Ended,
    /// The session is idle, and this request is none that would end that.
    Asleep,
    /// The user's own token is of no use any more.
    SignInAgain,
    /// The user's own token could not be renewed just now: why.
    TryAgain(String),
}

/// Why a session id was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FindError {
    /// Never existed here, has ended, or belongs to another server.
    Unknown,
    /// Belongs to another principal.
    Foreign,
}

/// A session that was found.
#[derive(Debug)]
pub(crate) enum Found {
    Running(Arc<Session>),
    /// It has no child, but can be given one: see [`Registry::revive`].
    Resting,
}

impl Found {
    /// Whether this is the protocol version that was negotiated, as far as that is known.
    pub(crate) fn speaks(&self, version: &str) -> bool {
        match self {
            Self::Running(session) => session.speaks(version),
            Self::Resting => true,
        }
    }
}

/// All sessions of a broker.
pub(crate) struct Registry {
    options: Options,
    policies: HashMap<Arc<str>, Policy>,
    /// Some server's children are replaced when their users' tokens are: else no session need be
    /// looked at for that.
    renews: bool,
    spawn: SpawnFn,
    sessions: Mutex<Sessions>,
    /// `None` if no server's sessions are to be revived.
    records: Option<Records>,
    starts: Starts,
    /// Signalled when a spawn, an end, a process or a parking is through.
    settled: Condvar,
    stopping: Mutex<Vec<Stopping>>,
    calendar: Calendar,
    this: Weak<Registry>,
}

/// A thread that runs a stop ladder.
struct Stopping {
    /// `None` while [`Registry::stop`] waits for it.
    thread: Option<Joined<()>>,
    kill: Arc<dyn Fn() + Send + Sync>,
}

impl Registry {
    pub(crate) fn new(
        options: Options,
        policies: HashMap<Arc<str>, Policy>,
        records: Option<Records>,
        spawn: SpawnFn,
    ) -> Arc<Self> {
        let keeps_all = policies.values().all(|policy| policy.keeps_old_token);
        Arc::new_cyclic(|this| Self {
            options,
            renews: policies.is_empty() || !keeps_all,
            policies,
            spawn,
            sessions: Mutex::default(),
            records,
            starts: Starts::default(),
            settled: Condvar::new(),
            stopping: Mutex::default(),
            calendar: Calendar::new(Instant::now(), SystemTime::now()),
            this: this.clone(),
        })
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
    ) -> Result<Found, FindError> {
        let session = self.sessions.lock().by_id.get(id).cloned();
        let session = session.filter(|it| it.audience == Audience::OneClient);
        let Some(session) = session else {
            return self.find_resting(id, principal, server);
        };
        if session.principal != *principal {
            return Err(FindError::Foreign);
        }
        if *session.server != *server {
            return Err(FindError::Unknown);
        }
        Ok(Found::Running(session))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.sessions.lock().draining
    }

    /// Whether any client waits for an answer.
    pub(crate) fn has_clients(&self) -> bool {
        self.all().iter().any(|session| session.has_clients())
    }

    /// How many sessions there are, starting ones included.
    pub(crate) fn active(&self) -> usize {
        self.sessions.lock().by_id.len()
    }

    fn policy(&self, server: &str) -> Policy {
        self.policies.get(server).copied().unwrap_or_default()
    }

    fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().by_id.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
