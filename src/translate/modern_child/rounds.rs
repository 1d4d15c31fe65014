//! Calls in several rounds: 2026-07-28, mrtr. The client, of 2025-11-25, sees one call, in the
//! course of which it is asked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::caller::{self, Caller, No};
use super::questions::{self, present};
use super::results::{self, Verdict};
use super::{Out, Refusal};
use crate::jsonrpc::{self, Edit, Id, Message, code};
use crate::mcp::method;

/// 2026-07-28, mrtr, "Supported Requests".
const MAY_ASK: [&str; 3] = [
    method::TOOLS_CALL,
    method::PROMPTS_GET,
    method::RESOURCES_READ,
];
/// Of one call.
const MAX_ROUNDS: u32 = 64;
/// Before the second round in a row in which the child asks nothing; each further pause is twice
/// as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a child may put a call off in such rounds.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Of all calls that may have another round, with what the client has answered; one that does not
/// fit has none.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// A request that may become several.
struct Call {
    /// The text of its id towards the client.
    id_text: Box<str>,
    /// As it was sent to the child; `None` if it was too much to keep.
    line: Option<Box<str>>,
    rounds: u32,
    /// Since when the child asks nothing, and in how many rounds.
    put_off: Option<(Instant, u32)>,
    with: Whom,
}

/// Who has to say something.
enum Whom {
    /// The child, which knows the call by the client's id.
    Child,
    /// The child, which knows it by an id of ours.
    ChildAgain(No),
    Client(Asking),
}

/// What the client was asked.
struct Asking {
    questions: Vec<Asked>,
    /// `requestState` as it came.
    state: Option<Box<str>>,
    /// There is nothing to be asked, but time shall pass: until when, and a number.
    pause: Option<(Instant, u64)>,
}

struct Asked {
    no: No,
    /// With its quotes.
    key: Box<str>,
    method: &'static str,
    answer: Option<Box<str>>,
}

#[derive(Default)]
pub(super) struct Rounds {
    /// By the client's ids.
    calls: HashMap<Id, Call>,
    /// Requests in flight that cannot have another round.
    others: HashSet<Id>,
    retries: HashMap<No, Id>,
    questions: HashMap<No, Id>,
    /// Calls that wait for time to pass.
    pauses: BTreeMap<(Instant, u64), Id>,
    last_pause: u64,
    kept_bytes: usize,
}

impl Rounds {
    /// A request of the client goes to the child as this line.
    pub(super) fn enter(&mut self, message: &Message<'_>, line: &str, out: &mut Vec<Out>) {
        if !MAY_ASK.contains(&&*message.method) {
            self.others.insert(message.id.clone());
            return;
        }
        // An id that is used twice; what was under it can have no answer any more.
        self.forget(&message.id, out);
        let is_kept = self.kept_bytes + line.len() <= KEPT_BYTES;
        let call = Call {
            id_text: message.id_text.into(),
            line: is_kept.then(|| line.into()),
            rounds: 0,
            put_off: None,
            with: Whom::Child,
        };
        self.kept_bytes += call.kept_bytes();
        self.calls.insert(message.id.clone(), call);
    }

    /// The child has answered a request, in whatever round.
    pub(super) fn response(
        &mut self,
        message: &Message<'_>,
        line: &str,
        caller: &mut Caller,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        self.others.remove(&message.id);
        let Some(id) = self.call_of(&message.id) else {
            return log::debug!("the child answers what is over");
        };
        let members = results::of(message.result);
        let refused = match results::verdict(message.result, &members) {
            Verdict::Complete => {
                let mut edit = Edit::of(line);
                if let Some(call) = self.forget(&id, out)
                    && matches!(call.with, Whom::ChildAgain(_))
                {
                    edit.replace(message.id_text, call.id_text);
                }
                if let Some(result) = message.result {
                    results::conform(&mut edit, result, &members);
                }
                return out.push(Out::Client(edit.done()));
            }
            Verdict::InputRequired(result) => self.ask(&id, result, caller, now, out),
            Verdict::Unknown(kind) => Err(format!("the server's answer is of kind {kind}")),
        };
        if let Err(why) = refused {
            self.fail(&id, message.id_text, &why, out);
        }
    }

