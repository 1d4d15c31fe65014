//! Sessions that outlive their child, and the broker too.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::broker::Setup;
use crate::support::{Broker, Request, Session, eventually, fake_mcp, process};

fn entry(args: &[&str]) -> Value {
    json!({ "command": fake_mcp(), "args": args, "broker": { "revive": true } })
}

fn setup() -> Setup {
    Broker::setup()
        .server_entry("fake", entry(&[]))
        .user("alice", &[])
        .user("bob", &[])
}

fn message(id: &str, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn ping() -> Value {
    message("p", "ping", json!({}))
}

/// Puts into the child what another one must be told again.
fn furnish(session: &Session) {
    for (method, params) in [
        ("logging/setLevel", json!({ "level": "error" })),
        ("resources/subscribe", json!({ "uri": "test://a" })),
        ("resources/subscribe", json!({ "uri": "test://b" })),
        ("resources/unsubscribe", json!({ "uri": "test://a" })),
    ] {
        assert_eq!(session.post(&message("f", method, params)).status, 200);
    }
}

/// The child is as [`furnish`] has left it.
#[track_caller]
fn assert_furnished(session: &mut Session) {
    let mut said = |tool: &str, arguments: Value| {
        let message = session.call_message(tool, arguments);
        session.post(&message).messages().len() - 1
    };
    assert_eq!(said("log", json!({ "level": "info" })), 0);
    assert_eq!(said("log", json!({ "level": "error" })), 1);
    assert_eq!(said("touch_resource", json!({ "uri": "test://a" })), 0);
    assert_eq!(said("touch_resource", json!({ "uri": "test://b" })), 1);
    let received: Value = serde_json::from_str(&session.call_text("received", json!({}))).unwrap();
    assert_eq!(received.as_array().unwrap().len(), 1, "{received}");
}

fn records(broker: &Broker) -> usize {
    let sessions = broker.dir().path().join("state/sessions");
    std::fs::read_dir(sessions).map_or(0, Iterator::count)
}

#[test]
fn after_a_crash_a_new_child_goes_on() {
    let broker = setup().start();
    let mut session = broker.user("alice").ready();
    furnish(&session);
    let (pid, _) = session.child();
    let exit = session.call_message("exit", json!({ "code": 5 }));
    assert_eq!(session.post(&exit).answer()["error"]["code"], -32000);
    assert_ne!(session.child().0, pid);
    assert_furnished(&mut session);
    // And again, by a signal this time.
    let (pid, _) = session.child();
    process::signal(pid, Signal::KILL);
    eventually("it has ended", || {
        !process::runs(pid) && broker.log().matches("session ended").count() == 2
    });
    assert_furnished(&mut session);
}

#[test]
fn a_protocol_version_that_was_not_negotiated_is_refused_after_revival_too() {
    let broker = setup().start();
    let mut session = broker.user("alice").ready();
    let (pid, _) = session.child();
    process::signal(pid, Signal::KILL);
    eventually("it has ended", || broker.log().contains("session ended"));
    let request = session.request("POST").without("MCP-Protocol-Version");
    let request = request.header("MCP-Protocol-Version", "1999-01-01");
    for _ in ["with its first request", "later"] {
        let response = request.clone().body(ping().to_string()).send(broker.addr());
        assert_eq!(response.status, 400, "{response:?}");
    }
    assert_eq!(session.post(&ping()).status, 200);
}

#[test]
fn an_idle_session_is_woken_by_a_post_and_by_no_get() {
    let broker = setup().options(&["--idle-timeout", "1s"]).start();
    let mut session = broker.user("alice").ready();
    furnish(&session);
    let mut stream = session.listen();
    while stream.next().is_some() {} // it ends with the session
    eventually("the child ends", || broker.children().is_empty());
    for _ in 0..3 {
        let response = session.request("GET").send(broker.addr());
        assert_eq!(response.status, 405, "{response:?}");
        assert!(response.header("Allow").is_some());
    }
    assert_eq!(broker.children(), []);
    assert_furnished(&mut session);
}

/// A client that listens and comes back by itself is nobody who works.
#[test]
fn a_get_brings_a_session_back_but_keeps_none() {
    let broker = setup().options(&["--idle-timeout", "3s"]).start();
    let mut session = broker.user("alice").ready();
    let (pid, _) = session.child();
    process::signal(pid, Signal::KILL);
    eventually("it has ended", || broker.log().contains("session ended"));
    drop(session.listen());
    assert_eq!(broker.children().len(), 1);
    // Crash after crash.
    eventually("nobody brings it back any more", || {
        for child in broker.children() {
            process::signal(child.pid, Signal::KILL);
        }
        exchange(&broker, &session.request("GET")).is_some_and(|(status, _)| status == 405)
    });
}

/// Status and session id of a response; `None` if the broker ended meanwhile.
fn exchange(broker: &Broker, request: &Request) -> Option<(u16, Option<String>)> {
    let mut stream = TcpStream::connect(broker.addr()).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .ok()?;
    stream.write_all(&request.bytes(broker.addr())).ok()?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk).ok()? {
            0 => return None,
            len => bytes.extend_from_slice(&chunk[..len]),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(field, value)| field.eq_ignore_ascii_case(name).then_some(value))
    };
    let status: u16 = head.get(9..12)?.parse().ok()?;
    // A client has its answer when it has all of it.
    let len: usize = field("Content-Length").map_or(Some(0), |len| len.parse().ok())?;
    let mut missing = len.saturating_sub(body.len());
    while missing > 0 {
        match stream.read(&mut chunk).ok()? {
            0 => return None,
            read => missing = missing.saturating_sub(read),
        }
    }
    Some((status, field("Mcp-Session-Id").map(str::to_owned)))
}

