//! A registry over fake children, and what the tests do with it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, OnceLock};

use super::client::{Client, INITIALIZED, Ping, RESULT, request, within_deadline};
use crate::auth::LeaseState;
use crate::bridge::{self, End, Exchange, Inbound, Outbound};
use crate::jsonrpc;
use crate::session::*;
use crate::thread;

pub(super) const IDLE: Duration = Duration::from_secs(1800);
pub(super) const UNLIMITED: Options = Options {
    max_sessions: 0,
    max_sessions_per_user: 0,
    max_in_flight_per_user: 0,
    idle_timeout: None,
    max_age: None,
    min_free_memory: 0,
    free_memory: || None,
};
/// What a client says of itself.
pub(super) const CLIENT: &str =
    r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c"}}"#;

/// A registry with its fake children, and what they went through.
pub(super) struct World {
    pub(super) registry: Arc<Registry>,
    pub(super) fakes: Arc<Fakes>,
    pub(super) start: Instant,
}

#[derive(Default)]
pub(super) struct Fakes {
    /// Labels of what happened, in order: `start`, `stop`, `kill` and the session id.
    pub(super) log: Mutex<Vec<String>>,
    /// The far faces of the bridges, by the id of the child's first session.
    pub(super) faces: Mutex<HashMap<String, Arc<Faces>>>,
    /// Of all children, in the order in which they were started.
    pub(super) all_faces: Mutex<Vec<Arc<Faces>>>,
    pub(super) spawn_fails: AtomicBool,
    /// Why no child can be started, if there is a reason.
    pub(super) refuses: Mutex<Option<fn() -> OpenError>>,
    /// Of the token that the next child gets.
    pub(super) lease: Mutex<Option<Arc<LeaseState>>>,
    pub(super) most_active: AtomicUsize,
    pub(super) registry: OnceLock<Weak<Registry>>,
    pub(super) hooks: Hooks,
}

pub(super) struct Faces {
    pub(super) outbound: Mutex<Outbound>,
    pub(super) inbound: Mutex<Box<dyn Inbound>>,
    pub(super) host: Arc<dyn Host>,
    /// What was written to the child without the writer thread.
    pub(super) lines: Mutex<Vec<String>>,
    /// The broker's own pings, which the child answers unless it hangs.
    pings: Mutex<Vec<String>>,
    pub(super) hangs: AtomicBool,
    is_woken: AtomicBool,
}

impl Faces {
    /// Does what the reader thread would, on whatever thread this is.
    fn serve(&self) {
        while self.is_woken.load(SeqCst)
            && let Some(mut inbound) = self.inbound.try_lock()
        {
            self.is_woken.store(false, SeqCst);
            inbound.service(Instant::now());
            if !self.hangs.load(SeqCst) {
                let pings = std::mem::take(&mut *self.pings.lock());
                for ping in pings {
                    let id = jsonrpc::parse(&ping).unwrap().id_text;
                    let answer = jsonrpc::result_response(id, "{}");
                    inbound.line(answer.as_bytes(), Instant::now());
                }
            }
        }
    }

    /// Takes what the bridge writes to the child.
    fn take(&self, bytes: &[u8]) {
        let is_own = |line: &String| line.contains(r#""id":"mcp-broker/"#);
        let (pings, lines): (Vec<_>, Vec<_>) = lines_of(bytes).into_iter().partition(is_own);
        self.pings.lock().extend(pings);
        self.lines.lock().extend(lines);
    }

    /// Does as the writer thread and a child do that has another one's place to take.
    fn play_along(&self) {
        loop {
            let bytes = self.outbound.lock().next();
            let Some(bytes) = bytes else {
                return;
            };
            for line in lines_of(&bytes) {
                let message = jsonrpc::parse(&line).unwrap();
                if message.method == "initialize" {
                    let answer = jsonrpc::result_response(message.id_text, RESULT);
                    self.say(&answer);
                }
                self.lines.lock().push(line);
            }
        }
    }

    /// The child writes a line.
    pub(super) fn say(&self, line: &str) {
        self.inbound.lock().line(line.as_bytes(), Instant::now());
        self.serve();
    }

    /// The child ends.
    pub(super) fn exit(&self) {
        self.inbound.lock().exited("exit status 1", Instant::now());
        self.serve();
    }

    /// The next lines that the writer thread would write.
    pub(super) fn next(&self) -> Vec<String> {
        let lines = self.outbound.lock().next().expect("not closed");
        lines_of(&lines)
    }

    /// Does what the writer thread does, until the bridge is closed.
    pub(super) fn write_queued(&self) {
        while let Some(bytes) = self.outbound.lock().next() {
            self.lines.lock().extend(lines_of(&bytes));
        }
    }

    /// What was written to the child at once since this was asked last.
    pub(super) fn take_lines(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock())
    }
}

