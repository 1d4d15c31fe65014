//! One session and its id.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::TryRng;
use rand::rngs::SysRng;

use super::Audience;
use super::succession::Seat;
use crate::auth::{LeaseState, Principal};
use crate::bridge::{self, Bridge, Exchange, Refusal};

/// Random bytes of a session id: 192 bits, as 48 hexadecimal characters.
const ID_BYTES: usize = 24;
/// Characters of the id that stand in logs and thread names.
const LABEL_CHARS: usize = 8;
/// Requests that may wait for a child that is being started again.
const EARLY_MAX: usize = 32;

/// One session: what an `Mcp-Session-Id` stands for.
pub(crate) struct Session {
    pub(super) id: String,
    pub(super) principal: Principal,
    pub(super) server: Arc<str>,
    pub(super) audience: Audience,
    /// When the id was minted, by whichever broker.
    pub(super) opened: Instant,
    /// Which child it has: one that is revived gets another, one that finds a parked child has
    /// that one, and one whose user has a newer token gets another while it goes on.
    pub(super) tenancy: Mutex<Tenancy>,
    activity: Mutex<Activity>,
    pub(super) visitors: Mutex<Visitors>,
    /// Set once the child runs.
    pub(super) bridge: Mutex<Option<Arc<Bridge>>>,
    /// What came before that, or between two children.
    pub(super) early: Mutex<Waiting>,
    /// Threads that bring something to the bridge just now.
    pub(super) passing: AtomicUsize,
    pub(super) child: Mutex<Option<ChildEnd>>,
    /// A client waits for the child to start.
    is_awaited: bool,
    /// It had a child before this one.
    is_revived: bool,
    /// Its `initialize` has yet to come.
    is_new: AtomicBool,
    /// It has been written down, if its server is one that can be revived.
    is_kept: AtomicBool,
    /// It cannot be revived.
    is_over: AtomicBool,
}

/// One child's time with one session after another.
#[derive(Clone)]
pub(super) struct Tenancy {
    /// Tells the child from all others.
    pub(super) no: u64,
    /// The label of its first session, which its threads and log lines bear.
    pub(super) label: Arc<str>,
    pub(super) since: Instant,
    /// Tells its sessions from each other.
    pub(super) tenant: u64,
}

struct Activity {
    /// When the last request came, or somebody was seen to wait for an answer.
    last: Instant,
    /// When the last request came.
    asked: Instant,
    /// When that was last written down.
    noted: Instant,
}

/// Who brings a request of the modern era at the moment.
#[derive(Default)]
pub(super) struct Visitors {
    pub(super) count: usize,
    /// Nobody is let in any more.
    pub(super) is_closed: bool,
}

/// As long as this lives, its session is not ended for want of use.
pub(crate) struct Visit<'a>(&'a Session);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.visitors.lock().count -= 1;
    }
}

pub(super) enum Waiting {
    /// The bridge is yet to come; if there was another before it, that is yet to be ended.
    Open(Vec<Early>, Option<Box<Seat>>),
    /// All of it has gone to the child. Another one may stand ready to take its place.
    Passed(Option<Box<Seat>>),
    /// There will be no child.
    Failed(Refusal),
}

pub(super) enum Early {
    Post(Box<dyn Exchange>),
    Listen(Box<dyn Exchange>, Option<String>),
}

impl Early {
    fn exchange(&self) -> &dyn Exchange {
        match self {
            Self::Post(exchange) | Self::Listen(exchange, _) => exchange.as_ref(),
        }
    }

    fn pass(self, bridge: &Bridge, tenant: u64) {
        match self {
            Self::Post(exchange) => bridge.post(tenant, exchange),
            Self::Listen(exchange, last_event_id) => {
                bridge.listen(tenant, exchange, last_event_id);
            }
        }
    }

    fn refuse(self, why: Refusal) {
        match self {
            Self::Post(exchange) => bridge::refuse_first(exchange, why.clone(), why.told_early()),
            Self::Listen(exchange, _) => bridge::refuse(exchange, why),
        }
    }
}

/// What ends the child.
pub(super) struct ChildEnd {
    pub(super) stop: Box<dyn FnOnce() + Send>,
    pub(super) kill: Box<dyn Fn() + Send + Sync>,
    /// Of the token it was started with, if it got one.
    pub(super) lease: Option<Arc<LeaseState>>,
}

