//! One request and what may be done for it: send progress, log, wait, ask the client. A tool is
//! written once, straight down; whether asking means a request to the client (legacy) or an
//! `input_required` result (modern) is decided here.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::message::{Answer, Object, quote};
use crate::seal::{self, Answers};
use crate::server::Server;

/// Names of the log levels, from the least severe up (RFC 5424).
pub(crate) const LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// Whose rules a request is served by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// How a request ended well.
pub(crate) enum Outcome {
    /// A result, to which the era adds its own fields.
    Result(Value),
    /// A result as JSON text, sent as it is.
    Verbatim(String),
    /// Nothing more to say: the call has answered for itself, or never will.
    Silent,
}

/// How a request did not.
pub(crate) enum Fault {
    /// A JSON-RPC error.
    Rpc(i64, String, Option<Value>),
    /// A tool result with `isError`.
    Tool(String),
    /// A modern request that cannot go on without the client's input.
    Input {
        requests: Map<String, Value>,
        state: Option<String>,
    },
    /// The client has cancelled it: no answer.
    Cancelled,
}

impl Fault {
    /// JSON-RPC "invalid params".
    pub(crate) fn params(message: impl Into<String>) -> Self {
        Self::Rpc(-32602, message.into(), None)
    }
}

/// What tools and methods return.
pub(crate) type Reply = Result<Outcome, Fault>;

/// Something to ask the client for. `key` is the key in `inputRequests`, and the request id towards
/// a legacy client.
pub(crate) struct Ask {
    pub(crate) key: &'static str,
    pub(crate) method: &'static str,
    pub(crate) params: Value,
}

impl Ask {
    /// The client capability that the request needs.
    pub(crate) fn capability(&self) -> &'static str {
        match self.method {
            "elicitation/create" => "elicitation",
            "sampling/createMessage" => "sampling",
            _ => "roots",
        }
    }
}

/// Whether a modern retry must bring back a `requestState`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Needed,
    Optional,
}

/// Where a running request waits: for time to pass, for answers, or to be cancelled.
#[derive(Default)]
pub(crate) struct Gate {
    inner: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    cancelled: bool,
    answers: HashMap<String, Answer>,
}

impl Gate {
    /// The client does not want the answer any more.
    pub(crate) fn cancel(&self) {
        self.lock().cancelled = true;
        self.changed.notify_all();
    }

    /// The client has answered the request that we sent as `id`.
    pub(crate) fn answer(&self, id: String, answer: Answer) {
        self.lock().answers.insert(id, answer);
        self.changed.notify_all();
    }

    /// Waits until `time` is over or the request is cancelled; true when cancelled.
    pub(crate) fn cancelled_within(&self, time: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), time, |waiting| !waiting.cancelled);
        waited.unwrap_or_else(PoisonError::into_inner).0.cancelled
    }

    fn answers(&self, ids: &[String]) -> Option<Vec<Answer>> {
        let unfinished = |waiting: &mut Waiting| {
            !waiting.cancelled && !ids.iter().all(|id| waiting.answers.contains_key(id))
        };
        let waiting = self
            .changed
            .wait_while(self.lock(), unfinished)
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.cancelled {
            return None;
        }
        ids.iter()
            .map(|id| waiting.answers.get(id).cloned())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being served.
pub(crate) struct Call {
    pub(crate) server: Arc<Server>,
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) era: Era,
    pub(crate) params: Object,
    pub(crate) meta: Object,
    pub(crate) capabilities: Object,
    pub(crate) gate: Arc<Gate>,
    /// Modern: what this request has brought so far, for the next `requestState`.
    pub(crate) gathered: Mutex<Answers>,
}

impl Call {
    /// `params.name`, or nothing.
    pub(crate) fn name(&self) -> String {
        self.params.text("name").unwrap_or_default()
    }

    /// `params.arguments`, or none.
    pub(crate) fn arguments(&self) -> Object {
        self.params.object("arguments").unwrap_or_default()
    }

    /// The text of `params.arguments`, byte for byte.
    pub(crate) fn arguments_text(&self) -> &str {
        self.params.raw("arguments").unwrap_or("{}")
    }

