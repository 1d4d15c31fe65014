//! A blocking HTTP/1.1 client that shows every byte: small, strict, and independent of the broker's
//! own parsing.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::Value;

use super::DEADLINE;

/// What is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    path: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Sets a field, instead of one of this name.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        let mut request = self.without(name);
        request.fields.push((name.to_owned(), value.to_owned()));
        request
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The bytes as they are sent. `Host` is the address unless set; `Content-Length` always is.
    pub(crate) fn bytes(&self, addr: SocketAddr) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        let mut line = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        let is_set = |name: &str| {
            let mut fields = self.fields.iter();
            fields.any(|(other, _)| other.eq_ignore_ascii_case(name))
        };
        if !is_set("Host") {
            line("Host", &addr.to_string());
        }
        for (name, value) in &self.fields {
            line(name, value);
        }
        if !is_set("Content-Length") && (!self.body.is_empty() || self.method == "POST") {
            line("Content-Length", &self.body.len().to_string());
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it on a connection of its own, and reads the whole response.
    #[track_caller]
    pub(crate) fn send(&self, addr: SocketAddr) -> Response {
        let mut connection = Connection::open(addr);
        connection.send(self);
        connection.response()
    }

    /// Sends it on a connection of its own, and expects an event stream.
    #[track_caller]
    pub(crate) fn stream(&self, addr: SocketAddr) -> Events {
        let mut connection = Connection::open(addr);
        connection.send(self);
        connection.events()
    }
}

/// A response, whole. Of an event stream the body is all that came until its end.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{} {:?} {body}", self.status, self.fields)
    }
}

impl Response {
    /// The value of a field that stands at most once.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let text = self.text();
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// The code of a JSON-RPC error.
    #[track_caller]
    pub(crate) fn error_code(&self) -> i64 {
        let code = self.json()["error"]["code"].as_i64();
        code.unwrap_or_else(|| panic!("no JSON-RPC error: {}", self.text()))
    }

    /// The message of a JSON-RPC error.
    #[track_caller]
    pub(crate) fn error_message(&self) -> String {
        let json = self.json();
        let message = json["error"]["message"].as_str();
        message
            .unwrap_or_else(|| panic!("no error: {json}"))
            .to_owned()
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.header("Content-Type") == Some("text/event-stream")
    }

    /// The JSON-RPC messages in it, as text: one, or those of an event stream.
    #[track_caller]
    pub(crate) fn messages(&self) -> Vec<String> {
        if !self.is_stream() {
            return vec![self.text().to_owned()];
        }
        let blocks = self.text().split_terminator("\n\n");
        blocks
            .filter_map(|block| Event::parse(block).message())
            .collect()
    }

    /// The last message, which is the answer.
    #[track_caller]
    pub(crate) fn answer(&self) -> Value {
        let messages = self.messages();
        let last = messages
            .last()
            .unwrap_or_else(|| panic!("no message: {self:?}"));
        serde_json::from_str(last).expect("a JSON-RPC message")
    }
}

#[track_caller]
fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut values = fields
        .iter()
        .filter(|(other, _)| other.eq_ignore_ascii_case(name));
    let first = values.next().map(|(_, value)| value.as_str());
    assert!(values.next().is_none(), "{name} stands twice: {fields:?}");
    first
}

/// One connection; requests follow each other on it.
pub(crate) struct Connection {
    stream: TcpStream,
    addr: SocketAddr,
    /// What was read and not yet used.
    buffer: Vec<u8>,
    /// The request that was sent last has no body in its response.
    is_head: bool,
    /// When what is waited for must be there. A stream's comments do not put it off.
    deadline: Instant,
}

