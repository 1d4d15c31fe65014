//! What reaches the broker as bytes: everything that could kill, starve or deceive tiny_http ends
//! at the edge, and the broker is well afterwards.
//!
//! `framing` and `input` hold what servers are known to read in different ways, one test a kind;
//! `hazards` holds the ways in which tiny_http alone could be brought down, `load` those that take
//! many clients, `slow` what clients cost that do not read. A test that is named after a CVE shows
//! that it cannot be used here.

mod framing;
mod hazards;
mod input;
mod load;
mod slow;

use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use socket2::SockRef;

use crate::support::{Broker, Connection, Request, Session, eventually, process};

/// What a broker may grow by under any attack.
const GROWTH_KIB: u64 = 32 * 1024;
/// Connections to tiny_http that the edge keeps: a thread and three descriptors each.
const KEPT_INNER: usize = 16;

/// A broker that is attacked, and a session in it that must not notice.
struct Target {
    broker: Broker,
    session: Session,
    threads: usize,
    descriptors: usize,
    resident_kib: u64,
}

impl Target {
    #[track_caller]
    fn start() -> Self {
        let broker = Broker::setup().start();
        let session = broker.session();
        Self::of(broker, session)
    }

    /// One that lets nobody in without a token.
    #[track_caller]
    fn locked() -> Self {
        let broker = Broker::setup().user("ann", &[]).start();
        let session = broker.user("ann").ready();
        Self::of(broker, session)
    }

    #[track_caller]
    fn of(broker: Broker, mut session: Session) -> Self {
        session.call_text("echo", json!({}));
        Self {
            threads: process::threads(broker.pid()).len(),
            descriptors: process::descriptors(broker.pid()),
            resident_kib: process::resident_kib(broker.pid()),
            broker,
            session,
        }
    }

    /// A request that would be noticed, were it ever served: it ends the session.
    fn bait(&self) -> String {
        let end = self.session.request("DELETE").bytes(self.broker.addr());
        let end = String::from_utf8(end).expect("a head");
        end + "GET /healthz?smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    }

    fn connect(&self) -> Connection {
        Connection::open(self.broker.addr())
    }

    /// A connection that can be reset.
    fn connect_raw(&self) -> TcpStream {
        TcpStream::connect(self.broker.addr()).expect("a connection")
    }

    /// Sends bytes; gives the statuses of all that comes back until the broker closes.
    #[track_caller]
    fn statuses(&self, bytes: impl AsRef<[u8]>) -> Vec<u16> {
        let mut connection = self.connect();
        // The broker may close before it has read everything.
        connection.try_send_bytes(bytes.as_ref());
        statuses(&connection.rest())
    }

    /// The bytes, and the bait behind them, get one answer of this status and no other.
    #[track_caller]
    fn refuses(&self, bytes: impl AsRef<[u8]>, status: u16) {
        let bytes = bytes.as_ref();
        let all = [bytes, self.bait().as_bytes()].concat();
        assert_eq!(self.statuses(all), [status], "{}", bytes.escape_ascii());
    }

    /// The bytes are one request, which gets this answer; what follows is the next request.
    #[track_caller]
    fn serves(&self, bytes: impl AsRef<[u8]>, status: u16) {
        let bytes = bytes.as_ref();
        let next = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let all = [bytes, next.as_bytes()].concat();
        assert_eq!(
            self.statuses(all),
            [status, 200],
            "{}",
            bytes.escape_ascii()
        );
    }

    #[track_caller]
    fn is_healthy(&self) -> bool {
        Request::new("GET", "/healthz")
            .send(self.broker.addr())
            .status
            == 200
    }

    /// No connection is left in the broker: no thread, no descriptor.
    #[track_caller]
    fn assert_empty(&self) {
        let pid = self.broker.pid();
        eventually("no connection is left", || {
            let threads = process::threads(pid);
            !threads.iter().any(|name| name.starts_with("c:"))
                && threads.len() <= self.threads + KEPT_INNER
                && process::descriptors(pid) <= self.descriptors + 3 * KEPT_INNER
        });
    }

    /// The broker is not much larger than it was.
    #[track_caller]
    fn assert_small(&self) {
        let (before, now) = (self.resident_kib, process::resident_kib(self.broker.pid()));
        assert!(now < before + GROWTH_KIB, "from {before} to {now} KiB");
    }

    /// The broker serves, the session lives, and nothing is left of anybody else.
    #[track_caller]
    fn assert_unharmed(mut self) {
        assert!(self.is_healthy());
        assert_eq!(
            self.session.call_text("echo", json!({"a": 1})),
            r#"{"a":1}"#
        );
        self.assert_empty();
        self.assert_small();
        assert!(!self.broker.log().contains("panicked"));
    }
}

/// Statuses of the responses that stand one behind the other in these bytes.
#[track_caller]
fn statuses(mut bytes: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("half a head: {}", bytes.escape_ascii())) + 4;
        let head = str::from_utf8(&bytes[..end]).expect("a head in UTF-8");
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        let status = status.and_then(|status| status.parse().ok());
        statuses.push(status.unwrap_or_else(|| panic!("no status line: {head:?}")));
        let length = head
            .split("\r\n")
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().expect("a length"));
        bytes = bytes.get(end + length..).expect("a whole body");
    }
    statuses
}

/// A POST that any broker answers with 405 and without looking at its body.
fn post(rest: &str) -> String {
    format!("POST /healthz HTTP/1.1\r\nHost: localhost\r\n{rest}")
}

fn get(rest: &str) -> String {
    format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{rest}")
}

/// Closes with a reset in place of an orderly end.
fn reset(stream: TcpStream) {
    let set = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    set.expect("SO_LINGER");
}

#[test]
fn the_bait_would_be_noticed() {
    let target = Target::start();
    let mut connection = target.connect();
    connection.send_bytes(target.bait().as_bytes());
    assert_eq!(connection.response().status, 204);
    assert_eq!(connection.response().status, 200);
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(target.session.post(&ping).status, 404);
}
