//! From clients to the child: thread `w:`. Reads bodies, enters requests, yields lines.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::handshake::{Change, Handshake};
use super::lane::{Inbox, Lane, Outgoing};
use super::replay::{Prompt, Script};
use super::session::Shared;
use super::table::NewRequest;
use super::{End, Exchange, Front, Refusal, Reply, refuse as refuse_unread};
use crate::jsonrpc::{self, Id, Kind, Message};
use crate::mcp;

pub(crate) struct Outbound {
    inbox: Inbox,
    /// What a new child is told before anything else.
    script: Option<Script>,
    lane: Arc<Lane>,
    front: Arc<dyn Front>,
    /// The line before is not known to be written yet.
    is_writing: bool,
}

impl Outbound {
    pub(super) fn new(
        inbox: Inbox,
        script: Option<Script>,
        lane: Arc<Lane>,
        front: Arc<dyn Front>,
    ) -> Self {
        Self {
            inbox,
            script,
            lane,
            front,
            is_writing: false,
        }
    }

    /// Waits for the next line to the child; a batch is several lines in one. Being asked again
    /// means that the line before was written. `None` once the bridge is closed.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let line = self.next_of_script().or_else(|| self.next_of_clients())?;
            if !line.is_empty() {
                return Some(line);
            }
        }
    }

    fn next_of_script(&mut self) -> Option<Vec<u8>> {
        match self.script.take()? {
            Script::First { line, further } => {
                self.script = Some(Script::Further(further));
                Some(self.lane.outgoing(&*self.front, line))
            }
            Script::Further(further) => match further.recv() {
                Ok(Prompt::Again(line)) => {
                    self.script = Some(Script::Further(further));
                    Some(self.lane.outgoing(&*self.front, line))
                }
                Ok(Prompt::Rest(lines)) => {
                    self.script = Some(Script::Said);
                    Some(self.lane.outgoing(&*self.front, lines))
                }
                // The new child could not be told what the old one knew: nothing will reach it.
                Err(_) => self.refuse_all(),
            },
            Script::Said => {
                self.lane.prompted();
                None
            }
        }
    }

    /// Empty if what was taken needs no line.
    fn next_of_clients(&mut self) -> Option<Vec<u8>> {
        if self.is_writing {
            self.lane.written();
            self.is_writing = false;
        }
        if let Some(late) = self.lane.take_late() {
            self.is_writing = true;
            return Some(late);
        }
        let outgoing = self.inbox.recv().ok()?;
        match *outgoing {
            Outgoing::Late => {
                self.lane.heard_of_late();
                Some(Vec::new())
            }
            Outgoing::Request { exchange, tenant } => {
                self.is_writing = true;
                Some(self.lane.take(&*self.front, tenant, exchange))
            }
        }
    }

    fn refuse_all(&mut self) -> Option<Vec<u8>> {
        while let Ok(outgoing) = self.inbox.recv() {
            if let Outgoing::Request { exchange, .. } = *outgoing {
                refuse_unread(exchange, self.front.why_closed());
            }
        }
        None
    }
}

impl Drop for Outbound {
    /// A panic here must not leave a session behind that nobody serves.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.front.fault();
        }
    }
}

/// What a POST leaves to be done.
pub(super) enum Taken {
    /// The child shall get this.
    Line(Vec<u8>),
    Aside(Aside),
}

/// An `initialize` that the child is not asked, and of which the host hears; so it is answered
/// with no lock held.
pub(super) struct Aside {
    exchange: Box<dyn Exchange>,
    id_text: Box<str>,
    answer: AsideAnswer,
}

enum AsideAnswer {
    /// The child is initialized already.
    Greeting(String, Handshake),
    Refusal(Refusal),
}

impl Aside {
    pub(super) fn run(self, shared: &Shared) {
        let (id, host) = (&*self.id_text, &shared.options.host);
        match self.answer {
            AsideAnswer::Greeting(session, handshake) => {
                host.changed(&session, &handshake);
                let json = jsonrpc::result_response(id, &handshake.result);
                self.exchange.reply(Reply::Message {
                    json: json.as_bytes(),
                    session: Some(&session),
                });
            }
            AsideAnswer::Refusal(why) => {
                host.ended(End::ClientGone);
                self.exchange.reply(Reply::Refused { id, why });
            }
        }
    }
}

/// What becomes of one message.
enum Verdict {
    Pass,
    /// It is answered.
    Drop,
    Aside(Aside),
}

/// Takes one POST of a tenant: answers it if nothing is to wait for, and gives what is to be done
/// yet, if anything.
pub(super) fn accept(
    shared: &Shared,
    tenant: u64,
    exchange: Box<dyn Exchange>,
    body: io::Result<Vec<u8>>,
    now: Instant,
) -> Option<Taken> {
    let Ok(mut body) = body else {
        return refuse(exchange, "null", Refusal::BodyIncomplete);
    };
    let Ok(text) = str::from_utf8(&body) else {
        let why = Refusal::Body(jsonrpc::ParseError::NotJson);
        return refuse(exchange, "null", why);
    };
    if jsonrpc::is_batch(text) {
        return accept_batch(shared, tenant, exchange, text, now).map(Taken::Line);
    }
    match jsonrpc::parse(text) {
        Ok(message) => match accept_message(shared, tenant, exchange, &message, now) {
            Verdict::Pass => {}
            Verdict::Drop => return None,
            Verdict::Aside(aside) => return Some(Taken::Aside(aside)),
        },
        Err(why) => return refuse(exchange, "null", Refusal::Body(why)),
    }
    make_line(&mut body);
    Some(Taken::Line(body))
}

