//! Which session a connection's request went to, so that it hears of the client's going.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::session::Session;

/// Connections that are remembered for having gone before anybody knew them.
const EARLY_MAX: usize = 256;

/// What is told.
pub(super) trait Served {
    fn gone(&self, connection: u64);
}

impl Served for Session {
    fn gone(&self, connection: u64) {
        self.gone(connection);
    }
}

pub(super) struct Departures<S>(Mutex<Watched<S>>);

struct Watched<S> {
    sessions: HashMap<u64, Weak<S>>,
    /// Connections whose requests wait for a session that is being opened, which may take minutes.
    opening: HashMap<u64, Opening>,
    /// Connections that had gone before anybody watched them, the latest last: a client may
    /// leave while its request is on the way through tiny_http.
    early: VecDeque<u64>,
}

#[derive(Default)]
struct Opening {
    requests: usize,
    has_gone: bool,
}

impl<S> Default for Departures<S> {
    fn default() -> Self {
        Self(Mutex::new(Watched {
            sessions: HashMap::new(),
            opening: HashMap::new(),
            early: VecDeque::new(),
        }))
    }
}

impl<S: Served> Departures<S> {
    /// To be called when the session has the request: only then can it let go of it.
    pub(super) fn watch(&self, connection: u64, session: &Arc<S>) {
        Self::enter(self.0.lock(), connection, session);
    }

    /// A request of this connection goes where sessions are opened: what the connection carried
    /// before has been answered.
    pub(super) fn begin_opening(&self, connection: u64) {
        let mut watched = self.0.lock();
        watched.sessions.remove(&connection);
        let has_gone = watched.early.contains(&connection);
        let opening = watched.opening.entry(connection).or_default();
        opening.requests += 1;
        opening.has_gone |= has_gone;
    }

    /// To be called when a session that was opened on another thread has the request: meanwhile its
    /// connection may carry a request of another session already.
    pub(super) fn watch_opened(&self, connection: u64, session: &Arc<S>) {
        let watched = self.0.lock();
        let opening = watched.opening.get(&connection);
        if opening.is_some_and(|it| it.has_gone) {
            drop(watched);
            return session.gone(connection);
        }
        let other = watched.sessions.get(&connection);
        if other.is_none_or(|other| other.strong_count() == 0) {
            Self::enter(watched, connection, session);
        }
    }

    /// A session was opened for the request, or none.
    pub(super) fn end_opening(&self, connection: u64) {
        let mut watched = self.0.lock();
        if let Some(opening) = watched.opening.get_mut(&connection) {
            opening.requests -= 1;
            if opening.requests == 0 {
                watched.opening.remove(&connection);
            }
        }
    }

    fn enter(mut watched: MutexGuard<'_, Watched<S>>, connection: u64, session: &Arc<S>) {
        if watched.early.contains(&connection) {
            drop(watched);
            return session.gone(connection);
        }
        watched.sessions.insert(connection, Arc::downgrade(session));
    }

    pub(super) fn tell(&self, connection: u64) {
        let session = {
            let mut watched = self.0.lock();
            let session = watched.sessions.remove(&connection);
            if let Some(opening) = watched.opening.get_mut(&connection) {
                opening.has_gone = true;
            } else if session.is_none() {
                if watched.early.len() == EARLY_MAX {
                    watched.early.pop_front();
                }
                watched.early.push_back(connection);
            }
            session
        };
        if let Some(session) = session.and_then(|session| session.upgrade()) {
            session.gone(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Fake(Mutex<Vec<u64>>);

    impl Served for Fake {
        fn gone(&self, connection: u64) {
            self.0.lock().push(connection);
        }
    }

    impl Fake {
        #[track_caller]
        fn assert_told(&self, connections: &[u64]) {
            assert_eq!(std::mem::take(&mut *self.0.lock()), connections);
        }
    }

    fn sessions<const N: usize>() -> (Departures<Fake>, [Arc<Fake>; N]) {
        (
            Departures::default(),
            std::array::from_fn(|_| Arc::default()),
        )
    }

    #[test]
    fn whoever_serves_a_connection_is_told() {
        let (departures, [one, other]) = sessions();
        departures.watch(1, &one);
        departures.watch(1, &other);
        departures.tell(1);
        one.assert_told(&[]);
        other.assert_told(&[1]);
        // Too early.
        departures.tell(2);
        departures.watch(2, &one);
        one.assert_told(&[2]);
    }

    #[test]
    fn what_a_connection_carried_before_does_not_hide_what_is_opened_for_it() {
        let (departures, [old, opened]) = sessions();
        departures.watch(1, &old);
        departures.begin_opening(1);
        departures.watch_opened(1, &opened);
        departures.end_opening(1);
        departures.tell(1);
        opened.assert_told(&[1]);
        old.assert_told(&[]);
        // But what it carries by then does.
        let (departures, [opened, next]) = sessions();
        departures.begin_opening(1);
        departures.watch(1, &next);
        departures.watch_opened(1, &opened);
        departures.end_opening(1);
        departures.tell(1);
        opened.assert_told(&[]);
        next.assert_told(&[1]);
    }

    #[test]
    fn who_goes_during_a_long_start_is_not_forgotten() {
        for goes_early in [true, false] {
            let (departures, [opened, other]) = sessions();
            if goes_early {
                departures.tell(1);
            }
            departures.begin_opening(1);
            if !goes_early {
                departures.tell(1);
            }
            for connection in 2..1000 {
                departures.tell(connection);
            }
            departures.watch_opened(1, &opened);
            departures.end_opening(1);
            opened.assert_told(&[1]);
            assert!(departures.0.lock().opening.is_empty());
            // Of the others the latest are known.
            departures.watch(999, &other);
            other.assert_told(&[999]);
        }
    }
}
