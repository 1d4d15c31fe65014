//! The requests that are open in the child.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::jsonrpc::Id;

use super::capabilities::Capabilities;
use super::question::Question;
use super::request::{Method, Request};
use super::seal::Asked;

/// Children that ask several things ask them in one go: so long is waited for the next question,
/// and so long in all, before the client is asked.
const NEXT_QUESTION: Duration = Duration::from_millis(25);
const ALL_QUESTIONS: Duration = Duration::from_millis(100);

/// Of the texts of all open requests.
const KEPT_TEXT: usize = 16 << 20;

/// How far a call is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// The child has not seen it yet: its log level comes first.
    Held,
    /// The child works on it, the client waits.
    Running,
    /// The child has asked, more questions may follow; the client waits.
    Asking { first: Instant, last: Instant },
    /// The client was answered `input_required`, and may retry until then.
    Suspended { until: Instant },
}

/// What a retry finds behind a suspended call.
#[derive(Debug)]
pub(super) enum Behind {
    /// The child's own call, which has been open all the time.
    Child,
    /// Nothing but this answer: the child has not waited for its questions to be answered.
    Answer(String),
    /// Nothing: the child wants the request again once its URLs were visited. In its own words, as
    /// a JSON string.
    Nothing(String),
}

/// A request, from the time it came until its last answer. The child knows it by its key in
/// [`Calls`], which is also its progress token.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Of calls that may ask.
    pub(super) asks_for: Option<Asked>,
    /// The request under which the client waits, or waited last: its id,
    pub(super) client: i64,
    /// its token,
    pub(super) progress_token: Option<Box<str>>,
    /// what it declared,
    pub(super) capabilities: Capabilities,
    /// and when it came, in comparison to others.
    pub(super) turn: u64,
    pub(super) phase: Phase,
    pub(super) behind: Behind,
    /// That the child waits for answers to.
    pub(super) questions: Vec<Question>,
    /// How many questions there have been.
    pub(super) asked: u32,
    /// How often it was suspended or resumed.
    pub(super) round: u32,
    /// What the client would have had to declare for questions that were not put to it.
    pub(super) missing: Capabilities,
}

impl Call {
    fn new(request: &Request<'_>, room: usize, turn: u64) -> Self {
        Self {
            method: request.method,
            asks_for: request.method.may_ask().then(|| request.asked(room)),
            client: request.id,
            progress_token: request.progress_token.map(Into::into),
            capabilities: request.capabilities,
            turn,
            phase: Phase::Running,
            behind: Behind::Child,
            questions: Vec::new(),
            asked: 0,
            round: 0,
            missing: Capabilities::default(),
        }
    }

    /// The call goes on under another request of the client.
    fn resume(&mut self, retry: &Request<'_>, turn: u64) {
        self.client = retry.id;
        self.progress_token = retry.progress_token.map(Into::into);
        self.capabilities = retry.capabilities;
        self.missing = self.missing.without(retry.capabilities);
        self.turn = turn;
        self.round += 1;
        self.phase = Phase::Running;
    }

    /// More questions may follow the one that was asked just now.
    pub(super) fn await_questions(&mut self, now: Instant) {
        self.phase = match self.phase {
            Phase::Suspended { .. } => self.phase,
            Phase::Asking { first, .. } => Phase::Asking { first, last: now },
            Phase::Held | Phase::Running => Phase::Asking {
                first: now,
                last: now,
            },
        };
    }

    pub(super) fn is_suspended(&self) -> bool {
        matches!(self.phase, Phase::Suspended { .. })
    }

    /// When time does something to it.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Held | Phase::Running => None,
            Phase::Asking { first, last } => {
                Some((last + NEXT_QUESTION).min(first + ALL_QUESTIONS))
            }
            Phase::Suspended { until } => Some(until),
        }
    }

    fn bytes(&self) -> usize {
        let behind = match &self.behind {
            Behind::Child => 0,
            Behind::Answer(text) | Behind::Nothing(text) => text.len(),
        };
        behind + self.questions.iter().map(Question::bytes).sum::<usize>()
    }
}

