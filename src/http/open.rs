//! Requests that start a child: a POST without a session id, where only `initialize` may come so,
//! one for a session whose child is gone, and one of the modern era that finds no child. That takes
//! a body and a process, so it happens on a thread of its own (see `openers`), not in the accept
//! loop.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tiny_http::{Method, Request};

use super::App;
use super::exchange::HttpExchange;
use super::reply::{Answer, Face};
use super::request::Incoming;
use crate::auth::Principal;
use crate::bridge::modern::{self, Mirrored};
use crate::bridge::{Exchange, Reply};
use crate::jsonrpc::{self, Kind, Message, ParseError};
use crate::mcp;
use crate::session::{Cause, OpenError, Session};

/// How often a session is opened for one request, if it is of no use each time.
const TRIES: usize = 8;
/// Characters of what a client says about itself that are logged.
const LOGGED_CHARS: usize = 64;

/// What is known of the request before its body is read.
pub(super) struct Opening {
    pub(super) exchange: HttpExchange,
    /// The head says so.
    is_modern: bool,
    pub(super) method: Method,
    pub(super) authorization: Option<String>,
    /// Of a session whose child is gone.
    pub(super) session_id: Option<String>,
    pub(super) last_event_id: Option<String>,
    /// As the client names it.
    pub(super) protocol_version: Option<String>,
    pub(super) principal: Principal,
    pub(super) server: Arc<str>,
}

impl Opening {
    pub(super) fn new(
        request: Request,
        incoming: Incoming,
        face: Face,
        principal: Principal,
        server: &Arc<str>,
    ) -> Self {
        Self {
            exchange: HttpExchange::new(request, &incoming, face),
            is_modern: incoming.is_modern(),
            method: incoming.method,
            authorization: incoming.authorization,
            session_id: incoming.session_id,
            last_event_id: incoming.last_event_id,
            protocol_version: incoming.protocol_version,
            principal,
            server: Arc::clone(server),
        }
    }
}

/// What a POST without a session is, by its body.
enum Bodied {
    /// The text of its id, and its `params`.
    Initialize { id: String, params: String },
    /// A request that may be served from the shared session; the text of its id.
    Modern { id: String },
    /// A modern request that breaks a rule.
    Faulty { id: String, fault: modern::Fault },
    /// A modern notification, which says nothing to anybody.
    Notification,
}

/// Serves it; may take a while.
pub(super) fn serve(app: &App, mut opening: Opening) {
    // It may have waited for its turn: nothing is started for who is no more.
    let authorization = opening.authorization.as_deref();
    match app
        .authenticator
        .check(authorization, &opening.server, SystemTime::now())
    {
        Ok(principal) => opening.principal = principal,
        Err(why) => {
            app.registry
                .forget_shared(std::slice::from_ref(&opening.principal));
            let answer = Answer::Unauthorized(why);
            return opening.exchange.answer(&answer, "null");
        }
    }
    match opening.session_id.take_if(|_| !opening.is_modern) {
        Some(id) => revive(app, opening, &id),
        None => open(app, opening),
    }
}

fn open(app: &App, mut opening: Opening) {
    let exchange = &mut opening.exchange;
    let body = read(
        exchange,
        opening.is_modern,
        opening.protocol_version.as_deref(),
    );
    match body {
        Ok(Bodied::Initialize { id, params }) => open_for_one(app, opening, &id, &params),
        Ok(Bodied::Modern { id }) => share(app, opening, &id),
        Ok(Bodied::Faulty { id, fault }) => Box::new(opening.exchange).reply(Reply::Fault {
            json: fault.to_json(&id).as_bytes(),
            error: fault.code(),
        }),
        Ok(Bodied::Notification) => Box::new(opening.exchange).reply(Reply::Accepted),
        Err((answer, id)) => exchange.answer(&answer, &id),
    }
}

