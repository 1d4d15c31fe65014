//! From a question of the child to the call whose client it is put to.
//!
//! The protocol does not say which call a question is for. Whatever becomes of the call that it
//! was filed under, the child gets an answer: another call may hang without it.

use std::time::Instant;

use crate::jsonrpc::{Message, code};
use crate::mcp::method;

use super::call::{Behind, Call};
use super::question::Question;
use super::suspend::{MAX_KEPT_BYTES, MAX_QUESTIONS};
use super::{LegacyChild, Out};

/// What the child hears of a question that there is nobody for: code and message.
type Refusal = (i32, &'static str);

const NO_CLIENT: Refusal = (
    code::METHOD_NOT_FOUND,
    "no client to ask: no call is open that it could be for",
);
const ENDED: Refusal = (
    code::INTERNAL_ERROR,
    "the call ended before the client answered",
);

impl LegacyChild {
    /// The child asks the client something (2025-11-25, client features).
    pub(super) fn asked(&mut self, message: &Message<'_>, now: Instant, out: &mut Vec<Out>) {
        if self.calls.have_question(&message.id) {
            return;
        }
        if let Some(question) = Question::read(message) {
            self.file(question, NO_CLIENT, now, out);
        }
    }

    /// Finds a question a call, whose client will be asked.
    fn file(&mut self, mut question: Question, none: Refusal, now: Instant, out: &mut Vec<Out>) {
        let kept = self.calls.bytes() + question.bytes();
        let Some((call, is_only_one)) = self.calls.that_may_ask(question.need) else {
            out.extend(question.refusal(none.0, none.1).map(Out::Child));
            return;
        };
        question.is_surely_its_own &= is_only_one;
        if !call.capabilities.include(question.need) {
            call.refuse_undeclared(&question, out);
        } else if call.questions.len() >= MAX_QUESTIONS || kept > MAX_KEPT_BYTES {
            let why = "too many questions at once: wait for the answers to the others";
            out.extend(question.refusal(code::INTERNAL_ERROR, why).map(Out::Child));
        } else {
            call.add(question);
            call.await_questions(now);
        }
    }

    /// The child has answered the call of these questions.
    pub(super) fn outlived(&mut self, of: Vec<Question>, now: Instant, out: &mut Vec<Out>) {
        self.let_go(of, ENDED, now, out);
    }

    /// A call and its questions have come to nothing, which the child is told.
    pub(super) fn abandon(
        &mut self,
        id: i64,
        mut call: Call,
        why: &'static str,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let questions = std::mem::take(&mut call.questions);
        self.let_go(questions, (code::INTERNAL_ERROR, why), now, out);
        if matches!(call.behind, Behind::Child) {
            out.push(Out::Child(format!(
                r#"{{"jsonrpc":"2.0","method":"{}","params":{{"requestId":{id},"reason":"{why}"}}}}"#,
                method::CANCELLED
            )));
        }
    }

    /// A call is no more: its questions may be another's, unless its client has seen them.
    fn let_go(&mut self, of: Vec<Question>, why: Refusal, now: Instant, out: &mut Vec<Out>) {
        for mut question in of {
            if question.is_asked {
                out.extend(question.refusal(why.0, why.1).map(Out::Child));
            } else {
                question.is_surely_its_own = false;
                self.file(question, why, now, out);
            }
        }
    }
}

impl Call {
    /// Files a question under a name of its own.
    fn add(&mut self, mut question: Question) {
        self.asked += 1;
        question.name(self.asked);
        while self.questions.iter().any(|it| it.key() == question.key()) {
            self.asked += 1;
            question.rename(self.asked);
        }
        self.questions.push(question);
    }

    /// Its client does not declare what the question needs. That is why the call fails if it does,
    /// provided that the question is not another's.
    pub(super) fn refuse_undeclared(&mut self, question: &Question, out: &mut Vec<Out>) {
        if question.is_surely_its_own {
            self.missing = self.missing.and(question.need);
        }
        out.extend(question.unsupported(self.capabilities).map(Out::Child));
    }
}
