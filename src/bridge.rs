//! One child's router, legacy era: which client waits for which answer, and which stream gets
//! what the child says on its own.
//!
//! A bridge has three faces. [`Bridge`] is what the session holds: it takes requests of clients
//! in. [`Outbound`] runs on the writer thread and turns them into lines for the child.
//! [`Inbound`] runs on the reader thread, takes the child's lines, and is the only one that ever
//! writes to a client once a request is on its way, so no stream needs a lock. It knows neither
//! processes nor HTTP: a client is an [`Exchange`].

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod handshake;
mod inbound;
mod outbound;
mod quota;
mod replay;
mod stream;
mod table;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use crate::jsonrpc::ParseError;
pub(crate) use handshake::Handshake;
pub(crate) use inbound::Inbound;
pub(crate) use outbound::Outbound;
pub(crate) use quota::Quota;
use table::Table;

/// One HTTP request of a client that waits for its response.
pub(crate) trait Exchange: Send {
    /// The length of the body, in bytes.
    fn body_len(&self) -> usize;

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
    /// `Last-Event-ID` names a stream that has nothing more to say: all was seen, or it is kept no
    /// more.
    StreamOver,
    /// More requests are in flight, or waiting, than a session may have.
    TooManyInFlight,
    /// More requests are in flight than a principal may have in all of its sessions.
    TooManyInFlightOfUser,
    /// The child could not be started, or ended before it answered `initialize`.
    StartFailed(String),
    /// The broker is shutting down: what is in flight may finish, nothing new begins.
    Draining,
    /// Its client had gone before it was sent to the child.
    ClientGone,
    /// The session has ended meanwhile.
    SessionEnded,
    /// The session has lost its child meanwhile; the next request revives it.
    Resting,
}

/// Why a bridge can serve no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client of `initialize` has gone: nobody will ever know the session's id.
    ClientGone,
    /// The child has not answered `initialize` as it should: `why` for the log, `detail` with the
    /// server's name and the child's last words.
    StartFailed { why: String, detail: String },
    /// The child has ended, likewise.
    Exited { why: String, detail: String },
    /// A panic.
    Fault,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientGone => "its client went before it was initialized",
            Self::StartFailed { why, .. } | Self::Exited { why, .. } => why,
            Self::Fault => "a fault in the broker",
        })
    }
}

/// Whom a bridge serves; called from its threads, never with a lock held.
pub(crate) trait Host: Send + Sync {
    /// The bridge can serve no more; only the first call counts.
    fn ended(&self, end: End);

    /// The client has told the child something that a new child would have to be told again. The
    /// child's answer goes to the client only after this returns.
    fn changed(&self, session: &str, handshake: &Handshake);

    /// After [`Bridge::park`]: the bridge is free for another session now; or it is so no more,
    /// because the child wants something. Nothing is said as long as the child hangs.
    fn parked(&self, is_free: bool);
}

/// Gives so many first characters of a text, without the secrets in it.
pub(crate) type Redact = Box<dyn Fn(&str, usize) -> String + Send + Sync>;

/// The bounds of a bridge, and what it calls.
pub(crate) struct Options {
    /// The server's name, for messages.
    pub(crate) server: String,
    /// The session id to announce.
    pub(crate) session: String,
    /// Short id of the first session, for log lines.
    pub(crate) label: String,
    pub(crate) max_in_flight: usize,
    /// Requests in flight of the principal.
    pub(crate) quota: Arc<Quota>,
    /// What a child told before is to be told again, since when.
    pub(crate) replay: Option<(Handshake, Instant)>,
    /// How long the child may take to answer `initialize`.
    pub(crate) start_timeout: Duration,
    /// Interrupts the reader thread: it shall call [`Inbound::service`].
    pub(crate) wake: Box<dyn Fn() + Send + Sync>,
    pub(crate) host: Box<dyn Host>,
    /// For what the child wrote, before it is logged.
    pub(crate) redact: Redact,
    /// So many last lines of the child's stderr, secrets struck out.
    pub(crate) stderr: Box<dyn Fn(usize) -> Vec<String> + Send + Sync>,
}

/// The number of a child's first session; those that follow have others.
pub(crate) const FIRST_TENANT: u64 = 0;
/// What waits for the writer thread; more is refused.
const INBOX_LEN: usize = 32;
/// A body up to this size has come together with its head, so taking it costs no waiting.
const SMALL_BODY_BYTES: usize = 1024;