    /// 2026-07-28, mrtr, "Server Requirements (Basic Workflow)": puts the child's questions to the
    /// client, or asks again if there are none: the first time at once.
    fn ask(
        &mut self,
        id: &Id,
        result: &str,
        caller: &mut Caller,
        now: Instant,
        out: &mut Vec<Out>,
    ) -> Result<(), String> {
        let Some(call) = self.calls.get_mut(id) else {
            return Err("the server asks the client where it may not".to_owned());
        };
        call.rounds += 1;
        if call.rounds >= MAX_ROUNDS {
            return Err(format!(
                "the server has no answer after {MAX_ROUNDS} rounds"
            ));
        }
        if call.line.is_none() {
            return Err("the call is too large to be asked about".to_owned());
        }
        let questions = questions::read(result, caller.capabilities())?;
        let state = present(result, "requestState");
        if questions.is_none() && state.is_none() {
            return Err("the server asks for input, but not for what".to_owned());
        }
        let asks = questions.as_ref().is_some_and(|it| !it.is_empty());
        let pause = call.pause(asks, now)?;
        self.last_pause += 1;
        let state_bytes = state.map_or(0, str::len);
        if self.kept_bytes + state_bytes > KEPT_BYTES {
            return Err("the server's requestState is too large to be kept".to_owned());
        }
        self.kept_bytes += state_bytes;
        let mut asking = Asking {
            questions: Vec::new(),
            state: state.map(Into::into),
            pause: pause.map(|pause| (now + pause, self.last_pause)),
        };
        for (key, question) in questions.unwrap_or_default() {
            let no = caller.next_no();
            out.push(Out::Client(question.line(&caller::id_text(no))));
            self.questions.insert(no, id.clone());
            asking.questions.push(Asked {
                no,
                key: key.into(),
                method: question.method,
                answer: None,
            });
        }
        if let Some(pause) = asking.pause {
            self.pauses.insert(pause, id.clone());
        }
        call.with = Whom::Client(asking);
        self.go_on(id, caller, out);
        Ok(())
    }

    /// The client has answered a question.
    pub(super) fn answered(
        &mut self,
        message: &Message<'_>,
        caller: &mut Caller,
        out: &mut Vec<Out>,
    ) {
        let own = caller::own_no(&message.id);
        let question = own.and_then(|no| Some((no, self.questions.remove(&no)?)));
        let Some((no, id)) = question else {
            return log::debug!("the client answers what is over");
        };
        let room = KEPT_BYTES - self.kept_bytes;
        let Some(asked) = self.asked(&id, no) else {
            return;
        };
        let answer = match message.result {
            Some(result) => result,
            // 2026-07-28, elicitation, "Response Actions": nothing was chosen.
            None if asked.method == method::ELICIT => r#"{"action":"cancel"}"#,
            // 2026-07-28, sampling and roots, "Error Handling": the child is not told, it does not
            // wait. So it is the call that fails.
            None => {
                let said = message.error.and_then(|it| jsonrpc::member(it, "message"));
                let said = said.and_then(jsonrpc::text).unwrap_or_default();
                let method = asked.method;
                let why = format!("the server needs {method}, which the client refused: {said}");
                return self.fail(&id, "null", &why, out);
            }
        };
        if answer.len() > room {
            return self.fail(
                &id,
                "null",
                "the client's answer is too large to be kept",
                out,
            );
        }
        asked.answer = Some(answer.into());
        self.kept_bytes += answer.len();
        self.go_on(&id, caller, out);
    }

