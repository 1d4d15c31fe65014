//! From the retry of a suspended request to the answers that the child waits for.

use std::time::{Duration, Instant};

use crate::jsonrpc::{code, members, text};

use super::call::{Behind, Call, Phase};
use super::question::{Question, is_accepted};
use super::request::Request;
use super::response::refusal;
use super::server::Server;
use super::suspend::internal_error;
use super::{LegacyChild, Out};

/// For a state that is forged, of someone else, of another request, redeemed or expired: which of
/// them is nobody's business.
const BAD_STATE: &str =
    "requestState is not valid for this request, or no longer: send the request again without it";

/// What the client says to each question of a call; `None` where it says nothing.
type Answers<'a> = Vec<Option<&'a str>>;

impl LegacyChild {
    /// 2026-07-28, mrtr, "Basic Workflow". The child may have to be told a log level.
    pub(super) fn resume(
        &mut self,
        retry: &Request<'_>,
        level: Option<usize>,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let refuse = |why: &str| Out::Client(refusal(retry.id, code::INVALID_PARAMS, why));
        let Some((id, call)) = self.redeemable(retry, now) else {
            return out.push(refuse(BAD_STATE));
        };
        let answers = match answers(call, retry) {
            Ok(answers) => answers,
            Err(why) => return out.push(refuse(&why)),
        };
        // From here on the state is redeemed.
        let Some(call) = self.calls.resume(id, retry) else {
            return;
        };
        match call.behind {
            Behind::Child => {
                if let Some(level) = level {
                    self.levels.hold(level, None, now, out);
                }
                self.pass_on(id, &answers, now, out);
            }
            Behind::Answer(_) | Behind::Nothing(_) => {
                let Some(call) = self.calls.close(id) else {
                    return;
                };
                self.resume_without_child(id, call, &answers, (retry, level), now, out);
            }
        }
    }

    /// The suspended call that a retry means, if it may.
    ///
    /// 2026-07-28, mrtr, "Server Requirements" 4 and 5.
    fn redeemable(&self, retry: &Request<'_>, now: Instant) -> Option<(i64, &Call)> {
        let state = retry.state.and_then(text)?;
        let sealed = self.options.sealer.open(&retry.digest(), &state)?;
        let age = now.saturating_duration_since(self.began);
        if age >= Duration::from_millis(sealed.expires) {
            return None;
        }
        let call = self.calls.get(sealed.call)?;
        let is_current = call.is_suspended() && call.round == sealed.round;
        is_current.then_some((sealed.call, call))
    }

    /// Gives the child the answers that there are, and asks the client again for the others.
    ///
    /// 2026-07-28, mrtr, "Error Handling".
    fn pass_on(&mut self, id: i64, answers: &Answers<'_>, now: Instant, out: &mut Vec<Out>) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        take_answered(call, answers, &self.server, out);
        if call.questions.iter().any(|it| it.is_asked) {
            self.suspend(id, now, out);
        } else if !call.questions.is_empty() {
            call.await_questions(now); // came after the client was asked
        }
    }

    /// Resumes a call that the child does not know any more.
    fn resume_without_child(
        &mut self,
        id: i64,
        mut call: Call,
        answers: &Answers<'_>,
        (retry, level): (&Request<'_>, Option<usize>),
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let message = match std::mem::replace(&mut call.behind, Behind::Child) {
            Behind::Answer(line) => {
                take_answered(&mut call, answers, &self.server, out);
                return self.finish_with_kept(id, call, &line, now, out);
            }
            Behind::Nothing(message) => message,
            Behind::Child => return,
        };
        // 2026-07-28, elicitation, "Response Actions".
        if answers.iter().flatten().any(|it| !is_accepted(it)) {
            return out.push(Out::Client(internal_error(call.client, &message)));
        }
        take_answered(&mut call, answers, &self.server, out);
        if call.questions.is_empty() {
            self.start(retry, level, now, out);
        } else {
            call.behind = Behind::Nothing(message);
            self.ask_for_visits(id, call, now, out);
        }
    }
}

/// What the retry says to each question of the call. What it says besides is ignored.
///
/// # Errors
/// An answer that cannot be one.
fn answers<'a>(call: &Call, retry: &Request<'a>) -> Result<Answers<'a>, String> {
    let given = retry.responses.unwrap_or("{}");
    if !given.starts_with('{') {
        return Err("inputResponses is not an object".to_owned());
    }
    let given = members(given);
    let answer = |question: &Question| {
        let found = given.iter().find(|it| it.is(question.key()));
        let Some(found) = found.filter(|_| question.is_asked) else {
            return Ok(None);
        };
        match question.check(found.value) {
            Ok(()) => Ok(Some(found.value)),
            Err(wanted) => Err(format!("inputResponses.{} is not {wanted}", question.key())),
        }
    };
    call.questions.iter().map(answer).collect()
}

/// Takes the questions that are answered now, and gives the child the answers that it waits for.
fn take_answered(call: &mut Call, answers: &Answers<'_>, server: &Server, out: &mut Vec<Out>) {
    let mut answers = answers.iter();
    call.questions.retain(|question| {
        let Some(Some(answer)) = answers.next() else {
            return true;
        };
        out.extend(question.answer(answer, server).map(Out::Child));
        false
    });
    call.phase = Phase::Running;
}
