//! The MCP endpoint: who asks, is the head in order, which session (2025-11-25, transports,
//! "Streamable HTTP").

use std::sync::Arc;
use std::time::SystemTime;

use tiny_http::{Method, Request};

use super::exchange::HttpExchange;
use super::open::{Opening, open_elsewhere};
use super::reply::{self, Answer, Face};
use super::request::Incoming;
use super::{App, now};
use crate::auth::Principal;
use crate::mcp;
use crate::session::Session;

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
            match method {
                Method::Get => session.listen(exchange, incoming.last_event_id),
                _ => session.post(exchange),
            }
            app.departures.watch(incoming.connection, &session);
        }
        (None, Method::Post) => {
            let opening = Opening {
                exchange: HttpExchange::new(request, &incoming, face),
                authorization: incoming.authorization,
                principal,
                server: Arc::clone(server),
            };
            open_elsewhere(app, opening);
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
    app.registry
        .find(id, principal, server, now())
        .map_err(Answer::NoSession)
}
