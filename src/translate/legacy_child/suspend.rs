//! From the questions of a call to `input_required`, and to the end of the call.

use std::time::Instant;

use crate::jsonrpc::{
    Message, code, error_response, member, parse, result_response, split_batch, text,
};
use crate::mcp;

use super::call::{Behind, Call, Phase};
use super::capabilities::Capabilities;
use super::question::Question;
use super::request::Method;
use super::response::{self, refusal};
use super::seal::Sealed;
use super::{LegacyChild, Out};

/// Open questions of one call.
pub(super) const MAX_QUESTIONS: usize = 32;
/// Suspended calls of one child: each keeps something open in it. One more ends the oldest.
const MAX_SUSPENDED: usize = 64;
/// Of all questions, and all answers that wait for a retry, of one child; tests need not fill it.
pub(super) const MAX_KEPT_BYTES: usize = if cfg!(test) { 32 << 10 } else { 32 << 20 };

impl LegacyChild {
    /// The time of a call has come.
    pub(super) fn call_is_due(&mut self, id: i64, now: Instant, out: &mut Vec<Out>) {
        match self.calls.get(id).map(|call| call.phase) {
            Some(Phase::Asking { .. }) => self.suspend(id, now, out),
            // 2026-07-28, mrtr, "Server Requirements" 8: nobody must come back.
            Some(Phase::Suspended { .. }) => {
                if let Some(call) = self.calls.close(id) {
                    self.abandon(id, call, "the client did not answer in time", now, out);
                }
            }
            Some(Phase::Held | Phase::Running) | None => {}
        }
    }

