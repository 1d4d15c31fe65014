//! Fuzz target: event streams as a client of the WHATWG's rules reads them, over connections that
//! come and go.

mod events;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::EventWriter;
use super::stream::{Stream, parse_event_id};
use crate::fuzz::input::{Input, reads};
use events::{Event, Parser};

/// The stream's number.
const NO: u64 = 7;
/// What [`Stream`] keeps for replay, at most.
const KEPT: usize = 256;

/// What a client was sent on one connection.
#[derive(Clone, Default)]
struct Wire {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_cut: Arc<Mutex<bool>>,
}

impl EventWriter for Wire {
    fn send(&mut self, events: &[u8]) -> io::Result<()> {
        if *self.is_cut.lock() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.bytes.lock().extend_from_slice(events);
        Ok(())
    }

    fn finish(self: Box<Self>) {}
}

/// The stream, its client, and what the client should have got.
struct Scene {
    stream: Stream,
    seed: u8,
    now: Instant,
    wire: Option<Wire>,
    connection: u64,
    /// The id that the client has seen last.
    last_id: String,
    /// Sequence number and text of what can be asked for again.
    kept: VecDeque<(u64, String)>,
    /// What the client should have got on this connection.
    expected: Vec<(u64, String)>,
    seq: u64,
}

/// The first byte says where reads end; then come operations, one byte each, a message with its
/// text.
pub(crate) fn stream(data: &[u8]) {
    let mut input = Input::new(data);
    let seed = input.byte();
    check_parser(data, seed);
    let mut scene = Scene {
        stream: Stream::new(NO, 0),
        seed,
        now: Instant::now(),
        wire: None,
        connection: 0,
        last_id: String::new(),
        kept: VecDeque::new(),
        expected: Vec::new(),
        seq: 0,
    };
    while !input.is_empty() {
        match input.byte() % 8 {
            0 => scene.attach(true),
            1 => scene.attach(false),
            2 => scene.cut(),
            3 => scene.leave(),
            4 => scene.beat(),
            5 => scene.take_back(),
            _ => scene.message(input.text()),
        }
    }
    scene.leave();
}

impl Scene {
    fn attach(&mut self, prime: bool) {
        self.leave();
        let wire = Wire::default();
        self.connection += 1;
        // A client sends what it has seen, as it has seen it.
        let seen = parse_event_id(&self.last_id);
        assert_eq!(seen.is_some(), !self.last_id.is_empty());
        let seen = seen.map(|(no, seq)| {
            assert_eq!(no, NO);
            seq
        });
        let writer = Box::new(wire.clone());
        self.stream.attach(writer, self.connection, seen, self.now);
        self.wire = Some(wire);
        if let Some(seen) = seen {
            let missed = self.kept.iter().filter(|(seq, _)| *seq > seen);
            self.expected.extend(missed.cloned());
        }
        self.stream.prime(prime, self.now);
        if prime {
            // Of no data, but an event all the same.
            self.seq += 1;
            self.expected.push((self.seq, String::new()));
        }
    }

    fn message(&mut self, text: &str) {
        // A child's message is one line.
        let text = text.replace('\n', " ");
        let is_there = self.wire.as_ref().is_some_and(|wire| !*wire.is_cut.lock());
        assert_eq!(self.stream.message(&text, self.now), is_there);
        self.seq += 1;
        let message = (self.seq, text.replace('\r', " "));
        if is_there {
            self.expected.push(message.clone());
        }
        self.kept.push_back(message);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// Only what nobody got is taken back.
    fn take_back(&mut self) {
        let newest = self.kept.back().map(|(seq, _)| *seq);
        if newest.is_some()
            && newest != self.expected.last().map(|(seq, _)| *seq)
            && self.wire.is_none()
        {
            self.stream.take_back();
            self.kept.pop_back();
        }
    }

    fn cut(&mut self) {
        if let Some(wire) = &self.wire {
            *wire.is_cut.lock() = true;
        }
    }

    fn beat(&mut self) {
        self.now += Duration::from_secs(20);
        self.stream.beat(self.now);
    }

    /// The client goes; now it is seen what it got.
    fn leave(&mut self) {
        self.stream.forget_connection(self.connection);
        assert!(!self.stream.has_client());
        let expected = std::mem::take(&mut self.expected);
        let Some(wire) = self.wire.take() else {
            assert!(expected.is_empty());
            return;
        };
        let bytes = wire.bytes.lock();
        let mut parser = Parser::new(&self.last_id);
        let events: Vec<Event> = reads(&bytes, self.seed)
            .flat_map(|read| parser.feed(read))
            .collect();
        let got: Vec<(u64, String)> = events.into_iter().map(message_of).collect();
        assert_eq!(got, expected);
        assert!(parser.retry.is_none_or(|retry| retry == 1000));
        assert!(parser.is_between_events(), "half an event");
        self.last_id = parser.last_id;
    }
}

fn message_of(event: Event) -> (u64, String) {
    assert_eq!(event.kind, "message");
    let id = parse_event_id(&event.id);
    let Some((NO, seq)) = id else {
        panic!("an event with id {:?}", event.id);
    };
    (seq, event.data)
}

/// The reader itself: it reads the same however the bytes come.
fn check_parser(data: &[u8], seed: u8) {
    let mut whole = Parser::new("");
    let events = whole.feed(data);
    let mut pieces = Parser::new("");
    let of_pieces: Vec<Event> = reads(data, seed)
        .flat_map(|read| pieces.feed(read))
        .collect();
    assert_eq!(events, of_pieces);
    assert_eq!(whole.last_id, pieces.last_id);
}
