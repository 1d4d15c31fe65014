//! A POST without a session id: only `initialize` may come so, and it starts a child. That takes
//! a body and a process, so it happens on a thread of its own (`open`), not in the accept loop.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::exchange::HttpExchange;
use super::reply::Answer;
use super::{App, OPENERS_MAX};
use crate::auth::Principal;
use crate::bridge::Exchange;
use crate::jsonrpc::{self, Kind, ParseError};
use crate::mcp;
use crate::session::{OpenError, Session};
use crate::thread;

/// What is known of the request before its body is read.
pub(super) struct Opening {
    pub(super) exchange: HttpExchange,
    pub(super) authorization: Option<String>,
    pub(super) principal: Principal,
    pub(super) server: Arc<str>,
}

/// Serves it on another thread.
pub(super) fn open_elsewhere(app: &Arc<App>, mut opening: Opening) {
    if app.openers() >= OPENERS_MAX {
        return opening.exchange.answer(&Answer::TooManyOpening, "null");
    }
    let its_app = Arc::clone(app);
    match thread::spawn("open", move || open(&its_app, opening)) {
        Ok(opener) => app.openers.lock().push(opener),
        // The exchange went with the closure, and answered for itself.
        Err(error) => log::error!("cannot start a thread to open a session: {error}"),
    }
}

fn open(app: &App, mut opening: Opening) {
    let id = match initialize_id(&mut opening.exchange) {
        Ok(id) => id,
        Err(answer) => return opening.exchange.answer(&answer, "null"),
    };
    match open_session(app, &opening) {
        Ok(session) => {
            let connection = opening.exchange.connection();
            session.post(Box::new(opening.exchange));
            app.departures.watch_opened(connection, &session);
        }
        Err(answer) => opening.exchange.answer(&answer, &id),
    }
}

/// The text of the request's id, if it is an `initialize`.
fn initialize_id(exchange: &mut HttpExchange) -> Result<String, Answer> {
    let body = exchange.peek_body().map_err(|_| Answer::BodyIncomplete)?;
    let text = str::from_utf8(body).map_err(|_| Answer::NotMessage(ParseError::NotJson))?;
    if jsonrpc::is_batch(text) {
        return Err(Answer::SessionIdMissing); // `initialize` must stand alone
    }
    let message = jsonrpc::parse(text).map_err(Answer::NotMessage)?;
    if message.kind != Kind::Request || message.method != mcp::method::INITIALIZE {
        return Err(Answer::SessionIdMissing);
    }
    Ok(message.id_text.to_owned())
}

fn open_session(app: &App, opening: &Opening) -> Result<Arc<Session>, Answer> {
    let Opening {
        authorization,
        principal,
        server,
        ..
    } = opening;
    let session = app
        .registry
        .open(principal, server, Instant::now())
        .map_err(|why| {
            if let OpenError::Spawn(message) = &why {
                log::error!("no session for user={}: {message}", principal.name);
            } else {
                log::warn!(
                    "no session for user={} server={server}: {why:?}",
                    principal.name
                );
            }
            Answer::OpenFailed(why)
        })?;
    // The token may have been revoked while the child started, when the reaper could not see this
    // session yet.
    if let Err(why) = app
        .authenticator
        .check(authorization.as_deref(), SystemTime::now())
    {
        app.registry
            .close(session.id(), "the token was revoked meanwhile");
        return Err(Answer::Unauthorized(why));
    }
    Ok(session)
}
