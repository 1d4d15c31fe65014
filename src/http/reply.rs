//! Every answer's HTTP face: status, fields and body, chosen in one place.

mod challenge;
mod opening;

use std::io::Write;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::json;
use tiny_http::{Method, Request, StatusCode};

use super::tally::{self, Tally};
use crate::auth::AuthError;
use crate::bridge::{Refusal, Reply};
use crate::jsonrpc::{ParseError, code, error_response};
use crate::mcp::{self, header};
use crate::metrics::Page;
use crate::session::{FindError, OpenError};

/// Seconds after which it is worth trying again when all sessions are taken.
const RETRY_AFTER_FULL: &str = "30";
const RETRY_AFTER_BUSY: &str = "1";
/// 2026-07-28, streamable HTTP, "Server Validation".
const HEADER_MISMATCH: i32 = mcp::code::HEADER_MISMATCH as i32;

/// An answer that is known without any child.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// To the edge: a thread of tiny_http serves this connection.
    Proof,
    Healthy,
    Draining,
    /// A [`Page`].
    Metrics(String),
    TooManyScrapes,
    /// With the fields of parameters that the page wants to send.
    Preflight(Vec<String>),
    Deleted,
    NotFound,
    MethodNotAllowed(&'static str),
    RepeatedField,
    /// One that repeats what stands in the body of a modern request.
    RepeatedMirror,
    HostForbidden,
    OriginForbidden,
    Unauthorized(AuthError),
    UnsupportedVersion,
    /// Of a request that is of no session: as it names it.
    UnknownVersion(String),
    BatchNotAllowed,
    WrongContentType,
    NotAcceptable(&'static str),
    SessionIdMissing,
    ResponseNotAllowed,
    NoSession(FindError),
    TooManyOpening,
    OpenFailed(OpenError),
    BodyIncomplete,
    NotMessage(ParseError),
    /// Of signing in, where answers are pages and objects of OAuth.
    Rendered(Rendered),
}

type Fields = Vec<(&'static str, String)>;

/// What goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    status: u16,
    fields: Fields,
    body: Vec<u8>,
    /// False in the answer to HEAD.
    body_is_sent: bool,
}

impl Rendered {
    fn new(status: u16, fields: Fields, body: Vec<u8>) -> Self {
        Self {
            status,
            fields,
            body,
            body_is_sent: true,
        }
    }

    pub(super) fn plain(status: u16, text: &str) -> Self {
        let fields = vec![("Content-Type", "text/plain; charset=utf-8".to_owned())];
        Self::new(status, fields, format!("{text}\n").into_bytes())
    }

    pub(super) fn html(status: u16, html: String) -> Self {
        let fields = vec![("Content-Type", "text/html; charset=utf-8".to_owned())];
        Self::new(status, fields, html.into_bytes())
    }

    pub(super) fn empty(status: u16) -> Self {
        Self::new(status, Vec::new(), Vec::new())
    }

    pub(super) fn json(status: u16, json: &[u8]) -> Self {
        let fields = vec![("Content-Type", "application/json".to_owned())];
        Self::new(status, fields, json.to_vec())
    }

    /// Writes the response in one piece: tiny_http's own way takes several writes.
    fn write(self, mut writer: Box<dyn Write + Send>, face: &Face) {
        let Self {
            status,
            fields,
            body,
            body_is_sent,
        } = self;
        if let Some(tally) = face.tally {
            tally.answered(status, Instant::now());
        }
        let reason = StatusCode(status).default_reason_phrase();
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut response = Vec::with_capacity(256 + body.len());
        let mut put = |part: &str| response.extend_from_slice(part.as_bytes());
        put(&format!("HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n"));
        put_fields(&fields, &mut put);
        put_fields(&face.cors_fields(), &mut put);
        put(&format!("Content-Length: {}\r\n\r\n", body.len()));
        if body_is_sent {
            response.extend_from_slice(&body);
        }
        // Fails when the edge has closed, because the client has gone.
        if let Err(error) = writer.write_all(&response).and_then(|()| writer.flush()) {
            log::debug!("answer lost: {error}");
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }
}

/// Who is told of an error.
#[derive(Clone, Copy)]
struct Asker<'a> {
    /// The text of the request's id.
    id: &'a str,
    is_modern: bool,
}

impl<'a> Asker<'a> {
    fn new(id: &'a str, face: &Face) -> Self {
        let is_modern = face.is_modern;
        Self { id, is_modern }
    }

    /// A JSON-RPC error response.
    fn error(self, status: u16, code: i32, message: &str) -> Rendered {
        let code = match code {
            // 2026-07-28, basic, "Error Codes": of no use to new implementations. A client that
            // probes for an era would take them for the legacy one.
            code::SERVER_ERROR | code::SESSION_NOT_FOUND if self.is_modern => code::INTERNAL_ERROR,
            code => code,
        };
        Rendered::json(status, error_response(self.id, code, message).as_bytes())
    }
}

/// What the answers to one client have in common.
#[derive(Clone, Debug)]
pub(super) struct Face {
    /// The page that asks, if it may.
    pub(super) origin: Option<String>,
    /// The status for a session that is no more: 404, or 410 where so configured.
    pub(super) gone_status: u16,
    /// The request is of the modern era.
    pub(super) is_modern: bool,
    /// How to get a token for what was asked for; `None` where only static ones are good.
    pub(super) challenge: Option<Arc<str>>,
    /// `None` for the edge's own request.
    pub(super) tally: Option<Tally>,
}

impl Face {
    /// The fields that let the page read the answer (Fetch standard, "CORS protocol").
    pub(super) fn cors_fields(&self) -> Fields {
        let Some(origin) = &self.origin else {
            return Vec::new();
        };
        vec![
            ("Access-Control-Allow-Origin", origin.clone()),
            (
                "Access-Control-Expose-Headers",
                format!("{}, WWW-Authenticate", header::SESSION_ID),
            ),
            ("Vary", "Origin".to_owned()),
        ]
    }
}

/// Answers a request whose body was not looked at.
pub(super) fn send(request: Request, answer: &Answer, face: &Face) {
    tally::count_refusal(answer);
    let mut rendered = render(answer, "null", face);
    if *request.method() == Method::Head {
        rendered.body_is_sent = false;
    }
    rendered.write(request.into_writer(), face);
}

/// Answers a request; `id` is the text of its id.
pub(super) fn write(writer: Box<dyn Write + Send>, answer: &Answer, id: &str, face: &Face) {
    tally::count_refusal(answer);
    render(answer, id, face).write(writer, face);
}

/// Answers a request with what the bridge says.
pub(super) fn write_reply(writer: Box<dyn Write + Send>, reply: &Reply<'_>, face: &Face) {
    tally::count_refused(reply);
    render_reply(reply, face).write(writer, face);
}

/// The lines that an event stream's head has beside those of every stream.
pub(super) fn stream_fields(session: Option<&str>, face: &Face) -> String {
    let mut fields = face.cors_fields();
    if let Some(session) = session {
        fields.push((header::SESSION_ID, session.to_owned()));
    }
    let mut lines = String::new();
    put_fields(&fields, |part| lines.push_str(part));
    lines
}

fn put_fields(fields: &Fields, mut put: impl FnMut(&str)) {
    for (name, value) in fields {
        if !is_printable(value) {
            log::error!("field {name} not sent: its value is not printable");
            continue;
        }
        [name, ": ", value, "\r\n"].into_iter().for_each(&mut put);
    }
}

/// A line end in a value would begin a field of somebody else's choice (CVE-2026-66753 is
/// tiny_http's name for it), so a value must be visible ASCII and spaces.
fn is_printable(value: &str) -> bool {
    value.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn render(answer: &Answer, id: &str, face: &Face) -> Rendered {
    let asker = Asker::new(id, face);
    let error = |status, code, message: &str| asker.error(status, code, message);
    match answer {
        Answer::Proof | Answer::Deleted => Rendered::empty(204),
        Answer::Healthy => Rendered::plain(200, "ok"),
        Answer::Draining => Rendered::plain(503, "shutting down"),
        Answer::Metrics(page) => metrics_page(page),
        Answer::Preflight(params) => preflight(params),
        Answer::NotFound => Rendered::plain(
            404,
            "not found: the MCP endpoint is /mcp, or /mcp/NAME of a server",
        ),
        Answer::MethodNotAllowed(allow) => {
            Rendered::plain(405, "method not allowed").with("Allow", allow)
        }
        Answer::RepeatedField => error(400, code::INVALID_REQUEST, "a header field stands twice"),
        Answer::RepeatedMirror => {
            let message = "header mismatch: a header field stands twice";
            error(400, HEADER_MISMATCH, message)
        }
        Answer::HostForbidden => error(
            403,
            code::INVALID_REQUEST,
            "this Host is not served: set public_url to the URL that clients use",
        ),
        Answer::OriginForbidden => error(
            403,
            code::INVALID_REQUEST,
            "this Origin may not ask: add it to allowed_origins",
        ),
        Answer::Unauthorized(why) => challenge::unauthorized(asker, *why, face),
        Answer::Rendered(rendered) => rendered.clone(),
        Answer::UnsupportedVersion => error(
            400,
            code::SERVER_ERROR,
            &format!(
                "unsupported MCP-Protocol-Version: supported are {}, beginning with initialize",
                mcp::LEGACY_VERSIONS.join(", ")
            ),
        ),
        Answer::UnknownVersion(requested) => unknown_version(id, requested),
        Answer::BatchNotAllowed => batch_not_allowed(asker),
        Answer::WrongContentType => error(
            415,
            code::INVALID_REQUEST,
            "Content-Type must be application/json",
        ),
        Answer::NotAcceptable(types) => error(
            406,
            code::INVALID_REQUEST,
            &format!("Accept must list {types}"),
        ),
        Answer::SessionIdMissing => error(
            400,
            code::INVALID_REQUEST,
            "Mcp-Session-Id is missing: only initialize may come without",
        ),
        Answer::ResponseNotAllowed => response_not_allowed(asker),
        Answer::NoSession(FindError::Unknown) => no_session(asker, face),
        Answer::NoSession(FindError::Foreign) => error(
            403,
            code::INVALID_REQUEST,
            "the session belongs to somebody else",
        ),
        Answer::TooManyOpening => busy(asker, "too many sessions are being opened"),
        Answer::TooManyScrapes => busy(asker, "too many scrapes at a time"),
        Answer::OpenFailed(why) => opening::failed(asker, why, face),
        Answer::BodyIncomplete => error(400, code::PARSE_ERROR, "the body is incomplete"),
        Answer::NotMessage(why) => not_message(asker, *why),
    }
}

fn render_reply(reply: &Reply<'_>, face: &Face) -> Rendered {
    let (id, why) = match reply {
        Reply::Accepted => return Rendered::empty(202),
        Reply::Message { json, session } => {
            let rendered = Rendered::json(200, json);
            return match session {
                Some(session) => rendered.with(header::SESSION_ID, session),
                None => rendered,
            };
        }
        Reply::Answer { json, error } => return Rendered::json(status_of(*error), json),
        Reply::Fault { json, error } => {
            let status = if status_of(Some(*error)) == 404 {
                404
            } else {
                400
            };
            return Rendered::json(status, json);
        }
        Reply::Refused { id, why } => (*id, why),
    };
    let asker = Asker::new(id, face);
    let error = |status, code, message: &str| asker.error(status, code, message);
    match why {
        Refusal::BodyIncomplete => error(400, code::PARSE_ERROR, "the body is incomplete"),
        Refusal::Body(why) => not_message(asker, *why),
        Refusal::BatchNotAllowed => batch_not_allowed(asker),
        Refusal::ResponseNotAllowed => response_not_allowed(asker),
        Refusal::AlreadyInitialized => error(
            400,
            code::INVALID_REQUEST,
            "the session is initialized already",
        ),
        Refusal::IdInFlight => error(
            400,
            code::INVALID_REQUEST,
            "a request with this id is in flight",
        ),
        // 2025-11-25, transports, "Listening for Messages from the Server": a stream or 405.
        // Clients take 405 for an answer and stop asking.
        Refusal::StreamOver => error(
            405,
            code::INVALID_REQUEST,
            "Last-Event-ID: this stream has nothing more to say",
        )
        .with("Allow", "POST, DELETE"),
        Refusal::TooManyInFlight if face.is_modern => too_many(
            asker,
            "too many requests of this user to this server are in flight",
        ),
        Refusal::TooManyInFlight => {
            too_many(asker, "too many requests of this session are in flight")
        }
        Refusal::TooManyInFlightOfUser => {
            too_many(asker, "too many requests of this user are in flight")
        }
        Refusal::StartFailed(message) => error(500, code::INTERNAL_ERROR, message),
        Refusal::Draining => draining(asker),
        Refusal::Resting => busy(
            asker,
            "the server of this session has just ended: try again",
        ),
        Refusal::EndedEarly => busy(asker, "the session has ended before it began: try again"),
        // Nobody reads the one; the other is what the contract says.
        Refusal::ClientGone | Refusal::SessionEnded => no_session(asker, face),
    }
}

/// 2026-07-28, streamable HTTP, "Protocol Version Header", "Server Validation"; basic, "`_meta`".
fn status_of(error: Option<i64>) -> u16 {
    match error {
        Some(error) if error == i64::from(code::METHOD_NOT_FOUND) => 404,
        Some(
            mcp::code::HEADER_MISMATCH
            | mcp::code::MISSING_CLIENT_CAPABILITY
            | mcp::code::UNSUPPORTED_VERSION,
        ) => 400,
        _ => 200,
    }
}

/// 2026-07-28, streamable HTTP, "Sending Messages".
fn response_not_allowed(asker: Asker<'_>) -> Rendered {
    let message = "a client of this protocol version sends no responses";
    asker.error(400, code::INVALID_REQUEST, message)
}

fn busy(asker: Asker<'_>, message: &str) -> Rendered {
    asker
        .error(503, code::SERVER_ERROR, message)
        .with("Retry-After", RETRY_AFTER_BUSY)
}

fn too_many(asker: Asker<'_>, message: &str) -> Rendered {
    asker
        .error(429, code::SERVER_ERROR, message)
        .with("Retry-After", RETRY_AFTER_BUSY)
}

fn batch_not_allowed(asker: Asker<'_>) -> Rendered {
    let message = match asker.is_modern {
        true => "this protocol version has no batches: send one request at a time",
        false => "a batch is allowed only in a session of protocol version 2025-03-26",
    };
    asker.error(400, code::INVALID_REQUEST, message)
}

/// 2026-07-28, versioning, "Protocol Version Negotiation": the client chooses from these.
fn unknown_version(id: &str, requested: &str) -> Rendered {
    let mut supported = mcp::LEGACY_VERSIONS.to_vec();
    supported.push(mcp::MODERN_VERSION);
    let error = json!({
        "code": mcp::code::UNSUPPORTED_VERSION,
        "message": "unsupported protocol version",
        "data": { "supported": supported, "requested": requested },
    });
    let json = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
    Rendered::json(400, json.as_bytes())
}

fn metrics_page(page: &str) -> Rendered {
    let fields = vec![("Content-Type", Page::CONTENT_TYPE.to_owned())];
    Rendered::new(200, fields, page.as_bytes().to_vec())
}

fn draining(asker: Asker<'_>) -> Rendered {
    asker
        .error(503, code::SERVER_ERROR, "the broker is shutting down")
        .with("Retry-After", RETRY_AFTER_FULL)
}

fn no_session(asker: Asker<'_>, face: &Face) -> Rendered {
    let message = "no such session: it has ended, begin a new one with initialize";
    asker.error(face.gone_status, code::SESSION_NOT_FOUND, message)
}

fn not_message(asker: Asker<'_>, why: ParseError) -> Rendered {
    let code = match why {
        ParseError::NotJson => code::PARSE_ERROR,
        ParseError::NotMessage(_) => code::INVALID_REQUEST,
    };
    asker.error(400, code, &why.to_string())
}

fn preflight(params: &[String]) -> Rendered {
    let mut headers = vec![
        "Authorization",
        "Content-Type",
        "Accept",
        header::SESSION_ID,
        header::PROTOCOL_VERSION,
        header::LAST_EVENT_ID,
        header::METHOD,
        header::NAME,
    ];
    headers.extend(params.iter().map(String::as_str));
    Rendered::empty(204)
        .with("Access-Control-Allow-Methods", "GET, POST, DELETE")
        .with("Access-Control-Allow-Headers", &headers.join(", "))
        .with("Access-Control-Max-Age", "600")
}
