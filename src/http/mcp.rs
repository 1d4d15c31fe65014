//! The MCP endpoint: who asks, is the head in order, which session (2025-11-25, transports,
//! "Streamable HTTP").

use std::sync::Arc;
use std::time::SystemTime;

use tiny_http::{Method, Request};

use super::exchange::HttpExchange;
use super::reply::{self, Answer, Face};
use super::request::Incoming;
use super::{App, OPENERS_MAX, now};
use crate::auth::Principal;
use crate::bridge::Exchange;
use crate::jsonrpc::{self, Kind};
use crate::mcp;
use crate::session::{OpenError, Session};
use crate::thread;

/// Serves one request. Never blocks: what has to wait, waits on another thread.
pub(super) fn serve(
    app: &Arc<App>,
    request: Request,
    incoming: Incoming,
    face: Face,
    server: &Arc<str>,
) {
    let authorization = incoming.authorization.as_deref();
    let principal = match app.authenticator.check(authorization, SystemTime::now()) {
        Ok(principal) => principal,
        Err(why) => {
            log::info!("unauthorized request peer={}", incoming.peer);
            return reply::send(request, &Answer::Unauthorized(why), &face);
        }
    };
    let checked = check_head(&incoming).and_then(|()| {
        let id = incoming.session_id.as_deref();
        id.map(|id| find_session(app, id, &principal, server))
            .transpose()
    });
    let session = match checked {
        Ok(session) => session,
        Err(answer) => return reply::send(request, &answer, &face),
    };
    match (session, &incoming.method) {
        (Some(session), Method::Delete) => {
            app.registry.close(session.id(), "deleted by its client");
            reply::send(request, &Answer::Deleted, &face);
        }
        (Some(session), method) => {
            let exchange = Box::new(HttpExchange::new(request, &incoming, face));
            app.departures.watch(incoming.connection, &session);
            match method {
                Method::Get => session.listen(exchange, incoming.last_event_id),
                _ => session.post(exchange),
            }
        }
        (None, Method::Post) => {
            open_elsewhere(
                app,
                HttpExchange::new(request, &incoming, face),
                principal,
                server,
            );
        }
        (None, _) => reply::send(request, &Answer::SessionIdMissing, &face),
    }
}

/// What can be told from the head alone.
fn check_head(incoming: &Incoming) -> Result<(), Answer> {
    if let Some(version) = &incoming.protocol_version
        && !mcp::is_supported(version)
    {
        return Err(Answer::UnsupportedVersion);
    }
    match incoming.method {
        Method::Post if !incoming.has_json() => Err(Answer::WrongContentType),
        Method::Post
            if !incoming.accepts("application/json") || !incoming.accepts("text/event-stream") =>
        {
            Err(Answer::NotAcceptable(
                "application/json and text/event-stream",
            ))
        }
        Method::Get if !incoming.accepts("text/event-stream") => {
            Err(Answer::NotAcceptable("text/event-stream"))
        }
        _ => Ok(()),
    }
}

fn find_session(
    app: &App,
    id: &str,
    principal: &Principal,
    server: &str,
) -> Result<Arc<Session>, Answer> {
    if app.registry.is_draining() {
        return Err(Answer::OpenFailed(OpenError::Draining));
    }
    app.registry
        .find(id, principal, server, now())
        .map_err(Answer::NoSession)
}

/// Reads the body and starts a child on a thread of its own.
fn open_elsewhere(
    app: &Arc<App>,
    mut exchange: HttpExchange,
    principal: Principal,
    server: &Arc<str>,
) {
    if app.openers() >= OPENERS_MAX {
        return exchange.answer(&Answer::TooManyOpening);
    }
    let (its_app, server) = (Arc::clone(app), Arc::clone(server));
    let opener = thread::spawn("open", move || {
        open(&its_app, exchange, &principal, &server)
    });
    match opener {
        Ok(opener) => app.openers.lock().push(opener),
        // The exchange went with the closure, and answered for itself.
        Err(error) => log::error!("cannot start a thread to open a session: {error}"),
    }
}

fn open(app: &App, mut exchange: HttpExchange, principal: &Principal, server: &Arc<str>) {
    let refused = match exchange.peek_body().map(str::from_utf8) {
        Err(_) => Some(Answer::BodyIncomplete),
        Ok(Err(_)) => Some(Answer::NotMessage(jsonrpc::ParseError::NotJson)),
        // A batch is some other message than `initialize`, which must stand alone.
        Ok(Ok(text)) if jsonrpc::is_batch(text) => Some(Answer::SessionIdMissing),
        Ok(Ok(text)) => match jsonrpc::parse(text) {
            Err(why) => Some(Answer::NotMessage(why)),
            Ok(message)
                if message.kind == Kind::Request && message.method == mcp::method::INITIALIZE =>
            {
                None
            }
            Ok(_) => Some(Answer::SessionIdMissing),
        },
    };
    if let Some(answer) = refused {
        return exchange.answer(&answer);
    }
    match app.registry.open(principal, server, now()) {
        Ok(session) => {
            app.departures.watch(exchange.connection(), &session);
            session.post(Box::new(exchange));
        }
        Err(why) => {
            log::warn!(
                "no session opened user={} server={server}: {why:?}",
                principal.name
            );
            exchange.answer(&Answer::OpenFailed(why));
        }
    }
}
