//! HTTP/1.1, one request for each connection: as much of it as the callers of tests speak.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

/// The longest head and the longest body that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// How long a caller may take over its request.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came in.
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query, still percent-encoded.
    pub(crate) path: String,
    pub(crate) query: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    /// The first header of that lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A field of a form in the body.
    pub(crate) fn form(&self, name: &str) -> Option<String> {
        field(&self.body, name)
    }

    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        field(&self.query, name)
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.header("cookie")?.split("; ");
        let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
        pairs.find(|(it, _)| *it == name).map(|(_, value)| value)
    }

    /// Client id and secret; Forgejo does not undo the form encoding of RFC 6749 section 2.3.1.
    pub(crate) fn basic(&self) -> Option<Result<(String, String), ()>> {
        let (scheme, encoded) = self.header("authorization")?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| ());
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(|_| ()));
        Some(text.and_then(|text| match text.split_once(':') {
            Some((id, secret)) => Ok((id.to_owned(), secret.to_owned())),
            None => Err(()),
        }))
    }

    /// The token of `token TOKEN` or `bearer TOKEN`.
    pub(crate) fn token(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        let known = ["token", "bearer"];
        let is_known = known.iter().any(|it| scheme.eq_ignore_ascii_case(it));
        is_known.then_some(token)
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    let mut fields = form_urlencoded::parse(text.as_bytes());
    let found = fields.find(|(it, _)| it == name);
    found.map(|(_, value)| value.into_owned())
}

/// What goes out.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn new(status: u16, kind: &str, body: &str) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", kind.to_owned())],
            body: body.to_owned(),
        }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(
            status,
            "application/json;charset=utf-8",
            &format!("{body}\n"),
        )
    }

    pub(crate) fn page(status: u16, body: &str) -> Self {
        let whole = format!("<!DOCTYPE html>\n<html lang=\"en\"><body>\n{body}\n</body></html>\n");
        Self::new(status, "text/html; charset=utf-8", &whole)
    }

    pub(crate) fn redirect(status: u16, to: String) -> Self {
        Self {
            status,
            headers: vec![("Location", to)],
            body: String::new(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// `None` for whatever is no request.
pub(crate) fn read(stream: &mut TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let mut input = BufReader::new(Read::take(stream, 2 * MAX_BYTES));
    let first = line(&mut input)?;
    let mut words = first.split(' ');
    let method = words.next()?.to_owned();
    let target = words.next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers: Vec::new(),
        body: String::new(),
    };
    loop {
        let header = line(&mut input)?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        let value = value.trim().to_owned();
        request.headers.push((name.to_ascii_lowercase(), value));
    }
    if let Some(length) = request.header("content-length") {
        let length: u64 = length.parse().ok()?;
        let mut body = input.take(length.min(MAX_BYTES));
        body.read_to_string(&mut request.body).ok()?;
    }
    Some(request)
}

fn line(input: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    line.ends_with('\n').then(|| line.trim_end().to_owned())
}

/// A caller that has gone does not matter.
pub(crate) fn write(stream: &mut TcpStream, reply: &Reply) {
    let mut head = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = reply.body.len();
    head.push_str(&format!(
        "Content-Length: {length}\r\nConnection: close\r\n\r\n"
    ));
    let whole = head + &reply.body;
    let _ = stream.write_all(whole.as_bytes());
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        303 => "See Other",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    }
}