/// Writes bytes to the child if that takes no waiting; false if none of them was written.
pub(crate) type WriteNow = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// What the session holds of a bridge.
pub(crate) struct Bridge {
    lane: Mutex<Lane>,
    shared: Arc<Shared>,
}

/// The way to the child. Mostly it is free and the child reads; then whoever brings a small
/// request writes it, which spares a change of threads. Everything else queues up for the writer
/// thread, and as long as anything does, nothing overtakes it. The lock is held over a write that
/// cannot wait, so that two lines never mix.
struct Lane {
    /// `None` once the session has ended.
    inbox: Option<Sender<Box<Outgoing>>>,
    /// `None` until the child runs.
    write_now: Option<WriteNow>,
}

/// What the writer thread takes.
enum Outgoing {
    Request {
        exchange: Box<dyn Exchange>,
        tenant: u64,
    },
    /// Its requests are entered already.
    Line(Vec<u8>),
}

/// What the three faces share.
struct Shared {
    options: Options,
    /// What the writer thread was given and has not written yet.
    queued: AtomicUsize,
    /// The child is yet to be told what another one knew: nothing may overtake that.
    is_prompting: AtomicBool,
    table: Mutex<Table>,
    errands: Mutex<VecDeque<Errand>>,
}

/// What other threads ask of the reader thread.
enum Errand {
    /// A GET: becomes the session's stream, or resumes the one named by `Last-Event-ID`.
    Listen {
        exchange: Box<dyn Exchange>,
        tenant: u64,
        last_event_id: Option<String>,
    },
    /// The client at the other end of a connection has gone.
    Gone { connection: u64 },
    /// The session has ended, and the child may get another one: let go of what is left.
    Park,
    /// The session ends: answer everybody.
    Close,
}

impl Bridge {
    /// The three faces of a new bridge.
    pub(crate) fn new(mut options: Options) -> (Self, Outbound, Inbound) {
        let (sender, receiver) = bounded(INBOX_LEN);
        let mut table = Table::new(options.session.clone(), Arc::clone(&options.quota));
        let (script, prompter) = match options.replay.take() {
            Some((handshake, since)) => {
                table.replay(handshake.clone(), since);
                let (script, prompter) = replay::prepare(handshake, &options.label);
                (Some(script), Some(prompter))
            }
            None => (None, None),
        };
        let shared = Arc::new(Shared {
            options,
            queued: AtomicUsize::new(0),
            is_prompting: AtomicBool::new(script.is_some()),
            table: Mutex::new(table),
            errands: Mutex::default(),
        });
        let outbound = Outbound::new(receiver, script, Arc::clone(&shared));
        let inbound = Inbound::new(prompter, Arc::clone(&shared));
        let lane = Mutex::new(Lane {
            inbox: Some(sender),
            write_now: None,
        });
        (Self { lane, shared }, outbound, inbound)
    }

    /// The child runs, and this writes to its stdin.
    pub(crate) fn connect(&self, write_now: WriteNow) {
        self.lane.lock().write_now = Some(write_now);
    }

    /// Takes a POST of the session that is the `tenant`. Never blocks.
    pub(crate) fn post(&self, tenant: u64, exchange: Box<dyn Exchange>) {
        let lane = self.lane.lock();
        let Some(inbox) = &lane.inbox else {
            drop(lane);
            let why = self.shared.table.lock().why_closed();
            return outbound::refuse_unread(exchange, why);
        };
        let is_free = self.shared.is_quiet();
        if let Some(write_now) = &lane.write_now
            && is_free
            && exchange.body_len() <= SMALL_BODY_BYTES
        {
            let line = outbound::accept(&self.shared, tenant, exchange, Instant::now());
            if let Some(line) = line
                && !write_now(&line)
            {
                self.queue(inbox, line);
            }
            return;
        }
        self.shared.queued.fetch_add(1, Ordering::AcqRel);
        let outgoing = Box::new(Outgoing::Request { exchange, tenant });
        let (outgoing, why) = match inbox.try_send(outgoing) {
            Ok(()) => return,
            Err(TrySendError::Full(outgoing)) => (outgoing, Refusal::TooManyInFlight),
            Err(TrySendError::Disconnected(outgoing)) => {
                (outgoing, self.shared.table.lock().why_closed())
            }
        };
        self.shared.queued.fetch_sub(1, Ordering::AcqRel);
        drop(lane);
        if let Outgoing::Request { exchange, .. } = *outgoing {
            outbound::refuse_unread(exchange, why);
        }
    }

