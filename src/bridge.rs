//! One child's router: which client waits for which answer, and which stream gets what the child
//! says on its own.
//!
//! A bridge has three faces. [`Bridge`] is what the session holds: it takes requests of clients
//! in. [`Outbound`] runs on the writer thread and turns them into lines for the child.
//! [`Inbound`] runs on the reader thread, takes the child's lines, and is the only one that ever
//! writes to a client once a request is on its way, so no stream needs a lock. It knows neither
//! processes nor HTTP: a client is an [`Exchange`].
//!
//! What is behind the faces is a front for one of the eras: `session` serves one legacy client by
//! its session id, `modern` serves all requests of a principal. Each speaks to the child in its
//! own era; where that is not the child's, a translator stands in the lane between them.

mod departed;
mod errands;
mod estate;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod handshake;
mod inbound;
mod lane;
pub(crate) mod modern;
mod outbound;
mod quota;
mod replay;
mod session;
mod stream;
mod table;
mod words;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::jsonrpc::{self, Id, Message, ParseError};
use crate::mcp;
use crate::translate::Translator;
use estate::Estate;
pub(crate) use handshake::Handshake;
pub(crate) use lane::WriteNow;
use lane::{Heard, Lane, SMALL_BODY_BYTES};
use modern::Mirrored;
pub(crate) use outbound::Outbound;
use outbound::{Aside, Taken};
pub(crate) use quota::Quota;

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

    /// What the head repeats of the body, as clients of the modern era do.
    fn mirrored(&self) -> Option<&Mirrored>;

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
    /// A response of the modern era; `error` is the code of its error, if it is one.
    Answer { json: &'a [u8], error: Option<i64> },
    /// A request of the modern era that breaks a rule; `error` is the code.
    Fault { json: &'a [u8], error: i64 },
    /// A notification or a response was taken.
    Accepted,
    /// The request was not taken; `id` is the text of its id.
    Refused { id: &'a str, why: Refusal },
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    BodyIncomplete,
    Body(ParseError),
    BatchNotAllowed,
    /// A client of the modern era has sent a response: it is asked nothing.
    ResponseNotAllowed,
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
    /// It has ended before its client knew of it.
    EndedEarly,
    /// The session has lost its child meanwhile; the next request revives it.
    Resting,
}

impl Refusal {
    /// As the client of an `initialize` is to hear it: it knows of no session that could end.
    pub(crate) fn told_early(self) -> Self {
        match self {
            Self::SessionEnded | Self::Resting => Self::EndedEarly,
            why => why,
        }
    }
}

/// Why a bridge can serve no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client of `initialize` has gone, or was refused: nobody will ever know the session's id.
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

/// A child is not of the era that it was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EraNews {
    /// It has refused `initialize` as only a child of the modern era does.
    ModernOnly,
    /// It could not be initialized.
    NotAsKnown,
}

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
    /// What the child shows of its era; `None` if nobody wants to know.
    pub(crate) era_news: Option<Box<dyn Fn(EraNews) + Send + Sync>>,
    /// Interrupts the reader thread: it shall call [`Inbound::service`].
    pub(crate) wake: Box<dyn Fn() + Send + Sync>,
    /// The same at a later moment; replaces the one that was named before.
    pub(crate) wake_at: Box<dyn Fn(Instant) + Send + Sync>,
    pub(crate) host: Box<dyn Host>,
    /// For what the child wrote, before it is logged.
    pub(crate) redact: Redact,
    /// So many last lines of the child's stderr, secrets struck out.
    pub(crate) stderr: Box<dyn Fn(usize) -> Vec<String> + Send + Sync>,
}

/// The number of a child's first session; those that follow have others.
pub(crate) const FIRST_TENANT: u64 = 0;

/// What the reader thread runs.
pub(crate) trait Inbound: Send {
    /// Takes one line of the child.
    fn line(&mut self, line: &[u8], now: Instant);

    /// A line is longer than a message may be.
    fn line_too_long(&mut self);

    /// And has ended; so it began, and so it ended.
    fn line_skipped(&mut self, head: &[u8], tail: &[u8], now: Instant);

    /// Does what is due: errands of other threads, streams for slow answers, heartbeats.
    fn service(&mut self, now: Instant);

