//! The ways in which one client could kill, starve or deceive tiny_http 0.12 alone, by number:
//!
//! - H1: a huge `Content-Length` makes it allocate as much, which ends the process
//! - H2: `HTTP/2.0` makes a thread wait for itself for ever
//! - H3: of connections that arrive together some are not served
//! - H4: without descriptors its listener ends for good (in `load`)
//! - H5: responses of more than a kilobyte take 44 ms
//! - H6: heads and the lines of chunks have no bound
//! - H7: what is pipelined behind an open stream is read without bound
//! - H8: it waits for ever for whoever sends nothing
//! - H9: and for whoever reads nothing
//! - H10: it reads other requests than a proxy before it (`framing`; CVE-2026-66752)
//! - H11: a reset, and a `q` that is no number, are panics
//! - H12: line ends pass into the fields of a response (CVE-2026-66753)
//! - H13: connections that are open when it stops are left without a word

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use super::*;
use crate::support::within;

/// Sends the same again and again, up to `total` bytes, while the broker takes it. Gives what it
/// answers, and how many bytes it took.
#[track_caller]
fn flood(target: &Target, head: &str, piece: &str, total: usize) -> (Vec<u16>, usize) {
    let mut stream = target.connect_raw();
    let timeout = Some(crate::support::DEADLINE);
    stream.set_write_timeout(timeout).expect("a timeout");
    stream.set_read_timeout(timeout).expect("a timeout");
    stream.write_all(head.as_bytes()).expect("the broker reads");
    let pieces = piece.repeat((1 << 20) / piece.len());
    let mut sent = 0;
    while sent < total && stream.write_all(pieces.as_bytes()).is_ok() {
        sent += pieces.len();
    }
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&bytes[..len]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
    (statuses(&answer), sent)
}

#[test]
fn h1_a_huge_content_length_allocates_nothing() {
    let target = Target::start();
    for length in [
        "100000000000",
        "1000000000000",
        "1000000000000000",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "99999999999999999999999999",
    ] {
        target.refuses(post(&format!("Content-Length: {length}\r\n\r\n")), 413);
        target.refuses(get(&format!("Content-Length: {length}\r\n\r\nbody")), 413);
    }
    // The largest that is allowed, cut short.
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut connection = target.connect();
        connection.send_bytes(post("Content-Length: 4194304\r\n\r\nbody").as_bytes());
        held.push(connection);
    }
    assert!(target.is_healthy());
    target.assert_small();
    target.assert_unharmed();
}