    /// Leaves a line to the writer thread. There is room: nothing is queued, and as long as the
    /// lane is held, nobody else can queue.
    fn queue(&self, inbox: &Sender<Box<Outgoing>>, line: Vec<u8>) {
        self.shared.queued.fetch_add(1, Ordering::AcqRel);
        let _ = inbox.try_send(Box::new(Outgoing::Line(line)));
    }

    /// Takes a GET, likewise.
    pub(crate) fn listen(
        &self,
        tenant: u64,
        exchange: Box<dyn Exchange>,
        last_event_id: Option<String>,
    ) {
        self.send_errand(Errand::Listen {
            exchange,
            tenant,
            last_event_id,
        });
    }

    /// The client of this connection has gone.
    pub(crate) fn gone(&self, connection: u64) {
        self.send_errand(Errand::Gone { connection });
    }

    /// Requests that wait for an answer of the child, or to be sent to it.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.table.lock().in_flight() + self.shared.queued.load(Ordering::Acquire)
    }

    /// Whether this is the protocol version that was negotiated.
    pub(crate) fn speaks(&self, version: &str) -> bool {
        self.shared.table.lock().version == version
    }

    /// Whether a client waits for an answer, or will.
    pub(crate) fn has_clients(&self) -> bool {
        self.shared.queued.load(Ordering::Acquire) > 0 || self.shared.table.lock().has_clients()
    }

    /// Wakes the reader thread if something is due at `now`.
    pub(crate) fn tick(&self, now: Instant) {
        let start_timeout = self.shared.options.start_timeout;
        let due = self.shared.table.lock().is_due(start_timeout, now);
        if due {
            (self.shared.options.wake)();
        }
    }

    /// From now on no request is taken; what answers a question of the child still is.
    pub(crate) fn drain(&self) {
        self.shared.table.lock().draining = true;
    }

    /// What the client has told the child.
    pub(crate) fn handshake(&self) -> Handshake {
        self.shared.table.lock().handshake.clone()
    }

    /// Whether the child could serve another session of the same client as if it were new.
    pub(crate) fn may_park(&self) -> bool {
        self.shared.is_quiet() && self.shared.table.lock().may_park()
    }

    /// Its session has ended, and nothing of it is taken any more; false if something of it is
    /// left. [`Host::parked`] says when the bridge can have another session, which is never if the
    /// child does not answer a ping.
    pub(crate) fn park(&self) -> bool {
        // As long as this is held, nobody is between entering a message and writing it.
        let lane = self.lane.lock();
        let Some(inbox) = lane.inbox.as_ref().filter(|_| self.shared.is_quiet()) else {
            return false;
        };
        let label = &self.shared.options.label;
        let Some(ping) = self.shared.table.lock().park(label) else {
            return false;
        };
        let write_now = lane.write_now.as_ref();
        if !write_now.is_some_and(|write_now| write_now(&ping)) {
            self.queue(inbox, ping);
        }
        drop(lane);
        self.send_errand(Errand::Park);
        true
    }

    /// Gives a parked bridge its next session, whose `initialize` it will answer by itself. What
    /// comes from another `tenant` is refused from now on.
    pub(crate) fn hand_over(&self, session: &str, tenant: u64) {
        self.shared.table.lock().hand_over(session, tenant);
    }

    /// Its session will end, but can be revived: whoever comes too late shall come again.
    pub(crate) fn rest(&self) {
        self.shared.table.lock().rests = true;
    }

    /// Ends the bridge: answers everybody who waits, and lets [`Outbound::next`] return `None`
    /// so that the child's stdin closes.
    pub(crate) fn close(&self) {
        self.lane.lock().inbox = None;
        self.send_errand(Errand::Close);
    }

    fn send_errand(&self, errand: Errand) {
        self.shared.errands.lock().push_back(errand);
        (self.shared.options.wake)();
    }
}

impl Shared {
    /// Whether nothing is on its way to the writer thread, or with it.
    fn is_quiet(&self) -> bool {
        !self.is_prompting.load(Ordering::Acquire) && self.queued.load(Ordering::Acquire) == 0
    }

    fn take_errand(&self) -> Option<Errand> {
        self.errands.lock().pop_front()
    }
}

/// Refuses a POST that came to no bridge; its id is read if that takes no waiting.
pub(crate) fn refuse(exchange: Box<dyn Exchange>, why: Refusal) {
    outbound::refuse_unread(exchange, why);
}

/// The writer thread's end of the inbox. Its slots are there from the start, and mostly empty.
type Inbox = Receiver<Box<Outgoing>>;

#[cfg(test)]
mod tests;
