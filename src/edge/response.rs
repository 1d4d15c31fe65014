//! The response of tiny_http on its way to the client: its head is rewritten for this hop, its
//! end is found. Pure.

use super::chunked::Decoder;
use super::head::HEAD_MAX_BYTES;

/// What the request says about its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// A response to HEAD has no body, whatever its head says.
    pub(super) is_head: bool,
    /// HTTP/1.0 knows no chunks: the body is decoded, and ends with the connection.
    pub(super) is_http_10: bool,
    /// The connection may stay open after this response.
    pub(super) keep_alive: bool,
}

/// The response cannot be passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug)]
enum State {
    Head(Vec<u8>),
    Length(u64),
    Chunked(Decoder),
    /// Until tiny_http closes.
    Close,
    End,
}

#[derive(Debug)]
pub(super) struct Response {
    request: Request,
    state: State,
    /// More came than belongs to this response.
    has_surplus: bool,
}

impl Response {
    pub(super) fn new(request: Request) -> Self {
        Self {
            request,
            state: State::Head(Vec::new()),
            has_surplus: false,
        }
    }

    /// Takes bytes of tiny_http, and adds to `out` what the client shall get.
    ///
    /// # Errors
    /// [`Malformed`]; no more can be said to the client then.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let State::Head(head) = &mut self.state else {
            return self.feed_body(bytes, out);
        };
        let seen = head.len().saturating_sub(3);
        head.extend_from_slice(bytes);
        let Some(at) = head[seen..].windows(4).position(|four| four == b"\r\n\r\n") else {
            return if head.len() < HEAD_MAX_BYTES {
                Ok(())
            } else {
                Err(Malformed)
            };
        };
        let head = std::mem::take(head);
        let (head, rest) = head.split_at(seen + at + 4);
        self.pass_head(head, out)?;
        self.feed_body(rest, out)
    }

    /// The whole response has been taken.
    pub(super) fn is_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.state, State::Head(_))
    }

    /// Whether the connection to the client stays open after this response.
    pub(super) fn keeps_client(&self) -> bool {
        self.is_end() && self.request.keep_alive
    }

    /// Whether the connection to tiny_http can carry another request.
    pub(super) fn keeps_inner(&self) -> bool {
        self.is_end() && !self.has_surplus
    }

    /// tiny_http has closed. True if that was the end of the response.
    pub(super) fn close(&mut self) -> bool {
        if matches!(self.state, State::Close) {
            self.state = State::End;
        }
        self.is_end()
    }

    fn feed_body(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        match &mut self.state {
            State::Length(left) => {
                let len = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                out.extend_from_slice(&bytes[..len]);
                self.has_surplus = len < bytes.len();
                *left -= len as u64;
                if *left == 0 {
                    self.state = State::End;
                }
            }
            State::Chunked(decoder) => {
                let decode = self.request.is_http_10;
                let used = decoder
                    .feed(bytes, |data| {
                        if decode {
                            out.extend_from_slice(data)
                        }
                    })
                    .map_err(|_| Malformed)?;
                if !decode {
                    out.extend_from_slice(&bytes[..used]);
                }
                self.has_surplus = used < bytes.len();
                if decoder.is_end() {
                    self.state = State::End;
                }
            }
            State::Close => out.extend_from_slice(bytes),
            State::Head(_) | State::End => self.has_surplus |= !bytes.is_empty(),
        }
        Ok(())
    }

    fn pass_head(&mut self, head: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut fields);
        let whole = httparse::Status::Complete(head.len());
        // httparse passes over empty lines before a head.
        let is_first = head.starts_with(b"HTTP/");
        if response.parse(head) != Ok(whole) || !is_first || has_bare_lf(head) {
            return Err(Malformed);
        }
        let status = response.code.ok_or(Malformed)?;
        let find = |name: &str| {
            let field = response
                .headers
                .iter()
                .find(|it| it.name.eq_ignore_ascii_case(name))?;
            Some(str::from_utf8(field.value).unwrap_or_default())
        };
        let length = find("Content-Length").map(str::parse::<u64>).transpose();
        let length = length.map_err(|_| Malformed)?;
        let coding = find("Transfer-Encoding");
        let chunked = coding.is_some();
        if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case("chunked")) {
            return Err(Malformed);
        }
        self.state = match (status, chunked, length) {
            (100..=199 | 204 | 304, ..) => State::End,
            _ if self.request.is_head => State::End,
            (_, true, _) => State::Chunked(Decoder::new()),
            (_, false, Some(0)) => State::End,
            (_, false, Some(length)) => State::Length(length),
            (_, false, None) => State::Close,
        };
        if matches!(self.state, State::Close) || (chunked && self.request.is_http_10) {
            self.request.keep_alive = false;
        }
        // Status line as it is: tiny_http writes HTTP/1.1, which is our version too.
        let line_end = head
            .windows(2)
            .position(|two| two == b"\r\n")
            .ok_or(Malformed)?;
        out.extend_from_slice(&head[..line_end + 2]);
        for field in response.headers.iter() {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            let length_of_nothing = status == 204 && is("Content-Length"); // RFC 9110 section 8.6
            if is("Connection")
                || is("Server")
                || length_of_nothing
                || (is("Transfer-Encoding") && self.request.is_http_10)
            {
                continue;
            }
            for part in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        if !self.request.keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// httparse takes LF alone for the end of a line.
fn has_bare_lf(head: &[u8]) -> bool {
    head.windows(2)
        .any(|two| two[1] == b'\n' && two[0] != b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Request = Request {
        is_head: false,
        is_http_10: false,
        keep_alive: true,
    };
    const OLD: Request = Request {
        is_head: false,
        is_http_10: true,
        keep_alive: false,
    };

    fn pass(request: Request, input: &str) -> (String, Response) {
        let mut response = Response::new(request);
        let mut out = Vec::new();
        for byte in input.as_bytes() {
            response.feed(&[*byte], &mut out).unwrap();
        }
        (String::from_utf8(out).unwrap(), response)
    }

    #[test]
    fn passes_a_response_with_length() {
        let head = "HTTP/1.1 200 OK\r\nServer: x\r\nDate: d\r\nContent-Length: 2\r\n";
        let (out, response) = pass(PLAIN, &format!("{head}Connection: close\r\n\r\nhi"));
        assert_eq!(
            out,
            "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\nhi"
        );
        assert!(response.keeps_client() && response.keeps_inner());
        let (_, response) = pass(PLAIN, &format!("{head}\r\nh"));
        assert!(response.has_begun() && !response.is_end());
        let (out, response) = pass(PLAIN, &format!("{head}\r\nhi!"));
        assert!(out.ends_with("hi") && !response.keeps_inner());
    }

    #[test]
    fn passes_chunks_as_they_are_and_finds_their_end() {
        let input = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        let (out, response) = pass(PLAIN, input);
        assert_eq!(out, input);
        assert!(response.keeps_client() && response.keeps_inner());
        let (out, response) = pass(OLD, input);
        assert_eq!(out, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi");
        assert!(response.is_end() && !response.keeps_client());
    }

    #[test]
    fn knows_responses_without_a_body() {
        let (out, response) = pass(PLAIN, "HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(out, "HTTP/1.1 204 No Content\r\n\r\n");
        assert!(response.keeps_client());
        let head = Request {
            is_head: true,
            ..PLAIN
        };
        let (_, response) = pass(head, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
        assert!(response.is_end());
    }

    #[test]
    fn refuses_a_head_that_clients_could_read_otherwise() {
        let check = |head: &str| {
            let passed = Response::new(PLAIN).feed(head.as_bytes(), &mut Vec::new());
            assert_eq!(passed, Err(Malformed), "{head:?}");
        };
        check("HTTP/1.1 200 OK\n\r\nX: y\r\n\r\n");
        check("HTTP/1.1 200 OK\nX: y\r\n\r\n");
        check("\r\nHTTP/1.1 200 OK\r\n\r\n");
        check("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n");
    }

    #[test]
    fn a_response_without_length_ends_with_the_connection() {
        let (out, mut response) = pass(PLAIN, "HTTP/1.1 200 OK\r\n\r\nhi");
        assert_eq!(out, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi");
        assert!(!response.is_end() && response.close() && !response.keeps_client());
        let (_, mut response) = pass(PLAIN, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi");
        assert!(!response.close());
    }
}