fn lines_of(bytes: &[u8]) -> Vec<String> {
    let text = str::from_utf8(bytes).unwrap();
    assert!(text.ends_with('\n'), "{text:?}");
    text.lines().map(str::to_owned).collect()
}

/// A host that the test can speak for.
pub(super) struct SharedHost(Arc<dyn Host>);

impl Host for SharedHost {
    fn ended(&self, end: End) {
        self.0.ended(end);
    }

    fn changed(&self, session: &str, handshake: &Handshake) {
        self.0.changed(session, handshake);
    }

    fn parked(&self, is_free: bool) {
        self.0.parked(is_free);
    }
}

pub(super) type Hook = Box<dyn Fn(&str) + Send + Sync>;

/// What a test does at some point, given the session id.
#[derive(Default)]
pub(super) struct Hooks {
    pub(super) spawning: Option<Hook>,
    /// Likewise, of a session that has had a child.
    pub(super) respawning: Option<Hook>,
    pub(super) spawned: Option<Hook>,
    pub(super) waking: Option<Hook>,
    /// A bridge that is woken is served at once, as by its reader thread.
    pub(super) serves: bool,
    /// Children have a writer thread, and one that takes another's place does so by itself.
    pub(super) plays: bool,
    /// The spawner asks whether the child is still wanted.
    pub(super) asks: bool,
    pub(super) stopping: Option<Hook>,
    pub(super) killing: Option<Hook>,
}

pub(super) fn run(hook: Option<&Hook>, id: &str) {
    if let Some(hook) = hook {
        hook(id);
    }
}

impl Fakes {
    pub(super) fn note(&self, what: &str, id: &str) {
        self.log.lock().push(format!("{what} {id}"));
    }

    /// What comes before there is a child.
    fn begin(&self, request: &SpawnRequest<'_>) -> Result<(), OpenError> {
        let id = request.session;
        self.note("start", id);
        if let Some(registry) = self.registry.get().and_then(Weak::upgrade) {
            self.most_active.fetch_max(registry.active(), SeqCst);
        }
        run(self.hooks.spawning.as_ref(), id);
        if request.replay.is_some() {
            run(self.hooks.respawning.as_ref(), id);
        }
        if let Some(why) = *self.refuses.lock() {
            return Err(why());
        }
        if self.spawn_fails.load(SeqCst) {
            return Err(OpenError::Spawn("no such program".to_owned()));
        }
        if self.hooks.asks {
            (request.check)()?;
        }
        Ok(())
    }

