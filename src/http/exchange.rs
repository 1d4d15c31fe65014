//! A request of tiny_http as the bridge sees it.

use std::io::{self, Read};

use tiny_http::Request;

use super::reply::{self, Answer, Face};
use super::request::Incoming;
use super::sse::Sse;
use crate::bridge::{EventWriter, Exchange, Refusal, Reply};
use crate::mcp::header;

pub(super) struct HttpExchange {
    /// `None` once it is answered.
    request: Option<Request>,
    body: Option<Vec<u8>>,
    connection: u64,
    face: Face,
}

impl HttpExchange {
    pub(super) fn new(request: Request, incoming: &Incoming, face: Face) -> Self {
        let connection = incoming.connection;
        Self {
            request: Some(request),
            body: None,
            connection,
            face,
        }
    }

    /// Reads the body ahead of [`Exchange::body`], which then gives this copy.
    ///
    /// # Errors
    /// The OS error if it cannot be read to its end.
    pub(super) fn peek_body(&mut self) -> io::Result<&[u8]> {
        let body = match self.body.take() {
            Some(body) => body,
            None => self.read_body()?,
        };
        Ok(self.body.insert(body))
    }

    fn read_body(&mut self) -> io::Result<Vec<u8>> {
        let request = self.request.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let len = request.body_length().unwrap_or(0);
        // The edge has bounded the length, and sends the body whole.
        let mut body = Vec::with_capacity(len + 1);
        request
            .as_reader()
            .take(len as u64)
            .read_to_end(&mut body)?;
        if body.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(body)
    }

    /// Answers without any session; `id` is the text of the request's id.
    pub(super) fn answer(&mut self, answer: &Answer, id: &str) {
        if let Some(request) = self.request.take() {
            reply::send_to(request, answer, id, &self.face);
        }
    }
}

impl Exchange for HttpExchange {
    fn body(&mut self) -> io::Result<Vec<u8>> {
        match self.body.take() {
            Some(body) => Ok(body),
            None => self.read_body(),
        }
    }

    fn body_len(&self) -> usize {
        let read = self.body.as_ref().map(Vec::len);
        let unread = || self.request.as_ref().and_then(Request::body_length);
        read.or_else(unread).unwrap_or(0)
    }

    fn connection(&self) -> u64 {
        self.connection
    }

    fn reply(mut self: Box<Self>, reply: Reply<'_>) {
        if let Some(request) = self.request.take() {
            reply::send_reply(request, &reply, &self.face);
        }
    }

    fn stream(mut self: Box<Self>, session: Option<&str>) -> io::Result<Box<dyn EventWriter>> {
        let request = self.request.take().ok_or(io::ErrorKind::NotFound)?;
        let mut fields = self.face.cors_fields();
        if let Some(session) = session {
            fields.push((header::SESSION_ID, session.to_owned()));
        }
        let lines: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        Ok(Box::new(Sse::start(request.into_writer(), &lines)?))
    }
}

impl Drop for HttpExchange {
    /// One that was dropped on its way has met the end of its session.
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            let reply = Reply::Refused {
                id: "null",
                why: Refusal::SessionEnded,
            };
            reply::send_reply(request, &reply, &self.face);
        }
    }
}
