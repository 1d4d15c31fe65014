//! From the child to clients: thread `r:`. Owns the streams, and answers everybody who waits.
//! How a child starts and ends is in `life`.

mod life;
mod second_try;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::handshake;
use super::lane::Heard;
use super::replay::Prompter;
use super::session::{Errand, Shared};
use super::stream::{HEARTBEAT, REPLAY_AGE, REPLAY_BYTES, Stream, parse_event_id};
use super::table::Claimed;
use super::words::{Garbage, LOGGED_CHARS};
use super::{End, Exchange, Inbound, Refusal, Reply, too_long};
use crate::jsonrpc::{self, Id, Kind, Message};
use crate::{mcp, metrics};
use second_try::SecondTry;

/// The stream that belongs to no request: the session's GET.
const STANDALONE: u64 = 0;
/// Ended streams that can still be resumed.
const ENDED_STREAMS: usize = 8;
/// Messages that wait for a stream to go to.
const WAITING_MESSAGES: usize = 256;
const WAITING_BYTES: usize = 1024 * 1024;

pub(super) struct SessionInbound {
    shared: Arc<Shared>,
    /// Until a new child has been told what the old one knew.
    prompter: Option<Prompter>,
    second_try: Option<SecondTry>,
    /// Few at a time; in the order in which they began.
    pub(super) streams: Vec<Stream>,
    /// What the child said while nobody listened.
    pub(super) waiting: VecDeque<Box<str>>,
    pub(super) waiting_bytes: usize,
    garbage: Garbage,
}

