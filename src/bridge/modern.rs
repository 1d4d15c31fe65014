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

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

pub(crate) use check::{Fault, Mirrored, check, is_modern};
use desk::{Desk, NewCall};
use inbound::ModernInbound;
use tools::{Held, Verdict};

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
    errands: Mutex<VecDeque<Errand>>,
}

/// What other threads ask of the reader thread.
enum Errand {
    /// The translator has answered a client in the child's place.
    HandIn(Heard),
    /// The tools are to be asked for which of their parameters stand in heads.
    LearnTools,
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
        errands: Mutex::default(),
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
        self.errands.lock().push_back(errand);
        (self.options.wake)();
    }

    fn take_errand(&self) -> Option<Errand> {
        self.errands.lock().pop_front()
    }

    /// Enters a request that was found in order; gives the line for the child, unless the tools
    /// must be known first.
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
        let mut desk = self.desk.lock();
        let verdict = match &*message.method == method::TOOLS_CALL {
            true => desk.tools.check(exchange.mirrored(), message.params),
            false => Verdict::Fits,
        };
        if let Verdict::Differs(fault) = verdict {
            drop(desk);
            return fault.answer(exchange, message.id_text);
        }
        let is_held = matches!(verdict, Verdict::Unknown);
        let mirrored = exchange.mirrored().filter(|_| is_held).cloned();
        let call = NewCall {
            id_text: message.id_text.into(),
            token_text: envelope.progress_token.map(Into::into),
            log_level: envelope.log_level,
            method: &message.method,
        };
        let no = match desk.enter(exchange, call, self.options.max_in_flight, now) {
            Ok(no) => no,
            Err((exchange, why)) => {
                drop(desk);
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
        if !is_held {
            return Some(line);
        }
        let must_ask = desk.tools.hold(Held { no, line, mirrored });
        drop(desk);
        if must_ask {
            self.send_errand(Errand::LearnTools);
        }
        None
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

    fn is_starting(&self) -> bool {
        self.desk.lock().is_starting()
    }

    fn has_clients(&self) -> bool {
        self.lane.due().is_some() || self.desk.lock().has_clients()
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
