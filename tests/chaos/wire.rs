//! HTTP/1.1 as the clients of the run speak it: bytes out, a response in, whole or event by event,
//! and every way to leave. Knows nothing of MCP, and nothing of what is expected.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

/// The longest response that is believed, in bytes.
const MAX_BODY: usize = 8 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no (more of a) response.
#[derive(Debug)]
pub(crate) enum Broken {
    /// No connection was made.
    Connect(std::io::Error),
    /// The connection ended before the response did.
    Closed,
    /// It was reset, or writing to it failed.
    Lost(std::io::Error),
    /// Nothing more came in time.
    Late,
    /// What came is no HTTP.
    Malformed(&'static str),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::Closed => f.write_str("the connection was closed early"),
            Self::Lost(error) => write!(f, "the connection was lost: {error}"),
            Self::Late => f.write_str("nothing came in time"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
        }
    }
}

/// A client's connection.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Received and not yet used.
    received: Vec<u8>,
    deadline: Instant,
    /// The broker's generation when it was made.
    pub(crate) generation: u64,
}

/// What the head of a response says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) session: Option<String>,
    pub(crate) is_stream: bool,
    pub(crate) retry_after: bool,
    /// The edge says it, which knows no JSON.
    pub(crate) is_of_edge: bool,
    length: Option<usize>,
    chunked: bool,
}

/// One server-sent event; comments are not given.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

/// A response that is being read.
pub(crate) struct Response {
    pub(crate) head: Head,
    connection: Connection,
    /// Bytes left of the body, or of the chunk at hand.
    left: usize,
    is_over: bool,
    body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, generation: u64) -> Result<Self, Broken> {
        let stream =
            TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map_err(Broken::Connect)?;
        stream.set_nodelay(true).map_err(Broken::Connect)?;
        stream
            .set_write_timeout(Some(CONNECT_TIMEOUT))
            .map_err(Broken::Connect)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            deadline: Instant::now(),
            generation,
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.stream.write_all(bytes).map_err(Broken::Lost)
    }

    /// Waits for the head of a response, and reads its body within `patience` from now on.
    pub(crate) fn response(mut self, patience: Duration) -> Result<Response, Broken> {
        self.deadline = Instant::now() + patience;
        let head = self.head()?;
        let has_body = !(head.status == 202 || head.status == 204);
        if has_body && head.length.is_none() && !head.chunked {
            return Err(Broken::Malformed("a response without a length"));
        }
        let left = head.length.unwrap_or_default();
        Ok(Response {
            is_over: !head.chunked && left == 0,
            left,
            head,
            connection: self,
            body: Vec::new(),
        })
    }

    /// Leaves with a reset instead of an end.
    pub(crate) fn reset(self) {
        // If it fails, the connection is closed the usual way, which is a way to leave too.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Says that nothing more will be sent.
    pub(crate) fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn head(&mut self) -> Result<Head, Broken> {
        let status = self.line()?;
        let status = status.strip_prefix("HTTP/1.1 ").and_then(|it| it.get(..3));
        let status = status.and_then(|digits| digits.parse().ok());
        let mut head = Head {
            status: status.ok_or(Broken::Malformed("no status line"))?,
            ..Head::default()
        };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(head);
            }
            let (name, value) = line
                .split_once(':')
                .ok_or(Broken::Malformed("a field without a colon"))?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.parse().ok(),
                "transfer-encoding" => head.chunked = value == "chunked",
                "content-type" => {
                    head.is_stream = value.starts_with("text/event-stream");
                    head.is_of_edge = value.starts_with("text/plain");
                }
                "mcp-session-id" => head.session = Some(value.to_owned()),
                "retry-after" => head.retry_after = true,
                _ => {}
            }
        }
    }

    fn line(&mut self) -> Result<String, Broken> {
        loop {
            let end = self.received.windows(2).position(|pair| pair == b"\r\n");
            if let Some(end) = end {
                let line: Vec<u8> = self.received.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| Broken::Malformed("no UTF-8"));
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), Broken> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Broken::Late);
        }
        self.stream
            .set_read_timeout(Some(left))
            .map_err(Broken::Lost)?;
        let mut bytes = [0; 8192];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(Broken::Closed),
            Ok(count) => {
                self.received.extend_from_slice(&bytes[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Broken::Late)
            }
            Err(error) => Err(Broken::Lost(error)),
        }
    }
}

impl Response {
    /// The whole body.
    pub(crate) fn text(&mut self) -> Result<String, Broken> {
        while !self.is_over {
            self.more()?;
        }
        String::from_utf8(std::mem::take(&mut self.body)).map_err(|_| Broken::Malformed("no UTF-8"))
    }

    /// The next event; `None` when the stream has ended properly.
    pub(crate) fn event(&mut self) -> Result<Option<Event>, Broken> {
        loop {
            let end = self.body.windows(2).position(|pair| pair == b"\n\n");
            if let Some(end) = end {
                let block: Vec<u8> = self.body.drain(..end + 2).collect();
                let block = String::from_utf8(block)
                    .map_err(|_| Broken::Malformed("an event: no UTF-8"))?;
                if let Some(event) = parse_event(&block) {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.is_over {
                return match self.body.is_empty() {
                    true => Ok(None),
                    false => Err(Broken::Malformed("half an event at the end")),
                };
            }
            self.more()?;
        }
    }

    /// Gives what follows so much time from now on.
    pub(crate) fn within(&mut self, patience: Duration) {
        self.connection.deadline = Instant::now() + patience;
    }

    /// The connection, for the next request, if the response has been read to its end.
    pub(crate) fn done(self) -> Option<Connection> {
        self.is_over.then_some(self.connection)
    }

    /// The connection, whatever is still to come on it.
    pub(crate) fn leave(self) -> Connection {
        self.connection
    }

    /// Reads some more of the body.
    fn more(&mut self) -> Result<(), Broken> {
        if self.left == 0 {
            let size = self.connection.line()?;
            self.left =
                usize::from_str_radix(&size, 16).map_err(|_| Broken::Malformed("no chunk size"))?;
            if self.left == 0 {
                self.connection.line()?;
                self.is_over = true;
                return Ok(());
            }
        }
        if self.connection.received.is_empty() {
            self.connection.fill()?;
        }
        let count = self.left.min(self.connection.received.len());
        if self.body.len() + count > MAX_BODY {
            return Err(Broken::Malformed("a response without end"));
        }
        self.body.extend(self.connection.received.drain(..count));
        self.left -= count;
        if self.left == 0 {
            match self.head.chunked {
                true => drop(self.connection.line()?),
                false => self.is_over = true,
            }
        }
        Ok(())
    }
}

/// `None` for a comment.
fn parse_event(block: &str) -> Option<Event> {
    let mut event = Event::default();
    let mut is_event = false;
    for line in block.lines() {
        match line.split_once(": ").or(line.split_once(':')) {
            Some(("id", id)) => event.id = Some(id.to_owned()),
            Some(("data", data)) => event.data.push_str(data),
            _ => continue,
        }
        is_event = true;
    }
    is_event.then_some(event)
}
