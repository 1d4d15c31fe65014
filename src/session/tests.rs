//! The registry over fake children: no process, no sleep, and the time is passed in.

mod ending;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::reaper::Reaper;
use super::*;
use crate::bridge::{self, EventWriter, Exchange, Inbound, Outbound, Reply};

/// For whatever must happen; nothing here takes a noticeable time.
const DEADLINE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(1800);
const UNLIMITED: Options = Options {
    max_sessions: 0,
    max_sessions_per_user: 0,
    idle_timeout: None,
};

/// A registry with its fake children, and what they went through.
struct World {
    registry: Arc<Registry>,
    fakes: Arc<Fakes>,
    start: Instant,
}

#[derive(Default)]
struct Fakes {
    /// Labels of what happened, in order: `start`, `stop`, `kill` and the session id.
    log: Mutex<Vec<String>>,
    /// The far faces of the bridges, by session id.
    faces: Mutex<HashMap<String, Faces>>,
    spawn_fails: AtomicBool,
    most_active: AtomicUsize,
    registry: OnceLock<Weak<Registry>>,
    hooks: Hooks,
}

struct Faces {
    _outbound: Outbound,
    inbound: Inbound,
    ended: Arc<dyn Fn(&str) + Send + Sync>,
}

type Hook = Box<dyn Fn(&str) + Send + Sync>;

/// What a test does at some point, given the session id.
#[derive(Default)]
struct Hooks {
    spawning: Option<Hook>,
    spawned: Option<Hook>,
    waking: Option<Hook>,
    stopping: Option<Hook>,
    killing: Option<Hook>,
}

fn run(hook: Option<&Hook>, id: &str) {
    if let Some(hook) = hook {
        hook(id);
    }
}

impl Fakes {
    fn note(&self, what: &str, id: &str) {
        self.log.lock().push(format!("{what} {id}"));
    }

    fn spawn(self: &Arc<Self>, request: SpawnRequest<'_>) -> Result<Backend, String> {
        let id = request.session.to_owned();
        self.note("start", &id);
        if let Some(registry) = self.registry.get().and_then(Weak::upgrade) {
            self.most_active.fetch_max(registry.active(), SeqCst);
        }
        run(self.hooks.spawning.as_ref(), &id);
        if self.spawn_fails.load(SeqCst) {
            return Err("no such program".to_owned());
        }
        let ended: Arc<dyn Fn(&str) + Send + Sync> = Arc::from(request.ended);
        let its_ended = Arc::clone(&ended);
        let (wakes, woken) = (Arc::clone(self), id.clone());
        let (bridge, outbound, inbound) = Bridge::new(bridge::Options {
            server: request.server.to_owned(),
            session: id.clone(),
            label: request.label.to_owned(),
            max_in_flight: 8,
            start_timeout: Duration::from_secs(30),
            wake: Box::new(move || run(wakes.hooks.waking.as_ref(), &woken)),
            ended: Box::new(move |why| its_ended(why)),
            redact: Box::new(|text, _| text.to_owned()),
            stderr: Box::new(|_| Vec::new()),
        });
        bridge.connect(Box::new(|_| true));
        let faces = Faces {
            _outbound: outbound,
            inbound,
            ended,
        };
        self.faces.lock().insert(id.clone(), faces);
        let (stops, stopped) = (Arc::clone(self), id.clone());
        let (kills, killed) = (Arc::clone(self), id.clone());
        run(self.hooks.spawned.as_ref(), &id);
        Ok(Backend {
            bridge,
            stop: Box::new(move || {
                run(stops.hooks.stopping.as_ref(), &stopped);
                stops.note("stop", &stopped);
            }),
            kill: Box::new(move || {
                kills.note("kill", &killed);
                run(kills.hooks.killing.as_ref(), &killed);
            }),
        })
    }

    fn count(&self, what: &str) -> usize {
        let log = self.log.lock();
        log.iter().filter(|line| line.starts_with(what)).count()
    }

    fn end_child(&self, id: &str) {
        let ended = Arc::clone(&self.faces.lock()[id].ended);
        ended("exit status 1");
    }
}

impl World {
    fn new(options: Options) -> Self {
        Self::with_hooks(options, Hooks::default())
    }