/// Opens the session that a principal's modern requests share, or finds that somebody else has.
fn share(app: &App, mut opening: Opening, id: &str) {
    for _ in 0..TRIES {
        let Opening {
            principal, server, ..
        } = &opening;
        let session = match app.registry.share(principal, server, Instant::now()) {
            Ok(session) => session,
            Err(why) => return open_failed(app, opening, why, id),
        };
        match check_again(app, &mut opening, &session) {
            Ok(Checked::Same) => {}
            Ok(Checked::Changed) => continue,
            Err(answer) => return opening.exchange.answer(&answer, id),
        }
        // It may be ended for want of use at this very moment.
        if let Some(visit) = session.visit(Instant::now()) {
            let connection = opening.exchange.connection();
            session.post(Box::new(opening.exchange));
            drop(visit);
            return app.departures.watch_opened(connection, &session);
        }
    }
    open_failed(app, opening, OpenError::Busy, id);
}

fn open_for_one(app: &App, mut opening: Opening, id: &str, params: &str) {
    for _ in 0..TRIES {
        let Opening {
            principal, server, ..
        } = &opening;
        let opened = app.registry.open(principal, server, params, Instant::now());
        let session = match opened {
            Ok(session) => session,
            Err(why) => return open_failed(app, opening, why, id),
        };
        match check_again(app, &mut opening, &session) {
            Ok(Checked::Same) => {}
            Ok(Checked::Changed) => continue,
            Err(answer) => return opening.exchange.answer(&answer, id),
        }
        log_client(&session, opening.exchange.peek_body().unwrap_or_default());
        let connection = opening.exchange.connection();
        session.post(Box::new(opening.exchange));
        return app.departures.watch_opened(connection, &session);
    }
    open_failed(app, opening, OpenError::Busy, id);
}

/// Answers a request for which no session was opened.
fn open_failed(app: &App, mut opening: Opening, why: OpenError, id: &str) {
    log_refusal(&opening.principal, &opening.server, &why);
    // That its user was revoked may be why.
    let authorization = opening.authorization.as_deref();
    let answer = match app
        .authenticator
        .check(authorization, &opening.server, SystemTime::now())
    {
        Ok(_) => Answer::OpenFailed(why),
        Err(why) => Answer::Unauthorized(why),
    };
    opening.exchange.answer(&answer, id);
}

/// Who asks, as the client says itself (2025-11-25, lifecycle, "Initialization").
fn log_client(session: &Session, body: &[u8]) {
    let message = str::from_utf8(body)
        .ok()
        .and_then(|text| jsonrpc::parse(text).ok());
    let params = message.and_then(|message| message.params).unwrap_or("{}");
    let info = jsonrpc::member(params, "clientInfo").unwrap_or("{}");
    let text = |object, name| {
        let raw = jsonrpc::member(object, name);
        for_log(&raw.and_then(jsonrpc::text).unwrap_or_default())
    };
    log::info!(
        "session initializing sid={} client={:?} version={:?} protocol={:?}",
        session.label(),
        text(info, "name"),
        text(info, "version"),
        text(params, "protocolVersion"),
    );
}

/// A client's word, cut and without what could forge or garble a log line.
fn for_log(text: &str) -> String {
    let kept = text.chars().filter(|c| !c.is_control());
    kept.take(LOGGED_CHARS).collect()
}

/// Serves a request for a session whose child is gone.
fn revive(app: &App, mut opening: Opening, id: &str) {
    let Opening {
        principal, server, ..
    } = &opening;
    let now = Instant::now();
    let is_use = opening.method == Method::Post;
    let session = match app.registry.revive(id, principal, server, is_use, now) {
        Ok(session) => session,
        Err(why) => return open_failed(app, opening, why, "null"),
    };
    match check_again(app, &mut opening, &session) {
        Ok(Checked::Same) => {}
        // It rests, or is no more.
        Ok(Checked::Changed) => return open_failed(app, opening, OpenError::Lost, "null"),
        Err(answer) => return opening.exchange.answer(&answer, "null"),
    }
    // Nobody could tell before.
    let version = opening.protocol_version.as_deref();
    if version.is_some_and(|it| !mcp::is_supported(it) && !session.speaks(it)) {
        let answer = Answer::UnsupportedVersion;
        return opening.exchange.answer(&answer, "null");
    }
    let connection = opening.exchange.connection();
    let exchange = Box::new(opening.exchange);
    if is_use {
        session.touch(now);
        session.post(exchange);
    } else {
        session.listen(exchange, opening.last_event_id);
    }
    app.departures.watch_opened(connection, &session);
}

