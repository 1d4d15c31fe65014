//! One child's router, legacy era: which client waits for which answer, and which stream gets
//! what the child says on its own.
//!
//! A bridge has three faces. [`Bridge`] is what the session holds: it takes requests of clients
//! in. [`Outbound`] runs on the writer thread and turns them into lines for the child.
//! [`Inbound`] runs on the reader thread, takes the child's lines, and is the only one that ever
//! writes to a client once a request is on its way, so no stream needs a lock. It knows neither
//! processes nor HTTP: a client is an [`Exchange`].

mod inbound;
mod outbound;
mod stream;
mod table;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use crate::jsonrpc::ParseError;
pub(crate) use inbound::Inbound;
pub(crate) use outbound::Outbound;
use table::Table;

/// One HTTP request of a client that waits for its response.
pub(crate) trait Exchange: Send {
    /// The body, whole. Called once, before anything else.
    ///
    /// # Errors
    /// The OS error if it cannot be read to its end.
    fn body(&mut self) -> io::Result<Vec<u8>>;

    /// Tells this client's connection from all others.
    fn connection(&self) -> u64;

    /// Ends the exchange with one response.
    fn reply(self: Box<Self>, reply: Reply<'_>);

    /// Begins a response of many events; `session` is the id to announce, for `initialize`.
    ///
    /// # Errors
    /// The OS error if the client cannot be reached any more.
    fn stream(self: Box<Self>, session: Option<&str>) -> io::Result<Box<dyn EventWriter>>;
}

/// The client's end of an event stream.
pub(crate) trait EventWriter: Send {
    /// Sends one or more whole events (or a comment), at once.
    ///
    /// # Errors
    /// The OS error if the client cannot be reached any more.
    fn send(&mut self, events: &[u8]) -> io::Result<()>;

    /// Ends the stream properly.
    fn finish(self: Box<Self>);
}

/// What a client is told; `http` chooses the status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// A JSON-RPC message; `session` is the id to announce, for `initialize`.
    Message {
        json: &'a [u8],
        session: Option<&'a str>,
    },
    /// A notification or a response was taken.
    Accepted,
    /// The request was not taken; `id` is the text of its id.
    Refused { id: &'a str, why: Refusal },
}

/// Why a request was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    BodyIncomplete,
    Body(ParseError),
    BatchNotAllowed,
    AlreadyInitialized,
    IdInFlight,
    /// More requests are in flight, or waiting, than a session may have.
    TooManyInFlight,
    /// The child could not be started, or ended before it answered `initialize`.
    StartFailed(String),
    /// The session has ended meanwhile.
    SessionEnded,
}

/// The bounds of a bridge, and what it calls.
pub(crate) struct Options {
    /// The server's name, for messages.
    pub(crate) server: String,
    /// The session id to announce.
    pub(crate) session: String,
    /// Short session id, for log lines.
    pub(crate) label: String,
    pub(crate) max_in_flight: usize,
    /// How long the child may take to answer `initialize`.
    pub(crate) start_timeout: Duration,
    /// Interrupts the reader thread: it shall call [`Inbound::service`].
    pub(crate) wake: Box<dyn Fn() + Send + Sync>,
    /// Called once when the bridge can serve no more, with what the log shall say.
    pub(crate) ended: Box<dyn Fn(&str) + Send + Sync>,
    /// The last lines of the child's stderr, secrets struck out.
    pub(crate) stderr: Box<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// Requests that wait for the writer thread; more are refused.
const INBOX_LEN: usize = 64;

/// What the session holds of a bridge.
pub(crate) struct Bridge {
    /// `None` once the session has ended.
    inbox: Mutex<Option<Sender<Box<dyn Exchange>>>>,
    shared: Arc<Shared>,
}

/// What the three faces share.
struct Shared {
    options: Options,
    table: Mutex<Table>,
    errands: Mutex<VecDeque<Errand>>,
}

/// What other threads ask of the reader thread.
enum Errand {
    /// A GET: becomes the session's stream, or resumes the one named by `Last-Event-ID`.
    Listen {
        exchange: Box<dyn Exchange>,
        last_event_id: Option<String>,
    },
    /// The client at the other end of a connection has gone.
    Gone { connection: u64 },
    /// The session ends: answer everybody.
    Close,
}

impl Bridge {
    /// The three faces of a new bridge.
    pub(crate) fn new(options: Options) -> (Self, Outbound, Inbound) {
        let (sender, receiver) = bounded(INBOX_LEN);
        let shared = Arc::new(Shared {
            options,
            table: Mutex::new(Table::default()),
            errands: Mutex::default(),
        });
        let outbound = Outbound::new(receiver, Arc::clone(&shared));
        let inbound = Inbound::new(Arc::clone(&shared));
        (
            Self {
                inbox: Mutex::new(Some(sender)),
                shared,
            },
            outbound,
            inbound,
        )
    }

    /// Takes a POST. Never blocks.
    pub(crate) fn post(&self, exchange: Box<dyn Exchange>) {
        let refused = {
            let inbox = self.inbox.lock();
            match inbox.as_ref().map(|inbox| inbox.try_send(exchange)) {
                Some(Ok(())) => return,
                Some(Err(TrySendError::Full(exchange))) => {
                    Some((exchange, Refusal::TooManyInFlight))
                }
                Some(Err(TrySendError::Disconnected(exchange))) => {
                    Some((exchange, Refusal::SessionEnded))
                }
                None => None,
            }
        };
        // `None`: the closed inbox dropped the exchange, which answers for itself.
        if let Some((exchange, why)) = refused {
            exchange.reply(Reply::Refused { id: "null", why });
        }
    }

    /// Takes a GET. Never blocks.
    pub(crate) fn listen(&self, exchange: Box<dyn Exchange>, last_event_id: Option<String>) {
        self.send_errand(Errand::Listen {
            exchange,
            last_event_id,
        });
    }

    /// The client of this connection has gone.
    pub(crate) fn gone(&self, connection: u64) {
        self.send_errand(Errand::Gone { connection });
    }

    /// Requests that wait for an answer of the child.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.table.lock().in_flight()
    }

    /// Wakes the reader thread if something is due at `now`.
    pub(crate) fn tick(&self, now: Instant) {
        let due = self.shared.table.lock().is_due(now);
        if due {
            (self.shared.options.wake)();
        }
    }

    /// Ends the bridge: answers everybody who waits, and lets [`Outbound::next`] return `None`
    /// so that the child's stdin closes.
    pub(crate) fn close(&self) {
        let inbox = self.inbox.lock().take();
        drop(inbox);
        self.send_errand(Errand::Close);
    }

    fn send_errand(&self, errand: Errand) {
        self.shared.errands.lock().push_back(errand);
        (self.shared.options.wake)();
    }
}

impl Shared {
    fn take_errand(&self) -> Option<Errand> {
        self.errands.lock().pop_front()
    }
}

/// The writer thread's end of the inbox.
type Inbox = Receiver<Box<dyn Exchange>>;

#[cfg(test)]
mod tests;