/// What is known of a session before it has a child.
pub(super) struct Newcomer<'a> {
    pub(super) id: &'a str,
    pub(super) principal: &'a Principal,
    pub(super) server: &'a Arc<str>,
    pub(super) audience: Audience,
    pub(super) opened: Instant,
    pub(super) tenancy: Tenancy,
    pub(super) last_active: Instant,
    /// A client waits for the child to start.
    pub(super) is_awaited: bool,
    /// It has been written down before.
    pub(super) is_kept: bool,
}

impl Session {
    pub(super) fn new(newcomer: Newcomer<'_>) -> Self {
        let last = newcomer.last_active;
        Self {
            id: newcomer.id.to_owned(),
            principal: newcomer.principal.clone(),
            server: Arc::clone(newcomer.server),
            audience: newcomer.audience,
            opened: newcomer.opened,
            tenancy: Mutex::new(newcomer.tenancy),
            activity: Mutex::new(Activity {
                last,
                asked: last,
                noted: last,
            }),
            visitors: Mutex::default(),
            bridge: Mutex::new(None),
            early: Mutex::new(Waiting::Open(Vec::new(), None)),
            passing: AtomicUsize::new(0),
            child: Mutex::new(None),
            is_awaited: newcomer.is_awaited,
            is_revived: newcomer.is_kept,
            is_new: AtomicBool::new(!newcomer.is_kept),
            is_kept: AtomicBool::new(newcomer.is_kept),
            is_over: AtomicBool::new(false),
        }
    }