impl SessionInbound {
    pub(super) fn new(prompter: Option<Prompter>, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            prompter,
            second_try: None,
            streams: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            garbage: Garbage::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Inbound for SessionInbound {
    fn line(&mut self, line: &[u8], now: Instant) {
        let Ok(text) = str::from_utf8(line.trim_ascii()) else {
            return self.garbage("not UTF-8", &String::from_utf8_lossy(line));
        };
        if !jsonrpc::is_batch(text) {
            return self.hear(text, now);
        }
        match jsonrpc::split_batch(text) {
            Ok(items) => items.into_iter().for_each(|item| self.hear(item, now)),
            Err(why) => self.garbage(&why.to_string(), text),
        }
    }

    fn line_too_long(&mut self) {
        self.garbage("longer than max_message", "");
    }

    /// If it was the answer to a request, nobody else will give one.
    fn line_skipped(&mut self, head: &[u8], tail: &[u8], now: Instant) {
        if let Some(id) = jsonrpc::answered_by(head, tail) {
            let error = too_long(&id, &self.shared.options.server);
            match jsonrpc::parse(&error) {
                // The child has refused nothing.
                Ok(message) if !self.shared.lane.is_translating() => {
                    self.answer(&message, &error, now);
                }
                _ => self.hear(&error, now),
            }
        }
    }

    fn service(&mut self, now: Instant) {
        while let Some(errand) = self.shared.errands.take() {
            match errand {
                Errand::Listen {
                    exchange,
                    tenant,
                    last_event_id,
                } => {
                    self.listen(tenant, exchange, last_event_id.as_deref(), now);
                }
                Errand::HandIn(heard) => self.take_in(heard, now),
                Errand::Gone { connection } => self.gone(connection),
                Errand::Park => self.park(now),
                Errand::Bequeath { heir, done } => self.leave_to(&heir, done),
                Errand::Inherit(estate) => self.take_on(*estate, now),
                Errand::Close => {
                    self.end_all(|_| "the session has ended".to_owned(), now);
                }
            }
        }
        if self.shared.lane.is_translating() {
            let heard = self.shared.lane.tick(now);
            self.take_in(heard, now);
        }
        self.fail_late_start(now);
        let overdue = self.shared.table.lock().overdue(now);
        for post in overdue {
            self.open_stream(post, now);
        }
        let cancelled = self.shared.table.lock().take_cancelled(now);
        for (_, claimed) in cancelled {
            // Cancelled requests get no answer, only an end.
            self.open_stream(claimed.post, now);
            drop(claimed.only);
            if claimed.is_last {
                self.end_stream(claimed.post, now);
            }
        }
        self.tend_streams(now);
    }

    fn exited(&mut self, reason: &str, now: Instant) {
        self.child_exited(reason, now);
    }
}

impl SessionInbound {
    /// A message of the child, in the child's own era.
    fn hear(&mut self, text: &str, now: Instant) {
        match self.shared.lane.is_translating() {
            false => self.message(text, now),
            true => self.hear_translated(text, now),
        }
    }

    #[inline(never)] // the way of most messages shall fit into two pages of stack
    fn hear_translated(&mut self, text: &str, now: Instant) {
        match jsonrpc::parse(text) {
            Ok(_) => {
                let heard = self.shared.lane.hear(text, now);
                self.take_in(heard, now);
            }
            Err(why) => self.garbage(&why.to_string(), text),
        }
    }

    /// What has become of a message on its way through the translator.
    #[inline(never)] // likewise
    fn take_in(&mut self, heard: Heard, now: Instant) {
        for line in heard.lines {
            self.message(&line, now);
        }
        if let Some(failure) = heard.failed {
            self.fail_translated(&failure, now);
        }
        if let Some(due) = heard.due {
            (self.shared.options.wake_at)(due);
        }
    }

    fn message(&mut self, text: &str, now: Instant) {
        match jsonrpc::parse(text) {
            Ok(message) if message.kind == Kind::Response => {
                match message.error.is_none() && self.second_try.is_none() {
                    true => self.answer(&message, text, now),
                    false => self.response(&message, text, now),
                }
            }
            Ok(message) if self.shared.table.lock().is_parked() => self.late(&message),
            Ok(message) if message.method == mcp::method::PROGRESS => {
                self.progress(&message, text, now);
            }
            Ok(message) => {
                self.shared.table.lock().overhear(&message);
                self.route(text, now);
            }
            Err(why) => self.garbage(&why.to_string(), text),
        }
    }

    fn garbage(&mut self, why: &str, text: &str) {
        self.garbage.note(&self.shared.options, why, text);
    }

    /// The child's answer to a request.
    fn answer(&mut self, message: &Message<'_>, text: &str, now: Instant) {
        let claimed = self.shared.table.lock().claim(&message.id);
        let Some(mut claimed) = claimed else {
            return self.answer_of_replay(message, now);
        };
        match message.result {
            Some(result) => {
                if claimed.is_initialize {
                    self.initialized(result);
                }
                if let Some(change) = claimed.change.take() {
                    let changed = self.shared.table.lock().apply(change, result);
                    self.shared.options.host.changed(&changed.0, &changed.1);
                }
            }
            // Before the client learns of it, so that its slot is free when it tries again.
            None if claimed.is_initialize => self.refused_to_start(),
            None => {}
        }
        self.deliver(claimed, text, message.result.is_some(), now);
    }

    #[inline(never)] // likewise
    fn initialized(&self, result: &str) {
        let version = handshake::version(result).into_owned();
        let said = (self.shared.options.redact)(&version, LOGGED_CHARS);
        let label = &self.shared.options.label;
        log::info!("session initialized sid={label} protocol={said:?}");
        self.shared.table.lock().version = version;
    }

    /// Gives an answer to whoever waits for it.
    fn deliver(&mut self, claimed: Claimed, json: &str, is_result: bool, now: Instant) {
        match claimed.only {
            Some(Some(exchange)) => {
                let announce = claimed.is_initialize && is_result;
                let session = announce.then(|| self.shared.table.lock().session.clone());
                let session = session.as_deref();
                exchange.reply(Reply::Message {
                    json: json.as_bytes(),
                    session,
                });
            }
            Some(None) => log::debug!("child {}: client gone", self.shared.options.label),
            None => {
                self.open_stream(claimed.post, now);
                if let Some(stream) = self.stream(claimed.post) {
                    stream.message(json, now);
                }
                if claimed.is_last {
                    self.end_stream(claimed.post, now);
                }
            }
        }
    }

    /// 2025-11-25, progress: belongs to the request whose token it carries.
    #[inline(never)] // likewise
    fn progress(&mut self, message: &Message<'_>, text: &str, now: Instant) {
        let token = message
            .params
            .and_then(|params| jsonrpc::member(params, "progressToken"))
            .and_then(Id::parse);
        let post = token.and_then(|token| self.shared.table.lock().post_of_token(&token));
        let Some(post) = post else {
            // Of a task, which outlives its request (2025-11-25, progress).
            return self.route(text, now);
        };
        self.open_stream(post, now);
        if let Some(stream) = self.stream(post) {
            stream.message(text, now);
        }
    }

    /// What belongs to no request goes to the session's GET, else to the newest open POST, else
    /// it waits. Never to two (2025-11-25, transports, "Multiple Connections").
    #[inline(never)] // likewise
    fn route(&mut self, text: &str, now: Instant) {
        let posts = self.shared.table.lock().newest_posts();
        for no in std::iter::once(STANDALONE).chain(posts) {
            if no != STANDALONE {
                self.open_stream(no, now);
            }
            let Some(stream) = self.stream(no) else {
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

    /// This comes before whatever waits already.
    pub(super) fn wait_before(&mut self, waiting: VecDeque<Box<str>>, now: Instant) {
        let later = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        for text in waiting.into_iter().chain(later) {
            self.keep_waiting(&text);
        }
        self.send_waiting(STANDALONE, now);
    }

    pub(super) fn has_departed(&self, connection: u64) -> bool {
        self.shared.table.lock().has_departed(connection)
    }

    fn listen(
        &mut self,
        tenant: u64,
        exchange: Box<dyn Exchange>,
        last_event_id: Option<&str>,
        now: Instant,
    ) {
        let why_closed = {
            let table = self.shared.table.lock();
            table.is_closed_to(tenant).then(|| table.why_closed())
        };
        if let Some(why) = why_closed {
            return exchange.reply(Reply::Refused { id: "null", why });
        }
        let resumed = last_event_id.and_then(parse_event_id);
        if let Some((no, seq)) = resumed {
            let is_over = match self.stream(no) {
                Some(stream) => stream.is_over_after(seq),
                None => no != STANDALONE,
            };
            if is_over {
                // Another empty stream would make the client ask again and again.
                let why = Refusal::StreamOver;
                return exchange.reply(Reply::Refused { id: "null", why });
            }
        }
        let no = resumed.map_or(STANDALONE, |(no, _)| no);
        let connection = exchange.connection();
        let Ok(writer) = exchange.stream(None) else {
            return;
        };
        let prime = self.primes();
        let known = self.streams.iter().position(|stream| stream.no == no);
        let at = known.unwrap_or_else(|| {
            let last_seq = self.shared.table.lock().first_event();
            self.streams.reserve_exact(1); // mostly there is no other
            self.streams.push(Stream::new(no, last_seq));
            self.streams.len() - 1
        });
        self.shared.table.lock().resume(no, connection);
        let (label, is_resumed) = (&self.shared.options.label, resumed.is_some());
        log::debug!("stream opened sid={label} stream={no} resumed={is_resumed}");
        let stream = &mut self.streams[at];
        stream.attach(writer, connection, resumed.map(|(_, seq)| seq), now);
        match stream.ended {
            Some(since) => stream.end(since),
            None => stream.prime(prime, now),
        }
        self.send_waiting(no, now);
    }

    /// Gives a stream what waits for one.
    fn send_waiting(&mut self, no: u64, now: Instant) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.no == no) else {
            return;
        };
        while stream.has_client()
            && let Some(text) = self.waiting.pop_front()
        {
            if !stream.message(&text, now) {
                stream.take_back();
                self.waiting.push_front(text);
                return;
            }
            self.waiting_bytes -= text.len();
        }
    }

    /// The stream is detached and can be resumed; a plain answer has nowhere to go any more.
    fn gone(&mut self, connection: u64) {
        let (exchanges, is_initialize) = self.shared.table.lock().forget_connection(connection);
        drop(exchanges);
        if is_initialize {
            self.shared.options.host.ended(End::ClientGone);
        }
        for stream in &mut self.streams {
            stream.forget_connection(connection);
        }
    }

    /// Makes a stream of a post, if it is not one yet.
    fn open_stream(&mut self, post: u64, now: Instant) {
        let Some((exchange, is_initialize)) = self.shared.table.lock().take_for_stream(post) else {
            return;
        };
        let connection = exchange.connection();
        let announced = is_initialize.then(|| self.shared.table.lock().announce(post));
        if let Some((session, handshake)) = announced.flatten() {
            // The head of the response has the id in it.
            self.shared.options.host.changed(&session, &handshake);
        }
        let session = is_initialize.then(|| self.shared.table.lock().session.clone());
        let session = session.as_deref();
        let label = &self.shared.options.label;
        log::debug!("stream opened sid={label} stream={post}");
        let prime = self.primes();
        let mut stream = Stream::new(post, 0);
        // A client that cannot be reached can still resume the stream.
        if let Ok(writer) = exchange.stream(session) {
            stream.attach(writer, connection, None, now);
            stream.prime(prime, now);
        }
        self.streams.push(stream);
        {
            let due = now + HEARTBEAT;
            let mut table = self.shared.table.lock();
            table.streams_due = Some(table.streams_due.map_or(due, |known| known.min(due)));
        }
        self.send_waiting(post, now);
    }

    fn end_stream(&mut self, no: u64, now: Instant) {
        if let Some(stream) = self.stream(no) {
            stream.end(now);
        }
        // The newest are kept: so many, and so many bytes of them, but always the last one.
        let (mut count, mut bytes) = (0, 0);
        let mut kept: Vec<u64> = Vec::new();
        for stream in self.streams.iter().rev().filter(|it| it.ended.is_some()) {
            count += 1;
            bytes += stream.replay_bytes();
            if count == 1 || (count <= ENDED_STREAMS && bytes <= REPLAY_BYTES) {
                kept.push(stream.no);
            }
        }
        self.streams
            .retain(|it| it.ended.is_none() || kept.contains(&it.no));
    }

    fn stream(&mut self, no: u64) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.no == no)
    }

    fn tend_streams(&mut self, now: Instant) {
        for stream in &mut self.streams {
            stream.beat(now);
        }
        self.streams.retain(|stream| {
            stream
                .ended
                .is_none_or(|since| now.saturating_duration_since(since) < REPLAY_AGE)
        });
        let due = self.streams.iter().filter_map(|stream| {
            stream
                .heartbeat_due()
                .or(stream.ended.map(|since| since + REPLAY_AGE))
        });
        let due = due.min();
        self.shared.table.lock().streams_due = due;
    }

    fn primes(&self) -> bool {
        mcp::primes_streams(&self.shared.table.lock().version)
    }
}

impl Drop for SessionInbound {
    /// A panic here must not leave a session behind that nobody serves.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.options.host.ended(End::Fault);
        }
    }
}
