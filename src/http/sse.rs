//! The head and the framing of an event stream (2025-11-25, transports; WHATWG HTML, server-sent
//! events), written straight to tiny_http's writer: its own responses hold events back.

use std::io::{self, Write};
use std::time::{Instant, SystemTime};

use super::tally::Tally;
use crate::bridge::EventWriter;

/// An open event stream in the chunked coding; one flush an event.
pub(super) struct Sse {
    writer: Box<dyn Write + Send>,
    tally: Option<Tally>,
    is_finished: bool,
}

impl Sse {
    /// Writes the head; `fields` are whole lines. They are sent with the first event, which
    /// always follows at once.
    ///
    /// # Errors
    /// The OS error if the edge has closed.
    pub(super) fn start(
        mut writer: Box<dyn Write + Send>,
        fields: &str,
        tally: Option<Tally>,
    ) -> io::Result<Self> {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let head = format!(
            "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: text/event-stream\r\n\
             Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n\
             {fields}Transfer-Encoding: chunked\r\n\r\n"
        );
        writer.write_all(head.as_bytes())?;
        if let Some(tally) = tally {
            tally.stream_begun();
        }
        Ok(Self {
            writer,
            tally,
            is_finished: false,
        })
    }
}

impl EventWriter for Sse {
    fn send(&mut self, events: &[u8]) -> io::Result<()> {
        let mut chunk = Vec::with_capacity(events.len() + 16);
        write!(chunk, "{:x}\r\n", events.len())?;
        chunk.extend_from_slice(events);
        chunk.extend_from_slice(b"\r\n");
        self.writer.write_all(&chunk)?;
        self.writer.flush()
    }

    fn finish(mut self: Box<Self>) {
        self.end();
    }
}

impl Sse {
    fn end(&mut self) {
        if !self.is_finished {
            self.is_finished = true;
            if let Some(tally) = self.tally {
                tally.stream_ended(Instant::now());
            }
            // A client that has gone needs no end.
            let _ = self
                .writer
                .write_all(b"0\r\n\r\n")
                .and_then(|()| self.writer.flush());
        }
    }
}

impl Drop for Sse {
    /// A stream that is let go of must not leave its client waiting.
    fn drop(&mut self) {
        self.end();
    }
}