#[test]
fn h2_http_2_leaves_nothing_behind() {
    let target = Target::start();
    for _ in 0..100 {
        assert_eq!(
            target.statuses("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n"),
            [505]
        );
        assert_eq!(target.statuses("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), [505]);
    }
    target.assert_unharmed();
}

#[test]
fn h3_of_a_burst_of_connections_none_is_lost() {
    let target = Target::start();
    for round in 0..10 {
        let start = Instant::now();
        let mut burst: Vec<Connection> = (0..128).map(|_| target.connect()).collect();
        // A GET gets a connection to tiny_http of its own, others keep theirs.
        let (request, status) = match round % 2 {
            0 => (get("\r\n"), 200),
            _ => (post("Content-Length: 0\r\n\r\n"), 405),
        };
        for again in 0..2 {
            burst
                .iter_mut()
                .for_each(|it| it.send_bytes(request.as_bytes()));
            for connection in &mut burst {
                assert_eq!(connection.response().status, status, "{round} {again}");
            }
        }
        let time = start.elapsed();
        assert!(
            time < Duration::from_secs(10),
            "round {round} took {time:?}"
        );
    }
    target.assert_unharmed();
}

#[test]
fn h5_no_response_waits_for_an_acknowledgement() {
    let mut target = Target::start();
    let mut connection = target.connect();
    for len in [100, 1_500, 8_000, 20_000, 40_000] {
        let text = "x".repeat(len);
        // The quickest of many, because other tests run beside this one.
        let quickest = (0..20).map(|_| {
            let call = target.session.call_message("echo", json!({ "text": text }));
            let request = target.session.request("POST").body(call.to_string());
            let start = Instant::now();
            connection.send(&request);
            assert_eq!(connection.response().status, 200);
            start.elapsed()
        });
        let quickest = quickest.min().unwrap_or_default();
        assert!(
            quickest < Duration::from_millis(35),
            "{len} bytes: {quickest:?}"
        );
    }
    drop(connection);
    target.assert_unharmed();
}

#[test]
fn h6_an_endless_head_takes_no_memory() {
    const ENDLESS: usize = 300 << 20;
    let target = Target::start();
    let chunked = post("Transfer-Encoding: chunked\r\n\r\n");
    for (head, piece, status) in [
        ("GET /", "x", 414),
        ("GET / HTTP/1.1\r\nX: ", "x", 431),
        ("GET / HTTP/1.1\r\n", "X: y\r\n", 431),
        (&chunked, "0", 400),
        (&format!("{chunked}1;"), "x", 400),
        (&format!("{chunked}0\r\n"), "X: y\r\n", 400),
        (&chunked, "1001\r\n", 400),
    ] {
        let (answer, sent) = flood(&target, head, piece, ENDLESS);
        // What was sent into a closing connection may have taken the answer with it.
        assert!(
            answer.is_empty() || answer == [status],
            "{head}: {answer:?}"
        );
        assert!(sent < ENDLESS / 10, "{head}: {sent} bytes taken");
        // The same without more than it takes to see it.
        let few = format!("{head}{}", piece.repeat(20_000 / piece.len()));
        assert_eq!(target.statuses(few), [status], "{head}");
    }
    target.assert_small();
    target.assert_unharmed();
}

#[test]
fn h7_what_is_pipelined_behind_a_stream_waits_outside() {
    const COUNT: usize = 10_000;
    let target = Target::start();
    let listener = target.broker.session();
    let mut stream = target.connect_raw();
    stream
        .set_read_timeout(Some(crate::support::DEADLINE))
        .expect("a timeout");
    let open = listener.request("GET").bytes(target.broker.addr());
    stream.write_all(&open).expect("the broker reads");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("the stream's head");
    assert_eq!(&first, b"HTTP/1.1 200");
    let threads = process::threads(target.broker.pid()).len();
    let mut writer = stream.try_clone().expect("a descriptor");
    let writing = std::thread::spawn(move || {
        let last = get("Connection: close\r\n\r\n");
        let all = get("\r\n").repeat(COUNT - 1) + &last;
        writer.write_all(all.as_bytes()).is_ok()
    });
    // Nobody else is held up.
    for _ in 0..20 {
        assert!(target.is_healthy());
    }
    target.assert_small();
    let now = process::threads(target.broker.pid()).len();
    assert!(
        now <= threads + KEPT_INNER,
        "from {threads} to {now} threads"
    );
    // When the stream ends it is their turn, in order.
    assert_eq!(listener.delete().status, 204);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an orderly end");
    let after = rest
        .windows(5)
        .position(|it| it == b"0\r\n\r\n")
        .expect("the stream's end");
    let answers = statuses(&rest[after + 5..]);
    assert!(answers.iter().all(|status| *status == 200) && answers.len() == COUNT);
    target.assert_small();
    assert!(writing.join().expect("no panic"));
    target.assert_unharmed();
}

/// All at once, because the broker is patient for ten seconds.
#[test]
fn h8_who_is_slow_is_cut() {
    let target = Target::start();
    let chunked = post("Transfer-Encoding: chunked\r\n\r\n");
    let start = Instant::now();
    let mut slow: Vec<Connection> = [
        "G".to_owned(),
        "GET / HTTP/1.1\r\nHost: loc".to_owned(),
        get("X: y\r\n"),
        post("Content-Length: 100\r\n\r\nbody"),
        post("Content-Length: 3000000\r\n\r\nbody"),
        chunked.clone(),
        format!("{chunked}4\r\nbody\r\n"),
        post("Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"),
    ]
    .map(|bytes| {
        let mut connection = target.connect();
        connection.send_bytes(bytes.as_bytes());
        connection
    })
    .into();
    let mut silent = target.connect();
    // One that drips.
    let mut drip = target.connect_raw();
    drip.set_nonblocking(true).expect("a non-blocking socket");
    let mut answer = [0; 12];
    within(Duration::from_secs(18), "the drip is cut", || {
        let _ = drip.write(b"a");
        match drip.read(&mut answer) {
            Ok(len) => len > 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    });
    for connection in &mut slow {
        let rest = connection.rest();
        let last = statuses(&rest).last().copied();
        assert_eq!(last, Some(408), "{}", rest.escape_ascii());
    }
    assert_eq!(silent.rest(), b"");
    assert!(start.elapsed() >= Duration::from_secs(9), "cut too early");
    target.assert_unharmed();
}

#[test]
fn h9_clients_that_never_read_hold_up_nobody() {
    let mut target = Target::start();
    let mut other = target.broker.session();
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let text = "x".repeat(3_000_000);
        let call = other.call_message("echo", json!({ "text": text }));
        let mut connection = target.connect();
        connection.send(&other.request("POST").body(call.to_string()));
        deaf.push(connection);
    }
    for _ in 0..10 {
        assert!(target.is_healthy());
        target.session.call_text("echo", json!({}));
    }
    drop(deaf);
    target.assert_empty();
    assert_eq!(other.delete().status, 204);
    // What the allocator keeps of four answers, each of which was there as a line, a message, a
    // response and a backlog. That none of it is still held, src/edge/backlog/tests.rs shows.
    target.resident_kib += 4 * 4 * 3_000;
    target.assert_unharmed();
}

#[test]
fn h11_resets_cause_no_panic() {
    let target = Target::start();
    for no in 0..2000 {
        let mut stream = target.connect_raw();
        let request = match no % 4 {
            0 => get("\r\n"),
            1 => post("Content-Length: 4\r\n\r\nbody"),
            2 => post("Content-Length: 4\r\n\r\nbo"),
            _ => String::new(),
        };
        stream
            .write_all(request.as_bytes())
            .expect("the broker reads");
        reset(stream);
    }
    target.assert_unharmed();
}

#[test]
fn h11_te_with_no_number_causes_no_panic() {
    let target = Target::start();
    let te = |items: &str| get(&format!("TE: {items}\r\n\r\n"));
    target.serves(te(&vec!["trailers;q=NaN"; 60].join(",")), 200);
    target.serves(te(&vec!["chunked;q=NaN,gzip;q=0.5"; 60].join(",")), 200);
    target.serves(te("identity;q=NaN"), 200);
    target.assert_unharmed();
}

#[test]
fn cve_2026_66753_no_line_end_gets_into_a_response_field() {
    let target = Target::start();
    let origin = |value: &str| get(&format!("Origin: {value}\r\n\r\n"));
    // The one value of a client's that is sent back.
    let mut connection = target.connect();
    connection.send_bytes(origin("http://localhost:1").as_bytes());
    let response = connection.response();
    drop(connection);
    let allowed = response.header("Access-Control-Allow-Origin");
    assert_eq!(allowed, Some("http://localhost:1"));
    target.refuses(origin("http://localhost\rSet-Cookie: a=b"), 400);
    target.refuses(origin("http://localhost\nSet-Cookie: a=b"), 400);
    target.refuses(origin("http://localhost\r\n Set-Cookie: a=b"), 400);
    target.refuses(origin("http://localhost\0"), 400);
    target.refuses(origin("http://localhost\x0bSet-Cookie: a=b"), 400);
    for value in [
        "http://localhost\tSet-Cookie: a=b",
        "http://localhost:1\tSet-Cookie: a=b",
        "http://localhost%0d%0aSet-Cookie: a=b",
        "http://localhost\r\nSet-Cookie: a=b",
    ] {
        let mut connection = target.connect();
        connection.send_bytes(origin(value).as_bytes());
        let response = connection.response();
        assert!(
            response.fields.iter().all(|(name, _)| name != "Set-Cookie"),
            "{response:?}"
        );
    }
    target.assert_unharmed();
}

#[test]
fn h13_open_connections_end_with_the_broker() {
    let mut target = Target::start();
    let mut open: Vec<Connection> = (0..20).map(|_| target.connect()).collect();
    for connection in &mut open {
        connection.send_bytes(get("\r\n").as_bytes());
        assert_eq!(connection.response().status, 200);
    }
    open.push(target.connect());
    for bytes in ["GET / HT".to_owned(), post("Content-Length: 4\r\n\r\nbo")] {
        let mut connection = target.connect();
        connection.send_bytes(bytes.as_bytes());
        open.push(connection);
    }
    let mut stream = target.connect();
    stream.send(&target.session.request("GET"));
    assert_eq!(stream.head().0, 200);
    let start = Instant::now();
    target.broker.signal(Signal::TERM);
    for connection in &mut open {
        assert_eq!(connection.rest(), b"");
    }
    assert!(
        stream.rest().ends_with(b"0\r\n\r\n"),
        "the stream does not end"
    );
    assert_eq!(target.broker.wait().code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    assert!(TcpStream::connect(target.broker.addr()).is_err());
}
