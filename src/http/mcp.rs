//! The MCP endpoint: who asks, is the head in order, which session (2025-11-25, transports,
//! "Streamable HTTP").

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tiny_http::{Method, Request};

use super::exchange::HttpExchange;
use super::open::Opening;
use super::openers::Openers;
use super::reply::{self, Answer, Face};
use super::request::Incoming;
use super::{App, refuse};
use crate::mcp;
use crate::session::{Cause, Found};

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
            log::debug!("unauthorized request peer={}", incoming.peer);
            return refuse(app, request, Answer::Unauthorized(why), face);
        }
    };
    let checked = check_head(&incoming).and_then(|()| {
        let id = incoming.session_id.as_deref();
        let found = id
            .map(|id| app.registry.find(id, &principal, server))
            .transpose()
            .map_err(Answer::NoSession)?;
        check_version(&incoming, found.as_ref())?;
        Ok(found)
    });
    let found = match checked {
        Ok(found) => found,
        Err(answer) => return refuse(app, request, answer, face),
    };
    match (found, &incoming.method) {
        (Some(_), Method::Delete) => {
            let id = incoming.session_id.as_deref().unwrap_or_default();
            app.registry.close(id, Cause::Deleted, Instant::now());
            reply::send(request, &Answer::Deleted, &face);
        }
        (Some(Found::Running(session)), method) => {
            let exchange = Box::new(HttpExchange::new(request, &incoming, face));
            match method {
                Method::Get => session.listen(exchange, incoming.last_event_id),
                _ => {
                    // Only this is use: a GET may be a stream that reconnects by itself for ever.
                    session.touch(Instant::now());
                    session.post(exchange);
                }
            }
            app.departures.watch(incoming.connection, &session);
        }
        (found @ (Some(Found::Resting) | None), Method::Post | Method::Get)
            if found.is_some() || incoming.method == Method::Post =>
        {
            let opening = Opening {
                exchange: HttpExchange::new(request, &incoming, face),
                method: incoming.method,
                authorization: incoming.authorization,
                session_id: incoming.session_id,
                last_event_id: incoming.last_event_id,
                protocol_version: incoming.protocol_version,
                principal,
                server: Arc::clone(server),
            };
            Openers::take(app, opening);
        }
        (_, _) => reply::send(request, &Answer::SessionIdMissing, &face),
    }
}

/// What can be told from the head alone.
fn check_head(incoming: &Incoming) -> Result<(), Answer> {
    if incoming.has_repeated_field {
        return Err(Answer::RepeatedField);
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

/// 2025-11-25, transports, "Protocol Version Header": a revision that we know, or the one that
/// the session's own child chose.
fn check_version(incoming: &Incoming, found: Option<&Found>) -> Result<(), Answer> {
    match &incoming.protocol_version {
        Some(version)
            if !mcp::is_supported(version) && !found.is_some_and(|found| found.speaks(version)) =>
        {
            Err(Answer::UnsupportedVersion)
        }
        _ => Ok(()),
    }
}