impl Connection {
    #[track_caller]
    pub(crate) fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(DEADLINE)).expect("a timeout");
        Self {
            stream,
            addr,
            buffer: Vec::new(),
            is_head: false,
            deadline: Instant::now() + DEADLINE,
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, request: &Request) {
        self.is_head = request.method == "HEAD";
        self.send_bytes(&request.bytes(self.addr));
    }

    #[track_caller]
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// Sends bytes that the broker may refuse to read: true if it took them all.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The deadline of what is waited for from now on.
    fn begin(&mut self) {
        self.deadline = Instant::now() + DEADLINE;
    }

    /// Sends no more, and goes on reading.
    pub(crate) fn shut_write(&mut self) {
        // The other side may have closed first.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next response, whole.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        let (status, fields) = self.head();
        let body = self.body(status, &fields);
        Response {
            status,
            fields,
            body,
        }
    }

    /// The next response, which must be an event stream.
    #[track_caller]
    pub(crate) fn events(mut self) -> Events {
        let (status, fields) = self.head();
        if status != 200 || find(&fields, "Content-Type") != Some("text/event-stream") {
            let body = self.body(status, &fields);
            let body = String::from_utf8_lossy(&body);
            panic!("no event stream: {status} {fields:?} {body}");
        }
        assert_eq!(find(&fields, "Transfer-Encoding"), Some("chunked"));
        Events {
            connection: self,
            fields,
            text: Vec::new(),
            is_at_end: false,
        }
    }

    /// All that comes until the broker closes; a reset ends it too.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.begin();
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// The head of a response, without its body.
    #[track_caller]
    pub(crate) fn head(&mut self) -> (u16, Vec<(String, String)>) {
        self.begin();
        let head = self.until(b"\r\n\r\n");
        let head = String::from_utf8(head).expect("a head in UTF-8");
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        let status = status.and_then(|status| status.parse().ok());
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a field");
            (name.to_owned(), value.trim().to_owned())
        });
        (
            status.unwrap_or_else(|| panic!("no status line: {first:?}")),
            fields.collect(),
        )
    }

    #[track_caller]
    fn body(&mut self, status: u16, fields: &[(String, String)]) -> Vec<u8> {
        if self.is_head || status == 204 || status < 200 {
            return Vec::new();
        }
        if find(fields, "Transfer-Encoding").is_some() {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk() {
                body.extend_from_slice(&chunk);
            }
            return body;
        }
        match find(fields, "Content-Length") {
            Some(len) => self.take(len.parse().expect("a length")),
            None => self.rest(),
        }
    }

    /// The next chunk (RFC 9112 section 7.1); `None` at the last one.
    #[track_caller]
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.until(b"\r\n");
        let size = str::from_utf8(&line).expect("a chunk size").trim_end();
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        let data = self.take(size);
        assert_eq!(self.take(2), b"\r\n", "after a chunk");
        (size > 0).then_some(data)
    }

    #[track_caller]
    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut seen = 0;
        loop {
            let unseen = self.buffer.get(seen..).unwrap_or_default();
            if let Some(at) = unseen.windows(end.len()).position(|window| window == end) {
                let rest = self.buffer.split_off(seen + at + end.len());
                return std::mem::replace(&mut self.buffer, rest);
            }
            seen = (self.buffer.len() + 1).saturating_sub(end.len());
            let text = String::from_utf8_lossy(&self.buffer).into_owned();
            assert!(self.fill(), "the connection ended after {text:?}");
        }
    }

    #[track_caller]
    fn take(&mut self, len: usize) -> Vec<u8> {
        while self.buffer.len() < len {
            assert!(self.fill(), "the connection ended in a body");
        }
        let rest = self.buffer.split_off(len);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Reads more; false when the connection has ended.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 64 * 1024];
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing came for {DEADLINE:?}");
            self.stream.set_read_timeout(Some(left)).expect("a timeout");
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(len) => {
                    self.buffer.extend_from_slice(&bytes[..len]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(_) => {}
            }
        }
    }
}

/// One block of an event stream (WHATWG HTML, server-sent events).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) retry: Option<String>,
    /// There was a comment in it.
    pub(crate) comment: bool,
}

impl Event {
    fn parse(block: &str) -> Self {
        let mut event = Self::default();
        for line in block.split('\n') {
            assert!(
                !line.contains('\r'),
                "a carriage return ends a line: {block:?}"
            );
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "" => event.comment = true,
                "id" => event.id = Some(value),
                "event" => event.kind = Some(value),
                "retry" => event.retry = Some(value),
                "data" => {
                    assert!(event.data.is_none(), "two lines of data: {block:?}");
                    event.data = Some(value);
                }
                _ => panic!("{name:?} is no field: {block:?}"),
            }
        }
        event
    }

    /// The message, unless it is a comment or an event without data.
    fn message(self) -> Option<String> {
        self.data.filter(|data| !data.is_empty())
    }
}

/// An open event stream. Dropping it closes the connection without a word.
pub(crate) struct Events {
    connection: Connection,
    pub(crate) fields: Vec<(String, String)>,
    text: Vec<u8>,
    is_at_end: bool,
}

impl Events {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }

    /// The next block, comments included; `None` at the end of the stream, which must be a proper
    /// one.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Event> {
        self.connection.begin();
        self.next_block()
    }

    #[track_caller]
    fn next_block(&mut self) -> Option<Event> {
        loop {
            if let Some(at) = self.text.windows(2).position(|window| window == b"\n\n") {
                let rest = self.text.split_off(at + 2);
                let block = std::mem::replace(&mut self.text, rest);
                let block = str::from_utf8(&block).expect("events in UTF-8");
                return Some(Event::parse(block.trim_end_matches('\n')));
            }
            if self.is_at_end {
                assert_eq!(self.text, b"", "left after the last event");
                return None;
            }
            match self.connection.chunk() {
                Some(chunk) => self.text.extend_from_slice(&chunk),
                None => self.is_at_end = true,
            }
        }
    }

    /// The next event if it came whole before the connection broke.
    #[track_caller]
    pub(crate) fn next_if_whole(&mut self) -> Option<Event> {
        self.connection.begin();
        while self.connection.fill() {}
        let buffer = &self.connection.buffer;
        let line = buffer.windows(2).position(|window| window == b"\r\n")?;
        let size = str::from_utf8(&buffer[..line]).expect("a chunk size");
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        (buffer.len() >= line + 2 + size + 2).then(|| self.next_block())?
    }

    /// The next event that carries a message; `None` at the end.
    #[track_caller]
    pub(crate) fn next_message(&mut self) -> Option<Event> {
        self.connection.begin();
        loop {
            let event = self.next_block()?;
            if event.clone().message().is_some() {
                return Some(event);
            }
        }
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Value {
        let event = self.next_message().expect("a message before the end");
        serde_json::from_str(&event.data.unwrap_or_default()).expect("a JSON-RPC message")
    }

    /// All messages until the end.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<Value> {
        let mut messages = Vec::new();
        while let Some(event) = self.next_message() {
            let data = event.data.unwrap_or_default();
            messages.push(serde_json::from_str(&data).expect("a JSON-RPC message"));
        }
        messages
    }
}
