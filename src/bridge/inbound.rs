//! From the child to clients: thread `r:`. Owns the streams, and answers everybody who waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::stream::{HEARTBEAT, REPLAY_AGE, Stream, parse_event_id};
use super::table::{Claimed, Orphan};
use super::{Errand, Exchange, Refusal, Reply, Shared};
use crate::jsonrpc::{self, Id, Kind, Message, code};
use crate::{mcp, metrics};

/// The stream that belongs to no request: the session's GET.
const STANDALONE: u64 = 0;
/// Ended streams that can still be resumed.
const ENDED_STREAMS: usize = 8;
/// Messages that wait for a stream to go to.
const WAITING_MESSAGES: usize = 256;
const WAITING_BYTES: usize = 1024 * 1024;
/// Lines of stderr that an error message quotes.
const QUOTED_LINES: usize = 20;
/// How much of a line that is no message is logged, in characters.
const LOGGED_CHARS: usize = 120;

pub(crate) struct Inbound {
    shared: Arc<Shared>,
    /// By the number of their post, so the newest is the last.
    streams: BTreeMap<u64, Stream>,
    /// What the child said while nobody listened.
    waiting: VecDeque<Box<str>>,
    waiting_bytes: usize,
}

impl Inbound {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            streams: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Takes one line of the child.
    pub(crate) fn line(&mut self, line: &[u8], now: Instant) {
        let Ok(text) = str::from_utf8(line.trim_ascii()) else {
            return self.garbage("not UTF-8", &String::from_utf8_lossy(line));
        };
        if !jsonrpc::is_batch(text) {
            return self.message(text, now);
        }
        match jsonrpc::split_batch(text) {
            Ok(items) => items.into_iter().for_each(|item| self.message(item, now)),
            Err(why) => self.garbage(&why.to_string(), text),
        }
    }

    /// A line was longer than a message may be.
    pub(crate) fn line_too_long(&mut self) {
        self.garbage("longer than max_message", "");
    }

    /// Does what is due: errands of other threads, streams for slow answers, heartbeats.
    pub(crate) fn service(&mut self, now: Instant) {
        while let Some(errand) = self.shared.take_errand() {
            match errand {
                Errand::Listen {
                    exchange,
                    last_event_id,
                } => {
                    self.listen(exchange, last_event_id.as_deref(), now);
                }
                Errand::Gone { connection } => self.gone(connection),
                Errand::Close => {
                    self.shared.table.lock().closed = true;
                    self.end_all(|_| "the session has ended".to_owned(), now);
                }
            }
        }
        self.fail_late_start(now);
        let overdue = self.shared.table.lock().overdue(now);
        for post in overdue {
            self.open_stream(post, now);
        }
        let cancelled = self.shared.table.lock().take_cancelled(now);
        for (orphan, claimed) in cancelled {
            // Cancelled requests get no answer, only an end.
            self.open_stream(orphan.post, now);
            drop(claimed.only);
            if claimed.is_last {
                self.end_stream(orphan.post, now);
            }
        }
        self.tend_streams(now);
    }

    /// The child has ended: everybody who waits learns how, and the session is told.
    pub(crate) fn exited(&mut self, reason: &str, now: Instant) {
        let server = self.shared.options.server.clone();
        let started = !self.shared.table.lock().version.is_empty();
        let stderr = if started {
            String::new()
        } else {
            self.quoted_stderr()
        };
        self.end_all(
            |is_initialize| match is_initialize {
                true => format!(
                    "server \"{server}\" ended before it answered initialize: {reason}{stderr}"
                ),
                false => format!("server \"{server}\" ended: {reason}"),
            },
            now,
        );
        (self.shared.options.ended)(reason);
        // What came in meanwhile.
        self.service(now);
    }

    fn message(&mut self, text: &str, now: Instant) {
        match jsonrpc::parse(text) {
            Ok(message) if message.kind == Kind::Response => self.answer(&message, text, now),
            Ok(message) if message.method == mcp::method::PROGRESS => {
                self.progress(&message, text, now);
            }
            Ok(_) => self.route(text, now),
            Err(why) => self.garbage(&why.to_string(), text),
        }
    }

