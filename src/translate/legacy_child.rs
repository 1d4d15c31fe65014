//! A legacy child: one that speaks up to 2025-11-25, for clients of 2026-07-28.
//!
//! The clients are all those of one principal. The child is initialized once, as a client that can
//! do whatever any of them may be able to do; each request then says for itself what its client
//! can do. A question of the child in the middle of a call becomes the call's answer,
//! `input_required`, and the child's call stays open behind it until the client's retry brings
//! the answers.
//!
//! - `request`: what a client asks, and what of it the child sees; `response`: the way back
//! - `call`, `question`: the state of one open call
//! - `ask`: from a question to its call; `suspend`: from there to `input_required`; `resume`: from
//!   the retry to the answers
//! - `seal`: `requestState`
//! - `server`: initialization and discovery; `levels`: logging; `listens`: subscriptions
//!
//! The bridge in front has made ids and progress tokens unique (one integer for both), has checked
//! what every modern request must have, and gives log messages to the requests that want them.

mod ask;
mod call;
mod capabilities;
mod levels;
mod listens;
mod question;
mod request;
mod response;
mod resume;
mod seal;
mod server;
mod suspend;

use std::time::{Duration, Instant};

use crate::jsonrpc::{self, Edit, Id, Kind, Message, code, member, parse};
use crate::mcp::method;

use call::{Calls, Phase};
use levels::Levels;
use listens::Listens;
use question::Question;
use request::{Request, is_misunderstood};
use response::refusal;
use server::Server;

use super::{Out, Translator};

pub(crate) use seal::Sealer;

/// What a translator is told by whoever starts the child.
pub(crate) struct Options {
    /// The server as the configuration names it, for messages.
    pub(crate) server_name: String,
    /// Of states that this child's calls are resumed with.
    pub(crate) sealer: Sealer,
    /// How long a suspended call waits for the client's answers.
    pub(crate) input_timeout: Duration,
}

/// See the module.
pub(crate) struct LegacyChild {
    options: Options,
    began: Instant,
    stage: Stage,
    server: Server,
    calls: Calls,
    levels: Levels,
    listens: Listens,
}

enum Stage {
    /// The lines that came before the child's answer to `initialize`; the bridge bounds them.
    Initializing(Vec<String>),
    Ready,
    Failed,
}

