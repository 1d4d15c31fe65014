//! A child that speaks 2026-07-28 only, dressed as a server of up to 2025-11-25 for one client.
//!
//! The client's ids go to the child as they are. What the broker asks on its own account, of either
//! side, has ids of its own. Hardly anything is remembered: what the client said of itself, because
//! every request has to repeat it; the subscriptions; and the calls in which the child may still
//! ask something.
//!
//! - `opening`: `initialize`, from `server/discover`
//! - `caller`: what each request says of the client
//! - `rounds`, `questions`: calls in the course of which the client is asked
//! - `listens`: subscriptions and list changes
//! - `pings`: whether the child lives
//! - `results`: what a result may not hold

mod caller;
mod listens;
mod opening;
mod pings;
mod questions;
mod results;
mod rounds;

use std::time::Instant;

use super::{Out, Translator};
use crate::jsonrpc::{self, Edit, Id, Kind, Message, code, members};
use crate::mcp::{LOG_LEVELS, meta, method};
use caller::{Caller, No};
use listens::Listens;
use opening::Offer;
pub(crate) use opening::is_modern_refusal;
use pings::Pings;
use rounds::Rounds;

/// What a child may say when the client has not said what it wants to hear (2025-11-25, logging,
/// "Setting Log Level"). In 2026-07-28 it would say nothing.
const DEFAULT_LOG_LEVEL: &str = "info";

pub(crate) struct ModernChild {
    server_name: Box<str>,
    phase: Phase,
    caller: Caller,
    offer: Offer,
    listens: Listens,
    rounds: Rounds,
    pings: Pings,
    /// Until when the first `server/discover` is to be answered.
    patience: Option<Instant>,
}

enum Phase {
    New,
    /// `initialize` waits for what the child says of itself.
    Discovering {
        no: No,
        /// The text of the id of `initialize`.
        id: Box<str>,
        version: &'static str,
        /// Until when.
        until: Option<Instant>,
    },
    Open,
}

/// Why a request is not passed on: a code and words.
struct Refusal(i32, String);

impl Refusal {
    fn send(self, id: &str, out: &mut Vec<Out>) {
        out.push(Out::Client(jsonrpc::error_response(id, self.0, &self.1)));
    }
}

impl ModernChild {
    /// The name is for a server that does not say its own.
    pub(crate) fn new(server_name: &str) -> Self {
        Self {
            server_name: server_name.into(),
            phase: Phase::New,
            caller: Caller::new(),
            offer: Offer::default(),
            listens: Listens::default(),
            rounds: Rounds::default(),
            pings: Pings::default(),
            patience: None,
        }
    }

    /// For a child that has refused `initialize`, and may be of the modern era. If it says nothing
    /// until then, `initialize` is refused.
    pub(crate) fn second_try(server_name: &str, until: Option<Instant>) -> Self {
        Self {
            patience: until,
            ..Self::new(server_name)
        }
    }

    /// The same, with the `initialize` that was refused.
    pub(crate) fn take_over(
        server_name: &str,
        initialize: &str,
        until: Option<Instant>,
        out: &mut Vec<Out>,
    ) -> Self {
        let mut child = Self::second_try(server_name, until);
        match jsonrpc::parse(initialize) {
            Ok(message) => child.initialize(&message, out),
            Err(why) => log::debug!("what shall be taken over is {why}"),
        }
        child
    }

    fn request(&mut self, message: &Message<'_>, line: &str, now: Instant, out: &mut Vec<Out>) {
        let refused = match &*message.method {
            _ if caller::is_own(&message.id) => Err(Refusal(
                code::INVALID_REQUEST,
                format!("the id {} is kept for the broker", message.id_text),
            )),
            method::INITIALIZE => {
                self.initialize(message, out);
                Ok(())
            }
            method::PING => self.pings.ask(message.id_text, &mut self.caller, out),
            _ if !matches!(self.phase, Phase::Open) => Err(Refusal(
                code::INVALID_REQUEST,
                "initialize comes before all else".to_owned(),
            )),
            method::SET_LEVEL => self.set_level(message, out),
            method::SUBSCRIBE => {
                let (id, params) = (message.id_text, message.params);
                self.listens
                    .subscribe(id, params, &mut self.caller, now, out)
            }
            method::UNSUBSCRIBE => {
                let (id, params) = (message.id_text, message.params);
                self.listens.unsubscribe(id, params, out)
            }
            _ => self.pass_on(message, line, out),
        };
        if let Err(refusal) = refused {
            refusal.send(message.id_text, out);
        }
    }