    /// Nobody can come back to it.
    pub(super) fn end_for_good(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Takes note that it is being written down; false if it was before.
    pub(super) fn begin_to_keep(&self) -> bool {
        !self.is_kept.swap(true, Ordering::AcqRel)
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether its child was started with the credentials that this principal has now. Another name
    /// makes nobody another.
    pub(crate) fn is_for(&self, principal: &Principal) -> bool {
        self.principal == *principal && self.principal.env == principal.env
    }

    /// The bridge of the child that it has now.
    pub(super) fn bridge(&self) -> Option<Arc<Bridge>> {
        self.bridge.lock().clone()
    }

    pub(super) fn tenancy(&self) -> Tenancy {
        self.tenancy.lock().clone()
    }

    /// Tells the child that it has now from all others.
    pub(super) fn child_no(&self) -> u64 {
        self.tenancy.lock().no
    }

    /// The first characters of the id: enough to tell sessions apart, useless to steal one.
    pub(crate) fn label(&self) -> &str {
        label(&self.id)
    }

    /// Its client has a request.
    pub(crate) fn touch(&self, now: Instant) {
        let mut activity = self.activity.lock();
        // Whoever looked at the clock first may come last.
        activity.last = activity.last.max(now);
        activity.asked = activity.asked.max(now);
    }

    /// Its client still waits for an answer.
    pub(super) fn is_waited_on(&self, now: Instant) {
        let mut activity = self.activity.lock();
        activity.last = activity.last.max(now);
    }

    /// Lets a request in; `None` if the session is being ended for want of use: the next one is
    /// to be asked.
    pub(crate) fn visit(&self, now: Instant) -> Option<Visit<'_>> {
        let mut visitors = self.visitors.lock();
        if visitors.is_closed {
            return None;
        }
        visitors.count += 1;
        drop(visitors);
        self.touch(now);
        Some(Visit(self))
    }

    /// Lets nobody in any more, if nobody is there.
    pub(super) fn retire(&self) -> bool {
        let mut visitors = self.visitors.lock();
        if visitors.count == 0 && self.in_flight() == 0 && !self.has_clients() {
            visitors.is_closed = true;
        }
        visitors.is_closed
    }

    /// When its last request came.
    pub(super) fn last_asked(&self) -> Instant {
        self.activity.lock().asked
    }

    /// When it was last used.
    pub(super) fn last_active(&self) -> Instant {
        self.activity.lock().last
    }

    /// Whether it was used since that was last written down so long ago; then it counts as noted.
    pub(super) fn must_note(&self, interval: Duration) -> bool {
        let mut activity = self.activity.lock();
        let must = activity.last.saturating_duration_since(activity.noted) >= interval;
        if must {
            activity.noted = activity.last;
        }
        must
    }

    /// Whether this is the protocol version it negotiated, as far as that is known.
    pub(crate) fn speaks(&self, version: &str) -> bool {
        self.bridge().is_none_or(|bridge| bridge.speaks(version))
    }

    pub(crate) fn post(&self, exchange: Box<dyn Exchange>) {
        self.pass(Early::Post(exchange));
    }

    pub(crate) fn listen(&self, exchange: Box<dyn Exchange>, last_event_id: Option<String>) {
        self.pass(Early::Listen(exchange, last_event_id));
    }

    fn pass(&self, early: Early) {
        let is_post = matches!(early, Early::Post(_));
        self.hand_on(early);
        // Only now, so that it is seen either here or in flight.
        if is_post {
            self.is_new.store(false, Ordering::Release);
        }
    }

    fn hand_on(&self, early: Early) {
        let mut waiting = self.early.lock();
        self.switch(&mut waiting);
        let why = match &mut *waiting {
            Waiting::Open(list, _) if list.len() < EARLY_MAX => return list.push(early),
            Waiting::Open(..) => Refusal::TooManyInFlight,
            Waiting::Failed(why) => why.clone(),
            Waiting::Passed(_) => {
                // With the lock held, so that no other child takes over in between.
                let way = self.bridge().zip(Some(self.tenancy.lock().tenant));
                self.passing.fetch_add(1, Ordering::AcqRel);
                drop(waiting);
                if let Some((bridge, tenant)) = way {
                    early.pass(&bridge, tenant);
                }
                self.passing.fetch_sub(1, Ordering::AcqRel);
                return;
            }
        };
        drop(waiting);
        early.refuse(why);
    }

    /// The child runs; what waits for it goes on waiting.
    pub(super) fn set_bridge(&self, bridge: &Arc<Bridge>) {
        *self.bridge.lock() = Some(Arc::clone(bridge));
    }

    /// What waits for the child goes there, and what comes meanwhile goes after it.
    pub(super) fn pass_on(&self) {
        let Some(bridge) = self.bridge() else {
            return;
        };
        loop {
            let list = {
                let mut waiting = self.early.lock();
                match &mut *waiting {
                    Waiting::Open(list, _) if !list.is_empty() => std::mem::take(list),
                    _ => {
                        *waiting = Waiting::Passed(None);
                        return;
                    }
                }
            };
            let tenant = self.tenancy.lock().tenant;
            list.into_iter()
                .for_each(|early| early.pass(&bridge, tenant));
        }
    }

    /// There will be no child: what waits for it is told.
    pub(super) fn fail(&self, why: &Refusal) {
        let failed = Waiting::Failed(why.clone());
        let waiting = std::mem::replace(&mut *self.early.lock(), failed);
        if let Waiting::Open(list, _) = waiting {
            list.into_iter().for_each(|early| early.refuse(why.clone()));
        }
    }

    pub(crate) fn gone(&self, connection: u64) {
        let is_gone = |early: &mut Early| early.exchange().connection() == connection;
        let left: Vec<Early> = match &mut *self.early.lock() {
            Waiting::Open(list, _) => list.extract_if(.., is_gone).collect(),
            Waiting::Passed(_) | Waiting::Failed(_) => Vec::new(),
        };
        drop(left);
        // It may have been given the request just before, or be given it now.
        if let Some(bridge) = self.bridge() {
            bridge.gone(connection);
        }
    }

    /// Whether the client still waits for the child to start.
    pub(super) fn is_starting(&self) -> bool {
        let is_new = self.is_new.load(Ordering::Acquire);
        is_new || self.bridge().is_none_or(|bridge| bridge.is_starting())
    }

    /// Whether its client was never told that it has begun.
    pub(super) fn is_unborn(&self) -> bool {
        match self.bridge() {
            Some(bridge) => !bridge.is_initialized(),
            None => !self.is_revived,
        }
    }

    /// Requests without an answer; a session that is starting has the one it starts for.
    pub(super) fn in_flight(&self) -> usize {
        self.bridge().map_or(1, |bridge| bridge.in_flight())
    }

    /// Whether a client waits for an answer. One that only listens does not.
    pub(super) fn has_clients(&self) -> bool {
        let is_post = |early: &Early| matches!(early, Early::Post(_));
        match self.bridge() {
            Some(bridge) => bridge.has_clients(),
            None if self.is_awaited => true,
            None => match &*self.early.lock() {
                Waiting::Open(list, _) => list.iter().any(is_post),
                Waiting::Passed(_) | Waiting::Failed(_) => false,
            },
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.label())
    }
}

/// The part of an id that may be shown.
pub(super) fn label(id: &str) -> &str {
    id.get(..LABEL_CHARS).unwrap_or(id)
}

/// `None` if the operating system gives no random bytes.
pub(super) fn new_session_id() -> Option<String> {
    let mut bytes = [0; ID_BYTES];
    SysRng.try_fill_bytes(&mut bytes).ok()?;
    Some(hex::encode(bytes))
}
