//! Fake clients and a fake registry, which write down what they see.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::bridge::modern::Mirrored;
use crate::bridge::{Bridge, End, EventWriter, Exchange, Handshake, Host, Reply};

/// What was observed, in order.
#[derive(Clone, Default)]
pub(in crate::bridge) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(in crate::bridge) fn note(&self, line: impl Into<String>) {
        self.0.lock().push(line.into());
    }

    pub(in crate::bridge) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Somebody at the other end of one connection.
#[derive(Clone)]
pub(in crate::bridge) struct Client {
    pub(in crate::bridge) name: String,
    pub(in crate::bridge) connection: u64,
    pub(in crate::bridge) is_broken: Arc<AtomicBool>,
    pub(in crate::bridge) log: Log,
}

impl Client {
    fn note(&self, what: impl std::fmt::Display) {
        self.log.note(format!("{} {what}", self.name));
    }

    fn reach(&self) -> io::Result<()> {
        match self.is_broken.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }
}

pub(in crate::bridge) struct FakeExchange {
    pub(in crate::bridge) client: Client,
    pub(in crate::bridge) body: Option<Vec<u8>>,
    pub(in crate::bridge) mirrored: Option<Mirrored>,
    pub(in crate::bridge) is_answered: bool,
}

impl Exchange for FakeExchange {
    fn body_len(&self) -> usize {
        self.body.as_ref().map_or(0, Vec::len)
    }

    fn body(&mut self) -> io::Result<Vec<u8>> {
        self.body.take().ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    fn connection(&self) -> u64 {
        self.client.connection
    }

    fn mirrored(&self) -> Option<&Mirrored> {
        self.mirrored.as_ref()
    }

    fn reply(mut self: Box<Self>, reply: Reply<'_>) {
        self.is_answered = true;
        self.client.note(match reply {
            Reply::Message { json, session } => {
                let json = String::from_utf8_lossy(json);
                format!("json {}{json}", announced(session))
            }
            Reply::Accepted => "accepted".to_owned(),
            Reply::Answer { json, error } => {
                format!("answer error={error:?} {}", String::from_utf8_lossy(json))
            }
            Reply::Fault { json, error } => {
                format!("fault {error} {}", String::from_utf8_lossy(json))
            }
            Reply::Refused { id, why } => format!("refused id={id} {why:?}"),
        });
    }

    fn stream(mut self: Box<Self>, session: Option<&str>) -> io::Result<Box<dyn EventWriter>> {
        self.is_answered = true;
        self.client.reach()?;
        self.client
            .note(format!("stream {}", announced(session)).trim());
        Ok(Box::new(FakeWriter {
            client: self.client.clone(),
            is_finished: false,
        }))
    }
}

fn announced(session: Option<&str>) -> String {
    session.map_or(String::new(), |session| format!("session={session} "))
}

impl Drop for FakeExchange {
    fn drop(&mut self) {
        if !self.is_answered {
            self.client.note("dropped");
        }
    }
}

struct FakeWriter {
    client: Client,
    is_finished: bool,
}

impl EventWriter for FakeWriter {
    fn send(&mut self, events: &[u8]) -> io::Result<()> {
        self.client.reach()?;
        let text = str::from_utf8(events).unwrap();
        // WHATWG HTML, "Parsing an event stream": each of the three ends a line.
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let text = text.strip_suffix("\n\n").expect("whole events");
        for event in text.split("\n\n") {
            let lines: Vec<&str> = event.lines().collect();
            let field = |at: usize, name: &str| lines.get(at)?.strip_prefix(name);
            let what = match (field(0, "id: "), field(1, "id: "), field(2, "data: ")) {
                (None, Some(id), Some(json)) if lines.len() == 3 => format!("event {id} {json}"),
                (Some(id), ..) if lines[1..] == ["retry: 1000", "data:"] => format!("prime {id}"),
                _ if lines.len() == 2 && lines[0] == "event: message" => {
                    let json = field(1, "data: ").expect("data");
                    format!("event {json}")
                }
                _ if lines.len() == 1 && event.starts_with(':') => format!("comment{event}"),
                _ => format!("garbled {lines:?}"),
            };
            self.client.note(what.trim_end());
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) {
        self.is_finished = true;
        self.client.note("end");
    }
}

impl Drop for FakeWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            self.client.note("let go");
        }
    }
}

/// Wakes the reader thread, which has its turn when the test gives it one.
#[derive(Clone, Default)]
pub(in crate::bridge) struct Bell {
    pub(in crate::bridge) is_rung: Arc<AtomicBool>,
    /// The child could not have ended because of us when it was rung last.
    pub(in crate::bridge) was_in_time: Arc<AtomicBool>,
    pub(in crate::bridge) bridge: Arc<OnceLock<Weak<Bridge>>>,
}

impl Bell {
    pub(in crate::bridge) fn ring(&self) {
        let bridge = self.bridge.get().and_then(Weak::upgrade);
        let is_open = bridge.is_none_or(|bridge| bridge.lane.is_open());
        self.was_in_time.store(is_open, Ordering::Relaxed);
        self.is_rung.store(true, Ordering::Relaxed);
    }
}

/// Does what the registry does.
pub(in crate::bridge) struct FakeHost {
    pub(in crate::bridge) log: Log,
    pub(in crate::bridge) bridge: Arc<OnceLock<Weak<Bridge>>>,
}

impl Host for FakeHost {
    fn ended(&self, end: End) {
        self.log.note(format!("ended: {end}"));
        // A test that fails may have let go of it.
        if let Some(bridge) = self.bridge.get().and_then(Weak::upgrade) {
            bridge.close();
        }
    }

    fn changed(&self, session: &str, handshake: &Handshake) {
        if !is_plain(handshake) {
            self.log
                .note(format!("keep {session} {}", shown(handshake)));
        }
    }

    fn parked(&self, is_free: bool) {
        self.log.note(format!("parked: {is_free}"));
    }
}

/// Nothing but `initialize`, which every dialogue has.
fn is_plain(handshake: &Handshake) -> bool {
    handshake.log_level.is_none() && handshake.subscriptions.is_empty()
}

fn shown(handshake: &Handshake) -> String {
    let level = handshake.log_level.iter();
    let all: Vec<&str> = level
        .chain(&handshake.subscriptions)
        .map(AsRef::as_ref)
        .collect();
    all.join(" ")
}
