//! A bridge between fake clients and a fake child, with the time passed in: no thread, no sleep.
//!
//! Most of it is told as golden dialogues, `tests/data/transcripts/*.txt`: lines with `>` are
//! what happens to the bridge, those with `<` what it does then. `BLESS=1` writes what it does
//! into the files, to be read before it is committed. A dialogue can
//!
//! ```text
//! == TITLE                a new bridge
//! > init VERSION          a session that has negotiated this revision
//! > impatient SECONDS     one whose child shall answer `initialize` in this time instead of 30 s
//! > post CLIENT JSON      a POST; each client has a connection of its own
//! > cut CLIENT            a POST whose body does not come to its end
//! > get CLIENT [ID]       a GET, with `Last-Event-ID`
//! > gone CLIENT           the edge says that this client has gone
//! > break CLIENT          from now on writing to it fails
//! > child LINE            the child writes a line
//! > long [HEAD...TAIL]     the child writes a line of more than `max_message`
//! > stderr LINE           the child writes to stderr
//! > exit REASON           the child ends
//! > drain                 the broker is shutting down
//! > close                 the session is ended
//! > wait SECONDS          time passes, in steps of a quarter of a second
//! ```
//!
//! and what `succession` adds.

mod bounds;
pub(super) mod dialogue;
pub(super) mod fakes;
mod lane;
mod succession;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::inbound::SessionInbound;
use super::session::Shared;
use super::*;
use dialogue::Stage;
use fakes::*;

/// How often the reaper calls [`Bridge::tick`].
const TICK: Duration = Duration::from_millis(250);
const MAX_IN_FLIGHT: usize = 3;

