//! A small MCP client over Streamable HTTP, of either era: one keep-alive connection a session,
//! one request at a time. It takes plain JSON and SSE, with a length and in chunks, and no more
//! than the bench meets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::echo::{self, Calls, Era, MODERN_VERSION, TOOL};
use super::failure::{Context, Failure, Outcome};
use super::load::Caller;

/// How long any read or write may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest answer that is believed, in bytes.
const MAX_BODY: usize = 1 << 20;

const ACCEPT: &str = "Accept: application/json, text/event-stream\r\n";

/// An answer. The body of an SSE answer is the data of its last event.
struct Reply {
    status: u16,
    session: Option<String>,
}

struct Connection {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
    line: Vec<u8>,
}

/// An MCP session, initialized.
pub(crate) struct Session {
    connection: Connection,
    address: SocketAddr,
    /// The header fields that all its requests have.
    fields: String,
    /// From connecting to the answer to `initialize`.
    opening: Duration,
    posts: Posts,
}

/// A client of the modern era, which needs no session.
pub(crate) struct Modern {
    connection: Connection,
    posts: Posts,
}

/// The calls of one client as requests.
struct Posts {
    calls: Calls,
    /// The request that is being built, and how much of it never changes.
    out: Vec<u8>,
    fixed: usize,
}

impl Posts {
    /// `fields` with their line ends.
    fn new(number: usize, era: Era, fields: &str) -> Self {
        let out = format!(
            "POST /mcp HTTP/1.1\r\n{fields}{ACCEPT}Content-Type: application/json\r\nContent-Length: "
        );
        let (fixed, out, calls) = (out.len(), out.into_bytes(), Calls::new(number, era));
        Self { calls, out, fixed }
    }

    /// Makes the next call.
    fn call(&mut self, connection: &mut Connection) -> Outcome<()> {
        self.out.truncate(self.fixed);
        let message = self.calls.next()?;
        write!(self.out, "{}\r\n\r\n", message.len()).at(&"a length")?;
        self.out.extend_from_slice(message);
        connection
            .stream
            .get_mut()
            .write_all(&self.out)
            .at(&"POST")?;
        let reply = connection.receive()?;
        if reply.status != 200 {
            return Err(connection.unexpected("tools/call", reply.status));
        }
        self.calls.check(&connection.body)
    }
}

impl Modern {
    /// Connects; there is nothing to be settled.
    pub(crate) fn open(address: SocketAddr, number: usize) -> Outcome<Self> {
        let fields = format!(
            "Host: {address}\r\nMCP-Protocol-Version: {MODERN_VERSION}\r\nMcp-Method: tools/call\r\nMcp-Name: {TOOL}\r\n"
        );
        Ok(Self {
            connection: Connection::new(address)?,
            posts: Posts::new(number, Era::Modern, &fields),
        })
    }
}

impl Caller for Modern {
    fn call(&mut self) -> Outcome<()> {
        self.posts.call(&mut self.connection)
    }

    fn close(self) -> Outcome<()> {
        Ok(())
    }
}

impl Session {
    /// Opens a session at `address` as a client does: `initialize`, then
    /// `notifications/initialized`.
    pub(crate) fn open(address: SocketAddr, number: usize) -> Outcome<Self> {
        let begin = Instant::now();
        let mut connection = Connection::new(address)?;
        let host = format!("Host: {address}\r\n");
        let reply = connection.exchange("POST", &format!("{host}{ACCEPT}"), &echo::initialize())?;
        let opening = begin.elapsed();
        if reply.status != 200 {
            return Err(connection.unexpected("initialize", reply.status));
        }
        let version = echo::settled_version(&connection.body)?;
        let id = reply
            .session
            .ok_or_else(|| Failure::new("no Mcp-Session-Id"))?;
        let fields = format!("{host}Mcp-Session-Id: {id}\r\nMCP-Protocol-Version: {version}\r\n");
        let told = connection.exchange("POST", &format!("{fields}{ACCEPT}"), echo::INITIALIZED)?;
        if told.status != 202 {
            return Err(connection.unexpected("notifications/initialized", told.status));
        }
        let posts = Posts::new(number, Era::Legacy, &fields);
        Ok(Self {
            connection,
            address,
            fields,
            opening,
            posts,
        })
    }

    /// How long `initialize` took, the connection included.
    pub(crate) fn opening(&self) -> Duration {
        self.opening
    }

    /// Opens the session's own stream; it is open as long as the result lives.
    pub(crate) fn listen(&self) -> Outcome<impl Sized + use<>> {
        let mut connection = Connection::new(self.address)?;
        let fields = &self.fields;
        let head = format!("GET /mcp HTTP/1.1\r\n{fields}Accept: text/event-stream\r\n\r\n");
        connection
            .stream
            .get_mut()
            .write_all(head.as_bytes())
            .at(&"GET")?;
        match connection.head()?.0.status {
            200 => Ok(connection),
            status => Err(connection.unexpected("GET", status)),
        }
    }
}