    /// The child has ended: whoever holds the bridge is told, and everybody who waits learns how.
    fn exited(&mut self, reason: &str, now: Instant);
}

/// The answer to a request that has got one which is too long, as if the child had written it.
fn too_long(id: &Id, server: &str) -> String {
    let message = format!("the answer of server \"{server}\" is longer than max_message");
    jsonrpc::error_response(&id.to_text(), jsonrpc::code::INTERNAL_ERROR, &message)
}

/// What serves the clients of one era. Those of the other have no use for some of it.
trait Front: Send + Sync {
    /// Takes one POST: answers it if nothing is to wait for, and gives what is to be done yet.
    fn accept(
        &self,
        tenant: u64,
        exchange: Box<dyn Exchange>,
        body: io::Result<Vec<u8>>,
        now: Instant,
    ) -> Option<Taken>;

    /// Does what has to be done with no lock held.
    fn run_aside(&self, _aside: Aside) {}

    /// What to tell those who come too late.
    fn why_closed(&self) -> Refusal;

    /// The same for this tenant; and for its first `initialize`, if that is still to come.
    fn why_closed_to(&self, _tenant: u64) -> (Refusal, Refusal) {
        (self.why_closed(), self.why_closed())
    }

    /// For the reader thread: what the translator has made of a client's message.
    fn hand_in(&self, heard: Heard);

    /// Takes a GET.
    fn listen(&self, tenant: u64, exchange: Box<dyn Exchange>, last_event_id: Option<String>);

    /// The client of this connection has gone.
    fn gone(&self, connection: u64);

    /// Requests that wait for an answer of the child.
    fn in_flight(&self) -> usize;

    /// Whether a client waits for something.
    fn has_clients(&self) -> bool;

    /// Wakes the reader thread if something is due.
    fn tick(&self, now: Instant);

    /// From now on no request is taken.
    fn drain(&self);

    /// Answers everybody who waits.
    fn close(&self);

    /// A thread of the bridge has panicked.
    fn fault(&self);

    /// Whether the client still waits for its session to begin.
    fn is_starting(&self) -> bool {
        false
    }

    /// Whether the child has ever answered its `initialize`, or the one before it has.
    fn is_initialized(&self) -> bool {
        true
    }

    /// Whether this is the protocol version that was negotiated.
    fn speaks(&self, _version: &str) -> bool {
        false
    }

    /// What the client has told the child.
    fn handshake(&self) -> Handshake {
        Handshake::default()
    }

    fn may_park(&self) -> bool {
        false
    }

    /// Its session has ended; gives the ping that the child has to answer before it gets another.
    fn park(&self) -> Option<Vec<u8>> {
        None
    }

    /// After [`Front::park`]: lets go of what is left of the session.
    fn let_go(&self) {}

    fn hand_over(&self, _session: &str, _tenant: u64) {}

    fn rest(&self) {}

    /// See [`Bridge::may_be_succeeded_by`].
    fn may_leave(&self) -> bool {
        false
    }

    /// Leaves all streams to another front; `done` is dropped when that has them.
    fn bequeath(&self, _heir: Arc<dyn Front>, _done: Sender<()>) {}

    fn inherit(&self, _estate: Estate) {}
}

/// What the session holds of a bridge.
pub(crate) struct Bridge {
    lane: Arc<Lane>,
    front: Arc<dyn Front>,
}

impl Bridge {
    /// The three faces of a new bridge for one legacy client; with a translator, if the child is
    /// of the modern era.
    pub(crate) fn for_session(
        options: Options,
        translator: Option<Box<dyn Translator>>,
    ) -> (Self, Outbound, Box<dyn Inbound>) {
        let (bridge, outbound, inbound) = session::bridge(options, translator);
        (bridge, outbound, Box::new(inbound))
    }

    /// The three faces of a new bridge for all modern requests of a principal; with a translator,
    /// if the child is of the legacy era.
    pub(crate) fn for_all(
        options: Options,
        translator: Option<Box<dyn Translator>>,
    ) -> (Self, Outbound, Box<dyn Inbound>) {
        let (bridge, outbound, inbound) = modern::bridge(options, translator);
        (bridge, outbound, Box::new(inbound))
    }

    /// The child runs, and this writes to its stdin.
    pub(crate) fn connect(&self, write_now: WriteNow) {
        self.lane.connect(write_now);
    }