impl LegacyChild {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            began: Instant::now(),
            stage: Stage::Initializing(Vec::new()),
            server: Server::default(),
            calls: Calls::default(),
            levels: Levels::default(),
            listens: Listens::default(),
        }
    }

    /// 2025-11-25, lifecycle, "Initialization".
    fn initialized(&mut self, answer: &Message<'_>, now: Instant, out: &mut Vec<Out>) {
        let Stage::Initializing(waiting) = &mut self.stage else {
            return;
        };
        let waiting = std::mem::take(waiting);
        match Server::read(answer) {
            Ok(server) => {
                self.server = server;
                self.stage = Stage::Ready;
                out.push(Out::Child(server::initialized()));
                for line in waiting {
                    self.client_says(&line, now, out);
                }
            }
            Err(failure) => {
                self.stage = Stage::Failed;
                out.push(Out::Failed(failure));
            }
        }
    }

    fn request(&mut self, line: &str, message: Message<'_>, now: Instant, out: &mut Vec<Out>) {
        let Id::Integer(id) = message.id else {
            let why = "the id of a request is not an integer here";
            let refusal = jsonrpc::error_response(message.id_text, code::INVALID_REQUEST, why);
            out.push(Out::Client(refusal));
            return;
        };
        match message.method.as_ref() {
            name if is_misunderstood(name) => {
                let why = format!("{name} does not exist in this protocol version");
                out.push(Out::Client(refusal(id, code::METHOD_NOT_FOUND, &why)));
            }
            method::DISCOVER => out.push(Out::Client(self.server.discovered(id))),
            method::LISTEN => {
                let params = message.params.unwrap_or_default();
                let opened = self.listens.open(&self.server, id, params, now, out);
                if let Err((code, why)) = opened {
                    out.push(Out::Client(refusal(id, code, &why)));
                }
            }
            _ => self.call(&Request::read(line, id, message), now, out),
        }
    }

    /// A request that the child answers.
    fn call(&mut self, request: &Request<'_>, now: Instant, out: &mut Vec<Out>) {
        let Ok(level) = request.log_level() else {
            let why = "the log level in _meta is none of those of RFC 5424";
            out.push(Out::Client(refusal(request.id, code::INVALID_PARAMS, why)));
            return;
        };
        let level = level.filter(|it| self.server.logs && !self.levels.has(*it));
        if request.state.is_some() && request.method.may_ask() {
            self.resume(request, level, now, out);
        } else {
            self.start(request, level, now, out);
        }
    }

    /// Gives a request to the child, which first is to be told this log level.
    fn start(
        &mut self,
        request: &Request<'_>,
        level: Option<usize>,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let line = request.for_child();
        let call = self.calls.open(request);
        match level {
            None => out.push(Out::Child(line)),
            Some(level) => {
                call.phase = Phase::Held;
                self.levels.hold(level, Some((request.id, line)), now, out);
            }
        }
    }

    /// 2026-07-28, cancellation, "Transport-Specific Cancellation": a client has gone.
    fn cancelled_by_client(&mut self, message: &Message<'_>, now: Instant, out: &mut Vec<Out>) {
        let Some(Id::Integer(id)) = request_id(message) else {
            return;
        };
        if let Stage::Initializing(waiting) = &mut self.stage {
            waiting.retain(|line| parse(line).is_ok_and(|it| it.id != Id::Integer(id)));
            return;
        }
        if self.listens.close(id, out) {
            return;
        }
        let Some(id) = self.calls.waited_for(id) else {
            return;
        };
        let Some(call) = self.calls.close(id) else {
            return;
        };
        if matches!(call.phase, Phase::Held) {
            self.levels.forget(id);
        } else {
            self.abandon(id, call, "the client has gone", now, out);
        }
    }

    fn response_of_child(
        &mut self,
        line: &str,
        message: &Message<'_>,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        match &message.id {
            Id::Integer(id) => self.answered(*id, line, message, now, out),
            Id::String(id) if id.as_ref() == server::INITIALIZE_ID => {
                self.initialized(message, now, out);
            }
            Id::String(id) if id.starts_with(levels::ID_PREFIX) => {
                let released = self.levels.answered(id, now, out);
                self.released(&released);
            }
            Id::String(id) if id.starts_with(listens::ID_PREFIX) => {
                self.listens.answered(id, message.error.is_some(), out);
            }
            _ => {} // to an `unsubscribe`, or to nothing
        }
    }

    /// The child has got these calls now.
    fn released(&mut self, calls: &[i64]) {
        for id in calls {
            if let Some(call) = self.calls.get_mut(*id) {
                call.phase = Phase::Running;
            }
        }
    }

    /// The child has answered a call.
    fn answered(
        &mut self,
        id: i64,
        line: &str,
        message: &Message<'_>,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let Some(call) = self.calls.close(id) else {
            return self.note("answers a request that nobody waits for");
        };
        match call.phase {
            Phase::Held => self.calls.put_back(id, call),
            Phase::Running | Phase::Asking { .. } => self.finish(id, call, line, message, now, out),
            Phase::Suspended { .. } => self.keep_answer(id, call, line, message, now, out),
        }
    }

    fn request_of_child(&mut self, message: &Message<'_>, now: Instant, out: &mut Vec<Out>) {
        if Question::is_one(&message.method) {
            return self.asked(message, now, out);
        }
        out.push(Out::Child(match message.method.as_ref() {
            method::PING => jsonrpc::result_response(message.id_text, "{}"),
            name => {
                let why = format!("{name} is not a method of clients");
                jsonrpc::error_response(message.id_text, code::METHOD_NOT_FOUND, &why)
            }
        }));
    }

    fn notification_of_child(&mut self, line: &str, message: &Message<'_>, out: &mut Vec<Out>) {
        match message.method.as_ref() {
            method::PROGRESS => self.progress(line, message, out),
            method::MESSAGE => out.push(Out::Client(line.to_owned())),
            // 2025-11-25, cancellation: the child no longer wants to know.
            method::CANCELLED => {
                if let Some(question) = request_id(message) {
                    self.calls.withdraw(&question);
                }
            }
            name @ (method::TOOLS_CHANGED
            | method::PROMPTS_CHANGED
            | method::RESOURCES_CHANGED
            | method::RESOURCE_UPDATED) => self.listens.notify(name, line, message.params, out),
            // 2026-07-28, changelog, "Minor changes" 11 and "Major changes" 6: among others,
            // completed elicitations and the state of tasks.
            name => self.note(&format!(
                "sends {name}, which means nothing to a modern client"
            )),
        }
    }

    /// 2026-07-28, progress, "Behavior Requirements": only for a token of a request that is open.
    fn progress(&self, line: &str, message: &Message<'_>, out: &mut Vec<Out>) {
        let token = message.params.and_then(|it| member(it, "progressToken"));
        let Some((token, Some(Id::Integer(id)))) = token.map(|it| (it, Id::parse(it))) else {
            return;
        };
        let call = self.calls.get(id).filter(|call| !call.is_suspended());
        let Some((call, new)) = call.and_then(|it| Some((it, it.progress_token.as_deref()?)))
        else {
            return;
        };
        out.push(Out::Client(match call.client == id {
            true => line.to_owned(),
            false => Edit::of(line).replace(token, new).done(),
        }));
    }

    fn note(&self, what: &str) {
        log::debug!("{}: the child {what}", self.options.server_name);
    }
}