impl Caller for Session {
    fn call(&mut self) -> Outcome<()> {
        self.posts.call(&mut self.connection)
    }

    /// Ends the session. On a connection of its own: the old one may have been idle for too long.
    fn close(self) -> Outcome<()> {
        let mut connection = Connection::new(self.address)?;
        let reply = connection.exchange("DELETE", &self.fields, "")?;
        if !(200..300).contains(&reply.status) {
            return Err(connection.unexpected("DELETE", reply.status));
        }
        Ok(())
    }
}

impl Connection {
    fn new(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).at(&address)?;
        stream.set_nodelay(true).at(&"TCP_NODELAY")?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .at(&"read timeout")?;
        stream
            .set_write_timeout(Some(PATIENCE))
            .at(&"write timeout")?;
        Ok(Self {
            stream: BufReader::new(stream),
            body: Vec::new(),
            line: Vec::new(),
        })
    }

    /// One request, one answer. `fields` with their line ends.
    fn exchange(&mut self, method: &str, fields: &str, body: &str) -> Outcome<Reply> {
        let length = body.len();
        let request = format!(
            "{method} /mcp HTTP/1.1\r\n{fields}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream
            .get_mut()
            .write_all(request.as_bytes())
            .at(&method)?;
        self.receive()
    }

    /// Reads an answer, its body into `self.body`.
    fn receive(&mut self) -> Outcome<Reply> {
        let (reply, framing) = self.head()?;
        self.body.clear();
        match framing {
            Framing {
                length: Some(length),
                ..
            } => self.take(length)?,
            Framing { chunked: true, .. } => self.chunks()?,
            _ if reply.status == 202 || reply.status == 204 => {}
            _ => return Err(Failure::new("an answer without a length")),
        }
        if framing.events {
            let data =
                last_event(&self.body).ok_or_else(|| Failure::new("no event in the answer"))?;
            self.body = data.to_vec();
        }
        Ok(reply)
    }

    fn head(&mut self) -> Outcome<(Reply, Framing)> {
        let status = self.line()?;
        let status = status
            .get(9..12)
            .and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
        let status = status.ok_or_else(|| Failure::new("no status line"))?;
        let mut reply = Reply {
            status,
            session: None,
        };
        let mut framing = Framing::default();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((reply, framing));
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                return Err(Failure::new("a header field without a colon"));
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                framing.length = str::from_utf8(value)
                    .ok()
                    .and_then(|digits| digits.parse().ok());
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                framing.chunked = value.eq_ignore_ascii_case(b"chunked");
            } else if name.eq_ignore_ascii_case(b"content-type") {
                framing.events = value.starts_with(b"text/event-stream");
            } else if name.eq_ignore_ascii_case(b"mcp-session-id") {
                reply.session = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
    }

    /// The next line, without its end.
    fn line(&mut self) -> Outcome<&[u8]> {
        self.line.clear();
        self.stream
            .read_until(b'\n', &mut self.line)
            .at(&"answer")?;
        match self.line.strip_suffix(b"\r\n") {
            Some(line) => Ok(line),
            None => Err(Failure::new("the server hung up")),
        }
    }

    /// Appends `length` bytes to the body.
    fn take(&mut self, length: usize) -> Outcome<()> {
        let begin = self.body.len();
        if begin.saturating_add(length) > MAX_BODY {
            return Err(Failure::new(format!(
                "an answer of more than {MAX_BODY} bytes"
            )));
        }
        self.body.resize(begin + length, 0);
        self.stream
            .read_exact(&mut self.body[begin..])
            .at(&"answer")
    }

    fn chunks(&mut self) -> Outcome<()> {
        loop {
            let size = self.line()?;
            let size = str::from_utf8(size)
                .ok()
                .and_then(|hex| usize::from_str_radix(hex, 16).ok());
            let size = size.ok_or_else(|| Failure::new("no size of a chunk"))?;
            self.take(size)?;
            self.line()?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn unexpected(&self, request: &str, status: u16) -> Failure {
        Failure::new(format!(
            "{request}: status {status}: {}",
            String::from_utf8_lossy(&self.body)
        ))
    }
}

/// How the end of a body is found, and what is in it.
#[derive(Default)]
struct Framing {
    length: Option<usize>,
    chunked: bool,
    events: bool,
}

/// The data of the last event that has some.
fn last_event(body: &[u8]) -> Option<&[u8]> {
    let data = body
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"data:"));
    data.map(<[u8]>::trim_ascii).rfind(|data| !data.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_with_data_counts() {
        assert_eq!(
            last_event(b"id: 1\ndata:\n\nevent: message\ndata: {}\r\n\r\n"),
            Some(&b"{}"[..])
        );
        assert_eq!(last_event(b": hello\n\n"), None);
    }
}