fn accept_message(
    shared: &Shared,
    tenant: u64,
    exchange: Box<dyn Exchange>,
    message: &Message<'_>,
    now: Instant,
) -> Verdict {
    let id = message.id_text;
    let refuse = |exchange: Box<dyn Exchange>, why| {
        exchange.reply(Reply::Refused { id, why });
        Verdict::Drop
    };
    let aside = |exchange, answer| {
        Verdict::Aside(Aside {
            exchange,
            id_text: id.into(),
            answer,
        })
    };
    let is_initialize = message.method == mcp::method::INITIALIZE;
    let mut table = shared.table.lock();
    if table.is_closed_to(tenant) {
        let (why, told_first) = table.why_closed_to(tenant);
        drop(table);
        return refuse(exchange, if is_initialize { told_first } else { why });
    }
    if message.kind != Kind::Request {
        let passes = table.hear(message, now);
        drop(table);
        exchange.reply(Reply::Accepted);
        return if passes { Verdict::Pass } else { Verdict::Drop };
    }
    if is_initialize && let Some((session, handshake)) = table.take_greeting() {
        drop(table);
        return aside(exchange, AsideAnswer::Greeting(session, handshake));
    }
    if is_initialize && table.initialize_seen {
        drop(table);
        return refuse(exchange, Refusal::AlreadyInitialized);
    }
    let max = shared.options.max_in_flight;
    match table.enter(exchange, vec![new_request(message)], max, now) {
        Ok(post) => {
            if is_initialize {
                table.mark_initialize(post);
            }
            Verdict::Pass
        }
        Err((exchange, why)) => {
            drop(table);
            match is_initialize {
                true => aside(exchange, AsideAnswer::Refusal(why)),
                false => refuse(exchange, why),
            }
        }
    }
}

/// 2025-03-26, transports, "Sending Messages to the Server": requests in a batch are answered
/// on one stream; without requests it is accepted like a single notification.
fn accept_batch(
    shared: &Shared,
    tenant: u64,
    exchange: Box<dyn Exchange>,
    text: &str,
    now: Instant,
) -> Option<Vec<u8>> {
    if shared.table.lock().version != mcp::BATCH_VERSION {
        return refuse(exchange, "null", Refusal::BatchNotAllowed);
    }
    let (items, messages) = match parse_batch(text) {
        Ok(parsed) => parsed,
        Err(why) => return refuse(exchange, "null", Refusal::Body(why)),
    };
    if messages
        .iter()
        .any(|message| message.method == mcp::method::INITIALIZE)
    {
        return refuse(exchange, "null", Refusal::AlreadyInitialized);
    }
    let requests: Vec<NewRequest> = messages
        .iter()
        .filter(|message| message.kind == Kind::Request)
        .map(new_request)
        .collect();
    let mut table = shared.table.lock();
    if table.is_closed_to(tenant) {
        let why = table.why_closed();
        drop(table);
        return refuse(exchange, "null", why);
    }
    let entered = match requests.is_empty() {
        true => Ok(Some(exchange)),
        false => table
            .enter(exchange, requests, shared.options.max_in_flight, now)
            .map(|_| None),
    };
    let answered = match entered {
        Ok(answered) => answered,
        Err((exchange, why)) => {
            drop(table);
            return refuse(exchange, "null", why);
        }
    };
    // Only now, because a batch that is refused changes nothing.
    let mut passes =
        |message: &Message<'_>| message.kind == Kind::Request || table.hear(message, now);
    let items = items.iter().zip(&messages);
    let items: Vec<&str> = items
        .filter_map(|(item, message)| passes(message).then_some(*item))
        .collect();
    drop(table);
    if let Some(exchange) = answered {
        exchange.reply(Reply::Accepted);
    }
    (!items.is_empty()).then(|| lines_of(&items))
}

fn parse_batch(text: &str) -> Result<(Vec<&str>, Vec<Message<'_>>), jsonrpc::ParseError> {
    let items = jsonrpc::split_batch(text)?;
    let messages: Result<Vec<_>, _> = items.iter().map(|item| jsonrpc::parse(item)).collect();
    messages.map(|messages| (items, messages))
}

/// One line each.
fn lines_of(items: &[&str]) -> Vec<u8> {
    let mut lines = items.join("\0").into_bytes();
    make_line(&mut lines);
    // JSON holds no raw NUL, so each one left is a seam.
    lines
        .iter_mut()
        .filter(|byte| **byte == 0)
        .for_each(|byte| *byte = b'\n');
    lines
}

fn refuse<T>(exchange: Box<dyn Exchange>, id: &str, why: Refusal) -> Option<T> {
    exchange.reply(Reply::Refused { id, why });
    None
}

fn new_request(message: &Message<'_>) -> NewRequest {
    let token = message
        .params
        // Looking for the name first spares most requests a second reading; an escaped name
        // cannot be ruled out so cheaply.
        .filter(|params| params.contains("progressToken") || params.contains("\\u"))
        .and_then(|params| jsonrpc::member(params, "_meta"))
        .and_then(|meta| jsonrpc::member(meta, "progressToken"))
        .and_then(Id::parse);
    NewRequest {
        id: message.id.clone(),
        id_text: message.id_text.into(),
        progress_token: token,
        change: Change::of(message),
    }
}

/// A raw line end in JSON is white space between tokens: in a string it would be escaped.
pub(super) fn make_line(body: &mut Vec<u8>) {
    for byte in body.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
    let end = body.trim_ascii_end().len();
    body.truncate(end);
    body.push(b'\n');
}
