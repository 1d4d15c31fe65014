//! The child's log level: one for all requests, where a modern client names one in each.
//!
//! It only ever becomes more verbose. A lower one could not be told to the child before the last
//! request that wants the higher one has ended, and would cost the next such request a round trip;
//! what nobody wants to hear is kept back on the clients' side in any case.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::mcp::{LOG_LEVELS, method};
use crate::translate::Out;

/// A child that does not answer is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const ID_PREFIX: &str = "mcp-broker/level/";

/// 2025-11-25, logging, "Setting Log Level", out of 2026-07-28, logging, "Per-request log level".
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// Place in [`LOG_LEVELS`] of what the child was told last; at first it chooses for itself.
    current: Option<usize>,
    telling: Option<Telling>,
    held: VecDeque<Held>,
    told: u64,
}

#[derive(Debug)]
struct Telling {
    id: String,
    level: usize,
    until: Instant,
}

#[derive(Debug)]
struct Held {
    level: usize,
    /// The call and its line.
    call: Option<(i64, String)>,
}

impl Levels {
    /// Whether the child can see a request that wants this level.
    pub(super) fn has(&self, level: usize) -> bool {
        self.current.is_some_and(|current| current <= level)
    }

    /// Keeps a call until the child knows the level that it wants.
    pub(super) fn hold(
        &mut self,
        level: usize,
        call: Option<(i64, String)>,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        self.held.push_back(Held { level, call });
        if self.telling.is_none() {
            self.tell(now, out);
        }
    }

    /// The call is no longer wanted.
    pub(super) fn forget(&mut self, call: i64) {
        let is_it = |held: &Held| held.call.as_ref().is_some_and(|(id, _)| *id == call);
        self.held.retain(|held| !is_it(held));
    }

    /// The child has answered; returns the calls that it sees now. An error counts too: the child
    /// will not like the level better the next time.
    pub(super) fn answered(&mut self, id: &str, now: Instant, out: &mut Vec<Out>) -> Vec<i64> {
        match self.telling.take_if(|it| it.id == id) {
            Some(told) => self.release(told.level, now, out),
            None => Vec::new(),
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.telling.as_ref().map(|it| it.until)
    }

    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<Out>) -> Vec<i64> {
        match self.telling.take_if(|it| it.until <= now) {
            Some(told) => self.release(told.level, now, out),
            None => Vec::new(),
        }
    }

    fn release(&mut self, level: usize, now: Instant, out: &mut Vec<Out>) -> Vec<i64> {
        self.current = Some(level);
        let mut released = Vec::new();
        while let Some(held) = self.held.pop_front_if(|held| level <= held.level) {
            if let Some((call, line)) = held.call {
                out.push(Out::Child(line));
                released.push(call);
            }
        }
        self.tell(now, out);
        released
    }

    /// Tells the child the most verbose level that is waited for.
    fn tell(&mut self, now: Instant, out: &mut Vec<Out>) {
        let Some(level) = self.held.iter().map(|held| held.level).min() else {
            return;
        };
        self.told += 1;
        let id = format!("{ID_PREFIX}{}", self.told);
        out.push(Out::Child(format!(
            r#"{{"jsonrpc":"2.0","id":"{id}","method":"{}","params":{{"level":"{}"}}}}"#,
            method::SET_LEVEL,
            LOG_LEVELS[level],
        )));
        self.telling = Some(Telling {
            id,
            level,
            until: now + PATIENCE,
        });
    }
}
