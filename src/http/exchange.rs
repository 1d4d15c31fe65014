//! A request of tiny_http as the bridge sees it.

use std::io::{self, Read, Write};

use tiny_http::Request;

use super::reply::{self, Answer, Face};
use super::request::Incoming;
use super::sse::Sse;
use crate::bridge::modern::Mirrored;
use crate::bridge::{EventWriter, Exchange, Refusal, Reply};

pub(super) struct HttpExchange {
    state: State,
    connection: u64,
    mirrored: Option<Box<Mirrored>>,
    face: Face,
}

enum State {
    Unread(Request),
    /// The body, until it is fetched, and where the response goes. Letting go of the request as
    /// soon as its body is read keeps tiny_http's deep drop off the stacks of long-lived threads.
    Read {
        body: Option<Vec<u8>>,
        writer: Box<dyn Write + Send>,
    },
    /// Also after a body that broke off.
    Answered,
}

impl HttpExchange {
    pub(super) fn new(request: Request, incoming: &Incoming, face: Face) -> Self {
        let mut exchange = Self {
            state: State::Unread(request),
            connection: incoming.connection,
            mirrored: incoming.mirrored().map(Box::new),
            face,
        };
        if exchange.body_len() == 0 {
            // Cannot fail: there is nothing to read.
            let _ = exchange.read();
        }
        exchange
    }

    /// Reads the body ahead of [`Exchange::body`], which then gives this copy.
    ///
    /// # Errors
    /// The OS error if it cannot be read to its end.
    pub(super) fn peek_body(&mut self) -> io::Result<&[u8]> {
        self.read()?;
        match &self.state {
            State::Read {
                body: Some(body), ..
            } => Ok(body),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut request = match std::mem::replace(&mut self.state, State::Answered) {
            State::Unread(request) => request,
            other => {
                self.state = other;
                return Ok(());
            }
        };
        let len = request.body_length().unwrap_or(0);
        // The edge has bounded the length, and sends the body whole.
        let mut body = Vec::with_capacity(len);
        let read = request.as_reader().take(len as u64).read_to_end(&mut body);
        self.state = State::Read {
            body: Some(body),
            writer: request.into_writer(),
        };
        match read? {
            read if read < len => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Where the response goes; `None` once it went.
    fn take_writer(&mut self) -> Option<Box<dyn Write + Send>> {
        match std::mem::replace(&mut self.state, State::Answered) {
            State::Unread(request) => Some(request.into_writer()),
            State::Read { writer, .. } => Some(writer),
            State::Answered => None,
        }
    }

    /// Answers without any session; `id` is the text of the request's id.
    pub(super) fn answer(&mut self, answer: &Answer, id: &str) {
        if let Some(writer) = self.take_writer() {
            reply::write(writer, answer, id, &self.face);
        }
    }

    fn write_reply(&mut self, reply: &Reply<'_>) {
        if let Some(writer) = self.take_writer() {
            reply::write_reply(writer, reply, &self.face);
        }
    }
}

impl Exchange for HttpExchange {
    fn body_len(&self) -> usize {
        match &self.state {
            State::Unread(request) => request.body_length().unwrap_or(0),
            State::Read { body, .. } => body.as_ref().map_or(0, Vec::len),
            State::Answered => 0,
        }
    }

    fn body(&mut self) -> io::Result<Vec<u8>> {
        self.read()?;
        match &mut self.state {
            State::Read { body, .. } => body.take().ok_or(io::ErrorKind::NotFound.into()),
            State::Unread(_) | State::Answered => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn connection(&self) -> u64 {
        self.connection
    }

    fn mirrored(&self) -> Option<&Mirrored> {
        self.mirrored.as_deref()
    }

    fn reply(mut self: Box<Self>, reply: Reply<'_>) {
        self.write_reply(&reply);
    }

    fn stream(mut self: Box<Self>, session: Option<&str>) -> io::Result<Box<dyn EventWriter>> {
        let writer = self.take_writer().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Sse::start(
            writer,
            &reply::stream_fields(session, &self.face),
            self.face.tally,
        )?))
    }
}

impl Drop for HttpExchange {
    /// One that was dropped on its way has met the end of its child; whether the session is over
    /// too, the next try tells.
    fn drop(&mut self) {
        self.write_reply(&Reply::Refused {
            id: "null",
            why: Refusal::Resting,
        });
    }
}