    pub(super) fn spawn(self: &Arc<Self>, request: SpawnRequest<'_>) -> Result<Backend, OpenError> {
        self.begin(&request)?;
        let id = request.session.to_owned();
        let host: Arc<dyn Host> = Arc::from(request.host);
        let (wakes, woken) = (Arc::clone(self), id.clone());
        let own_faces = Arc::new(OnceLock::<Weak<Faces>>::new());
        let its_faces = Arc::clone(&own_faces);
        let wake = move || {
            run(wakes.hooks.waking.as_ref(), &woken);
            let faces = its_faces.get().and_then(Weak::upgrade);
            if let Some(faces) = faces.filter(|_| wakes.hooks.serves) {
                faces.is_woken.store(true, SeqCst);
                faces.serve();
            }
        };
        let options = bridge::Options {
            server: request.server.to_owned(),
            session: id.clone(),
            label: request.label.to_owned(),
            max_in_flight: 8,
            quota: request.quota,
            replay: request.replay,
            start_timeout: Duration::from_secs(30),
            era_news: None,
            wake: Box::new(wake),
            wake_at: Box::new(|_| {}),
            host: Box::new(SharedHost(Arc::clone(&host))),
            redact: Box::new(|text, _| text.to_owned()),
            stderr: Box::new(|_| Vec::new()),
        };
        let (bridge, outbound, inbound) = match request.audience {
            Audience::OneClient => Bridge::for_session(options, None),
            Audience::AllOfPrincipal => Bridge::for_all(options, None),
        };
        let faces = Arc::new(Faces {
            outbound: Mutex::new(outbound),
            inbound: Mutex::new(inbound),
            host,
            lines: Mutex::default(),
            pings: Mutex::default(),
            hangs: AtomicBool::new(false),
            is_woken: AtomicBool::new(false),
        });
        let its = Arc::downgrade(&faces);
        let _ = own_faces.set(Weak::clone(&its)); // it was empty
        bridge.connect(Box::new(move |bytes| {
            if let Some(faces) = its.upgrade() {
                faces.take(bytes);
            }
            true
        }));
        self.all_faces.lock().push(Arc::clone(&faces));
        if self.hooks.plays {
            let plays = Arc::clone(&faces);
            // It ends with its bridge, and is not waited for if a test fails before that.
            std::mem::forget(thread::spawn("child", move || plays.play_along()));
        }
        self.faces.lock().insert(id.clone(), faces);
        run(self.hooks.spawned.as_ref(), &id);
        Ok(self.backend(bridge, &id))
    }

    fn backend(self: &Arc<Self>, bridge: Bridge, id: &str) -> Backend {
        let (stops, stopped) = (Arc::clone(self), id.to_owned());
        let (kills, killed) = (Arc::clone(self), id.to_owned());
        Backend {
            bridge,
            stop: Box::new(move || {
                run(stops.hooks.stopping.as_ref(), &stopped);
                stops.note("stop", &stopped);
            }),
            kill: Box::new(move || {
                kills.note("kill", &killed);
                run(kills.hooks.killing.as_ref(), &killed);
            }),
            lease: self.lease.lock().clone(),
        }
    }

    pub(super) fn count(&self, what: &str) -> usize {
        let log = self.log.lock();
        log.iter().filter(|line| line.starts_with(what)).count()
    }

