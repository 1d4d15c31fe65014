//! A process that is asked a few things and then stopped: to try a server (`check`), or to find out
//! which eras of the protocol its program speaks (`eras`). No session's child is spoken to here.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, unbounded};
use serde_json::{Value, json};

use crate::config::Config;
use crate::mcp::{self, meta};
use crate::supervisor::{Child, Event, Killer, Launch, Limits, Nursery, StderrTail, Waker};

/// Answers that wait to be taken; a process that writes more has to wait too.
const HEARD_MAX: usize = 4;

/// What every talk has in common.
#[derive(Clone)]
pub(crate) struct Talks {
    nursery: Nursery,
    limits: Limits,
    /// How long a process may take to answer the first question.
    pub(crate) start_timeout: Duration,
    cancelled: Receiver<()>,
}

/// A running process.
pub(crate) struct Talk {
    // In this order also when it is let go of: a thread of the child's may wait for either.
    lines: Sender<Vec<u8>>,
    heard: Receiver<Heard>,
    child: Child,
    stderr: Arc<StderrTail>,
    cancelled: Receiver<()>,
    /// What it lives in; kept until it has ended.
    home: Box<dyn Send>,
}

enum Heard {
    Message(Value),
    Ended(String),
}

/// Why nothing more is heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The process has ended: how.
    Ended(String),
    /// The time is over.
    Late,
    /// The broker does not want to know any more.
    Cancelled,
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Trouble {
    Refused { method: String, error: Value },
    Silent { method: String, silence: Silence },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { method, error } => write!(f, "{method} was refused: {error}"),
            Self::Silent { method, silence } => match silence {
                Silence::Ended(how) => write!(f, "it ended before it answered {method}: {how}"),
                Silence::Late => write!(f, "no answer to {method} in time"),
                Silence::Cancelled => write!(f, "the broker stops before {method} was answered"),
            },
        }
    }
}

impl Talks {
    pub(crate) fn new(config: &Config, nursery: Nursery) -> Self {
        Self {
            nursery,
            limits: Limits {
                max_message: config.max_message,
                stop_grace: config.stop_grace,
                kill_grace: config.kill_grace,
            },
            start_timeout: config.start_timeout,
            cancelled: never(),
        }
    }

    /// Once all senders of `cancelled` are gone, nothing is heard any more.
    pub(crate) fn until(self, cancelled: Receiver<()>) -> Self {
        Self { cancelled, ..self }
    }

    /// Starts a process, which lives in `home`.
    ///
    /// # Errors
    /// One line: the program and the OS error.
    pub(crate) fn start(&self, launch: Launch, home: impl Send + 'static) -> Result<Talk, String> {
        let stderr = Arc::clone(&launch.stderr);
        let waker = Waker::new().map_err(|error| format!("no descriptor is left: {error}"))?;
        let (lines, source) = unbounded::<Vec<u8>>();
        let (sink, heard) = bounded(HEARD_MAX);
        let child = Child::start(
            &self.nursery,
            launch,
            self.limits,
            waker,
            move || source.recv().ok(),
            move |event| {
                let heard = match event {
                    Event::Line(line) => response(line).map(Heard::Message),
                    Event::Exited(reason) => Some(Heard::Ended(reason.to_string())),
                    Event::TooLong | Event::Skipped { .. } | Event::Woken => None,
                };
                if let Some(heard) = heard {
                    // Nobody listens any more once the talk is over.
                    let _ = sink.send(heard);
                }
            },
        )
        .map_err(|error| error.to_string())?;
        Ok(Talk {
            lines,
            heard,
            child,
            stderr,
            cancelled: self.cancelled.clone(),
            home: Box::new(home),
        })
    }
}

/// The message of a line, if it answers something: what a server says or asks by itself is of no
/// interest before it has been told who it speaks with.
fn response(line: &[u8]) -> Option<Value> {
    let message: Value = serde_json::from_slice(line).ok()?;
    let is_response = message.get("result").is_some() || message.get("error").is_some();
    (is_response && message.get("method").is_none()).then_some(message)
}

impl Talk {
    /// Sends a notification.
    pub(crate) fn notify(&self, method: &str) {
        self.say(&json!({ "jsonrpc": "2.0", "method": method }));
    }

    /// Sends a request; its id is the name of its method.
    pub(crate) fn request(&self, method: &str, params: &Value) {
        self.say(&json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params }));
    }

    fn say(&self, message: &Value) {
        // A process that has ended is heard of soon.
        let _ = self.lines.send(format!("{message}\n").into_bytes());
    }

    /// Waits for the next response.
    ///
    /// # Errors
    /// [`Silence`] if there is none until then.
    pub(crate) fn hear(&self, deadline: Instant) -> Result<Value, Silence> {
        let left = deadline.saturating_duration_since(Instant::now());
        select! {
            recv(self.cancelled) -> _ => Err(Silence::Cancelled),
            recv(self.heard) -> heard => match heard {
                Ok(Heard::Message(message)) => Ok(message),
                Ok(Heard::Ended(how)) => Err(Silence::Ended(how)),
                Err(_) => Err(Silence::Ended("its reader has ended".to_owned())),
            },
            recv(after(left)) -> _ => Err(Silence::Late),
        }
    }

    /// Asks, and waits for the result.
    ///
    /// # Errors
    /// [`Trouble`] if there is none until then.
    pub(crate) fn ask(
        &self,
        method: &str,
        params: &Value,
        deadline: Instant,
    ) -> Result<Value, Trouble> {
        self.request(method, params);
        let method = method.to_owned();
        loop {
            match self.hear(deadline) {
                Ok(mut answer) if answer["id"] == *method => {
                    return match answer.get_mut("error") {
                        Some(error) => Err(Trouble::Refused {
                            method,
                            error: error.take(),
                        }),
                        None => Ok(answer["result"].take()),
                    };
                }
                Ok(_) => {}
                Err(silence) => return Err(Trouble::Silent { method, silence }),
            }
        }
    }

    /// Stops the process, and gives back the end of what it has written to stderr.
    pub(crate) fn end(self) -> Arc<StderrTail> {
        let Self {
            child,
            stderr,
            lines,
            heard,
            home,
            ..
        } = self;
        drop((lines, heard));
        child.stop();
        drop(home);
        stderr
    }

    /// What kills the process, also while it is being stopped.
    pub(crate) fn killer(&self) -> Killer {
        self.child.killer()
    }
}

/// The `params` of an `initialize` by the broker itself.
pub(crate) fn initialize_params() -> Value {
    let [.., newest] = mcp::LEGACY_VERSIONS;
    json!({ "protocolVersion": newest, "capabilities": {}, "clientInfo": client() })
}

/// The `params` of a modern request by the broker itself that has no others (2026-07-28, basic,
/// "`_meta`").
pub(crate) fn modern_params() -> Value {
    json!({ "_meta": {
        (meta::PROTOCOL_VERSION): mcp::MODERN_VERSION,
        (meta::CLIENT_INFO): client(),
        (meta::CLIENT_CAPABILITIES): {},
    } })
}

fn client() -> Value {
    json!({ "name": "mcp-broker", "version": env!("CARGO_PKG_VERSION") })
}