    fn with_hooks(options: Options, hooks: Hooks) -> Self {
        let fakes = Arc::new(Fakes {
            hooks,
            ..Fakes::default()
        });
        let spawns = Arc::clone(&fakes);
        let registry = Registry::new(options, Box::new(move |request| spawns.spawn(request)));
        let _ = fakes.registry.set(Arc::downgrade(&registry)); // it was empty
        Self {
            registry,
            fakes,
            start: Instant::now(),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn open(&self, user: &str, seconds: u64) -> Result<Arc<Session>, OpenError> {
        self.registry
            .open(&principal(user), &server("a"), self.at(seconds))
    }

    fn find(&self, id: &str, user: &str, seconds: u64) -> Result<(), FindError> {
        let found = self.registry.find(id, &principal(user), "a");
        found.map(|session| {
            assert_eq!(session.id(), id);
            session.touch(self.at(seconds));
        })
    }

    /// Puts a request in flight.
    fn ask(&self, session: &Session) {
        session.post(Box::new(Ping));
        assert_eq!(session.in_flight(), 1);
    }

    /// Its client goes away.
    fn leave(&self, session: &Session) {
        session.gone(Ping.connection());
        let mut faces = self.fakes.faces.lock();
        let inbound = &mut faces.get_mut(session.id()).unwrap().inbound;
        inbound.service(self.start);
        assert_eq!(session.in_flight(), 1);
    }

    /// Answers it.
    fn answer(&self, session: &Session) {
        let mut faces = self.fakes.faces.lock();
        let inbound = &mut faces.get_mut(session.id()).unwrap().inbound;
        inbound.line(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#, self.start);
        assert_eq!(session.in_flight(), 0);
    }

    /// The sessions that are left, of these.
    fn left<'a>(&self, sessions: &[(&'a str, &Arc<Session>)]) -> Vec<&'a str> {
        let is_left = |id: &str| self.registry.last_active(id).is_some();
        let left = sessions.iter().filter(|(_, session)| is_left(session.id()));
        left.map(|(name, _)| *name).collect()
    }

    /// Calls [`Registry::stop`], which must come back.
    fn stop(&self) {
        let registry = Arc::clone(&self.registry);
        within_deadline("stop", move || registry.stop());
        assert_eq!(self.registry.active(), 0);
        let (started, stopped) = (self.fakes.count("start"), self.fakes.count("stop"));
        assert_eq!(stopped, started, "children stopped");
    }
}

/// A request that nobody reads the answer of.
struct Ping;

impl Exchange for Ping {
    fn body_len(&self) -> usize {
        0
    }

    fn body(&mut self) -> io::Result<Vec<u8>> {
        Ok(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_vec())
    }

    fn connection(&self) -> u64 {
        1
    }

    fn reply(self: Box<Self>, _: Reply<'_>) {}

    fn stream(self: Box<Self>, _: Option<&str>) -> io::Result<Box<dyn EventWriter>> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

fn principal(name: &str) -> Principal {
    Principal {
        issuer: "token".into(),
        subject: format!("subject of {name}").into(),
        name: name.into(),
        env: Arc::new(BTreeMap::new()),
    }
}

fn server(name: &str) -> Arc<str> {
    name.into()
}

/// Runs `f` on a thread of its own; one that hangs fails the test instead of hanging it.
fn within_deadline(what: &str, f: impl FnOnce() + Send + 'static) {
    let (done, is_done) = bounded(1);
    let thread = thread::spawn(what, move || {
        f();
        let _ = done.send(()); // nobody waits any more after the deadline
    });
    let thread = thread.unwrap();
    if is_done.recv_timeout(DEADLINE).is_err() {
        std::mem::forget(thread); // joining it would hang, too
        panic!("{what} does not come back");
    }
}

/// Waits for something another thread will do, and that nobody tells about.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::yield_now();
    }
}