    /// Reports progress, if the client wants to hear of it.
    pub(crate) fn progress(&self, done: u64, total: u64) {
        let Some(token) = self.meta.raw("progressToken") else {
            return;
        };
        let params = format!(r#"{{"progressToken":{token},"progress":{done},"total":{total}}}"#);
        self.server
            .wire
            .notification("notifications/progress", Some(&params));
    }

    /// Sends a log message, if the client wants messages of that level.
    pub(crate) fn log(&self, level: &str, data: &str) {
        let rank = |level: &str| LEVELS.iter().position(|known| *known == level);
        let wanted = match self.era {
            Era::Legacy => self.server.log_level(),
            Era::Modern => match self.meta.text("io.modelcontextprotocol/logLevel") {
                Some(level) => rank(&level).unwrap_or_default(),
                None => return,
            },
        };
        if rank(level).is_some_and(|rank| rank < wanted) {
            return;
        }
        let params = json!({ "level": level, "logger": "fake_mcp", "data": data }).to_string();
        self.server
            .wire
            .notification("notifications/message", Some(&params));
    }

    /// Lets `ms` milliseconds pass.
    pub(crate) fn sleep(&self, ms: u64) -> Result<(), Fault> {
        if self.gate.cancelled_within(Duration::from_millis(ms)) {
            return Err(Fault::Cancelled);
        }
        Ok(())
    }

    /// Whether the client has declared the capability.
    pub(crate) fn can(&self, capability: &str) -> bool {
        self.capabilities.raw(capability).is_some()
    }

    /// Refuses to go on without a client capability.
    pub(crate) fn need(&self, capability: &str) -> Result<(), Fault> {
        if self.can(capability) {
            return Ok(());
        }
        let message = format!("client does not support {capability}");
        Err(match self.era {
            Era::Legacy => Fault::Tool(message),
            Era::Modern => {
                let data = json!({ "requiredCapabilities": { capability: {} } });
                Fault::Rpc(-32021, message, Some(data))
            }
        })
    }

    /// Asks the client for one thing; a client that answers with an error fails the call.
    pub(crate) fn ask(&self, state: State, ask: Ask) -> Result<Value, Fault> {
        self.need(ask.capability())?;
        match self.ask_all(state, vec![ask])?.pop() {
            Some(Answer::Result(text)) => Ok(serde_json::from_str(&text).unwrap_or_default()),
            Some(Answer::Error(text)) => Err(Fault::Tool(format!(
                "client answered with an error: {text}"
            ))),
            None => Err(Fault::Tool("client did not answer".into())),
        }
    }

    /// Asks the client for several things at once; the answers come in the same order.
    pub(crate) fn ask_all(&self, state: State, asks: Vec<Ask>) -> Result<Vec<Answer>, Fault> {
        match self.era {
            Era::Legacy => {
                let ids = asks.iter().map(|ask| self.server.fresh_id(ask.key));
                self.ask_as(ids.collect(), asks)
            }
            Era::Modern => self.ask_by_result(state, asks),
        }
    }

    /// Legacy: sends the requests under the given ids and waits for all answers.
    pub(crate) fn ask_as(&self, ids: Vec<String>, asks: Vec<Ask>) -> Result<Vec<Answer>, Fault> {
        self.server.expect_answers(&ids, &self.gate);
        for (id, ask) in ids.iter().zip(&asks) {
            let params = ask.params.to_string();
            self.server.wire.request(id, ask.method, &params);
        }
        let answers = self.gate.answers(&ids);
        let open = self.server.forget_answers(&ids);
        let Some(answers) = answers else {
            for id in open {
                let params = format!(r#"{{"requestId":{id}}}"#);
                self.server
                    .wire
                    .notification("notifications/cancelled", Some(&params));
            }
            return Err(Fault::Cancelled);
        };
        Ok(answers)
    }

    /// Modern: takes the answers from this request, or ends it with what is still missing.
    fn ask_by_result(&self, state: State, asks: Vec<Ask>) -> Result<Vec<Answer>, Fault> {
        let earlier = self.earlier_answers()?;
        let given = match self.params.raw("inputResponses") {
            None => Object::default(),
            Some(text) => Object::parse(text)
                .ok_or_else(|| Fault::params("inputResponses is not an object"))?,
        };
        let trusted = earlier.is_some() || state == State::Optional;
        let mut answers = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        answers.extend(earlier.unwrap_or_default());
        let mut missing = Map::new();
        for ask in &asks {
            match given.raw(ask.key) {
                Some(text) if trusted => {
                    if Object::parse(text).is_none() {
                        let why = format!("inputResponses.{}: not a result", ask.key);
                        return Err(Fault::params(why));
                    }
                    answers.insert(ask.key.to_owned(), text.to_owned());
                }
                _ if answers.contains_key(ask.key) => {}
                _ => {
                    let request = json!({ "method": ask.method, "params": ask.params });
                    missing.insert(ask.key.to_owned(), request);
                }
            }
        }
        if missing.is_empty() {
            let texts = asks.iter().filter_map(|ask| answers.get(ask.key).cloned());
            return Ok(texts.map(Answer::Result).collect());
        }
        let keep = state == State::Needed || !answers.is_empty();
        Err(Fault::Input {
            requests: missing,
            state: keep.then(|| seal::seal(&self.sealed_for(), &answers)),
        })
    }

    /// What `requestState` says; a state that is not ours or was made for another request is an
    /// error.
    fn earlier_answers(&self) -> Result<Option<Answers>, Fault> {
        let Some(raw) = self.params.raw("requestState") else {
            return Ok(None);
        };
        let state = serde_json::from_str::<String>(raw).unwrap_or_default();
        match seal::open(&self.sealed_for(), &state) {
            Some(answers) => Ok(Some(answers)),
            None => Err(Fault::params("requestState is not valid for this request")),
        }
    }

    fn sealed_for(&self) -> String {
        format!("{} {}", self.method, quote(&self.name()))
    }
}
