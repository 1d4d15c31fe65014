//! What became of every request, and what went wrong. Everything that judges reports here; knows
//! nobody.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How the broker, or the run, can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An answer, or an event, of somebody else or of another request.
    Wrong,
    /// No answer, for no reason that is known.
    Lost,
    /// Events out of order, twice, or missing.
    Stream,
    /// Another status than the contract has.
    Status,
    /// A process that outlives what it belongs to.
    Orphan,
    /// The broker does not start or end as it should, or a thread of it panicked.
    Broker,
    /// Something grew that should not.
    Leak,
}

/// Why a request got no answer, which the run itself has brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    BrokerDown,
    ChildDied,
    Evicted,
    TokenGone,
    Idle,
    /// Its client left.
    Left,
    /// Another request on which it depends ended early, which has an entry of its own.
    Unread,
}

impl Why {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BrokerDown => "broker stopped, killed or starting",
            Self::ChildDied => "child made to die or to be silent",
            Self::Evicted => "session ended for a newer one",
            Self::TokenGone => "token revoked",
            Self::Idle => "session idle for too long",
            Self::Left => "client left",
            Self::Unread => "given up with another request",
        }
    }
}

/// One thing that must not be.
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    at: Duration,
    who: String,
    what: String,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            at,
            who,
            what,
        } = self;
        write!(f, "{:>8.3} s  {kind:?}  {who}: {what}", at.as_secs_f64())
    }
}

/// What a run came to.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) refused: BTreeMap<u16, u64>,
    pub(crate) interrupted: BTreeMap<Why, u64>,
    /// Requests among the violations.
    pub(crate) failed: u64,
    pub(crate) events: u64,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) violations: Vec<Violation>,
}

/// The book of a run.
pub(crate) struct Ledger {
    begin: Instant,
    figures: Mutex<Figures>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
            figures: Mutex::default(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// A request is on its way. Exactly one of the next four follows.
    pub(crate) fn asked(&self) {
        self.with(|figures| figures.asked += 1);
    }

    pub(crate) fn answered(&self) {
        self.with(|figures| figures.answered += 1);
    }

    /// It was refused, with a status that the contract has for it.
    pub(crate) fn refused(&self, status: u16) {
        self.with(|figures| *figures.refused.entry(status).or_default() += 1);
    }

    pub(crate) fn interrupted(&self, why: Why) {
        self.with(|figures| *figures.interrupted.entry(why).or_default() += 1);
    }

    /// It ended in a way that it must not.
    pub(crate) fn failed(&self, kind: Kind, who: &dyn Display, what: String) {
        self.with(|figures| figures.failed += 1);
        self.violation(kind, who, what);
    }

    /// Something is wrong that is no request's end.
    pub(crate) fn violation(&self, kind: Kind, who: &dyn Display, what: String) {
        let violation = Violation {
            kind,
            at: self.begin.elapsed(),
            who: who.to_string(),
            what,
        };
        self.with(|figures| figures.violations.push(violation));
    }

    pub(crate) fn event(&self) {
        self.with(|figures| figures.events += 1);
    }

    /// Something worth a line in the report.
    pub(crate) fn count(&self, what: &'static str) {
        self.with(|figures| *figures.counts.entry(what).or_default() += 1);
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Figures) -> T) -> T {
        f(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
