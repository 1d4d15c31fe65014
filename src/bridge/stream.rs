//! One event stream with its replay buffer (2025-11-25, transports, "Resumability and
//! Redelivery"). Owned by the reader thread.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::EventWriter;

/// A comment is sent when nothing else was for so long; proxies cut idle streams after 60 s and
/// more.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long the events of an ended stream can be asked for again.
pub(super) const REPLAY_AGE: Duration = Duration::from_secs(300);
const REPLAY_EVENTS: usize = 256;
/// Of one stream, and of all ended ones of a session. A single larger event is kept only for a
/// client that was not there to take it.
pub(super) const REPLAY_BYTES: usize = 1024 * 1024;
/// How long a client shall wait before it resumes.
const RETRY_MS: u32 = 1000;

pub(super) struct Stream {
    pub(super) no: u64,
    last_seq: u64,
    replay: VecDeque<(u64, Box<[u8]>)>,
    replay_bytes: usize,
    client: Option<Client>,
    pub(super) ended: Option<Instant>,
}

struct Client {
    writer: Box<dyn EventWriter>,
    connection: u64,
    last_sent: Instant,
}

impl Stream {
    /// Events are numbered from the one after `last_seq`.
    pub(super) fn new(no: u64, last_seq: u64) -> Self {
        Self {
            no,
            last_seq,
            replay: VecDeque::new(),
            replay_bytes: 0,
            client: None,
            ended: None,
        }
    }

    /// Takes a client on, instead of the one before, and sends it what came after `seen`.
    pub(super) fn attach(
        &mut self,
        writer: Box<dyn EventWriter>,
        connection: u64,
        seen: Option<u64>,
        now: Instant,
    ) {
        self.detach_politely();
        self.client = Some(Client {
            writer,
            connection,
            last_sent: now,
        });
        if let Some(seen) = seen {
            self.replay_after(seen, now);
        }
    }

    /// Sends a client that understands it an event without data, so that it has an id to resume
    /// from: clients forget the one they had on the connection before. Others get a comment;
    /// either makes proxies pass the response's head on.
    pub(super) fn prime(&mut self, prime: bool, now: Instant) {
        if prime {
            self.last_seq += 1;
            let (no, seq) = (self.no, self.last_seq);
            self.send(
                format!("id: {no}-{seq}\nretry: {RETRY_MS}\ndata:\n\n").as_bytes(),
                now,
            );
        } else {
            self.send(b": ready\n\n", now);
        }
    }

    /// Whether a client that has seen `seq` has seen all there will ever be.
    pub(super) fn is_over_after(&self, seq: u64) -> bool {
        self.ended.is_some() && self.replay.iter().all(|(kept, _)| *kept <= seq)
    }

    fn replay_after(&mut self, seq: u64, now: Instant) {
        let missed: Vec<u8> = self
            .replay
            .iter()
            .filter(|(no, _)| *no > seq)
            .flat_map(|(_, event)| event.iter().copied())
            .collect();
        if !missed.is_empty() {
            self.send(&missed, now);
        }
    }

    /// Sends one message, and keeps it for replay. False if no client got it.
    pub(super) fn message(&mut self, json: &str, now: Instant) -> bool {
        self.last_seq += 1;
        let (no, seq) = (self.no, self.last_seq);
        // Between tokens it is white space, but in an event it would end the line.
        let json = match json.contains('\r') {
            true => Cow::Owned(json.replace('\r', " ")),
            false => Cow::Borrowed(json),
        };
        let event = format!("event: message\nid: {no}-{seq}\ndata: {json}\n\n").into_bytes();
        let sent = self.send(&event, now);
        if sent && event.len() > REPLAY_BYTES {
            return true; // too large to be kept for a client that has been given it
        }
        self.replay_bytes += event.len();
        self.replay.push_back((seq, event.into_boxed_slice()));
        while self.replay.len() > 1
            && (self.replay.len() > REPLAY_EVENTS || self.replay_bytes > REPLAY_BYTES)
        {
            let dropped = self.replay.pop_front();
            self.replay_bytes -= dropped.map_or(0, |(_, event)| event.len());
        }
        sent
    }

    /// The newest event is for another way: nobody shall get it twice.
    pub(super) fn take_back(&mut self) {
        if let Some((_, event)) = self.replay.pop_back() {
            self.replay_bytes -= event.len();
        }
    }

    /// Sends a comment if the client has heard nothing for long.
    pub(super) fn beat(&mut self, now: Instant) {
        if self.heartbeat_due().is_some_and(|due| now >= due) {
            self.send(b": \n\n", now);
        }
    }

    /// When [`Stream::beat`] will have something to do; `None` without a client.
    pub(super) fn heartbeat_due(&self) -> Option<Instant> {
        self.client
            .as_ref()
            .map(|client| client.last_sent + HEARTBEAT)
    }

    /// No message will follow.
    pub(super) fn end(&mut self, now: Instant) {
        self.detach_politely();
        self.ended = Some(now);
    }

    /// What is kept for replay, in bytes.
    pub(super) fn replay_bytes(&self) -> usize {
        self.replay_bytes
    }

    pub(super) fn has_client(&self) -> bool {
        self.client.is_some()
    }

    /// That of its client.
    pub(super) fn connection(&self) -> Option<u64> {
        self.client.as_ref().map(|client| client.connection)
    }

    /// Lets go of a client that has gone.
    pub(super) fn forget_connection(&mut self, connection: u64) {
        if self
            .client
            .as_ref()
            .is_some_and(|client| client.connection == connection)
        {
            self.client = None;
        }
    }

    fn detach_politely(&mut self) {
        if let Some(client) = self.client.take() {
            client.writer.finish();
        }
    }

    fn send(&mut self, events: &[u8], now: Instant) -> bool {
        let Some(client) = &mut self.client else {
            return false;
        };
        client.last_sent = now;
        if client.writer.send(events).is_err() {
            self.client = None;
            return false;
        }
        true
    }
}

/// Reads what [`Stream`] writes as an event's id: stream and sequence number.
pub(super) fn parse_event_id(id: &str) -> Option<(u64, u64)> {
    let (no, seq) = id.split_once('-')?;
    Some((no.parse().ok()?, seq.parse().ok()?))
}
