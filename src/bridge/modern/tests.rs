//! The front for modern clients, told as golden dialogues (see `bridge::tests`): several clients of
//! one principal, and the child that they share. A dialogue can
//!
//! ```text
//! == TITLE                      a new bridge over a modern child
//! > legacy                      one over a legacy child that has been initialized
//! > unborn SECONDS              one over a legacy child, to be initialized in this time
//! > quota N                     one whose user may have so many requests in flight
//! > ask CLIENT ID METHOD [PARAMS] [| META]
//!                               a request with the head that it must have; PARAMS and META are
//!                               members; META stands for those that every request has, STATE for
//!                               the `requestState` that a client was given last
//! > head CLIENT NAME VALUE      the heads of its requests have this `Mcp-Param-NAME` from now on
//! > headless CLIENT             they repeat nothing of the body
//! > post CLIENT JSON            any other POST
//! > cut CLIENT                  a POST whose body does not come to its end
//! > get CLIENT                  a GET
//! > gone CLIENT                 the edge says that this client has gone
//! > break CLIENT                from now on writing to it fails
//! > child LINE                  the child writes a line
//! > long                        the child writes a line of more than `max_message`
//! > deaf                        the child reads no more
//! > reads                       it does again, and the writer thread has its turn
//! > exit REASON                 the child ends
//! > drain                       the broker is shutting down
//! > close                       the session is ended
//! > wait SECONDS                time passes, in steps of a quarter of a second
//! > counts                      how many are in flight, and whether somebody waits
//! ```

mod bounds;
mod locks;

use std::collections::HashMap;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::tests::dialogue::{self, Stage};
use super::super::tests::fakes::{Bell, Client, FakeExchange, FakeHost, Log};
use super::super::{Exchange, Inbound, Quota};
use super::*;
use crate::translate::{LegacyChild, LegacyChildOptions, Sealer};

/// How often the reaper calls [`Bridge::tick`].
const TICK: Duration = Duration::from_millis(250);
const MAX_IN_FLIGHT: usize = 3;
/// What every request must have.
const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}"#;

struct Rig {
    bridge: Arc<Bridge>,
    /// Its writer thread would have this.
    _outbound: Outbound,
    inbound: ModernInbound,
    bell: Bell,
    is_deaf: Arc<AtomicBool>,
    clients: HashMap<String, Client>,
    heads: HashMap<String, Vec<(String, String)>>,
    headless: Vec<String>,
    /// What a client was given to come again with.
    state: String,
    log: Log,
    now: Instant,
}

/// Without what stands in every request.
fn shortened(line: &str) -> String {
    let own = own_request(0, "m", "");
    let own = jsonrpc::member(&own, "params").unwrap();
    let own = own.trim_start_matches("{\"_meta\":{");
    let own = own.trim_end_matches("}}");
    line.replace(META, "META").replace(own, "OUR-META")
}

impl Rig {
    fn with(is_legacy: bool, start_timeout: Duration, max_of_user: usize) -> Self {
        let log = Log::default();
        let bell = Bell::default();
        let options = Options {
            server: "demo".to_owned(),
            session: "5e55".to_owned(),
            label: "5e55".to_owned(),
            max_in_flight: MAX_IN_FLIGHT,
            quota: Arc::new(Quota::new(max_of_user)),
            replay: None,
            start_timeout,
            era_news: Some(Box::new({
                let log = log.clone();
                move |news| log.note(format!("{news:?}"))
            })),
            wake: {
                let bell = bell.clone();
                Box::new(move || bell.ring())
            },
            wake_at: {
                let bell = bell.clone();
                Box::new(move |_| bell.ring())
            },
            host: Box::new(FakeHost {
                log: log.clone(),
                bridge: Arc::clone(&bell.bridge),
            }),
            redact: Box::new(|text, max_chars| text.chars().take(max_chars).collect()),
            stderr: Box::new(|_| vec!["a last word".to_owned()]),
        };
        let translator = is_legacy.then(|| {
            let translator: Box<dyn Translator> = Box::new(LegacyChild::new(LegacyChildOptions {
                server_name: "demo".to_owned(),
                sealer: Sealer::new([7; 32], "ann"),
                input_timeout: Duration::from_secs(60),
            }));
            translator
        });
        let (bridge, outbound, inbound) = bridge(options, translator);
        let bridge = Arc::new(bridge);
        let _ = bell.bridge.set(Arc::downgrade(&bridge)); // it was empty
        let is_deaf = Arc::<AtomicBool>::default();
        let (its_log, hears) = (log.clone(), Arc::clone(&is_deaf));
        bridge.connect(Box::new(move |bytes| {
            let takes = !hears.load(Ordering::Relaxed);
            if takes {
                note_lines(&its_log, bytes);
            }
            takes
        }));
        let mut rig = Self {
            bridge,
            _outbound: outbound,
            inbound,
            bell,
            is_deaf,
            clients: HashMap::new(),
            heads: HashMap::new(),
            headless: Vec::new(),
            state: String::new(),
            log,
            now: Instant::now(),
        };
        rig.catch_up();
        rig
    }

