//! The front for clients of the modern era: one child for all requests of a principal, whatever
//! connection they come on (2026-07-28, basic, "Statelessness").
//!
//! Each request gets a number of ours, which is its id and its progress token towards the child, so
//! that those of different clients cannot collide; what comes back is given its own again. A
//! request is one exchange: an answer, or a stream that ends with it. A client that goes has
//! cancelled what it waited for.
//!
//! `check` holds heads to their bodies · `tools` knows which parameters stand in heads · `desk` has
//! the requests in flight · `inbound` is the reader thread

mod check;
mod desk;
mod inbound;
mod tools;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

pub(crate) use check::{Fault, Mirrored, check, is_modern};
use desk::{Desk, Knowledge, NewCall};
use inbound::ModernInbound;
use tools::{Held, Verdict};

use super::errands::Errands;
use super::lane::{Heard, Lane};
use super::outbound::{Taken, make_line};
use super::{Bridge, End, Exchange, Front, Options, Outbound, Refusal, Reply};
use crate::jsonrpc::{self, Edit, Kind, Message};
use crate::mcp::{self, method};
use crate::translate::Translator;

/// What the three faces share.
struct Shared {
    options: Options,
    lane: Arc<Lane>,
    desk: Mutex<Desk>,
    errands: Errands<Errand>,
}

/// What other threads ask of the reader thread.
enum Errand {
    /// The translator has answered a client in the child's place.
    HandIn(Heard),
    /// The tools are to be asked for which of their parameters stand in heads.
    LearnTools,
    /// They have become known just before a call could be held for that.
    LetGo(Held),
    /// The client at the other end of a connection has gone.
    Gone { connection: u64 },
    /// The bridge is closed: answer everybody.
    Close,
}

/// The three faces of a new bridge.
pub(super) fn bridge(
    options: Options,
    translator: Option<Box<dyn Translator>>,
) -> (Bridge, Outbound, ModernInbound) {
    let (lane, inbox) = Lane::new(false);
    let lane = Arc::new(lane);
    let now = Instant::now();
    let is_translated = translator.is_some();
    let desk = Desk::new(Arc::clone(&options.quota), is_translated.then_some(now));
    let shared = Arc::new(Shared {
        options,
        lane: Arc::clone(&lane),
        desk: Mutex::new(desk),
        errands: Errands::new(),
    });
    if let Some(mut translator) = translator {
        let heard = lane.install(|out| {
            translator.begin(now, out);
            translator
        });
        shared.hand_in(heard);
    }
    let inbound = ModernInbound::new(Arc::clone(&shared));
    let front: Arc<dyn Front> = shared;
    let outbound = Outbound::new(inbox, None, Arc::clone(&lane), Arc::clone(&front));
    (Bridge { lane, front }, outbound, inbound)
}

impl Shared {
    fn send_errand(&self, errand: Errand) {
        self.errands.send(errand, &self.options.wake);
    }

    /// Enters a request that was found in order; gives the line for the child, unless the tools
    /// must be known first. What takes as long as the request is runs with the desk unlocked.
    fn enter(
        &self,
        exchange: Box<dyn Exchange>,
        text: &str,
        message: &Message<'_>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let envelope = match exchange.mirrored().map(|it| check(it, message)) {
            Some(Ok(envelope)) => envelope,
            Some(Err(fault)) => return fault.answer(exchange, message.id_text),
            None => return Fault::head_missing().answer(exchange, message.id_text),
        };
        let must_hold = match &*message.method == method::TOOLS_CALL {
            true => match self.must_hold(exchange.mirrored(), message.params) {
                Ok(must_hold) => must_hold,
                Err(fault) => return fault.answer(exchange, message.id_text),
            },
            false => false,
        };
        // It is copied only for a call that has to wait.
        let mirrored = exchange.mirrored().filter(|_| must_hold).cloned();
        let call = NewCall {
            id_text: message.id_text.into(),
            token_text: envelope.progress_token.map(Into::into),
            log_level: envelope.log_level,
            method: &message.method,
        };
        let max = self.options.max_in_flight;
        let entered = self.desk.lock().enter(exchange, call, max, now);
        let no = match entered {
            Ok(no) => no,
            Err((exchange, why)) => {
                let id = message.id_text;
                exchange.reply(Reply::Refused { id, why });
                return None;
            }
        };
        let mut edit = Edit::of(text);
        edit.replace(message.id_text, no.to_string());
        if let Some(token) = envelope.progress_token {
            edit.replace(token, no.to_string());
        }
        let mut line = edit.done().into_bytes();
        make_line(&mut line);
        if !must_hold {
            return Some(line);
        }
        self.hold(Held { no, line, mirrored });
        None
    }

    /// Whether a call waits for the tools to be known.
    ///
    /// # Errors
    /// The fault of one that is not what its tool wants.
    fn must_hold(&self, mirrored: Option<&Mirrored>, params: Option<&str>) -> Result<bool, Fault> {
        let knowledge = self.desk.lock().knowledge();
        let (tools, is_sure) = match knowledge {
            Knowledge::Known { tools, is_sure } => (tools, is_sure),
            Knowledge::Unknown => return Ok(true),
            Knowledge::Unsaid => return Ok(false),
        };
        match tools::check(&tools, mirrored, params) {
            Verdict::Fits => Ok(false),
            Verdict::Differs(fault) if is_sure => Err(fault),
            // They may have changed, and the child tells nobody.
            Verdict::Differs(_) => {
                self.desk.lock().tools.forget();
                Ok(true)
            }
        }
    }

    fn hold(&self, call: Held) {
        let errand = {
            let mut desk = self.desk.lock();
            match desk.knowledge() {
                Knowledge::Unknown => match desk.tools.hold(call) {
                    true => Errand::LearnTools,
                    false => return,
                },
                // Since it was looked at.
                Knowledge::Known { .. } | Knowledge::Unsaid => Errand::LetGo(call),
            }
        };
        self.send_errand(errand);
    }
}