    fn pass_on(
        &mut self,
        message: &Message<'_>,
        line: &str,
        out: &mut Vec<Out>,
    ) -> Result<(), Refusal> {
        let Some(line) = self.caller.complete(line, message.params) else {
            let why = "params is no object".to_owned();
            return Err(Refusal(code::INVALID_PARAMS, why));
        };
        self.rounds.enter(message, &line, out);
        out.push(Out::Child(line));
        Ok(())
    }

    /// 2025-11-25, lifecycle, "Initialization", from 2026-07-28, discover.
    fn initialize(&mut self, message: &Message<'_>, out: &mut Vec<Out>) {
        if !matches!(self.phase, Phase::New) {
            let why = "initialize comes once".to_owned();
            return Refusal(code::INVALID_REQUEST, why).send(message.id_text, out);
        }
        self.caller.introduce(message.params);
        let (no, line) = self.caller.request(method::DISCOVER, &[]);
        self.phase = Phase::Discovering {
            no,
            id: message.id_text.into(),
            version: opening::negotiate(message.params),
            until: self.patience.take(),
        };
        out.push(Out::Child(line));
    }

    /// The child has answered `server/discover`; false if it is something else that it answers.
    fn discovered(&mut self, message: &Message<'_>, line: &str, out: &mut Vec<Out>) -> bool {
        let Phase::Discovering {
            no, id, version, ..
        } = &self.phase
        else {
            return false;
        };
        if caller::own_no(&message.id) != Some(*no) {
            return false;
        }
        let (id, version) = (id.clone(), *version);
        self.phase = Phase::New;
        let Some(result) = message.result else {
            let refusal = Edit::of(line).replace(message.id_text, id).done();
            out.push(Out::Client(refusal));
            return true;
        };
        match opening::initialize_result(result, version, &self.server_name) {
            Ok((result, offer)) => {
                if offer.logging {
                    self.caller.set_log_level(DEFAULT_LOG_LEVEL);
                }
                self.offer = offer;
                self.phase = Phase::Open;
                out.push(Out::Client(jsonrpc::result_response(&id, &result)));
            }
            Err(why) => Refusal(code::INTERNAL_ERROR, why).send(&id, out),
        }
        true
    }

    /// The child has not answered `server/discover` in time.
    fn give_up_discovering(&mut self, now: Instant, out: &mut Vec<Out>) {
        let Phase::Discovering { id, until, .. } = &self.phase else {
            return;
        };
        if until.is_some_and(|until| now >= until) {
            let why = "the server does not answer server/discover".to_owned();
            Refusal(code::INTERNAL_ERROR, why).send(id, out);
            self.phase = Phase::New;
        }
    }

    /// 2025-11-25, logging, "Setting Log Level"; in 2026-07-28 each request says it.
    fn set_level(&mut self, message: &Message<'_>, out: &mut Vec<Out>) -> Result<(), Refusal> {
        if !self.offer.logging {
            let why = "the server has no logging".to_owned();
            return Err(Refusal(code::METHOD_NOT_FOUND, why));
        }
        let level = message.params.and_then(|it| jsonrpc::member(it, "level"));
        let level = level.and_then(jsonrpc::text).unwrap_or_default();
        if !LOG_LEVELS.contains(&&*level) {
            let why = format!("no such level: {level:?}");
            return Err(Refusal(code::INVALID_PARAMS, why));
        }
        self.caller.set_log_level(&level);
        out.push(Out::Client(jsonrpc::result_response(message.id_text, "{}")));
        Ok(())
    }

    /// 2026-07-28, schema, `ClientNotification`: a client has only one to send.
    fn notification(
        &mut self,
        message: &Message<'_>,
        line: &str,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        match &*message.method {
            method::INITIALIZED if matches!(self.phase, Phase::Open) => {
                self.listens.begin(&self.offer, &mut self.caller, now, out);
            }
            method::CANCELLED => self.cancelled(message, line, out),
            _ => log::debug!("{} says nothing to a modern child", message.method),
        }
    }

