//! The requests of all clients that share a child, and what it was asked for its own sake: state
//! under one lock, time passed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tools::{Held, Inquiry, Params, Tools};
use crate::bridge::departed::Departed;
use crate::bridge::quota::Quota;
use crate::bridge::{Exchange, Refusal};
use crate::mcp::method;

/// An answer that takes longer becomes a stream, so that comments keep proxies and the client
/// alive.
const STREAM_AFTER: Duration = Duration::from_secs(1);
/// Longer while the child has answered nothing yet: one that fails to start is a 500.
const STREAM_AFTER_START: Duration = Duration::from_secs(10);
/// How long calls are held until the tools are known.
const INQUIRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Subscriptions of one child; they are no requests in flight.
const MAX_LISTENS: usize = 64;

/// One request of a client.
pub(super) struct Call {
    /// `None` once it is a stream.
    pub(super) exchange: Option<Box<dyn Exchange>>,
    connection: u64,
    pub(super) id_text: Box<str>,
    pub(super) token_text: Option<Box<str>>,
    log_level: Option<usize>,
    pub(super) is_listen: bool,
    pub(super) is_discover: bool,
    /// It was taken before the child got it.
    pub(super) was_held: bool,
    since: Instant,
}

/// A request to be entered.
pub(super) struct NewCall<'a> {
    pub(super) id_text: Box<str>,
    pub(super) token_text: Option<Box<str>>,
    pub(super) log_level: Option<usize>,
    pub(super) method: &'a str,
}

/// What an answer of the child is for.
pub(super) enum Taken {
    Call(Call),
    /// A page of our own question for the tools.
    Tools(Inquiry),
    /// Our own subscription to their changes has ended.
    ToolChanges,
}

/// What is known of the tools that a call is to be held to.
pub(super) enum Knowledge {
    /// If the child would tell of changes, `is_sure`.
    Known {
        tools: Arc<Params>,
        is_sure: bool,
    },
    Unknown,
    /// The child does not say; what it says later counts again.
    Unsaid,
}

pub(super) struct Desk {
    calls: HashMap<u64, Call>,
    last_no: u64,
    quota: Arc<Quota>,
    pub(super) tools: Tools,
    inquiry: Option<(u64, Inquiry)>,
    /// When the calls that wait for it are let go of; `None` if that is done, or there is none.
    inquiry_due: Option<Instant>,
    /// Our own subscription to changes of the tools.
    pub(super) tool_changes: Option<u64>,
    /// And the child has acknowledged that it tells of them.
    pub(super) is_told_changes: bool,
    departed: Departed,
    /// Since when a child that must be initialized is not.
    silent_since: Option<Instant>,
    /// When the reader thread has something to do on its streams.
    pub(super) streams_due: Option<Instant>,
    pub(super) draining: bool,
    closed: bool,
    /// Why the child never served anybody.
    start_failure: Option<String>,
}

impl Desk {
    pub(super) fn new(quota: Arc<Quota>, silent_since: Option<Instant>) -> Self {
        Self {
            calls: HashMap::new(),
            last_no: 0,
            quota,
            tools: Tools::default(),
            inquiry: None,
            inquiry_due: None,
            tool_changes: None,
            is_told_changes: false,
            departed: Departed::default(),
            silent_since,
            streams_due: None,
            draining: false,
            closed: false,
            start_failure: None,
        }
    }

