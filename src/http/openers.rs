//! The threads that open sessions. After a restart of the broker all clients come at once.

use std::sync::{Arc, Weak};

use super::App;
use super::open::{self, Opening};
use super::reply::Answer;
use super::workers::{NotTaken, Workers};
use crate::bridge::Exchange;

/// Threads that open sessions at a time.
const OPENERS_MAX: usize = 64;
/// Requests that wait for one of them; more are told to come again.
const QUEUE_MAX: usize = 256;

pub(super) type Openers = Arc<Workers<Opening>>;

/// Those of an app that is just being made.
pub(super) fn of(app: Weak<App>) -> Openers {
    let run = move |opening: Opening| {
        let Some(app) = app.upgrade() else {
            return;
        };
        let _end = EndOpening(&app, opening.exchange.connection());
        // The exchange answers for itself, even after a panic.
        open::serve(&app, opening);
    };
    Arc::new(Workers::new("open", OPENERS_MAX, QUEUE_MAX, run))
}

struct EndOpening<'a>(&'a App, u64);

impl Drop for EndOpening<'_> {
    fn drop(&mut self) {
        self.0.departures.end_opening(self.1);
    }
}

/// Serves it on another thread, now or when one is free.
pub(super) fn take(app: &App, opening: Opening) {
    let connection = opening.exchange.connection();
    app.departures.begin_opening(connection);
    match app.openers.take(opening) {
        Ok(()) => {}
        Err(NotTaken::Busy(mut opening)) => {
            app.departures.end_opening(connection);
            opening.exchange.answer(&Answer::TooManyOpening, "null");
        }
        // The exchange was dropped, and answered for itself.
        Err(NotTaken::NoThread(error)) => {
            app.departures.end_opening(connection);
            log::error!("cannot start a thread to open a session: {error}");
        }
    }
}
