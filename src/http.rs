//! The HTTP side: tiny_http's accept loop, and from a request to whoever serves it.
//!
//! Only this module and those below it know tiny_http, which hears nobody but the edge. The loop
//! looks at heads, never at bodies, and hands the whole request on: to a session's threads, or
//! to an opener's where there is no session yet. Statuses are chosen in `reply`.

mod admin;
mod departures;
mod exchange;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod mcp;
mod oauth;
mod open;
mod openers;
mod pages;
mod policy;
mod reply;
mod request;
mod route;
mod sse;
mod tally;
mod workers;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use crate::auth::Authenticator;
use crate::session::{Registry, Session};
use crate::thread::{self, Joined};
use departures::Departures;
pub(crate) use oauth::Protected;
use openers::Openers;
pub(crate) use policy::Policy;
use reply::{Answer, Face};
use request::Incoming;
use route::Route;
use tally::Tally;

/// Threads that refuse large bodies at a time.
const REFUSERS_MAX: usize = 64;
/// tiny_http has bodies up to this size in memory already.
const SMALL_BODY_BYTES: usize = 1024;

/// What requests are served with.
pub(crate) struct App {
    pub(crate) registry: Arc<Registry>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) policy: Policy,
    /// For the admin listener.
    pub(crate) admin_policy: Policy,
    /// Names of the servers; the first is also at `/mcp` if it is the only one.
    pub(crate) servers: Vec<Arc<str>>,
    /// The status for a session that is no more: 404, or 410 where so configured.
    pub(crate) gone_status: u16,
    pub(crate) started: SystemTime,
    /// `None`: only static tokens open anything here.
    protected: Option<Protected>,
    limits: oauth::Limits,
    servants: oauth::Servants,
    departures: Departures<Session>,
    openers: Openers,
    refusers: Threads,
    scrapes: Threads,
    stopping: AtomicBool,
}

/// What an [`App`] is made with, beside what it serves.
pub(crate) struct Options {
    pub(crate) policy: Policy,
    pub(crate) admin_policy: Policy,
    pub(crate) servers: Vec<Arc<str>>,
    pub(crate) gone_status: u16,
    pub(crate) protected: Option<Protected>,
}

/// Threads that end by themselves.
#[derive(Default)]
struct Threads(Mutex<Vec<Joined<()>>>);

impl Threads {
    /// Those that are still running.
    fn count(&self) -> usize {
        let mut threads = self.0.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.len()
    }

    fn push(&self, thread: Joined<()>) {
        self.0.lock().push(thread);
    }

    fn join_all(&self) {
        let threads = std::mem::take(&mut *self.0.lock());
        drop(threads);
    }
}

impl App {
    pub(crate) fn new(
        registry: Arc<Registry>,
        authenticator: Arc<Authenticator>,
        options: Options,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            registry,
            authenticator,
            policy: options.policy,
            admin_policy: options.admin_policy,
            servers: options.servers,
            gone_status: options.gone_status,
            started: SystemTime::now(),
            protected: options.protected,
            limits: oauth::Limits::default(),
            servants: oauth::servants(Weak::clone(this)),
            departures: Departures::default(),
            openers: openers::of(Weak::clone(this)),
            refusers: Threads::default(),
            scrapes: Threads::default(),
            stopping: AtomicBool::new(false),
        })
    }

    /// The client of a connection has gone: tells the session that served it last.
    pub(crate) fn gone(&self, connection: u64) {
        self.departures.tell(connection);
    }

    /// Lets [`run`] return when `server` is unblocked, and waits for what it started.
    pub(crate) fn stop(&self, server: &tiny_http::Server) {
        self.stopping.store(true, Ordering::Release);
        server.unblock();
        // Each of those that wait might wait for the provider, too.
        self.servants.stop();
        self.openers.join_all();
        self.refusers.join_all();
        self.scrapes.join_all();
    }

    fn health(&self) -> Answer {
        match self.registry.is_draining() {
            true => Answer::Draining,
            false => Answer::Healthy,
        }
    }
}

/// The accept loop: thread `accept`.
///
/// # Errors
/// tiny_http has lost its listener: nothing can be served any more.
pub(crate) fn run(app: &Arc<App>, server: &tiny_http::Server) -> io::Result<()> {
    loop {
        match server.recv() {
            Ok(request) => {
                // The panic has been logged by the hook; the request answers for itself.
                let _ = catch_unwind(AssertUnwindSafe(|| handle(app, request)));
            }
            Err(_) if app.stopping.load(Ordering::Acquire) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn handle(app: &Arc<App>, request: tiny_http::Request) {
    let mut face = Face {
        origin: None,
        gone_status: app.gone_status,
        is_modern: false,
        challenge: None,
        tally: None,
    };
    let incoming = match Incoming::read(&request) {
        Ok(incoming) => incoming,
        Err(answer) => return reply::send(request, &answer, &face),
    };
    face.is_modern = incoming.is_modern();
    face.tally = Some(Tally::begin(&incoming.method, Instant::now()));
    if incoming.is_admin {
        return admin::serve(app, request, &incoming, face);
    }
    if let Err(answer) = app.policy.check_host(incoming.host.as_deref()) {
        return refuse(app, request, answer, face);
    }
    let Some(request) = oauth::serve(app, request, &incoming, &face) else {
        return;
    };
    match app.policy.check_origin(incoming.origin.as_deref()) {
        Ok(origin) => face.origin = origin,
        Err(answer) => return refuse(app, request, answer, face),
    }
    let answer = match route::find(&app.servers, &incoming.method, request.url()) {
        Route::Mcp(server) => return mcp::serve(app, request, incoming, face, &server),
        Route::Preflight => Answer::Preflight(request::wanted_params(&request)),
        Route::Health => app.health(),
        Route::MethodNotAllowed(allow) => Answer::MethodNotAllowed(allow),
        Route::Metrics | Route::NotFound => Answer::NotFound,
    };
    refuse(app, request, answer, face);
}

/// Answers a request whose body nobody wants. tiny_http reads a body to its end all the same, so
/// a large one is not let go of on the accept loop.
fn refuse(app: &App, request: tiny_http::Request, answer: Answer, face: Face) {
    let is_large = request
        .body_length()
        .is_some_and(|len| len > SMALL_BODY_BYTES);
    if !is_large || app.refusers.count() >= REFUSERS_MAX {
        return reply::send(request, &answer, &face);
    }
    match thread::spawn_brief("refuse", move || reply::send(request, &answer, &face)) {
        Ok(thread) => app.refusers.push(thread),
        // The request went with the closure, which tiny_http answers with 500.
        Err(error) => log::error!("cannot start a thread to refuse a request: {error}"),
    }
}