    /// Enters a request; gives its number.
    ///
    /// # Errors
    /// The exchange is given back with the reason.
    pub(super) fn enter(
        &mut self,
        exchange: Box<dyn Exchange>,
        call: NewCall<'_>,
        max_in_flight: usize,
        now: Instant,
    ) -> Result<u64, (Box<dyn Exchange>, Refusal)> {
        if self.closed {
            return Err((exchange, self.why_closed()));
        }
        if self.draining {
            return Err((exchange, Refusal::Draining));
        }
        let connection = exchange.connection();
        if self.departed.contains(connection) {
            return Err((exchange, Refusal::ClientGone));
        }
        let is_listen = call.method == method::LISTEN;
        let is_full = match is_listen {
            true => self.calls.len() - self.in_flight() >= MAX_LISTENS,
            false => self.in_flight() >= max_in_flight,
        };
        if is_full {
            return Err((exchange, Refusal::TooManyInFlight));
        }
        if !is_listen && !self.quota.take(1) {
            return Err((exchange, Refusal::TooManyInFlightOfUser));
        }
        let no = self.next_no();
        let NewCall {
            id_text,
            token_text,
            log_level,
            ..
        } = call;
        let call = Call {
            exchange: Some(exchange),
            connection,
            id_text,
            token_text,
            log_level,
            is_listen,
            is_discover: call.method == method::DISCOVER,
            was_held: false,
            since: now,
        };
        self.calls.insert(no, call);
        Ok(no)
    }

    fn next_no(&mut self) -> u64 {
        self.last_no += 1;
        self.last_no
    }

    /// Begins to ask for the tools, or goes on; gives the number of the request.
    pub(super) fn inquire(&mut self, inquiry: Inquiry, now: Instant) -> u64 {
        let no = self.next_no();
        if inquiry.is_first() {
            self.inquiry_due = Some(now + INQUIRY_TIMEOUT);
        }
        self.inquiry = Some((no, inquiry));
        no
    }

    pub(super) fn knowledge(&self) -> Knowledge {
        match &self.tools {
            Tools::Known(tools) => Knowledge::Known {
                tools: Arc::clone(tools),
                is_sure: self.is_told_changes,
            },
            Tools::Unknown { is_asked: true, .. }
                if self.inquiry.is_some() && self.inquiry_due.is_none() =>
            {
                Knowledge::Unsaid
            }
            Tools::Unknown { .. } => Knowledge::Unknown,
        }
    }

    /// The tools are known; gives the calls that waited for that.
    pub(super) fn learn(&mut self, inquiry: Inquiry) -> Vec<Held> {
        self.inquiry_due = None;
        self.tools.learn(inquiry)
    }

    /// Gives the calls that have waited too long for the tools to be known.
    pub(super) fn let_go_overdue(&mut self, now: Instant) -> Vec<Held> {
        match self.inquiry_due.take_if(|due| now >= *due) {
            Some(_) => self.tools.take_held(),
            None => Vec::new(),
        }
    }

    /// Subscribes to changes of the tools, unless that is so; gives the number of the request.
    pub(super) fn watch_tools(&mut self) -> Option<u64> {
        if self.tool_changes.is_some() {
            return None;
        }
        let no = self.next_no();
        self.tool_changes = Some(no);
        Some(no)
    }

    /// The tools have changed, or may change from now on without anybody knowing.
    pub(super) fn forget_tools(&mut self) {
        self.tools.forget();
        if let Some((_, inquiry)) = &mut self.inquiry {
            inquiry.is_stale = true;
        }
    }

    /// The child takes a subscription down: maybe our own.
    pub(super) fn end_watch(&mut self, no: u64) {
        if self.tool_changes.take_if(|its| *its == no).is_some() {
            self.is_told_changes = false;
            self.forget_tools();
        }
    }

    /// Takes what an answer is for; `None` if nobody waits for it.
    pub(super) fn take(&mut self, no: u64) -> Option<Taken> {
        if self.tool_changes == Some(no) {
            (self.tool_changes, self.is_told_changes) = (None, false);
            return Some(Taken::ToolChanges);
        }
        if let Some((_, inquiry)) = self.inquiry.take_if(|(its, _)| *its == no) {
            return Some(Taken::Tools(inquiry));
        }
        self.remove(no).map(Taken::Call)
    }

    pub(super) fn remove(&mut self, no: u64) -> Option<Call> {
        let mut call = self.calls.remove(&no)?;
        call.was_held = self.tools.drop_held(no);
        if !call.is_listen {
            self.quota.give(1);
        }
        Some(call)
    }