impl Front for Shared {
    /// 2026-07-28, streamable HTTP, "Sending Messages".
    fn accept(
        &self,
        _tenant: u64,
        exchange: Box<dyn Exchange>,
        body: io::Result<Vec<u8>>,
        now: Instant,
    ) -> Option<Taken> {
        let refuse = |exchange: Box<dyn Exchange>, why| {
            exchange.reply(Reply::Refused { id: "null", why });
            None
        };
        let Ok(body) = body else {
            return refuse(exchange, Refusal::BodyIncomplete);
        };
        let Ok(text) = str::from_utf8(&body) else {
            return refuse(exchange, Refusal::Body(jsonrpc::ParseError::NotJson));
        };
        if jsonrpc::is_batch(text) {
            return refuse(exchange, Refusal::BatchNotAllowed);
        }
        match jsonrpc::parse(text) {
            Ok(message) if message.kind == Kind::Request => {
                let line = self.enter(exchange, text, &message, now);
                line.map(Taken::Line)
            }
            // There is none that a client has to send over HTTP.
            Ok(message) if message.kind == Kind::Notification => {
                exchange.reply(Reply::Accepted);
                None
            }
            Ok(_) => refuse(exchange, Refusal::ResponseNotAllowed),
            Err(why) => refuse(exchange, Refusal::Body(why)),
        }
    }

    fn why_closed(&self) -> Refusal {
        self.desk.lock().why_closed()
    }

    fn hand_in(&self, heard: Heard) {
        self.send_errand(Errand::HandIn(heard));
    }

    fn listen(&self, _tenant: u64, exchange: Box<dyn Exchange>, _last_event_id: Option<String>) {
        let why = Refusal::StreamOver;
        exchange.reply(Reply::Refused { id: "null", why });
    }

    fn gone(&self, connection: u64) {
        self.send_errand(Errand::Gone { connection });
    }

    fn in_flight(&self) -> usize {
        // A call that waits for its client's answers is open in the child.
        usize::from(self.lane.due().is_some()) + self.desk.lock().in_flight()
    }

    fn has_clients(&self) -> bool {
        let is_suspended = self.lane.due().is_some();
        let desk = self.desk.lock();
        // Its client would come again, which a shutdown does not let it.
        desk.has_clients() || (is_suspended && !desk.draining)
    }

    fn tick(&self, now: Instant) {
        let is_due = self.desk.lock().is_due(self.options.start_timeout, now);
        if is_due {
            (self.options.wake)();
        }
    }

    fn drain(&self) {
        self.desk.lock().draining = true;
    }

    fn close(&self) {
        self.send_errand(Errand::Close);
    }

    fn fault(&self) {
        self.options.host.ended(End::Fault);
    }

    fn is_starting(&self) -> bool {
        self.desk.lock().is_starting()
    }
}

/// The text of a request of our own.
fn own_request(no: u64, method: &str, params: &str) -> String {
    let meta = format!(
        r#""_meta":{{"{}":"{}","{}":{{"name":"mcp-broker","version":"{}"}},"{}":{{}}}}"#,
        mcp::meta::PROTOCOL_VERSION,
        mcp::MODERN_VERSION,
        mcp::meta::CLIENT_INFO,
        env!("CARGO_PKG_VERSION"),
        mcp::meta::CLIENT_CAPABILITIES,
    );
    let comma = if params.is_empty() { "" } else { "," };
    format!(
        r#"{{"jsonrpc":"2.0","id":{no},"method":"{method}","params":{{{meta}{comma}{params}}}}}"#
    )
}

#[cfg(test)]
mod tests;