/// Opens a session on each of 32 threads at once.
fn open_32(world: &World, user: impl Fn(usize) -> String) -> Vec<Result<Arc<Session>, OpenError>> {
    let barrier = Arc::new(Barrier::new(32));
    let threads: Vec<_> = (0..32)
        .map(|n| {
            let (registry, barrier) = (Arc::clone(&world.registry), Arc::clone(&barrier));
            let (principal, now) = (principal(&user(n)), world.start);
            thread::spawn(format!("open {n}"), move || {
                barrier.wait();
                registry.open(&principal, &server("a"), now)
            })
            .unwrap()
        })
        .collect();
    let opened = threads.into_iter().map(|thread| thread.join());
    opened.map(|opened| opened.expect("no panic")).collect()
}

#[test]
fn the_cap_of_all_holds_however_many_arrive_at_once() {
    let world = World::new(Options {
        max_sessions: 5,
        ..UNLIMITED
    });
    let opened = open_32(&world, |n| format!("user {n}"));
    let full = opened
        .iter()
        .filter(|it| matches!(it, Err(OpenError::Full)));
    assert_eq!(full.count(), 27);
    assert_eq!(world.fakes.count("start"), 5);
    assert_eq!(world.registry.active(), 5);
    assert!(world.fakes.most_active.load(SeqCst) <= 5);
    world.stop();
}

#[test]
fn the_cap_of_a_user_holds_however_many_arrive_at_once() {
    let world = World::new(Options {
        max_sessions_per_user: 5,
        ..UNLIMITED
    });
    let opened = open_32(&world, |_| "ann".to_owned());
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(world.registry.active(), 5);
    assert!(world.fakes.most_active.load(SeqCst) <= 5);
    world.stop();
}

#[test]
fn zero_is_unlimited() {
    let world = World::new(UNLIMITED);
    let opened = open_32(&world, |n| format!("user {}", n % 2));
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(world.registry.active(), 32);
    world.stop();
}

#[test]
fn ids_are_48_hex_digits_and_unique() {
    let world = World::new(UNLIMITED);
    let sessions: Vec<_> = (0..200).map(|_| world.open("ann", 0).unwrap()).collect();
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    for session in &sessions {
        assert_eq!(session.id().len(), 48);
        assert!(session.id().bytes().all(is_hex), "{}", session.id());
        assert_eq!(session.label(), &session.id()[..8]);
        // What a log may show of it.
        assert_eq!(
            format!("{session:?}"),
            format!("Session({})", session.label())
        );
    }
    let unique: std::collections::HashSet<_> = sessions.iter().map(|it| it.id()).collect();
    assert_eq!(unique.len(), 200);
    world.stop();
}

#[test]
fn a_slot_is_free_again_when_the_spawn_fails() {
    let world = World::new(Options {
        max_sessions: 1,
        max_sessions_per_user: 1,
        ..UNLIMITED
    });
    world.fakes.spawn_fails.store(true, SeqCst);
    for _ in 0..3 {
        let why = OpenError::Spawn("no such program".to_owned());
        assert_eq!(world.open("ann", 0).unwrap_err(), why);
        assert_eq!(world.registry.active(), 0);
    }
    world.fakes.spawn_fails.store(false, SeqCst);
    world.open("ann", 0).unwrap();
    assert_eq!(world.open("bob", 0).unwrap_err(), OpenError::Full);
    let registry = Arc::clone(&world.registry);
    within_deadline("stop", move || registry.stop()); // no spawn is taken to be under way
}

#[test]
fn a_slot_is_free_again_when_the_session_ends() {
    let world = World::new(Options {
        max_sessions: 1,
        ..UNLIMITED
    });
    let first = world.open("ann", 0).unwrap();
    assert_eq!(world.open("bob", 0).unwrap_err(), OpenError::Full);
    world.registry.close(first.id(), "deleted");
    world.registry.close(first.id(), "deleted once more");
    assert_eq!(world.registry.active(), 0);
    world.open("bob", 0).unwrap();
    world.stop();
}

#[test]
fn the_stalest_session_of_the_user_makes_room() {
    let world = World::new(Options {
        max_sessions_per_user: 2,
        ..UNLIMITED
    });
    let other = world.open("bob", 0).unwrap();
    let old = world.open("ann", 1).unwrap();
    let new = world.open("ann", 2).unwrap();
    world.find(old.id(), "ann", 3).unwrap(); // so `new` is the stalest now
    let newest = world.open("ann", 4).unwrap();
    let all = [
        ("other", &other),
        ("old", &old),
        ("new", &new),
        ("newest", &newest),
    ];
    assert_eq!(world.left(&all), ["other", "old", "newest"]);
    world.stop();
}