    /// Answers the client's request with all open questions of its call.
    ///
    /// 2026-07-28, mrtr, "Server Requirements".
    pub(super) fn suspend(&mut self, id: i64, now: Instant, out: &mut Vec<Out>) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        refuse_undeclared(call, out);
        let is_asked = !call.questions.is_empty();
        let Some(asks_for) = call.asks_for.as_mut().filter(|_| is_asked) else {
            call.phase = Phase::Running;
            return;
        };
        let digest = asks_for.digest();
        for question in &mut call.questions {
            question.is_asked = true;
        }
        let until = now + self.options.input_timeout;
        call.phase = Phase::Suspended { until };
        let expires = until.saturating_duration_since(self.began).as_millis();
        let sealed = Sealed {
            call: id,
            round: call.round,
            expires: u64::try_from(expires).unwrap_or(u64::MAX),
        };
        let state = self.options.sealer.seal(&digest, sealed);
        out.push(Out::Client(input_required(
            call,
            &state,
            self.server.meta.as_deref(),
        )));
        if let Some(oldest) = self.calls.too_many_suspended(MAX_SUSPENDED)
            && let Some(call) = self.calls.close(oldest)
        {
            self.abandon(
                oldest,
                call,
                "too many calls wait for their clients",
                now,
                out,
            );
        }
    }

    /// Ends a call with the child's answer to it.
    pub(super) fn finish(
        &mut self,
        id: i64,
        mut call: Call,
        line: &str,
        message: &Message<'_>,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        self.outlived(std::mem::take(&mut call.questions), now, out);
        let client = call.client;
        let new_id = (client != id).then_some((message.id_text, client));
        let was_refused = call.missing != Capabilities::default();
        let answer = match (message.result, message.error) {
            // 2026-07-28, basic, "`_meta`": the call needed what the client did not declare.
            (_, Some(_)) if was_refused => response::missing_capability(client, call.missing),
            (Some(result), _)
                if was_refused && call.method == Method::Call && response::is_failure(result) =>
            {
                response::missing_capability(client, call.missing)
            }
            (_, Some(error))
                if response::error_code(error) == Some(mcp::code::URL_ELICITATION_REQUIRED) =>
            {
                return self.wants_a_visit(id, call, error, now, out);
            }
            (_, Some(error)) => response::error(line, error, new_id),
            (Some(result), None) if result.starts_with('{') => {
                response::result(&self.server, call.method, line, result, new_id)
            }
            (_, None) => {
                let why = "the server answered with a result that is not an object";
                refusal(client, code::INTERNAL_ERROR, why)
            }
        };
        out.push(Out::Client(answer));
    }

    /// 2025-11-25, elicitation, "URL Elicitation Required Error": the child wants the request
    /// again once the user has been where it leads. A modern client hears of this as of any other
    /// question; its retry goes to the child as the request that it is.
    fn wants_a_visit(
        &mut self,
        id: i64,
        mut call: Call,
        error: &str,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let wanted = member(error, "data").and_then(|it| member(it, "elicitations"));
        let wanted = wanted.and_then(|it| split_batch(it).ok());
        let wanted = wanted.filter(|it| {
            call.method.may_ask()
                && it.len() <= MAX_QUESTIONS
                && it.iter().all(|visit| is_visit(visit))
                && self.calls.bytes() + error.len() <= MAX_KEPT_BYTES
        });
        let Some(wanted) = wanted else {
            out.push(Out::Client(internal_error(
                call.client,
                &response::error_message(error),
            )));
            return;
        };
        call.behind = Behind::Nothing(response::error_message(error));
        for visit in wanted {
            call.asked += 1;
            call.questions.push(Question::visit(visit, call.asked));
        }
        self.ask_for_visits(id, call, now, out);
    }

    /// Suspends a call with nothing behind it.
    pub(super) fn ask_for_visits(&mut self, id: i64, call: Call, now: Instant, out: &mut Vec<Out>) {
        let need = call.questions.iter().map(|question| question.need);
        let need = need.fold(Capabilities::default(), Capabilities::and);
        if call.capabilities.include(need) {
            self.calls.put_back(id, call);
            self.suspend(id, now, out);
        } else {
            let answer = response::missing_capability(call.client, need);
            out.push(Out::Client(answer));
        }
    }

    /// The child has answered a suspended call, which a retry will find. It brings the answers to
    /// the questions too: the child may wait for them elsewhere.
    pub(super) fn keep_answer(
        &mut self,
        id: i64,
        mut call: Call,
        line: &str,
        message: &Message<'_>,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let late = call.questions.extract_if(.., |it| !it.is_asked);
        self.outlived(late.collect(), now, out);
        for question in &mut call.questions {
            question.forget_params();
        }
        call.behind = Behind::Answer(self.kept_answer(line, message));
        self.calls.put_back(id, call);
    }

    fn kept_answer(&self, line: &str, message: &Message<'_>) -> String {
        if self.calls.bytes() + line.len() <= MAX_KEPT_BYTES {
            return line.to_owned();
        }
        let why = "the server ended the call before it was resumed, with more than can be kept";
        error_response(message.id_text, code::INTERNAL_ERROR, why)
    }

    /// Ends a call with an answer that was kept.
    pub(super) fn finish_with_kept(
        &mut self,
        id: i64,
        call: Call,
        line: &str,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        if let Ok(message) = parse(line) {
            self.finish(id, call, line, &message, now, out);
        }
    }
}

/// 2026-07-28, mrtr, "Server Requirements" 7: the client may declare less than when it was asked.
fn refuse_undeclared(call: &mut Call, out: &mut Vec<Out>) {
    let client = call.capabilities;
    let undeclared = call.questions.extract_if(.., |it| !client.include(it.need));
    for question in undeclared.collect::<Vec<_>>() {
        call.refuse_undeclared(&question, out);
    }
}

/// 2025-11-25, elicitation, "URL Elicitation Required Error": all of them are in this mode.
fn is_visit(elicitation: &str) -> bool {
    let value = |name| member(elicitation, name).and_then(text);
    value("mode").is_some_and(|it| it == "url") && value("url").is_some()
}

/// 2026-07-28, mrtr, "InputRequiredResult".
fn input_required(call: &Call, state: &str, meta: Option<&str>) -> String {
    let questions = call.questions.iter();
    let entries: Vec<_> = questions.map(|it| it.to_entry(call.capabilities)).collect();
    let mut result = format!(
        r#"{{"resultType":"input_required","inputRequests":{{{}}},"requestState":"{state}""#,
        entries.join(",")
    );
    if let Some(meta) = meta {
        result.push_str(r#","_meta":"#);
        result.push_str(meta);
    }
    result.push('}');
    result_response(&call.client.to_string(), &result)
}

/// An error in the child's words, which are a JSON string.
pub(super) fn internal_error(id: i64, message: &str) -> String {
    let code = code::INTERNAL_ERROR;
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#)
}