/// Reads a POST without a session. The era is what the head says, else what the body says. With a
/// refusal goes the text of the id.
fn read(
    exchange: &mut HttpExchange,
    is_modern: bool,
    version: Option<&str>,
) -> Result<Bodied, (Answer, String)> {
    let nobody = |answer| (answer, "null".to_owned());
    let body = exchange.peek_body();
    let body = body.map_err(|_| nobody(Answer::BodyIncomplete))?.to_vec();
    let text = str::from_utf8(&body);
    let text = text.map_err(|_| nobody(Answer::NotMessage(ParseError::NotJson)))?;
    if jsonrpc::is_batch(text) {
        return Err(nobody(match is_modern {
            true => Answer::BatchNotAllowed,
            false => Answer::SessionIdMissing, // `initialize` must stand alone
        }));
    }
    let message = jsonrpc::parse(text).map_err(|why| nobody(Answer::NotMessage(why)))?;
    if is_modern || modern::is_modern(&message) {
        return read_modern(exchange, &message).map_err(nobody);
    }
    if let Some(version) = version.filter(|it| !mcp::is_supported(it)) {
        let answer = Answer::UnknownVersion(version.to_owned());
        return Err((answer, message.id_text.to_owned()));
    }
    if message.kind != Kind::Request || message.method != mcp::method::INITIALIZE {
        return Err(nobody(Answer::SessionIdMissing));
    }
    Ok(Bodied::Initialize {
        id: message.id_text.to_owned(),
        params: message.params.unwrap_or_default().to_owned(),
    })
}

/// No child is started for what would not reach it.
fn read_modern(exchange: &HttpExchange, message: &Message<'_>) -> Result<Bodied, Answer> {
    match message.kind {
        Kind::Request => {}
        Kind::Notification => return Ok(Bodied::Notification),
        Kind::Response => return Err(Answer::ResponseNotAllowed),
    }
    let id = message.id_text.to_owned();
    let nothing = Mirrored::default();
    let mirrored = exchange.mirrored().unwrap_or(&nothing);
    Ok(match modern::check(mirrored, message) {
        Ok(_) => Bodied::Modern { id },
        Err(fault) => Bodied::Faulty { id, fault },
    })
}

/// What has become of a principal while a session was opened for them.
enum Checked {
    Same,
    /// Their credentials are others; the session is closed.
    Changed,
}

/// The token may have been revoked or changed while the child started, when the reaper could not
/// see this session yet.
fn check_again(
    app: &App,
    opening: &mut Opening,
    session: &Arc<Session>,
) -> Result<Checked, Answer> {
    let authorization = opening.authorization.as_deref();
    let checked = app
        .authenticator
        .check(authorization, &opening.server, SystemTime::now());
    let is_for = |principal: &Principal| session.is_for(principal);
    if checked.as_ref().is_ok_and(is_for) {
        return Ok(Checked::Same);
    }
    let registry = &app.registry;
    registry.close_session(session, &Cause::Revoked, Instant::now());
    // It may have become a key there again.
    registry.forget_shared(std::slice::from_ref(&opening.principal));
    opening.principal = checked.map_err(Answer::Unauthorized)?;
    Ok(Checked::Changed)
}

fn log_refusal(principal: &Principal, server: &str, why: &OpenError) {
    let user = &principal.name;
    match why {
        OpenError::Spawn(message) => log::error!("no session for user={user}: {message}"),
        OpenError::Asleep | OpenError::Ended => {
            log::debug!("no session for user={user} server={server}: {why:?}");
        }
        OpenError::Pause { left, .. } => log::warn!(
            "no session for user={user} server={server}: it keeps ending, next try in {left:.0?}"
        ),
        _ => log::warn!("no session for user={user} server={server}: {why:?}"),
    }
}
