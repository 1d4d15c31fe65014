//! A reader of event streams by the letter of the WHATWG (HTML, 9.2.5 "Parsing an event stream"
//! and 9.2.6 "Interpreting an event stream"), for tests.

/// An event as a page would get it.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    pub(super) kind: String,
    pub(super) data: String,
    /// The last event id when it was dispatched.
    pub(super) id: String,
}

/// Reads a stream piece by piece.
#[derive(Default)]
pub(super) struct Parser {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The last line ended with CR: a LF that follows belongs to it.
    after_cr: bool,
    is_first_line: bool,
    data: String,
    kind: String,
    id: String,
    /// What a client sends as `Last-Event-ID`.
    pub(super) last_id: String,
    pub(super) retry: Option<u64>,
}

impl Parser {
    /// On a connection that was opened with this last event id.
    pub(super) fn new(last_id: &str) -> Self {
        Self {
            is_first_line: true,
            id: last_id.to_owned(),
            last_id: last_id.to_owned(),
            ..Self::default()
        }
    }

    /// The events that are complete with these bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            let is_rest_of_end = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            match byte {
                _ if is_rest_of_end => {}
                b'\r' | b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.end_line(&line));
                }
                _ => self.line.push(byte),
            }
        }
        events
    }

    pub(super) fn is_between_events(&self) -> bool {
        self.line.is_empty() && self.data.is_empty() && self.kind.is_empty()
    }

    fn end_line(&mut self, line: &[u8]) -> Option<Event> {
        let line = String::from_utf8_lossy(line);
        let mut line = line.as_ref();
        if std::mem::take(&mut self.is_first_line) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let (name, value) = match line.split_once(':') {
            Some(("", _)) => return None, // a comment
            Some((name, value)) => (name, value.strip_prefix(' ').unwrap_or(value)),
            None => (line, ""),
        };
        match name {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok();
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        self.last_id.clone_from(&self.id);
        let mut data = std::mem::take(&mut self.data);
        let kind = std::mem::take(&mut self.kind);
        if data.is_empty() {
            return None;
        }
        data.pop(); // the last line's end
        Some(Event {
            kind: if kind.is_empty() {
                "message".to_owned()
            } else {
                kind
            },
            data,
            id: self.last_id.clone(),
        })
    }
}
