//! The head of a client's request: checked, and rewritten for tiny_http. Pure.
//!
//! What passes is one reading of the request that every later reader shares (RFC 9112); what
//! could be read in two ways is refused, whichever way would be right.

use std::net::IpAddr;

use super::listener::Door;
use super::refuse::Refusal;

/// Longest request line, in bytes (414 beyond).
const REQUEST_LINE_MAX_BYTES: usize = 8 * 1024;
/// Longest head, in bytes (431 beyond).
pub(super) const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Most header fields (431 beyond).
pub(super) const FIELDS_MAX: usize = 100;
/// Memory for a body is taken ahead only up to this size: it may never come.
const RESERVE_MAX_BYTES: usize = 64 * 1024;
/// Room for a usual head with its body.
const HEAD_CAPACITY_BYTES: usize = 2 * 1024;
/// Fields of ours: no client can send one.
const OWN_PREFIX: &[u8] = b"edge-";
/// Tells connections apart; how the HTTP side knows that a request came through the edge.
pub(crate) const CONNECTION_FIELD: &str = "Edge-Connection";
/// The address of the client.
pub(crate) const PEER_FIELD: &str = "Edge-Peer";

/// Stands in requests that came through the admin listener.
pub(crate) const DOOR_FIELD: &str = "Edge-Door";
/// Its value.
pub(crate) const ADMIN_DOOR: &str = "admin";

/// Who a request comes from.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) connection: u64,
    pub(super) door: Door,
    pub(super) peer: Option<IpAddr>,
}

/// How long the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

/// A request's head, without what concerns one hop only.
#[derive(Debug)]
pub(super) struct Head {
    /// Request line and fields for tiny_http, to be completed by [`Head::complete`].
    forward: Vec<u8>,
    pub(super) framing: Framing,
    pub(super) is_http_10: bool,
    pub(super) is_get: bool,
    pub(super) is_head: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    /// The addresses that proxies added, the last one nearest.
    forwarded_for: Vec<IpAddr>,
}