    fn garbage(&self, why: &str, text: &str) {
        metrics::CHILD_GARBAGE_LINES.add(1);
        let label = &self.shared.options.label;
        let start: String = text.chars().take(LOGGED_CHARS).collect();
        log::warn!("child {label} wrote a line that is no message ({why}): {start:?}");
    }

    /// The child's answer to a request.
    fn answer(&mut self, message: &Message<'_>, text: &str, now: Instant) {
        let claimed = self.shared.table.lock().claim(&message.id);
        let Some(claimed) = claimed else {
            log::debug!(
                "child {} answered nobody's request",
                self.shared.options.label
            );
            return;
        };
        let is_initialize = claimed.is_initialize;
        if is_initialize && let Some(result) = message.result {
            let version = jsonrpc::member(result, "protocolVersion").and_then(jsonrpc::text);
            self.shared.table.lock().version = version.unwrap_or_default().into_owned();
        }
        self.deliver(claimed, text, message.result.is_some(), now);
        if is_initialize && message.result.is_none() {
            (self.shared.options.ended)("it refused to initialize");
        }
    }

    /// Gives an answer to whoever waits for it.
    fn deliver(&mut self, claimed: Claimed, json: &str, is_result: bool, now: Instant) {
        match claimed.only {
            Some(Some(exchange)) => {
                let announce = claimed.is_initialize && is_result;
                let session = announce.then_some(self.shared.options.session.as_str());
                exchange.reply(Reply::Message {
                    json: json.as_bytes(),
                    session,
                });
            }
            Some(None) => log::debug!("child {}: client gone", self.shared.options.label),
            None => {
                self.open_stream(claimed.post, now);
                if let Some(stream) = self.streams.get_mut(&claimed.post) {
                    stream.message(json, now);
                }
                if claimed.is_last {
                    self.end_stream(claimed.post, now);
                }
            }
        }
    }

    /// 2025-11-25, progress: belongs to the request whose token it carries.
    fn progress(&mut self, message: &Message<'_>, text: &str, now: Instant) {
        let token = message
            .params
            .and_then(|params| jsonrpc::member(params, "progressToken"))
            .and_then(Id::parse);
        let post = token.and_then(|token| self.shared.table.lock().post_of_token(&token));
        let Some(post) = post else {
            log::debug!(
                "child {}: progress of no request",
                self.shared.options.label
            );
            return;
        };
        self.open_stream(post, now);
        if let Some(stream) = self.streams.get_mut(&post) {
            stream.message(text, now);
        }
    }

    /// What belongs to no request goes to the session's GET, else to the newest open POST, else
    /// it waits. Never to two (2025-11-25, transports, "Multiple Connections").
    fn route(&mut self, text: &str, now: Instant) {
        let newest = self.shared.table.lock().newest_post();
        for no in [Some(STANDALONE), newest].into_iter().flatten() {
            if no != STANDALONE {
                self.open_stream(no, now);
            }
            let Some(stream) = self.streams.get_mut(&no) else {
                continue;
            };
            if !stream.has_client() {
                continue;
            }
            if stream.message(text, now) {
                return;
            }
            stream.take_back();
        }
        self.keep_waiting(text);
    }

    fn keep_waiting(&mut self, text: &str) {
        self.waiting_bytes += text.len();
        self.waiting.push_back(text.into());
        while self.waiting.len() > WAITING_MESSAGES
            || (self.waiting_bytes > WAITING_BYTES && self.waiting.len() > 1)
        {
            let dropped = self.waiting.pop_front();
            self.waiting_bytes -= dropped.map_or(0, |text| text.len());
            metrics::DROPPED_MESSAGES.add(1);
        }
    }

    fn listen(&mut self, exchange: Box<dyn Exchange>, last_event_id: Option<&str>, now: Instant) {
        if self.shared.table.lock().closed {
            return exchange.reply(Reply::Refused {
                id: "null",
                why: Refusal::SessionEnded,
            });
        }
        let resumed = last_event_id
            .and_then(parse_event_id)
            .filter(|(no, _)| self.streams.contains_key(no));
        let no = resumed.map_or(STANDALONE, |(no, _)| no);
        let connection = exchange.connection();
        let Ok(writer) = exchange.stream(None) else {
            return;
        };
        let prime = self.primes();
        let stream = self.streams.entry(no).or_insert_with(|| Stream::new(no));
        stream.attach(writer, connection, prime, now);
        if let Some((_, seq)) = resumed {
            stream.replay_after(seq, now);
        }
        if let Some(since) = stream.ended {
            stream.end(since);
        }
        if no == STANDALONE {
            while let Some(text) = self.waiting.pop_front() {
                self.waiting_bytes -= text.len();
                stream.message(&text, now);
            }
        }
    }