    /// What the writer thread would do.
    fn catch_up(&mut self) {
        while !self.is_deaf.load(Ordering::Relaxed)
            && let Some(bytes) = self.bridge.lane.take_late()
        {
            note_lines(&self.log, &bytes);
            self.bridge.lane.written();
        }
    }

    /// Over a legacy child that has been initialized.
    fn legacy() -> Self {
        let mut rig = Self::with(true, Duration::from_secs(30), 0);
        rig.child(INITIALIZED);
        rig.service();
        rig.log.take();
        rig
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

    /// The head that a well-behaved client gives this body.
    fn mirrored(&self, name: &str, body: &str) -> Option<Mirrored> {
        if self.headless.iter().any(|it| it == name) {
            return None;
        }
        let message = jsonrpc::parse(body).ok();
        let params = message.as_ref().and_then(|it| it.params).unwrap_or("{}");
        let text = |key| Some(jsonrpc::text(jsonrpc::member(params, key)?)?.into_owned());
        Some(Mirrored {
            version: Some(mcp::MODERN_VERSION.to_owned()),
            method: message.map(|it| it.method.into_owned()),
            name: text("name").or_else(|| text("uri")),
            params: self.heads.get(name).cloned().unwrap_or_default(),
        })
    }

    fn exchange(&mut self, name: &str, body: Option<&str>) -> Box<FakeExchange> {
        let mirrored = body.and_then(|body| self.mirrored(name, body));
        Box::new(FakeExchange {
            client: self.client(name),
            body: body.map(|body| body.as_bytes().to_vec()),
            mirrored,
            is_answered: false,
        })
    }

    fn accept(&mut self, name: &str, body: Option<&str>) {
        let mut exchange = self.exchange(name, body);
        let body = exchange.body();
        let line = self.bridge.front.accept(0, exchange, body, self.now);
        let line = match line {
            Some(Taken::Line(line)) => line,
            Some(Taken::Aside(_)) => panic!("nothing is said aside here"),
            None => Vec::new(),
        };
        assert!(line.is_empty() || line.ends_with(b"\n"), "{line:?}");
        let bytes = self.bridge.lane.outgoing(&*self.bridge.front, line);
        note_lines(&self.log, &bytes);
    }

    fn ask(&mut self, name: &str, rest: &str) {
        let (request, meta) = rest.split_once(" | ").unwrap_or((rest, "META"));
        let (id, request) = request.split_once(' ').expect("a method");
        let (method, params) = request.split_once(' ').unwrap_or((request, ""));
        let comma = if params.is_empty() { "" } else { "," };
        let meta = meta.replace("META", META);
        let params = params.replace("STATE", &self.state);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}{comma}"_meta":{{{meta}}}}}}}"#
        );
        self.accept(name, Some(&body));
    }

    fn child(&mut self, line: &str) {
        self.inbound.line(line.as_bytes(), self.now);
    }

    /// What the reader thread does when it is woken.
    fn service(&mut self) {
        while self.bell.is_rung.swap(false, Ordering::Relaxed) {
            self.inbound.service(self.now);
            self.catch_up();
            if self.bridge.lane.due().is_some_and(|due| due > self.now) {
                return;
            }
        }
    }

    fn wait(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now += TICK;
            self.bridge.tick(self.now);
            if self.bridge.lane.due().is_some_and(|due| due <= self.now) {
                self.bell.is_rung.store(true, Ordering::Relaxed);
            }
            self.service();
        }
    }

    fn set_up(&mut self, verb: &str, rest: &str) -> bool {
        let seconds = || Duration::from_secs(rest.parse().unwrap());
        *self = match verb {
            "legacy" => Self::legacy(),
            "unborn" => Self::with(true, seconds(), 0),
            "quota" => Self::with(false, Duration::from_secs(30), rest.parse().unwrap()),
            _ => return false,
        };
        true
    }
}

