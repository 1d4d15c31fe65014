//! What clients have not taken yet of their responses. The relay takes a response from tiny_http
//! as fast as it comes and keeps here what its client does not take at once, so that nobody behind
//! the edge ever waits for a client: one that reads slowly costs memory, not time. That memory is
//! shared by all clients and bounded; when it runs out, somebody does wait, for a moment, and then
//! the client that lags behind has to go. Knows neither HTTP nor what the bytes mean.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Timings;

/// A backlog lies in blocks of some such size, so that its memory goes as the client reads.
const BLOCK_BYTES: usize = 64 * 1024;
/// A client that lags behind and takes less is cut.
const MIN_RATE_BYTES_PER_SECOND: u128 = 4 * 1024;
/// How often to look for room that others have made.
const NO_ROOM_TICK: Duration = Duration::from_millis(50);

/// The memory that all backlogs share.
pub(super) struct Memory {
    limit: usize,
    taken: AtomicUsize,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            taken: AtomicUsize::new(0),
        }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn free(&self) -> usize {
        self.limit.saturating_sub(self.taken())
    }
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrote {
    /// Nothing is left.
    All,
    Some,
    /// The client has gone, or might as well have.
    Failed,
}

/// The bytes of one response that its client has not taken yet, in order.
pub(super) struct Backlog<'a> {
    memory: &'a Memory,
    /// Full blocks, the oldest first; none as long as the client keeps up.
    older: VecDeque<Vec<u8>>,
    newest: Vec<u8>,
    /// Of the oldest block.
    written: usize,
    len: usize,
    /// What of `memory` is ours; 0 as long as the client keeps up.
    taken: usize,
    pace: Pace,
    delay: Delay,
}

impl<'a> Backlog<'a> {
    pub(super) fn new(memory: &'a Memory, now: Instant) -> Self {
        Self {
            memory,
            older: VecDeque::new(),
            newest: Vec::new(),
            written: 0,
            len: 0,
            taken: 0,
            pace: Pace {
                since: now,
                bytes: 0,
            },
            delay: Delay::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the client has not taken.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether more may be added: always for a client that keeps up, and for others while the
    /// backlog is not larger than what is left for everybody else.
    pub(super) fn has_room(&self) -> bool {
        self.is_empty() || self.len <= self.memory.free()
    }

    /// Adds what `append` appends to the vector it is given.
    pub(super) fn add<T>(&mut self, append: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.newest.len() >= BLOCK_BYTES {
            let mut full = std::mem::take(&mut self.newest);
            full.shrink_to_fit();
            self.older.push_back(full);
        }
        let before = self.newest.len();
        let appended = append(&mut self.newest);
        self.len += self.newest.len() - before;
        appended
    }

    /// Writes what a non-blocking `fd` takes. The memory is given back at once: a stream may be
    /// silent for hours afterwards.
    pub(super) fn write(&mut self, fd: impl AsFd, now: Instant) -> Wrote {
        while self.len > 0 {
            let oldest = self.older.front().unwrap_or(&self.newest);
            match rustix::io::write(&fd, &oldest[self.written..]) {
                Ok(len) => self.advance(len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.account();
                    return Wrote::Some;
                }
                Err(_) => return Wrote::Failed,
            }
        }
        self.account();
        self.pace = Pace {
            since: now,
            bytes: 0,
        };
        Wrote::All
    }

    /// Whether the client takes too little of what there is: nothing, or a drip, for `stall`; or
    /// it has kept whoever writes the response waiting for `catch_up`. `waits` asks whether
    /// anybody does; asked only when there is no room.
    pub(super) fn is_hopeless(
        &mut self,
        timings: &Timings,
        now: Instant,
        waits: impl FnOnce() -> bool,
    ) -> bool {
        let is_late = !self.is_empty() && self.pace.is_late(timings.stall, now);
        let delays = !self.has_room() && waits();
        is_late || self.delay.total(delays, timings.catch_up, now) >= timings.catch_up
    }

    /// How long to wait before [`Backlog::is_hopeless`] is asked again if nothing happens; `None`
    /// as long as the client has taken everything.
    pub(super) fn patience(&self, timings: &Timings, now: Instant) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let left = (self.pace.since + timings.stall).saturating_duration_since(now);
        // Without room it is others who may make some, and they do not say so.
        let most = if self.has_room() { left } else { NO_ROOM_TICK };
        Some(left.min(most))
    }

    /// Takes note that `len` more bytes were written.
    fn advance(&mut self, len: usize) {
        self.len -= len;
        self.written += len;
        self.pace.bytes += len;
        let oldest = self.older.front().unwrap_or(&self.newest);
        if self.written == oldest.len() {
            self.written = 0;
            if self.older.pop_front().is_none() {
                self.newest = Vec::new();
            } else if self.older.is_empty() {
                self.older = VecDeque::new();
            }
        }
    }

    fn account(&mut self) {
        let memory = &self.memory.taken;
        if self.len > self.taken {
            memory.fetch_add(self.len - self.taken, Ordering::Relaxed);
        } else if self.len < self.taken {
            memory.fetch_sub(self.taken - self.len, Ordering::Relaxed);
        }
        self.taken = self.len;
    }
}

impl Drop for Backlog<'_> {
    fn drop(&mut self) {
        self.memory.taken.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// How fast a client takes what there is for it.
struct Pace {
    /// When nothing was left for it, or it had last taken enough.
    since: Instant,
    /// What it took after that.
    bytes: usize,
}

impl Pace {
    fn is_late(&mut self, stall: Duration, now: Instant) -> bool {
        let enough = stall.as_millis() * MIN_RATE_BYTES_PER_SECOND / 1000;
        if self.bytes as u128 >= enough.max(1) {
            *self = Self {
                since: now,
                bytes: 0,
            };
        }
        now.saturating_duration_since(self.since) >= stall
    }
}

/// How long a client has kept others waiting. Delays that follow each other closely add up:
/// otherwise one that reads steadily but slowly could go on for ever.
#[derive(Default)]
struct Delay {
    total: Duration,
    /// When the total was last looked at, and whether anybody waited then.
    last: Option<(Instant, bool)>,
}

impl Delay {
    /// The total by `now`, when somebody waits or does not. Begins anew when nobody has waited
    /// for `gap`.
    fn total(&mut self, waits: bool, gap: Duration, now: Instant) -> Duration {
        if let Some((since, waited)) = self.last {
            let passed = now.saturating_duration_since(since);
            match (waited, waits) {
                (true, _) => self.total += passed,
                (false, _) if passed >= gap => self.total = Duration::ZERO,
                (false, false) => return self.total,
                (false, true) => {}
            }
        }
        self.last = (waits || !self.total.is_zero()).then_some((now, waits));
        self.total
    }
}

#[cfg(test)]
mod tests;