impl Head {
    /// The head for tiny_http, with a blank line at its end and room for the body. Can be taken
    /// only once.
    pub(super) fn complete(&mut self, body_len: usize, sender: &Sender) -> Vec<u8> {
        use std::io::Write as _;
        let mut head = std::mem::take(&mut self.forward);
        head.reserve(128 + body_len.min(RESERVE_MAX_BYTES));
        if self.is_get {
            // What answers it may be a stream without end: do not keep a thread of tiny_http.
            head.extend_from_slice(b"Connection: close\r\n");
        }
        // Writing to a Vec cannot fail.
        let _ = write!(
            head,
            "Content-Length: {body_len}\r\n{CONNECTION_FIELD}: {}\r\n",
            sender.connection
        );
        if sender.door == Door::Admin {
            let _ = write!(head, "{DOOR_FIELD}: {ADMIN_DOOR}\r\n");
        }
        if let Some(peer) = sender.peer {
            let _ = write!(head, "{PEER_FIELD}: {peer}\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// The client's address: the nearest hop that is no trusted proxy.
    pub(super) fn peer(&self, hop: Option<IpAddr>, trusted: &[IpAddr]) -> Option<IpAddr> {
        let hop = hop.map(|ip| ip.to_canonical());
        if hop.is_some_and(|hop| !trusted.contains(&hop)) {
            return hop;
        }
        self.forwarded_for
            .iter()
            .rev()
            .find(|ip| !trusted.contains(ip))
            .copied()
            .or(hop)
    }
}

/// What has come of a head so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// No blank line yet.
    Incomplete,
    /// The head is so many bytes long.
    Complete(usize),
}

/// Takes away empty lines before a request (RFC 9112 section 2.2).
pub(super) fn skip_empty_lines(bytes: &mut Vec<u8>) {
    let empty = bytes.chunks_exact(2).take_while(|line| line == b"\r\n");
    let len = 2 * empty.count();
    bytes.drain(..len);
}

/// Looks for the end of the head; everything before `seen` has been looked at before.
///
/// # Errors
/// 400 at the first byte that no head can have, 414 or 431 when it is too long already.
pub(super) fn scan(bytes: &[u8], seen: usize) -> Result<Scan, Refusal> {
    if bytes == b"\r" {
        return Ok(Scan::Incomplete); // half of an empty line
    }
    if bytes
        .first()
        .is_some_and(|first| !first.is_ascii_uppercase() && !first.is_ascii_lowercase())
    {
        return Err(Refusal::BadRequest(
            "the request line does not begin with a method",
        ));
    }
    for at in seen..bytes.len().min(HEAD_MAX_BYTES) {
        if bytes[at] == b'\n' {
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(Refusal::BadRequest("a line ends without CR"));
            }
            if at >= 3 && bytes[at - 3..at] == *b"\r\n\r" {
                return Ok(Scan::Complete(at + 1));
            }
        }
    }
    if bytes.len() < REQUEST_LINE_MAX_BYTES {
        return Ok(Scan::Incomplete);
    }
    if !bytes[..REQUEST_LINE_MAX_BYTES].contains(&b'\n') {
        return Err(Refusal::UriTooLong);
    }
    if bytes.len() < HEAD_MAX_BYTES {
        return Ok(Scan::Incomplete);
    }
    Err(Refusal::HeadTooLarge)
}

/// Reads a whole head, as found by [`scan`].
///
/// # Errors
/// The refusal to answer with; the connection is to be closed then.
pub(super) fn parse(bytes: &[u8], max_body: usize) -> Result<Head, Refusal> {
    // On the heap: every connection's stack would keep what it once touched.
    let mut fields = vec![httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
        Ok(_) => return Err(Refusal::BadRequest("the head is malformed")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(refuse_version(bytes)),
        Err(_) => return Err(Refusal::BadRequest("the head is malformed")),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Refusal::BadRequest("the request line is malformed"));
    };
    if method.len() + target.len() + "  HTTP/1.1\r\n".len() > REQUEST_LINE_MAX_BYTES {
        return Err(Refusal::UriTooLong);
    }
    let fields = Fields::read(request.headers, version == 0)?;
    let target = Target::parse(method, target)?;
    let framing = fields.framing(max_body)?;
    Ok(Head {
        forward: forward(method, &target, request.headers, &fields)?,
        framing,
        is_http_10: version == 0,
        is_get: method == "GET",
        is_head: method == "HEAD",
        keep_alive: version == 1 && !fields.close,
        expects_continue: fields.expects_continue && version == 1,
        forwarded_for: fields.forwarded_for,
    })
}

/// 505 for a version of HTTP that we do not speak, 400 for what is no version.
fn refuse_version(bytes: &[u8]) -> Refusal {
    let line = bytes
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    match line {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit()
                && minor.is_ascii_digit()
                && line.iter().filter(|byte| **byte == b' ').count() == 2 =>
        {
            Refusal::VersionNotSupported
        }
        _ => Refusal::BadRequest("the request line is malformed"),
    }
}

/// RFC 9112 section 3.2: origin-form, or absolute-form, whose authority overrides `Host`.
struct Target<'a> {
    path: &'a str,
    authority: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn parse(method: &str, target: &'a str) -> Result<Self, Refusal> {
        if matches!(method, "CONNECT" | "TRACE") {
            return Err(Refusal::NotImplemented("this method"));
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Refusal::BadRequest(
                "the target has bytes outside of visible ASCII",
            ));
        }
        if target.starts_with('/') {
            return Ok(Self {
                path: target,
                authority: None,
            });
        }
        let (scheme, rest) = target.split_once("://").unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(Refusal::BadRequest("the target is not a path"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = if path.starts_with('/') { path } else { "/" };
        Ok(Self {
            path,
            authority: Some(authority),
        })
    }
}

/// What the fields say about this hop.
#[derive(Default)]
struct Fields<'a> {
    is_http_10: bool,
    close: bool,
    expects_continue: bool,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    forwarded_for: Vec<IpAddr>,
    /// Field names that `Connection` lists: they concern this hop only.
    nominated: Vec<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>], is_http_10: bool) -> Result<Self, Refusal> {
        let mut fields = Self {
            is_http_10,
            ..Self::default()
        };
        for header in headers {
            if header.value.is_ascii() {
                fields.take(header.name, header.value)?;
            } else if is_essential(header.name.as_bytes()) {
                return Err(Refusal::BadRequest("a field has bytes outside of ASCII"));
            }
        }
        if fields.nominated.iter().any(|name| is_essential(name)) {
            return Err(Refusal::BadRequest(
                "Connection names a field that is not its own",
            ));
        }
        if fields.host.is_none() && !is_http_10 {
            return Err(Refusal::BadRequest("the Host field is missing"));
        }
        Ok(fields)
    }

    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Refusal> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let once = |slot: &mut Option<&'a [u8]>, why| match slot.replace(value) {
            Some(_) => Err(Refusal::BadRequest(why)),
            None => Ok(()),
        };
        if is("Content-Length") {
            once(&mut self.content_length, "Content-Length stands twice")?;
        } else if is("Transfer-Encoding") {
            once(
                &mut self.transfer_encoding,
                "Transfer-Encoding stands twice",
            )?;
        } else if is("Host") {
            once(&mut self.host, "Host stands twice")?;
        } else if is("Expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::ExpectationFailed);
            }
            self.expects_continue = true;
        } else if is("Connection") {
            for option in list(value) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.nominated.push(option);
            }
        } else if is("X-Forwarded-For") {
            for ip in list(value).map(|ip| str::from_utf8(ip).ok()?.parse::<IpAddr>().ok()) {
                match ip {
                    Some(ip) => self.forwarded_for.push(ip.to_canonical()),
                    // A proxy has written what we cannot read: what stands before it is hearsay.
                    None => self.forwarded_for.clear(),
                }
            }
        }
        Ok(())
    }

    /// RFC 9112 section 6.3, without its leniency.
    fn framing(&self, max_body: usize) -> Result<Framing, Refusal> {
        match (self.content_length, self.transfer_encoding) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(_), Some(_)) => Err(Refusal::BadRequest(
                "Content-Length beside Transfer-Encoding",
            )),
            (None, Some(_)) if self.is_http_10 => {
                Err(Refusal::BadRequest("Transfer-Encoding in HTTP/1.0"))
            }
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (None, Some(_)) => Err(Refusal::NotImplemented("this transfer coding")),
            (Some(length), None) => {
                if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
                    return Err(Refusal::BadRequest("Content-Length is not a number"));
                }
                // Digits that do not fit are too many bytes for sure.
                let length = str::from_utf8(length)
                    .ok()
                    .and_then(|text| text.parse().ok());
                match length {
                    Some(length) if length <= max_body => Ok(Framing::Length(length)),
                    _ => Err(Refusal::BodyTooLarge),
                }
            }
        }
    }

    /// Whether a field ends here (RFC 9110 section 7.6.1), or is one that we write ourselves.
    fn is_dropped(&self, name: &[u8]) -> bool {
        const DROPPED: [&[u8]; 13] = [
            b"connection",
            b"keep-alive",
            b"proxy-connection",
            b"te",
            b"trailer",
            b"transfer-encoding",
            b"upgrade",
            b"http2-settings",
            b"expect",
            b"content-length",
            b"host",
            b"proxy-authorization",
            b"x-forwarded-for",
        ];
        let starts = name.len() >= OWN_PREFIX.len();
        (starts && name[..OWN_PREFIX.len()].eq_ignore_ascii_case(OWN_PREFIX))
            || DROPPED
                .iter()
                .any(|dropped| name.eq_ignore_ascii_case(dropped))
            || self
                .nominated
                .iter()
                .any(|nominated| name.eq_ignore_ascii_case(nominated))
    }
}