#[test]
fn a_session_with_a_request_in_flight_makes_room_only_if_all_have_one() {
    let world = World::new(Options {
        max_sessions_per_user: 2,
        ..UNLIMITED
    });
    let busy = world.open("ann", 1).unwrap();
    let quiet = world.open("ann", 2).unwrap();
    world.ask(&busy);
    let third = world.open("ann", 3).unwrap();
    let all = [("busy", &busy), ("quiet", &quiet), ("third", &third)];
    assert_eq!(world.left(&all), ["busy", "third"]);
    world.ask(&third);
    world.open("ann", 4).unwrap();
    assert_eq!(world.left(&all), ["third"]);
    world.stop();
}

#[test]
fn an_id_is_good_for_its_principal_on_its_server_only() {
    let world = World::new(UNLIMITED);
    let session = world.open("ann", 0).unwrap();
    let id = session.id();
    assert_eq!(world.find(id, "ann", 1), Ok(()));
    assert_eq!(world.find(id, "bob", 2), Err(FindError::Foreign));
    assert_eq!(
        world.find(&"0".repeat(48), "ann", 2),
        Err(FindError::Unknown)
    );
    assert_eq!(world.find("", "ann", 2), Err(FindError::Unknown));
    assert_eq!(world.find(&id[..47], "ann", 2), Err(FindError::Unknown));
    let find = |user: &str, on: &str| {
        let found = world.registry.find(id, &principal(user), on);
        found.map(|_| ()).unwrap_err()
    };
    assert_eq!(find("ann", "b"), FindError::Unknown);
    assert_eq!(find("bob", "b"), FindError::Foreign);
    // None of these counts as use.
    assert_eq!(world.registry.last_active(id), Some(world.at(1)));
    world.registry.close(id, "deleted");
    assert_eq!(world.find(id, "ann", 3), Err(FindError::Unknown));
    assert_eq!(world.find(id, "bob", 3), Err(FindError::Unknown));
    world.stop();
}

#[test]
fn a_name_that_was_given_again_opens_no_old_session() {
    let world = World::new(UNLIMITED);
    let session = world.open("ann", 0).unwrap();
    let mut namesake = principal("ann");
    namesake.subject = "somebody else".into();
    let found = world.registry.find(session.id(), &namesake, "a");
    assert_eq!(found.unwrap_err(), FindError::Foreign);
    world.stop();
}

#[test]
fn finding_a_session_counts_as_use() {
    let world = World::new(UNLIMITED);
    let session = world.open("ann", 5).unwrap();
    assert_eq!(world.registry.last_active(session.id()), Some(world.at(5)));
    world.find(session.id(), "ann", 9).unwrap();
    assert_eq!(world.registry.last_active(session.id()), Some(world.at(9)));
    assert_eq!(world.registry.last_active("unknown"), None);
    world.stop();
}

#[test]
fn a_draining_registry_opens_nothing_and_serves_what_is_open() {
    let world = World::new(Options {
        max_sessions_per_user: 1,
        ..UNLIMITED
    });
    let session = world.open("ann", 0).unwrap();
    assert!(!world.registry.is_draining());
    world.registry.drain();
    assert!(world.registry.is_draining());
    assert_eq!(world.open("ann", 1).unwrap_err(), OpenError::Draining);
    assert_eq!(world.open("bob", 1).unwrap_err(), OpenError::Draining);
    assert_eq!(world.find(session.id(), "ann", 2), Ok(()));
    world.stop();
}

#[test]
fn a_client_that_waits_anywhere_is_seen() {
    let world = World::new(UNLIMITED);
    let (one, two) = (world.open("ann", 0).unwrap(), world.open("bob", 0).unwrap());
    assert!(!world.registry.has_clients());
    world.ask(&one);
    world.ask(&two);
    world.answer(&one);
    assert!(world.registry.has_clients());
    world.leave(&two);
    assert!(!world.registry.has_clients());
    world.stop();
}