#[test]
fn a_session_outlives_its_broker() {
    for signal in [Signal::TERM, Signal::KILL] {
        let broker = setup().start();
        let mut session = broker.user("alice").ready();
        furnish(&session);
        let idle = broker.user("alice").ready();
        let deleted = broker.user("alice").ready();
        deleted.delete();
        let broker = broker.restart(signal);
        let at_new_address = |session: &Session| session.moved_to(broker.addr());
        assert_eq!(broker.children(), []);
        let thief = at_new_address(&session).with_token(broker.token("bob"));
        assert_eq!(thief.post(&ping()).status, 403);
        assert_eq!(
            at_new_address(&session)
                .at("/mcp/other")
                .post(&ping())
                .status,
            404
        );
        assert_eq!(at_new_address(&deleted).post(&ping()).status, 404);
        assert_eq!(broker.children(), []);
        session = at_new_address(&session);
        assert_furnished(&mut session);
        let idle = at_new_address(&idle);
        assert_eq!(idle.delete().status, 204);
        assert_eq!(idle.post(&ping()).status, 404);
        assert_eq!(session.delete().status, 204);
        assert_eq!(session.post(&ping()).status, 404);
        assert_eq!(records(&broker), 0);
    }
}

#[test]
fn what_ends_for_good_is_gone_from_the_disk() {
    let broker = setup().setting("max_session_age", "3s").start();
    let session = broker.user("alice").ready();
    let bob = broker.user("bob").ready();
    assert_eq!(records(&broker), 2);
    broker.token_command(&["revoke", "bob"]);
    eventually("bob has nothing left", || records(&broker) == 1);
    assert_eq!(bob.post(&ping()).status, 401);
    eventually("it is too old", || session.post(&ping()).status == 404);
    assert_eq!(records(&broker), 0);
}

#[test]
fn requests_that_come_at_once_get_one_child_and_all_their_answers() {
    let broker = Broker::setup()
        .server_entry("fake", entry(&["--slow-ms", "300"]))
        .start();
    let mut session = broker.session();
    for _ in 0..2 {
        let (pid, _) = session.child();
        process::signal(pid, Signal::KILL);
        let ended = |broker: &Broker| broker.log().matches("session ended").count();
        let started = broker.log().matches("started pid=").count();
        eventually("that is known", || ended(&broker) == started);
        let calls: Vec<_> = (0..12)
            .map(|_| session.call_aside("pid", json!({})))
            .collect();
        let answers = calls.into_iter().map(|call| call.join().unwrap().answer());
        let texts = answers.map(|answer| answer["result"]["content"][0]["text"].to_string());
        assert_eq!(texts.collect::<HashSet<_>>().len(), 1);
        eventually("it is logged", || {
            broker.log().matches("started pid=").count() == started + 1
        });
    }
}