    /// 2025-11-25, cancellation: of a request under the client's id.
    fn cancelled(&mut self, message: &Message<'_>, line: &str, out: &mut Vec<Out>) {
        let id_text = message
            .params
            .and_then(|it| jsonrpc::member(it, "requestId"));
        let Some((id_text, id)) = id_text.and_then(|it| Some((it, Id::parse(it)?))) else {
            return log::debug!("the client cancels nothing");
        };
        if caller::is_own(&id) {
            return log::debug!("the client cancels what is not its own");
        }
        let is_known = self.rounds.cancel(&id, id_text, line, out)
            || self.listens.cancel(&id, out)
            || self.pings.cancel(&id, out);
        if !is_known {
            log::debug!("the client cancels what is over, or cannot be cancelled");
        }
    }

    fn child_notification(
        &mut self,
        message: &Message<'_>,
        line: &str,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let params = message.params.unwrap_or_default();
        let own_no = |it: &str| Id::parse(it).and_then(|id| caller::own_no(&id));
        // 2026-07-28, cancellation: a server cancels nothing but a listen.
        if message.method == method::CANCELLED {
            let no = jsonrpc::member(params, "requestId").and_then(own_no);
            let is_listen = no.is_some_and(|no| self.listens.ended(no, &mut self.caller, now, out));
            if !is_listen {
                log::debug!("the child cancels what is over, or not its own");
            }
            return;
        }
        let meta = jsonrpc::member(params, "_meta");
        let subscription = meta.and_then(|meta| jsonrpc::member(meta, meta::SUBSCRIPTION_ID));
        let (Some(meta), Some(subscription)) = (meta, subscription) else {
            if message.method == method::ACKNOWLEDGED {
                return log::debug!("the child acknowledges nothing");
            }
            return out.push(Out::Client(line.to_owned()));
        };
        match own_no(subscription) {
            Some(no) if message.method == method::ACKNOWLEDGED => {
                self.listens.acknowledged(no, params, &self.offer, now, out);
            }
            Some(no) if self.listens.wants(no) => {
                out.push(Out::Client(untagged(line, params, meta)));
            }
            _ => log::debug!("the child tells of what nobody listens to"),
        }
    }
}

/// A notification without the id of its subscription. 2026-07-28, subscriptions, "Receiving
/// Notifications".
fn untagged(line: &str, params: &str, meta: &str) -> String {
    let mut edit = Edit::of(line);
    match members(meta).len() {
        1 => edit.remove(params, |name| name == "_meta"),
        _ => edit.remove(meta, |name| name == meta::SUBSCRIPTION_ID),
    };
    edit.done()
}

impl Translator for ModernChild {
    fn begin(&mut self, _now: Instant, _out: &mut Vec<Out>) {}

    fn client_says(&mut self, line: &str, now: Instant, out: &mut Vec<Out>) {
        let line = line.trim_ascii();
        match jsonrpc::parse(line) {
            Ok(message) => match message.kind {
                Kind::Request => self.request(&message, line, now, out),
                Kind::Notification => self.notification(&message, line, now, out),
                Kind::Response => self.rounds.answered(&message, &mut self.caller, out),
            },
            Err(why) => log::debug!("a line of the client is {why}"),
        }
    }

    fn child_says(&mut self, line: &str, now: Instant, out: &mut Vec<Out>) {
        let line = line.trim_ascii();
        let message = match jsonrpc::parse(line) {
            Ok(message) => message,
            Err(why) => return log::debug!("a line of the child is {why}"),
        };
        match message.kind {
            // 2026-07-28, stdio, "Sending Messages": a server sends no requests, and "The client
            // MUST NOT write JSON-RPC responses".
            Kind::Request => log::debug!("the child sends {}, a request", message.method),
            Kind::Notification => self.child_notification(&message, line, now, out),
            Kind::Response => {
                let is_taken = self.discovered(&message, line, out)
                    || caller::own_no(&message.id).is_some_and(|no| {
                        self.pings.answered(no, out)
                            || self
                                .listens
                                .response(no, &message, line, &mut self.caller, now, out)
                    });
                if !is_taken {
                    self.rounds
                        .response(&message, line, &mut self.caller, now, out);
                }
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Discovering { until, .. } => *until,
            _ => self
                .listens
                .due()
                .into_iter()
                .chain(self.rounds.due())
                .min(),
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Out>) {
        self.give_up_discovering(now, out);
        self.listens.tick(now, out);
        self.rounds.tick(&mut self.caller, now, out);
    }
}

#[cfg(test)]
mod tests;