    /// The stream is detached and can be resumed; a plain answer has nowhere to go any more.
    fn gone(&mut self, connection: u64) {
        let exchanges = self.shared.table.lock().forget_connection(connection);
        drop(exchanges);
        for stream in self.streams.values_mut() {
            stream.forget_connection(connection);
        }
    }

    /// Makes a stream of a post, if it is not one yet.
    fn open_stream(&mut self, post: u64, now: Instant) {
        let Some((exchange, is_initialize)) = self.shared.table.lock().take_for_stream(post) else {
            return;
        };
        let connection = exchange.connection();
        let session = is_initialize.then_some(self.shared.options.session.as_str());
        let prime = self.primes();
        let mut stream = Stream::new(post);
        // A client that cannot be reached can still resume the stream.
        if let Ok(writer) = exchange.stream(session) {
            stream.attach(writer, connection, prime, now);
        }
        self.streams.insert(post, stream);
        let mut table = self.shared.table.lock();
        table.streams_due.get_or_insert(now + HEARTBEAT);
    }

    fn end_stream(&mut self, no: u64, now: Instant) {
        if let Some(stream) = self.streams.get_mut(&no) {
            stream.end(now);
        }
        let ended = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.ended.is_some());
        let ended: Vec<u64> = ended.map(|(no, _)| *no).collect();
        for no in ended.iter().rev().skip(ENDED_STREAMS) {
            self.streams.remove(no);
        }
    }

    fn tend_streams(&mut self, now: Instant) {
        for stream in self.streams.values_mut() {
            stream.beat(now);
        }
        self.streams.retain(|_, stream| {
            stream
                .ended
                .is_none_or(|since| now.saturating_duration_since(since) < REPLAY_AGE)
        });
        let due = self.streams.values().filter_map(|stream| {
            stream
                .heartbeat_due()
                .or(stream.ended.map(|since| since + REPLAY_AGE))
        });
        let due = due.min();
        self.shared.table.lock().streams_due = due;
    }

    /// A child that does not answer `initialize` has not started.
    fn fail_late_start(&mut self, now: Instant) {
        let timeout = self.shared.options.start_timeout;
        if !self.shared.table.lock().start_overdue(timeout, now) {
            return;
        }
        let server = self.shared.options.server.clone();
        let stderr = self.quoted_stderr();
        let seconds = timeout.as_secs();
        self.end_all(
            |_| format!("server \"{server}\" did not answer initialize in {seconds} s{stderr}"),
            now,
        );
        (self.shared.options.ended)("it did not answer initialize in time");
    }

    /// Answers everybody with an error, and ends all streams.
    fn end_all(&mut self, message: impl Fn(bool) -> String, now: Instant) {
        let orphans = self.shared.table.lock().close();
        for (Orphan { id_text, .. }, claimed) in orphans {
            let message = message(claimed.is_initialize);
            match claimed.only {
                Some(Some(exchange)) if claimed.is_initialize => {
                    let why = Refusal::StartFailed(message);
                    exchange.reply(Reply::Refused { id: &id_text, why });
                }
                _ => {
                    let json = jsonrpc::error_response(&id_text, code::SERVER_ERROR, &message);
                    self.deliver(claimed, &json, false, now);
                }
            }
        }
        for (_, mut stream) in std::mem::take(&mut self.streams) {
            stream.end(now);
        }
    }

    fn primes(&self) -> bool {
        mcp::primes_streams(&self.shared.table.lock().version)
    }

    fn quoted_stderr(&self) -> String {
        let mut lines = (self.shared.options.stderr)();
        let quoted = lines.split_off(lines.len().saturating_sub(QUOTED_LINES));
        match quoted.is_empty() {
            true => "; it wrote nothing to stderr".to_owned(),
            false => format!("; its last lines on stderr:\n{}", quoted.join("\n")),
        }
    }
}
