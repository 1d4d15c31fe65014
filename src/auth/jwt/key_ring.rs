//! The outside server's keys as they were fetched last, and when to fetch them again. One thread
//! fetches; others wait for it or, if they must not wait, are told that it may help.

use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::algorithm::Algorithm;
use super::keys::{self, Choice, Key};
use super::{KeySource, Refusal};

/// Nothing said: keys change rarely, and a token with a new one is reason enough to ask.
const USUAL_FRESH: Duration = Duration::from_hours(1);
const MIN_FRESH: Duration = Duration::from_mins(5);
const MAX_FRESH: Duration = Duration::from_hours(24);
/// For how long keys that are no longer fresh stay in force if new ones cannot be had.
const MAX_STALE: Duration = Duration::from_hours(24);
/// From one fetch to the next, whatever tokens with unknown keys say.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// A fetch has a limit of its own; this one is for what nobody thought of.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The keys. Shared by all threads.
pub(super) struct KeyRing {
    source: Box<dyn KeySource>,
    state: Mutex<State>,
    fetched: Condvar,
}

#[derive(Default)]
struct State {
    keys: Vec<Key>,
    /// Counts the sets of keys that differ: what an earlier one has verified is to be looked at
    /// again.
    edition: u64,
    /// When the keys came, and for how long they are fresh. `None`: there are none yet.
    since: Option<(SystemTime, Duration)>,
    tried: Option<SystemTime>,
    is_fetching: bool,
    /// The last try has failed, and that is in the log.
    has_trouble: bool,
}

impl KeyRing {
    pub(super) fn new(source: Box<dyn KeySource>) -> Self {
        Self {
            source,
            state: Mutex::default(),
            fetched: Condvar::new(),
        }
    }

    /// Which set of keys is in force. `None`: none is.
    pub(super) fn edition(&self, now: SystemTime) -> Option<u64> {
        let state = self.state.lock();
        state.is_in_force(now).then_some(state.edition)
    }

    /// The key for a token, and the edition that it is of. Never waits.
    pub(super) fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: SystemTime,
    ) -> Result<(Key, u64), Refusal> {
        let state = self.state.lock();
        if !state.is_in_force(now) {
            return Err(Refusal::Later);
        }
        match keys::choose(&state.keys, id, algorithm) {
            Choice::One(key) => Ok((key.clone(), state.edition)),
            Choice::Mismatch => Err(Refusal::Bad("its key is not for its algorithm")),
            Choice::Nothing if state.is_fetching || state.has_trouble || !state.is_cool(now) => {
                Err(Refusal::Later)
            }
            Choice::Nothing => Err(Refusal::Bad("its key is unknown")),
        }
    }

    /// Whether the keys are no longer fresh, or have never been there, and may be fetched.
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        let state = self.state.lock();
        !state.is_fetching && !state.is_cool(now) && !state.is_fresh(now)
    }

    /// Fetches the keys, or waits for whoever does; not if that was just done.
    pub(super) fn fetch(&self, now: SystemTime) {
        let mut state = self.state.lock();
        if state.is_fetching {
            let is_fetching = |state: &mut State| state.is_fetching;
            self.fetched
                .wait_while_for(&mut state, is_fetching, MAX_WAIT);
            return;
        }
        if state.is_cool(now) {
            return;
        }
        (state.is_fetching, state.tried) = (true, Some(now));
        drop(state);
        let fetching = Fetching(self); // also if the source panics
        let answer = self.source.fetch();
        let answer = answer.and_then(|it| Ok((keys::read_set(&it.body)?, it.cache)));
        self.state.lock().take(answer, now);
        drop(fetching);
    }
}

/// Lives as long as a fetch.
struct Fetching<'a>(&'a KeyRing);

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        let mut state: MutexGuard<'_, State> = self.0.state.lock();
        state.is_fetching = false;
        drop(state);
        self.0.fetched.notify_all();
    }
}

impl State {
    /// How long ago something was. A clock that was set back makes everything long ago: asking once
    /// more is better than never again.
    fn age(then: SystemTime, now: SystemTime) -> Duration {
        now.duration_since(then).unwrap_or(Duration::MAX)
    }

    fn is_cool(&self, now: SystemTime) -> bool {
        self.tried
            .is_some_and(|tried| Self::age(tried, now) < COOL_DOWN)
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        self.since
            .is_some_and(|(since, fresh)| Self::age(since, now) < fresh)
    }

    fn is_in_force(&self, now: SystemTime) -> bool {
        self.since.is_some_and(|(since, fresh)| {
            // Here a clock that was set back does no harm.
            now.duration_since(since).unwrap_or_default() < fresh + MAX_STALE
        })
    }

    fn take(&mut self, answer: Result<(Vec<Key>, Option<Duration>), String>, now: SystemTime) {
        match answer {
            Ok((keys, cache)) => {
                if self.has_trouble {
                    log::info!("auth: the keys of the outside server could be fetched again");
                }
                if keys.is_empty() {
                    log::warn!("auth: the outside server has no key that could be used");
                }
                if keys != self.keys {
                    self.edition += 1;
                    self.keys = keys;
                }
                let fresh = cache.unwrap_or(USUAL_FRESH).clamp(MIN_FRESH, MAX_FRESH);
                (self.since, self.has_trouble) = (Some((now, fresh)), false);
            }
            Err(why) => {
                if !self.has_trouble {
                    let meanwhile = match self.is_in_force(now) {
                        true => "those that are known stay in force for a day",
                        false => "no token of it can be checked",
                    };
                    log::warn!(
                        "auth: cannot fetch the keys of the outside server: {why}: {meanwhile}"
                    );
                }
                self.has_trouble = true;
            }
        }
    }
}