/// All calls, by the id that the child knows: that of the first request.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: HashMap<i64, Call>,
    turns: u64,
}

impl Calls {
    pub(super) fn open(&mut self, request: &Request<'_>) -> &mut Call {
        self.turns += 1;
        let asked = self.calls.values().filter_map(|it| it.asks_for.as_ref());
        let kept: usize = asked.map(Asked::bytes).sum();
        let call = Call::new(request, KEPT_TEXT.saturating_sub(kept), self.turns);
        self.calls.entry(request.id).insert_entry(call).into_mut()
    }

    pub(super) fn put_back(&mut self, id: i64, call: Call) {
        self.calls.insert(id, call);
    }

    pub(super) fn resume(&mut self, id: i64, retry: &Request<'_>) -> Option<&mut Call> {
        self.turns += 1;
        let call = self.calls.get_mut(&id)?;
        call.resume(retry, self.turns);
        Some(call)
    }

    pub(super) fn get(&self, id: i64) -> Option<&Call> {
        self.calls.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: i64) -> Option<&mut Call> {
        self.calls.get_mut(&id)
    }

    pub(super) fn close(&mut self, id: i64) -> Option<Call> {
        self.calls.remove(&id)
    }

    /// The call whose client waits under this id.
    pub(super) fn waited_for(&self, client: i64) -> Option<i64> {
        let is_it = |call: &Call| call.client == client && !call.is_suspended();
        let mut calls = self.calls.iter();
        calls.find(|(_, call)| is_it(call)).map(|(id, _)| *id)
    }

    /// Whose client a question of the child is for: the protocol does not say, so that of the call
    /// which came last among those whose client waits, else among the suspended ones; and of these
    /// one whose client can be asked, if there is any. Also whether there is no other choice.
    pub(super) fn that_may_ask(&mut self, need: Capabilities) -> Option<(&mut Call, bool)> {
        let may_ask = |call: &Call| {
            call.method.may_ask()
                && !matches!(call.phase, Phase::Held)
                && matches!(call.behind, Behind::Child)
        };
        let is_only_one = self.calls.values().filter(|call| may_ask(call)).count() == 1;
        let calls = self.calls.values_mut().filter(|call| may_ask(call));
        let best = calls.max_by_key(|call| {
            let can_be_asked = call.capabilities.include(need);
            (!call.is_suspended(), can_be_asked, call.turn)
        });
        best.map(|call| (call, is_only_one))
    }

    /// Whether the child has asked this already, and waits for the answer.
    pub(super) fn have_question(&self, id: &Id) -> bool {
        let mut questions = self.calls.values().flat_map(|call| &call.questions);
        questions.any(|question| question.is(id))
    }

    /// Takes a question back.
    pub(super) fn withdraw(&mut self, question: &Id) {
        for call in self.calls.values_mut() {
            call.questions.retain(|it| !it.is(question));
            if let (Phase::Asking { .. }, true) = (call.phase, call.questions.is_empty()) {
                call.phase = Phase::Running;
            }
        }
    }

    /// The suspended call that came first, if there are more of them than this.
    pub(super) fn too_many_suspended(&self, max: usize) -> Option<i64> {
        let suspended = || self.calls.iter().filter(|(_, call)| call.is_suspended());
        let oldest = || suspended().min_by_key(|(_, call)| call.turn);
        (suspended().count() > max).then(oldest)?.map(|(id, _)| *id)
    }

    /// How much is kept for retries.
    pub(super) fn bytes(&self) -> usize {
        self.calls.values().map(Call::bytes).sum()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.calls.values().filter_map(Call::due).min()
    }

    /// The ids of those that are due, the oldest first.
    pub(super) fn due_by(&self, now: Instant) -> Vec<i64> {
        let is_due = |call: &Call| call.due().is_some_and(|due| due <= now);
        let mut due: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| is_due(call))
            .map(|(id, call)| (call.turn, *id))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }
}