    pub(super) fn call(&mut self, no: u64) -> Option<&mut Call> {
        self.calls.get_mut(&no)
    }

    /// The newest request whose client wants log messages of this severity.
    pub(super) fn wants_log(&self, severity: usize) -> Option<u64> {
        let wants =
            |call: &Call| !call.is_listen && call.log_level.is_some_and(|least| severity >= least);
        let calls = self.calls.iter().filter(|(_, call)| wants(call));
        calls.map(|(no, _)| *no).max()
    }

    /// The client has gone: takes what it waited for.
    pub(super) fn forget_connection(&mut self, connection: u64) -> Vec<(u64, Call)> {
        self.departed.note(connection);
        let its = self.calls.iter();
        let its = its.filter(|(_, call)| call.connection == connection);
        let its: Vec<u64> = its.map(|(no, _)| *no).collect();
        let take = |no: u64| self.remove(no).map(|call| (no, call));
        its.into_iter().filter_map(take).collect()
    }

    /// The child is initialized.
    pub(super) fn note_ready(&mut self) {
        self.silent_since = None;
    }

    /// Whether the child has still to answer `initialize`.
    pub(super) fn is_starting(&self) -> bool {
        self.silent_since.is_some()
    }

    pub(super) fn start_overdue(&self, timeout: Duration, now: Instant) -> bool {
        self.silent_since
            .is_some_and(|since| now >= since + timeout)
    }

    pub(super) fn fail_start(&mut self, why: &str) {
        if !self.closed {
            self.start_failure.get_or_insert_with(|| why.to_owned());
        }
    }

    /// What to tell those who come too late: the next try starts another child.
    pub(super) fn why_closed(&self) -> Refusal {
        match &self.start_failure {
            Some(why) => Refusal::StartFailed(why.clone()),
            None if self.draining => Refusal::Draining,
            None => Refusal::Resting,
        }
    }

    /// Takes all requests; none can be entered afterwards.
    pub(super) fn close(&mut self) -> Vec<(u64, Call)> {
        self.closed = true;
        (self.streams_due, self.silent_since, self.inquiry_due) = (None, None, None);
        let mut nos: Vec<u64> = self.calls.keys().copied().collect();
        nos.sort_unstable();
        let take = |no: u64| self.remove(no).map(|call| (no, call));
        nos.into_iter().filter_map(take).collect()
    }

    fn stream_due(&self, call: &Call) -> Option<Instant> {
        let after = match self.is_starting() {
            true => STREAM_AFTER_START,
            false => STREAM_AFTER,
        };
        call.exchange.is_some().then(|| call.since + after)
    }

    /// The requests that have waited long enough to become streams.
    pub(super) fn overdue(&self, now: Instant) -> Vec<u64> {
        let is_due = |call: &Call| self.stream_due(call).is_some_and(|due| now >= due);
        let calls = self.calls.iter().filter(|(_, call)| is_due(call));
        calls.map(|(no, _)| *no).collect()
    }

    /// Whether the reader thread has something to do at `now`.
    pub(super) fn is_due(&self, start_timeout: Duration, now: Instant) -> bool {
        let mut streams = self.calls.values().filter_map(|call| self.stream_due(call));
        self.start_overdue(start_timeout, now)
            || self.streams_due.is_some_and(|due| now >= due)
            || self.inquiry_due.is_some_and(|due| now >= due)
            || streams.any(|due| now >= due)
    }

    /// Requests that wait for an answer; a subscription waits for none.
    pub(super) fn in_flight(&self) -> usize {
        self.calls.values().filter(|call| !call.is_listen).count()
    }

    /// Whether somebody is there who waits for something, also if it is only changes: without its
    /// child a subscription would have to end. A shutdown ends it in any case.
    pub(super) fn has_clients(&self) -> bool {
        match self.draining {
            true => self.in_flight() > 0,
            false => !self.calls.is_empty(),
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.quota.give(self.in_flight());
    }
}
