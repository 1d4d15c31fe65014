//! Which sessions each principal may have at the broker: what explains that one of them had to make
//! room for another. Counts too many rather than too few, since nobody tells when one has ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::plan::{IDLE_TIMEOUT, MAX_SESSIONS_PER_USER, PRINCIPALS};

/// How long after its last use a session may still be there: the broker looks twice a second, and a
/// machine under load is late.
const LINGER: Duration = Duration::from_secs(IDLE_TIMEOUT.as_secs() + 4);
/// Those that are gone for so long explain nothing any more.
const MEMORY: Duration = Duration::from_secs(60);

/// One session, from its `initialize` on.
pub(crate) struct Place(Mutex<Stay>);

#[derive(Clone, Copy)]
struct Stay {
    /// The broker's generation in which it was used last.
    generation: u64,
    until: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// It has been used.
    pub(crate) fn used(&self, generation: u64) {
        *lock(&self.0) = Stay::from_now(generation);
    }

    /// The broker has said that it is no more.
    pub(crate) fn ended(&self) {
        lock(&self.0).until = Instant::now();
    }
}

impl Stay {
    fn from_now(generation: u64) -> Self {
        Self {
            generation,
            until: Instant::now() + LINGER,
        }
    }
}

/// Those of all principals.
pub(crate) struct Places(Vec<Mutex<VecDeque<Arc<Place>>>>);

impl Places {
    pub(crate) fn new() -> Self {
        Self(PRINCIPALS.iter().map(|_| Mutex::default()).collect())
    }

    /// A principal is about to open a session.
    pub(crate) fn take(&self, principal: usize, generation: u64) -> Arc<Place> {
        let place = Arc::new(Place(Mutex::new(Stay::from_now(generation))));
        let mut places = lock(&self.0[principal]);
        let now = Instant::now();
        places.retain(|it| lock(&it.0).until + MEMORY > now);
        places.push_back(Arc::clone(&place));
        place
    }

    /// Whether a principal may have had all of its sessions at some time since, in a broker of this
    /// generation or a later one.
    pub(crate) fn were_all_taken(&self, principal: usize, since: Instant, generation: u64) -> bool {
        let places = lock(&self.0[principal]);
        let counts = |stay: Stay| stay.until >= since && stay.generation >= generation;
        let taken = places.iter().filter(|it| counts(*lock(&it.0))).count();
        taken >= MAX_SESSIONS_PER_USER
    }
}
