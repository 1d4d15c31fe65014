//! What is counted, in one place: the statics below are the only state that all of the broker's
//! parts share. Counting is one relaxed addition; reading is for the admin listener and the log.
//!
//! `text` writes the exposition format, `process` reads `/proc`. Nothing here may ever hold a
//! token, a value of an environment, a body, a user's name or a whole session id.

mod label;
pub(crate) mod process;
mod text;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use label::{ChildEnd, EndCause, EraVerdict, Label, Method, RefusalReason, StatusClass};
pub(crate) use text::{Kind, Page};

/// A number that only grows.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many of something there are now.
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn increase(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn decrease(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Values a label may have at most.
const LABEL_VALUES_MAX: usize = 16;

/// One counter for each value of a label.
pub(crate) struct Family<L> {
    counters: [Counter; LABEL_VALUES_MAX],
    label: PhantomData<fn(L)>,
}

impl<L: Label> Family<L> {
    const fn new() -> Self {
        assert!(L::VALUES.len() <= LABEL_VALUES_MAX);
        Self {
            counters: [const { Counter::new() }; LABEL_VALUES_MAX],
            label: PhantomData,
        }
    }

    pub(crate) fn add(&self, value: L) {
        self.counters[value.index()].add(1);
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let texts = L::VALUES.iter().map(|(_, text)| *text);
        texts.zip(self.counters.iter().map(Counter::get))
    }
}

/// One counter for each pair of a method and a status class.
pub(crate) struct Requests([Family<StatusClass>; Method::VALUES.len()]);

impl Requests {
    pub(crate) fn add(&self, method: Method, class: StatusClass) {
        self.0[method.index()].add(class);
    }
}

/// Upper bounds of the buckets, in seconds: a call on a fast child takes some 200 µs, one on a
/// slow service many seconds.
const BUCKETS: [f64; 16] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
];

/// How long something took, in fixed buckets.
pub(crate) struct Histogram {
    /// Not cumulative; the last one is for what is longer than any bound.
    buckets: [Counter; BUCKETS.len() + 1],
    sum_ns: Counter,
}

impl Histogram {
    const fn new() -> Self {
        Self {
            buckets: [const { Counter::new() }; BUCKETS.len() + 1],
            sum_ns: Counter::new(),
        }
    }

    pub(crate) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].add(1);
        self.sum_ns
            .add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

pub(crate) static SESSIONS_OPENED: Counter = Counter::new();
pub(crate) static SESSIONS_ENDED: Family<EndCause> = Family::new();
/// Sessions whose child was started again for an owner who came back.
pub(crate) static SESSIONS_REVIVED: Counter = Counter::new();
/// Sessions that were given a waiting child.
pub(crate) static PARKING_HITS: Counter = Counter::new();
/// Sessions of a server with parking for which no child was waiting.
pub(crate) static PARKING_MISSES: Counter = Counter::new();
pub(crate) static CHILDREN_SPAWNED: Counter = Counter::new();
pub(crate) static SPAWN_FAILURES: Counter = Counter::new();
pub(crate) static CHILDREN_ENDED: Family<ChildEnd> = Family::new();
/// Programs that were asked which eras they speak. Their processes are not counted elsewhere.
pub(crate) static ERA_PROBES: Family<EraVerdict> = Family::new();
pub(crate) static CHILD_MESSAGES_SENT: Counter = Counter::new();
pub(crate) static CHILD_MESSAGES_RECEIVED: Counter = Counter::new();
/// Lines of children that were no message and went nowhere.
pub(crate) static CHILD_GARBAGE_LINES: Counter = Counter::new();
/// Messages of children that no client came to fetch.
pub(crate) static DROPPED_MESSAGES: Counter = Counter::new();
pub(crate) static REFUSALS: Family<RefusalReason> = Family::new();
pub(crate) static HTTP_REQUESTS: Requests = Requests([const { Family::new() }; _]);
/// From the accept loop to the answer; of a POST that became a stream, to the stream's end.
pub(crate) static HTTP_DURATION: Histogram = Histogram::new();
/// Event streams that have a client.
pub(crate) static OPEN_STREAMS: Gauge = Gauge::new();
pub(crate) static PUBLIC_CONNECTIONS: Gauge = Gauge::new();
pub(crate) static ADMIN_CONNECTIONS: Gauge = Gauge::new();
/// Connections that were told to come again.
pub(crate) static CONNECTIONS_TURNED_AWAY: Counter = Counter::new();
/// Requests that the edge has answered itself, because they were malformed, too large or late.
pub(crate) static EDGE_REFUSALS: Counter = Counter::new();
pub(crate) static RECEIVED_BYTES: Counter = Counter::new();
pub(crate) static SENT_BYTES: Counter = Counter::new();

/// Writes all of the above.
pub(crate) fn write(page: &mut Page) {
    write_sessions(page);
    write_children(page);
    write_http(page);
}

fn write_sessions(page: &mut Page) {
    page.counter(
        "sessions_opened_total",
        "Sessions opened.",
        &SESSIONS_OPENED,
    );
    page.family(
        "sessions_ended_total",
        "Sessions ended, by cause.",
        &SESSIONS_ENDED,
    );
    page.counter(
        "sessions_revived_total",
        "Sessions whose server was started again for an owner who came back.",
        &SESSIONS_REVIVED,
    );
    page.counter(
        "parking_hits_total",
        "Sessions that were given a parked server.",
        &PARKING_HITS,
    );
    page.counter(
        "parking_misses_total",
        "Sessions for which no parked server was waiting.",
        &PARKING_MISSES,
    );
    page.family(
        "refusals_total",
        "Requests refused by policy or for want of room, by reason.",
        &REFUSALS,
    );
}

fn write_children(page: &mut Page) {
    page.counter(
        "children_spawned_total",
        "Server processes started.",
        &CHILDREN_SPAWNED,
    );
    page.counter(
        "spawn_failures_total",
        "Server processes that could not be started.",
        &SPAWN_FAILURES,
    );
    page.family(
        "children_ended_total",
        "Server processes ended, by how they ended.",
        &CHILDREN_ENDED,
    );
    page.family(
        "era_probes_total",
        "Servers that were asked which eras of the protocol they speak, by what was found.",
        &ERA_PROBES,
    );
    page.counter(
        "child_messages_sent_total",
        "Lines written to servers.",
        &CHILD_MESSAGES_SENT,
    );
    page.counter(
        "child_messages_received_total",
        "Lines read from servers.",
        &CHILD_MESSAGES_RECEIVED,
    );
    page.counter(
        "child_garbage_lines_total",
        "Lines of servers that were no message and went nowhere.",
        &CHILD_GARBAGE_LINES,
    );
    page.counter(
        "dropped_messages_total",
        "Messages of servers that no client came to fetch.",
        &DROPPED_MESSAGES,
    );
}

fn write_http(page: &mut Page) {
    page.requests(
        "http_requests_total",
        "HTTP requests answered, by method and status class.",
        &HTTP_REQUESTS,
    );
    page.histogram(
        "http_request_duration_seconds",
        "Time from a request's head to its answer; of a POST that became a stream, to its end.",
        &HTTP_DURATION,
    );
    page.counter(
        "edge_refusals_total",
        "Requests refused before they were read: malformed, too large or too slow.",
        &EDGE_REFUSALS,
    );
    page.counter(
        "connections_turned_away_total",
        "Connections refused for want of room.",
        &CONNECTIONS_TURNED_AWAY,
    );
    page.gauge(
        "open_streams",
        "Event streams that have a client.",
        OPEN_STREAMS.get(),
    );
    let doors = [
        ("public", PUBLIC_CONNECTIONS.get()),
        ("admin", ADMIN_CONNECTIONS.get()),
    ];
    page.gauges("open_connections", "Connections of clients.", "door", doors);
    page.counter(
        "received_bytes_total",
        "Bytes read from clients.",
        &RECEIVED_BYTES,
    );
    page.counter("sent_bytes_total", "Bytes written to clients.", &SENT_BYTES);
}
