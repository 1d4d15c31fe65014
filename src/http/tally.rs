//! What is counted of a request: its method, its status, and how long it took.

use std::time::Instant;

use super::reply::Answer;
use crate::bridge::{Refusal, Reply};
use crate::metrics::{self, Method, RefusalReason, StatusClass};
use crate::session::{FindError, OpenError};

/// A request of a client, to be counted when it is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    method: Method,
    since: Instant,
}

impl Tally {
    pub(super) fn begin(method: &tiny_http::Method, now: Instant) -> Self {
        let method = match method {
            tiny_http::Method::Get => Method::Get,
            tiny_http::Method::Post => Method::Post,
            tiny_http::Method::Delete => Method::Delete,
            tiny_http::Method::Options => Method::Options,
            _ => Method::Other,
        };
        Self { method, since: now }
    }

    /// The whole answer is there.
    pub(super) fn answered(self, status: u16, now: Instant) {
        metrics::HTTP_REQUESTS.add(self.method, StatusClass::of(status));
        metrics::HTTP_DURATION.observe(now.saturating_duration_since(self.since));
    }

    /// The answer is a stream, which has begun.
    pub(super) fn stream_begun(self) {
        metrics::HTTP_REQUESTS.add(self.method, StatusClass::Success);
        metrics::OPEN_STREAMS.increase();
    }

    /// How long a GET's stream was open says nothing about how fast anything was.
    pub(super) fn stream_ended(self, now: Instant) {
        metrics::OPEN_STREAMS.decrease();
        if self.method == Method::Post {
            metrics::HTTP_DURATION.observe(now.saturating_duration_since(self.since));
        }
    }
}

/// Counts an answer that is a refusal for a reason that an operator can do something about.
pub(super) fn count_refusal(answer: &Answer) {
    let reason = match answer {
        Answer::Unauthorized(_) => RefusalReason::Unauthorized,
        Answer::HostForbidden | Answer::OriginForbidden | Answer::NoSession(FindError::Foreign) => {
            RefusalReason::Forbidden
        }
        Answer::TooManyOpening | Answer::OpenFailed(OpenError::UserStarting | OpenError::Busy) => {
            RefusalReason::Opening
        }
        Answer::OpenFailed(OpenError::Full) => RefusalReason::Full,
        Answer::OpenFailed(OpenError::LowMemory) => RefusalReason::Memory,
        Answer::OpenFailed(OpenError::Pause { .. }) => RefusalReason::Backoff,
        Answer::OpenFailed(OpenError::Draining) => RefusalReason::Draining,
        _ => return,
    };
    metrics::REFUSALS.add(reason);
}

/// The same for an answer of the bridge.
pub(super) fn count_refused(reply: &Reply<'_>) {
    let Reply::Refused { why, .. } = reply else {
        return;
    };
    match why {
        Refusal::TooManyInFlight | Refusal::TooManyInFlightOfUser => {
            metrics::REFUSALS.add(RefusalReason::InFlight)
        }
        Refusal::Draining => metrics::REFUSALS.add(RefusalReason::Draining),
        _ => {}
    }
}
