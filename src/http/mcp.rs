//! The MCP endpoint: who asks, is the head in order, which session (2025-11-25, transports,
//! "Streamable HTTP"; 2026-07-28, streamable HTTP).
//!
//! The era of a request stands in its head, in `MCP-Protocol-Version`: a modern one needs no
//! session id, and goes to the session that its principal's modern requests share. Where the head
//! says nothing, or what nobody knows, `open` looks at the body.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tiny_http::{Method, Request};

use super::exchange::HttpExchange;
use super::oauth;
use super::open::Opening;
use super::openers;
use super::reply::{self, Answer, Face};
use super::request::Incoming;
use super::{App, refuse};
use crate::auth::{AuthError, Principal};
use crate::mcp;
use crate::session::{Cause, Found};

/// Serves one request. Never blocks: what has to wait, waits on another thread.
pub(super) fn serve(
    app: &Arc<App>,
    request: Request,
    incoming: Incoming,
    mut face: Face,
    server: &Arc<str>,
) {
    let protected = app.protected.as_ref();
    face.challenge = protected.and_then(|it| it.challenge(request.url()));
    let authorization = incoming.authorization.as_deref();
    match app
        .authenticator
        .check(authorization, server, SystemTime::now())
    {
        Ok(principal) => serve_principal(app, request, incoming, face, server, principal),
        Err(AuthError::Later) => oauth::verify(app, request, incoming, face, server),
        Err(why) => unauthorized(app, request, &incoming, why, face),
    }
}

/// Answers a request of nobody.
pub(super) fn unauthorized(
    app: &App,
    request: Request,
    incoming: &Incoming,
    why: AuthError,
    face: Face,
) {
    log::debug!("unauthorized request peer={}", incoming.peer);
    refuse(app, request, Answer::Unauthorized(why), face);
}

/// Serves one request of somebody.
pub(super) fn serve_principal(
    app: &Arc<App>,
    request: Request,
    incoming: Incoming,
    face: Face,
    server: &Arc<str>,
    principal: Principal,
) {
    if incoming.is_modern() {
        return serve_modern(app, request, incoming, face, server, principal);
    }
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
            openers::take(
                app,
                Opening::new(request, incoming, face, principal, server),
            );
        }
        (_, _) => reply::send(request, &Answer::SessionIdMissing, &face),
    }
}

/// Serves one request of the modern era. Streams are not to be had without a request, and there is
/// nothing to delete (2026-07-28, streamable HTTP, "Earlier Streamable HTTP Revisions").
fn serve_modern(
    app: &Arc<App>,
    request: Request,
    incoming: Incoming,
    face: Face,
    server: &Arc<str>,
    principal: Principal,
) {
    if incoming.method != Method::Post {
        return refuse(app, request, Answer::MethodNotAllowed("POST"), face);
    }
    if let Err(answer) = check_head(&incoming) {
        return refuse(app, request, answer, face);
    }
    let session = app.registry.find_shared(&principal, server);
    let visit = session.as_ref().and_then(|it| it.visit(Instant::now()));
    let (Some(session), Some(visit)) = (&session, visit) else {
        let opening = Opening::new(request, incoming, face, principal, server);
        return openers::take(app, opening);
    };
    session.post(Box::new(HttpExchange::new(request, &incoming, face)));
    drop(visit);
    app.departures.watch(incoming.connection, session);
}

/// What can be told from the head alone.
fn check_head(incoming: &Incoming) -> Result<(), Answer> {
    if incoming.has_repeated_mirror && incoming.is_modern() {
        return Err(Answer::RepeatedMirror);
    }
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
/// the session's own child chose. A POST without a session may be of an era to come, which its
/// body tells.
fn check_version(incoming: &Incoming, found: Option<&Found>) -> Result<(), Answer> {
    let is_open = found.is_none() && incoming.method == Method::Post;
    match &incoming.protocol_version {
        Some(version)
            if !is_open
                && !mcp::is_supported(version)
                && !found.is_some_and(|found| found.speaks(version)) =>
        {
            Err(Answer::UnsupportedVersion)
        }
        _ => Ok(()),
    }
}
