//! The threads that open sessions: so many at a time, and a queue before them, because after a
//! restart of the broker all clients come at once.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use super::App;
use super::open::{self, Opening};
use super::reply::Answer;
use crate::bridge::Exchange;
use crate::thread::{self, Joined};

/// Threads that open sessions at a time.
const OPENERS_MAX: usize = 64;
/// Requests that wait for one of them; more are told to come again.
const QUEUE_MAX: usize = 256;

#[derive(Default)]
pub(super) struct Openers(Mutex<State>);

#[derive(Default)]
struct State {
    /// Those at work, and some that have ended.
    threads: Vec<Joined<()>>,
    at_work: usize,
    queue: VecDeque<Opening>,
}

impl Openers {
    /// Serves it on another thread, now or when one is free.
    pub(super) fn take(app: &Arc<App>, mut opening: Opening) {
        let connection = opening.exchange.connection();
        app.departures.begin_opening(connection);
        {
            let mut state = app.openers.0.lock();
            if state.at_work == OPENERS_MAX && state.queue.len() < QUEUE_MAX {
                return state.queue.push_back(opening);
            }
            if state.at_work == OPENERS_MAX {
                drop(state);
                app.departures.end_opening(connection);
                return opening.exchange.answer(&Answer::TooManyOpening, "null");
            }
            state.at_work += 1;
        }
        let its_app = Arc::clone(app);
        let work = move || {
            let mut next = Some(opening);
            while let Some(opening) = next {
                let connection = opening.exchange.connection();
                // The panic has been logged by the hook; the exchange answers for itself.
                let _ = catch_unwind(AssertUnwindSafe(|| open::serve(&its_app, opening)));
                its_app.departures.end_opening(connection);
                next = its_app.openers.next();
            }
        };
        let spawned = thread::spawn_brief("open", work);
        let ended = {
            let mut state = app.openers.0.lock();
            let ended = state.threads.extract_if(.., |it| it.is_finished());
            let ended: Vec<_> = ended.collect();
            match spawned {
                Ok(thread) => state.threads.push(thread),
                // The exchange went with the closure, and answered for itself.
                Err(error) => {
                    state.at_work -= 1;
                    app.departures.end_opening(connection);
                    log::error!("cannot start a thread to open a session: {error}");
                }
            }
            ended
        };
        drop(ended);
    }

    /// What the calling thread shall do next; `None`: it shall end.
    fn next(&self) -> Option<Opening> {
        let mut state = self.0.lock();
        let next = state.queue.pop_front();
        state.at_work -= usize::from(next.is_none());
        next
    }

    pub(super) fn join_all(&self) {
        let threads = std::mem::take(&mut self.0.lock().threads);
        drop(threads);
    }
}