/// A bridge and all around it.
struct Rig {
    bridge: Arc<Bridge>,
    outbound: Outbound,
    inbound: SessionInbound,
    /// Which of the bridge's sessions the clients speak in.
    tenant: u64,
    bell: Bell,
    /// When the reader thread is to be woken.
    alarm: Arc<Mutex<Option<Instant>>>,
    stderr: Arc<Mutex<Vec<String>>>,
    clients: HashMap<String, Client>,
    log: Log,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        Self::with_start_timeout(Duration::from_secs(30))
    }

    fn with_start_timeout(start_timeout: Duration) -> Self {
        Self::with(start_timeout, None, 0)
    }

    fn with(
        start_timeout: Duration,
        replay: Option<(Handshake, Instant)>,
        max_of_user: usize,
    ) -> Self {
        let log = Log::default();
        let (bell, stderr) = (Bell::default(), Arc::<Mutex<Vec<String>>>::default());
        let alarm = Arc::<Mutex<Option<Instant>>>::default();
        let options = Options {
            server: "demo".to_owned(),
            session: "5e55".to_owned(),
            label: "5e55".to_owned(),
            max_in_flight: MAX_IN_FLIGHT,
            quota: Arc::new(Quota::new(max_of_user)),
            replay,
            start_timeout,
            era_news: Some(Box::new({
                let log = log.clone();
                move |news| log.note(format!("{news:?}"))
            })),
            wake_at: {
                let alarm = Arc::clone(&alarm);
                Box::new(move |at| *alarm.lock() = Some(at))
            },
            wake: {
                let bell = bell.clone();
                Box::new(move || bell.ring())
            },
            host: Box::new(FakeHost {
                log: log.clone(),
                bridge: Arc::clone(&bell.bridge),
            }),
            redact: Box::new(|text, max_chars| text.chars().take(max_chars).collect()),
            stderr: {
                let stderr = Arc::clone(&stderr);
                Box::new(move |_| stderr.lock().clone())
            },
        };
        let (bridge, outbound, inbound) = session::bridge(options, None);
        let bridge = Arc::new(bridge);
        let _ = bell.bridge.set(Arc::downgrade(&bridge)); // it was empty
        Self {
            bridge,
            outbound,
            inbound,
            tenant: FIRST_TENANT,
            bell,
            alarm,
            stderr,
            clients: HashMap::new(),
            log,
            now: Instant::now(),
        }
    }

    fn shared(&self) -> &Shared {
        self.inbound.shared()
    }

    /// A session that has negotiated this revision.
    fn initialized(version: &str) -> Self {
        Self::new().initialize(version)
    }

    fn initialize(mut self, version: &str) -> Self {
        let rig = &mut self;
        rig.post("init", r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#);
        rig.child(&format!(
            r#"{{"jsonrpc":"2.0","id":0,"result":{{"protocolVersion":"{version}"}}}}"#
        ));
        rig.log.take();
        self
    }

    fn client(&mut self, name: &str) -> Client {
        let connection = 100 + self.clients.len() as u64;
        let client = self
            .clients
            .entry(name.to_owned())
            .or_insert_with(|| Client {
                name: name.to_owned(),
                connection,
                is_broken: Arc::default(),
                log: self.log.clone(),
            });
        client.clone()
    }

    fn exchange(&mut self, name: &str, body: Option<&[u8]>) -> Box<FakeExchange> {
        Box::new(FakeExchange {
            client: self.client(name),
            body: body.map(<[u8]>::to_vec),
            mirrored: None,
            is_answered: false,
        })
    }

    fn accept(&mut self, name: &str, body: Option<&[u8]>) {
        let mut exchange = self.exchange(name, body);
        let body = exchange.body();
        let taken = outbound::accept(self.shared(), self.tenant, exchange, body, self.now);
        let lines = match taken {
            Some(Taken::Line(lines)) => lines,
            Some(Taken::Aside(aside)) => return aside.run(self.shared()),
            None => return,
        };
        let lines = String::from_utf8(lines).unwrap();
        assert!(lines.is_empty() || lines.ends_with('\n'), "{lines:?}");
        for line in lines.lines() {
            self.log.note(format!("child {line}"));
        }
    }

    fn post(&mut self, name: &str, json: &str) {
        self.accept(name, Some(json.as_bytes()));
    }

    fn get(&mut self, name: &str, last_event_id: Option<&str>) {
        let exchange = self.exchange(name, None);
        let last_event_id = last_event_id.map(str::to_owned);
        self.bridge.listen(self.tenant, exchange, last_event_id);
        self.service();
    }

    fn child(&mut self, line: &str) {
        self.inbound.line(line.as_bytes(), self.now);
    }

    fn long(&mut self, line: &str) {
        let (head, tail) = line.split_once("...").unwrap_or_default();
        self.inbound.line_too_long();
        self.inbound
            .line_skipped(head.as_bytes(), tail.as_bytes(), self.now);
    }

    /// What the reader thread does when it is woken.
    fn service(&mut self) {
        if self.bell.is_rung.swap(false, Ordering::Relaxed) {
            self.inbound.service(self.now);
        }
    }

    fn wait(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now += TICK;
            self.bridge.tick(self.now);
            if self.alarm.lock().take_if(|at| self.now >= *at).is_some() {
                self.bell.is_rung.store(true, Ordering::Relaxed);
            }
            self.service();
        }
    }

    /// Does one line of a dialogue.
    fn perform(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, more) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "init" => *self = Self::initialized(rest),
            "impatient" => {
                *self = Self::with_start_timeout(Duration::from_secs(rest.parse().unwrap()));
            }
            "post" => self.post(name, more),
            "cut" => self.accept(name, None),
            "get" => self.get(name, Some(more).filter(|id| !id.is_empty())),
            "gone" => {
                let connection = self.client(name).connection;
                self.bridge.gone(connection);
            }
            "break" => self.client(name).is_broken.store(true, Ordering::Relaxed),
            "child" => self.child(&rest.replace("<CR>", "\r")),
            "long" => self.long(rest),
            "stderr" => self.stderr.lock().push(rest.to_owned()),
            "exit" => self.inbound.exited(rest, self.now),
            "drain" => self.bridge.drain(),
            "close" => self.bridge.close(),
            "wait" => self.wait(rest.parse().unwrap()),
            _ => self.succeed(verb, rest),
        }
        self.service();
    }
}

impl Stage for Rig {
    fn new() -> Self {
        Self::new()
    }

    fn perform(&mut self, line: &str) {
        self.perform(line);
    }

    fn take_seen(&mut self) -> Vec<String> {
        self.log.take()
    }
}

fn check_transcript(name: &str) {
    dialogue::check::<Rig>(name);
}

#[test]
fn initialize() {
    check_transcript("initialize");
}

#[test]
fn second_try() {
    check_transcript("second_try");
}

#[test]
fn answers() {
    check_transcript("answers");
}

#[test]
fn refusals() {
    check_transcript("refusals");
}

#[test]
fn batches() {
    check_transcript("batches");
}

#[test]
fn routing() {
    check_transcript("routing");
}

#[test]
fn resuming() {
    check_transcript("resuming");
}

#[test]
fn clients_that_go() {
    check_transcript("gone");
}

#[test]
fn cancelling() {
    check_transcript("cancelling");
}

#[test]
fn heartbeats() {
    check_transcript("heartbeats");
}

#[test]
fn endings() {
    check_transcript("endings");
}

#[test]
fn garbage() {
    check_transcript("garbage");
}