/// The request that a `notifications/cancelled` means.
fn request_id(message: &Message<'_>) -> Option<Id> {
    Id::parse(member(message.params?, "requestId")?)
}

impl Translator for LegacyChild {
    fn begin(&mut self, now: Instant, out: &mut Vec<Out>) {
        self.began = now;
        out.push(Out::Child(server::initialize()));
    }

    fn client_says(&mut self, line: &str, now: Instant, out: &mut Vec<Out>) {
        let Ok(message) = parse(line) else {
            return self.note("is to get a line that is no message");
        };
        match (message.kind, &mut self.stage) {
            (_, Stage::Failed) | (Kind::Response, _) => {}
            (Kind::Request, Stage::Initializing(waiting)) => waiting.push(line.to_owned()),
            (Kind::Request, Stage::Ready) => self.request(line, message, now, out),
            (Kind::Notification, _) if message.method == method::CANCELLED => {
                self.cancelled_by_client(&message, now, out);
            }
            (Kind::Notification, _) => {} // none of the others is of the modern era
        }
    }

    fn child_says(&mut self, line: &str, now: Instant, out: &mut Vec<Out>) {
        let Ok(message) = parse(line) else {
            return self.note("writes a line that is no message");
        };
        if matches!(self.stage, Stage::Failed) {
            return;
        }
        match message.kind {
            Kind::Response => self.response_of_child(line, &message, now, out),
            Kind::Request => self.request_of_child(&message, now, out),
            Kind::Notification => self.notification_of_child(line, &message, out),
        }
    }

    fn is_ready(&self) -> bool {
        !matches!(self.stage, Stage::Initializing(_))
    }

    fn due(&self) -> Option<Instant> {
        let due = [self.calls.due(), self.levels.due(), self.listens.due()];
        due.into_iter().flatten().min()
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Out>) {
        let released = self.levels.tick(now, out);
        self.released(&released);
        self.listens.tick(now, out);
        for id in self.calls.due_by(now) {
            self.call_is_due(id, now, out);
        }
    }
}

#[cfg(test)]
mod tests;