    pub(super) fn end_child(&self, id: &str) {
        let host = Arc::clone(&self.faces.lock()[id].host);
        host.ended(End::Exited {
            why: "exit status 1".to_owned(),
            detail: "it said why".to_owned(),
        });
    }
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        Self::with_hooks(options, Hooks::default())
    }

    pub(super) fn with_hooks(options: Options, hooks: Hooks) -> Self {
        Self::with(options, hooks, Policy::default(), None)
    }

    /// With this policy for server `a`, and sessions kept in this directory.
    pub(super) fn with(
        options: Options,
        hooks: Hooks,
        policy: Policy,
        state: Option<&Path>,
    ) -> Self {
        let policies = HashMap::from([(server("a"), policy)]);
        let records = state.map(|state| Records::load(state).unwrap());
        let fakes = Arc::new(Fakes {
            hooks,
            ..Fakes::default()
        });
        let spawns = Arc::clone(&fakes);
        let spawn: SpawnFn = Box::new(move |request| spawns.spawn(request));
        let registry = Registry::new(options, policies, records, spawn);
        let _ = fakes.registry.set(Arc::downgrade(&registry)); // it was empty
        Self {
            registry,
            fakes,
            start: Instant::now(),
        }
    }

    pub(super) fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    pub(super) fn open(&self, user: &str, seconds: u64) -> Result<Arc<Session>, OpenError> {
        self.registry
            .open(&principal(user), &server("a"), CLIENT, self.at(seconds))
    }

    pub(super) fn find(&self, id: &str, user: &str, seconds: u64) -> Result<(), FindError> {
        let found = self.registry.find(id, &principal(user), "a");
        found.map(|found| match found {
            Found::Running(session) => {
                assert_eq!(session.id(), id);
                session.touch(self.at(seconds));
            }
            Found::Resting => panic!("{id} has no child"),
        })
    }

    /// Puts a request in flight.
    pub(super) fn ask(&self, session: &Session) {
        session.post(Box::new(Ping));
        assert_eq!(session.in_flight(), 1);
    }

    /// Its client goes away.
    pub(super) fn leave(&self, session: &Session) {
        session.gone(Ping.connection());
        let faces = self.child(session.id());
        faces.inbound.lock().service(self.start);
        assert_eq!(session.in_flight(), 1);
    }

    /// Answers it.
    pub(super) fn answer(&self, session: &Session) {
        self.child(session.id())
            .say(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        assert_eq!(session.in_flight(), 0);
    }

    /// The latest child that was started for this session.
    pub(super) fn child(&self, id: &str) -> Arc<Faces> {
        Arc::clone(&self.fakes.faces.lock()[id])
    }

    /// Opens a session as a client does: both messages of the handshake. `child` is the session
    /// whose child it is expected to find, if any.
    pub(super) fn begin(
        &self,
        user: &str,
        seconds: u64,
        child: Option<&str>,
    ) -> (Arc<Session>, Client) {
        let (session, client) = (self.open(user, seconds).unwrap(), Client::default());
        client.post(&session, &request("init", "initialize", CLIENT));
        match child {
            Some(child) => assert_eq!(self.child(child).take_lines(), [""; 0]),
            None => {
                let faces = self.child(session.id());
                assert_eq!(faces.take_lines().len(), 1);
                faces.say(&format!(
                    r#"{{"jsonrpc":"2.0","id":"init","result":{RESULT}}}"#
                ));
            }
        }
        let told = format!(
            "json {} {{\"jsonrpc\":\"2.0\",\"id\":\"init\",\"result\":{RESULT}}}",
            session.id()
        );
        assert_eq!(client.heard(), [told]);
        client.post(&session, INITIALIZED);
        assert_eq!(client.heard(), ["accepted"]);
        let lines = self.child(child.unwrap_or(session.id())).take_lines();
        assert_eq!(lines.len(), usize::from(child.is_none()), "{lines:?}");
        (session, client)
    }

    /// When the session was last used; `None` if there is no such session.
    pub(super) fn last_active(&self, id: &str) -> Option<Instant> {
        let sessions = self.registry.sessions.lock();
        sessions.by_id.get(id).map(|session| session.last_active())
    }

    /// The sessions that are left, of these.
    pub(super) fn left<'a>(&self, sessions: &[(&'a str, &Arc<Session>)]) -> Vec<&'a str> {
        let is_left = |id: &str| self.last_active(id).is_some();
        let left = sessions.iter().filter(|(_, session)| is_left(session.id()));
        left.map(|(name, _)| *name).collect()
    }

    /// Calls [`Registry::stop`], which must come back.
    pub(super) fn stop(&self) {
        let registry = Arc::clone(&self.registry);
        within_deadline("stop", move || registry.stop());
        assert_eq!(self.registry.active(), 0);
        let (started, stopped) = (self.fakes.count("start"), self.fakes.count("stop"));
        assert_eq!(stopped, started, "children stopped");
    }
}

pub(super) fn principal(name: &str) -> Principal {
    Principal {
        issuer: "token".into(),
        subject: format!("subject of {name}").into(),
        name: name.into(),
        email: None,
        grant: None,
        env: Arc::new(BTreeMap::new()),
    }
}

pub(super) fn server(name: &str) -> Arc<str> {
    name.into()
}

/// Opens a session on each of 32 threads at once.
pub(super) fn open_32(
    world: &World,
    user: impl Fn(usize) -> String,
) -> Vec<Result<Arc<Session>, OpenError>> {
    let barrier = Arc::new(Barrier::new(32));
    let threads: Vec<_> = (0..32)
        .map(|n| {
            let (registry, barrier) = (Arc::clone(&world.registry), Arc::clone(&barrier));
            let (principal, now) = (principal(&user(n)), world.start);
            thread::spawn(format!("open {n}"), move || {
                barrier.wait();
                registry.open(&principal, &server("a"), CLIENT, now)
            })
            .unwrap()
        })
        .collect();
    let opened = threads.into_iter().map(|thread| thread.join());
    opened.map(|opened| opened.expect("no panic")).collect()
}

/// The client deletes its session.
pub(super) fn close(world: &World, id: &str) {
    world.registry.close(id, Cause::Deleted, world.start);
}