impl Stage for Rig {
    fn new() -> Self {
        Self::with(false, Duration::from_secs(30), 0)
    }

    fn perform(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, more) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "ask" => self.ask(name, more),
            "head" => {
                let (field, value) = more.split_once(' ').unwrap();
                let heads = self.heads.entry(name.to_owned()).or_default();
                heads.push((field.to_owned(), value.to_owned()));
            }
            "headless" => self.headless.push(name.to_owned()),
            "post" => self.accept(name, Some(&more.replace("META", META))),
            "cut" => self.accept(name, None),
            "get" => {
                let exchange = self.exchange(name, None);
                self.bridge.listen(0, exchange, None);
            }
            "gone" => {
                let connection = self.client(name).connection;
                self.bridge.gone(connection);
            }
            "break" => self.client(name).is_broken.store(true, Ordering::Relaxed),
            "child" => self.child(&rest.replace("<CR>", "\r")),
            "long" => self.inbound.line_too_long(),
            "deaf" => self.is_deaf.store(true, Ordering::Relaxed),
            "reads" => self.is_deaf.store(false, Ordering::Relaxed),
            "exit" => self.inbound.exited(rest, self.now),
            "drain" => self.bridge.drain(),
            "close" => self.bridge.close(),
            "wait" => self.wait(rest.parse().unwrap()),
            "counts" => self.log.note(format!(
                "in flight {}, clients {}",
                self.bridge.in_flight(),
                self.bridge.has_clients()
            )),
            _ => assert!(self.set_up(verb, rest), "what is {line:?}?"),
        }
        self.catch_up();
        self.service();
    }

    fn take_seen(&mut self) -> Vec<String> {
        let seen = self.log.take();
        let mut shown = Vec::new();
        for line in &seen {
            let mut line = shortened(line);
            // Sealed with a fresh nonce each time.
            if let Some((_, rest)) = line.split_once("\"requestState\":\"") {
                let state = rest.split('"').next().unwrap().to_owned();
                line = line.replace(&state, "STATE");
                self.state = state;
            }
            shown.push(line);
        }
        shown
    }
}

fn note_lines(log: &Log, bytes: &[u8]) {
    let text = str::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines()
        .for_each(|line| log.note(format!("child {line}")));
}

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":"mcp-broker/initialize","result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}},"serverInfo":{"name":"old","version":"1"}}}"#;

fn check_transcript(name: &str) {
    dialogue::check::<Rig>(name);
}

#[test]
fn answers() {
    check_transcript("modern_answers");
}

#[test]
fn streams() {
    check_transcript("modern_streams");
}

#[test]
fn refusals() {
    check_transcript("modern_refusals");
}

#[test]
fn subscriptions() {
    check_transcript("modern_subscriptions");
}

#[test]
fn clients_that_go() {
    check_transcript("modern_gone");
}

#[test]
fn tools_with_parameters_in_heads() {
    check_transcript("modern_tools");
}

#[test]
fn endings() {
    check_transcript("modern_endings");
}

#[test]
fn a_legacy_child() {
    check_transcript("modern_legacy");
}