    /// Takes a POST of the session that is the `tenant`. Never blocks.
    pub(crate) fn post(&self, tenant: u64, exchange: Box<dyn Exchange>) {
        self.lane.post(&*self.front, tenant, exchange);
    }

    /// Takes a GET, likewise.
    pub(crate) fn listen(
        &self,
        tenant: u64,
        exchange: Box<dyn Exchange>,
        last_event_id: Option<String>,
    ) {
        self.front.listen(tenant, exchange, last_event_id);
    }

    /// The client of this connection has gone.
    pub(crate) fn gone(&self, connection: u64) {
        self.front.gone(connection);
    }

    /// Requests that wait for an answer of the child, or to be sent to it.
    pub(crate) fn in_flight(&self) -> usize {
        self.front.in_flight() + self.lane.queued()
    }

    /// Whether the client still waits for its session to begin.
    pub(crate) fn is_starting(&self) -> bool {
        self.front.is_starting()
    }

    /// Whether the child has ever answered its `initialize`, or the one before it has.
    pub(crate) fn is_initialized(&self) -> bool {
        self.front.is_initialized()
    }

    /// Whether this is the protocol version that was negotiated.
    pub(crate) fn speaks(&self, version: &str) -> bool {
        self.front.speaks(version)
    }

    /// Whether a client waits for an answer, or will.
    pub(crate) fn has_clients(&self) -> bool {
        self.lane.queued() > 0 || self.front.has_clients()
    }

    /// Wakes the reader thread if something is due at `now`.
    pub(crate) fn tick(&self, now: Instant) {
        self.front.tick(now);
    }

    /// From now on no request is taken; what answers a question of the child still is.
    pub(crate) fn drain(&self) {
        self.front.drain();
    }

    /// What the client has told the child.
    pub(crate) fn handshake(&self) -> Handshake {
        self.front.handshake()
    }

    /// Whether the child could serve another session of the same client as if it were new.
    pub(crate) fn may_park(&self) -> bool {
        self.lane.is_quiet() && self.front.may_park()
    }

    /// Its session has ended, and nothing of it is taken any more; false if something of it is
    /// left. [`Host::parked`] says when the bridge can have another session, which is never if the
    /// child does not answer a ping.
    pub(crate) fn park(&self) -> bool {
        self.lane.park(&*self.front)
    }

    /// Gives a parked bridge its next session, whose `initialize` it will answer by itself. What
    /// comes from another `tenant` is refused from now on.
    pub(crate) fn hand_over(&self, session: &str, tenant: u64) {
        self.front.hand_over(session, tenant);
    }

    /// Its session will end, but can be revived: whoever comes too late shall come again.
    pub(crate) fn rest(&self) {
        self.front.rest();
    }

    /// Ends the bridge: answers everybody who waits, and lets [`Outbound::next`] return `None`
    /// so that the child's stdin closes. In this order: the child may end as soon as it does, and
    /// by then the reader thread must know that this end is ours.
    pub(crate) fn close(&self) {
        self.front.close();
        self.lane.close();
    }
}

/// Refuses a POST that goes no further; its id is read if that takes no waiting.
pub(crate) fn refuse(exchange: Box<dyn Exchange>, why: Refusal) {
    refuse_by(exchange, |_| why);
}

/// The same, but something else for an `initialize`.
pub(crate) fn refuse_first(exchange: Box<dyn Exchange>, why: Refusal, told_first: Refusal) {
    refuse_by(exchange, |message| {
        let is_initialize = message.is_some_and(|it| it.method == mcp::method::INITIALIZE);
        if is_initialize { told_first } else { why }
    });
}

fn refuse_by(mut exchange: Box<dyn Exchange>, why: impl FnOnce(Option<&Message<'_>>) -> Refusal) {
    let mut body = Vec::new();
    if exchange.body_len() <= SMALL_BODY_BYTES {
        body = exchange.body().unwrap_or_default();
    }
    let message = str::from_utf8(&body)
        .ok()
        .and_then(|text| jsonrpc::parse(text).ok());
    let why = why(message.as_ref());
    let id = message.map_or("null", |message| message.id_text);
    exchange.reply(Reply::Refused { id, why });
}

#[cfg(test)]
mod tests;