/// Whether a request without this field would be another request: then it cannot be dropped.
fn is_essential(name: &[u8]) -> bool {
    const ESSENTIAL: [&[u8]; 9] = [
        b"host",
        b"origin",
        b"authorization",
        b"accept",
        b"content-type",
        b"content-length",
        b"transfer-encoding",
        b"expect",
        b"connection",
    ];
    ESSENTIAL
        .iter()
        .any(|essential| name.eq_ignore_ascii_case(essential))
}

fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
}

fn forward(
    method: &str,
    target: &Target<'_>,
    headers: &[httparse::Header<'_>],
    fields: &Fields<'_>,
) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(HEAD_CAPACITY_BYTES);
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    put(&[
        method.as_bytes(),
        b" ",
        target.path.as_bytes(),
        b" HTTP/1.1\r\n",
    ]);
    let host = target
        .authority
        .map(str::as_bytes)
        .or(fields.host)
        .unwrap_or_default();
    put(&[b"Host: ", host, b"\r\n"]);
    for header in headers {
        // tiny_http trims the line before it looks for the colon, so an empty name must not pass.
        if header.name.is_empty() {
            return Err(Refusal::BadRequest("a header field has no name"));
        }
        // RFC 9110 section 5.5 lets other bytes pass, but tiny_http closes without an answer.
        if header.value.is_ascii() && !fields.is_dropped(header.name.as_bytes()) {
            put(&[header.name.as_bytes(), b": ", header.value, b"\r\n"]);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