#[test]
fn a_child_that_does_not_come_up_leaves_the_session_at_rest() {
    let mut broker = setup().start();
    let mut session = broker.user("alice").ready();
    let path = broker.dir().path().join("config.json");
    let config = std::fs::read_to_string(path).unwrap();
    let args = r#""args":[]"#;
    assert!(config.contains(args), "{config}");
    // One that ends, one that refuses, and at last one that is as before.
    for (other, status) in [
        (r#""args":["--exit-at-start","3"]"#, 500),
        (r#""args":["--era","modern","--at-discover","exit"]"#, 500),
        (args, 200),
    ] {
        let config = config.replace(args, other);
        broker.dir().write("config.json", &config).unwrap();
        broker = broker.restart(Signal::TERM);
        session = session.moved_to(broker.addr());
        for _ in 0..2 {
            let response = session.post(&ping());
            assert_eq!(response.status, status, "{other}: {response:?}");
        }
        assert_eq!(records(&broker), 1);
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, max: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % max
    }
}

/// Whatever a client was told before the broker was killed holds after it has come back.
#[test]
fn no_answer_is_forgotten_by_a_broker_that_is_killed() {
    let mut dice = Dice(0x5e55_1045);
    let mut broker = setup().start();
    let (mut seen, mut levels) = (0, 0);
    // On a slow machine it takes more of them to be told anything.
    for round in 0..200 {
        if round >= 32 && seen >= 10 && levels >= 5 {
            break;
        }
        let known: Mutex<Vec<(Session, bool)>> = Mutex::default();
        let is_over = AtomicBool::new(false);
        let pause = Duration::from_micros(2_000 + dice.below(60_000 + round * 4_000));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let go_on =
                        || open(&broker, &known).filter(|()| !is_over.load(Ordering::Relaxed));
                    std::iter::from_fn(go_on).for_each(drop);
                });
            }
            std::thread::sleep(pause); // a random moment
            broker.signal(Signal::KILL);
            is_over.store(true, Ordering::Relaxed);
        });
        broker = broker.restart(Signal::KILL);
        for (session, has_level) in known.into_inner().unwrap() {
            let mut session = session.moved_to(broker.addr());
            let log = session.call_message("log", json!({ "level": "info" }));
            let response = session.post(&log);
            assert_eq!(
                response.status, 200,
                "round {round}, after {pause:?}: {response:?}"
            );
            if has_level {
                assert_eq!(
                    response.messages().len(),
                    1,
                    "round {round}, after {pause:?}"
                );
            }
            (seen, levels) = (seen + 1, levels + usize::from(has_level));
            assert_eq!(session.delete().status, 204);
        }
    }
    assert!(
        seen >= 10 && levels >= 5,
        "{seen} sessions, {levels} levels"
    );
}

/// Opens a session and sets its log level; notes each as soon as it is answered.
fn open(broker: &Broker, known: &Mutex<Vec<(Session, bool)>>) -> Option<()> {
    let mut session = broker.user("alice");
    let post = |session: &Session, message: &Value| {
        exchange(broker, &session.request("POST").body(message.to_string()))
    };
    let (_, id) = post(&session, &session.initialize_message())?;
    session.id = Some(id?);
    let at = {
        let mut known = known.lock().unwrap();
        known.push((session.clone(), false));
        known.len() - 1
    };
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    post(&session, &initialized)?;
    let level = message("l", "logging/setLevel", json!({ "level": "error" }));
    let (status, _) = post(&session, &level)?;
    known.lock().unwrap()[at].1 = status == 200;
    Some(())
}