    /// 2026-07-28, mrtr, "Client Requirements (Basic Workflow)": once all is answered, the request
    /// is sent again, with another id.
    fn go_on(&mut self, id: &Id, caller: &mut Caller, out: &mut Vec<Out>) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let (Whom::Client(asking), Some(line)) = (&call.with, &call.line) else {
            return;
        };
        if asking.pause.is_some() || asking.questions.iter().any(|it| it.answer.is_none()) {
            return;
        }
        let no = caller.next_no();
        let Some(line) = asking.retry(line, &caller::id_text(no)) else {
            return self.fail(id, "null", "the call cannot be sent again", out);
        };
        self.kept_bytes -= asking.kept_bytes();
        call.with = Whom::ChildAgain(no);
        self.retries.insert(no, id.clone());
        out.push(Out::Child(line));
    }

    /// When [`Rounds::tick`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pauses.first_key_value().map(|((at, _), _)| *at)
    }

    /// Asks again what has been put off.
    pub(super) fn tick(&mut self, caller: &mut Caller, now: Instant, out: &mut Vec<Out>) {
        while self.due().is_some_and(|at| now >= at)
            && let Some((_, id)) = self.pauses.pop_first()
        {
            if let Some(call) = self.calls.get_mut(&id)
                && let Whom::Client(asking) = &mut call.with
            {
                asking.pause = None;
            }
            self.go_on(&id, caller, out);
        }
    }

    /// The client does not want the answer any more: 2025-11-25, cancellation. False if it is no
    /// call that is known here. The text of the id is a part of the line.
    pub(super) fn cancel(
        &mut self,
        id: &Id,
        id_text: &str,
        line: &str,
        out: &mut Vec<Out>,
    ) -> bool {
        if self.others.remove(id) {
            out.push(Out::Child(line.to_owned()));
            return true;
        }
        let Some(call) = self.forget(id, out) else {
            return false;
        };
        match call.with {
            Whom::Child => out.push(Out::Child(line.to_owned())),
            Whom::ChildAgain(no) => {
                let line = Edit::of(line).replace(id_text, caller::id_text(no)).done();
                out.push(Out::Child(line));
            }
            // The child waits for nothing.
            Whom::Client(_) => {}
        }
        true
    }

    /// The client gets an error instead of an answer.
    fn fail(&mut self, id: &Id, id_text: &str, why: &str, out: &mut Vec<Out>) {
        let call = self.forget(id, out);
        let id_text = call.as_ref().map_or(id_text, |call| &call.id_text);
        Refusal(code::INTERNAL_ERROR, why.to_owned()).send(id_text, out);
    }

    /// A call is over; what the client was asked for its sake is withdrawn.
    fn forget(&mut self, id: &Id, out: &mut Vec<Out>) -> Option<Call> {
        let call = self.calls.remove(id)?;
        self.kept_bytes -= call.kept_bytes();
        match &call.with {
            Whom::Child => {}
            Whom::ChildAgain(no) => _ = self.retries.remove(no),
            Whom::Client(asking) => {
                if let Some(pause) = &asking.pause {
                    self.pauses.remove(pause);
                }
                for asked in &asking.questions {
                    if self.questions.remove(&asked.no).is_some() {
                        out.push(Out::Client(caller::cancellation(asked.no)));
                    }
                }
            }
        }
        Some(call)
    }

    /// The call that an answer is for, by its id towards the client; `None` if the child owes none
    /// under this id. All but calls are let through, because they are not remembered.
    fn call_of(&mut self, id: &Id) -> Option<Id> {
        match caller::own_no(id) {
            Some(no) => self.retries.remove(&no),
            None => match self.calls.get(id) {
                Some(call) if !matches!(call.with, Whom::Child) => None,
                _ => Some(id.clone()),
            },
        }
    }

    fn asked(&mut self, id: &Id, no: No) -> Option<&mut Asked> {
        match &mut self.calls.get_mut(id)?.with {
            Whom::Client(asking) => asking.questions.iter_mut().find(|it| it.no == no),
            _ => None,
        }
    }
}

#[cfg(test)]
impl Rounds {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
            && self.others.is_empty()
            && self.retries.is_empty()
            && self.questions.is_empty()
            && self.pauses.is_empty()
            && self.kept_bytes == 0
    }
}

impl Call {
    /// How long to wait before the next round, if the child asks nothing once more: it would be
    /// asked as fast as it answers.
    fn pause(&mut self, asks: bool, now: Instant) -> Result<Option<Duration>, String> {
        if asks {
            self.put_off = None;
            return Ok(None);
        }
        let (since, before) = self.put_off.unwrap_or((now, 0));
        self.put_off = Some((since, before + 1));
        if now.saturating_duration_since(since) >= PATIENCE {
            let seconds = PATIENCE.as_secs();
            return Err(format!("the server has put the call off for {seconds} s"));
        }
        let pause = before
            .checked_sub(1)
            .map(|times| FIRST_PAUSE * 2_u32.pow(times.min(10)));
        Ok(pause.map(|pause| pause.min(LONGEST_PAUSE)))
    }

    fn kept_bytes(&self) -> usize {
        let line = self.line.as_ref().map_or(0, |line| line.len());
        match &self.with {
            Whom::Client(asking) => line + asking.kept_bytes(),
            Whom::Child | Whom::ChildAgain(_) => line,
        }
    }
}

impl Asking {
    fn kept_bytes(&self) -> usize {
        let answers = self.questions.iter().filter_map(|it| it.answer.as_ref());
        answers.chain(&self.state).map(|text| text.len()).sum()
    }

    /// The request as it was sent, with another id, the client's answers and the child's state.
    fn retry(&self, line: &str, id: &str) -> Option<String> {
        let message = jsonrpc::parse(line).ok()?;
        let params = message.params?;
        let answers = self.questions.iter();
        let answers = answers.filter_map(|it| Some(format!("{}:{}", it.key, it.answer.as_ref()?)));
        let answers = format!("{{{}}}", answers.collect::<Vec<_>>().join(","));
        let mut new = vec![("inputResponses", &*answers)];
        if self.questions.is_empty() {
            new.clear();
        }
        new.extend(self.state.iter().map(|state| ("requestState", &**state)));
        let is_of_a_round = |name: &str| name == "inputResponses" || name == "requestState";
        Some(
            Edit::of(line)
                .replace(message.id_text, id)
                .remove(params, is_of_a_round)
                .put(params, &new)
                .done(),
        )
    }
}
