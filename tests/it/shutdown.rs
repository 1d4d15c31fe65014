//! How the broker ends: politely, in time, and with nothing left behind.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::admin::Observed;
use crate::support::{Broker, Request, Session, eventually, process};

fn ping() -> Value {
    json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" })
}

fn health(broker: &Broker) -> u16 {
    Request::new("GET", "/healthz").send(broker.addr()).status
}

/// A call that takes so long, of which the child is known to have it.
fn long_call(session: &mut Session, n: u32) -> crate::support::Events {
    let mut call = session.call_message("count", json!({ "n": n, "delay_ms": 50 }));
    call["params"]["_meta"] = json!({ "progressToken": "long" });
    let mut stream = session.post_stream(&call);
    stream.message();
    stream
}

/// What is in flight is answered, new work is refused, all streams end, and the exit code is 0.
#[track_caller]
fn check_drain(signal: Signal) {
    let mut broker = Broker::setup().setting("drain", "10s").start();
    let mut session = broker.session();
    let mut get = session.listen();
    let mut call = long_call(&mut session, 25);
    broker.signal(signal);
    eventually("it drains", || health(&broker) == 503);
    let refused = broker.client().initialize();
    assert_eq!((refused.status, refused.error_code()), (503, -32000));
    assert_eq!(refused.header("Retry-After"), Some("30"));
    assert_eq!(session.post(&ping()).status, 503);
    let last = call.rest().pop().expect("an answer");
    assert_eq!(last["result"]["content"][0]["text"], "counted to 25");
    assert_eq!(get.rest(), Vec::<Value>::new());
    assert_eq!(broker.wait().code(), Some(0), "{signal:?}");
}

#[test]
fn sigterm_lets_finish_what_is_in_flight() {
    check_drain(Signal::TERM);
}

#[test]
fn sigint_lets_finish_what_is_in_flight() {
    check_drain(Signal::INT);
}

#[test]
fn sighup_lets_finish_what_is_in_flight() {
    check_drain(Signal::HUP);
}

#[test]
fn a_plain_answer_in_flight_is_given_too() {
    let mut observed = Observed::start(Broker::setup().setting("drain", "10s"));
    let mut session = observed.broker.session();
    let sleep = session.call_aside("sleep", json!({ "ms": 500 }));
    eventually("the child has the call", || {
        observed.metrics().get("child_messages_sent_total") == 3.0
    });
    let mut call = long_call(&mut session, 8);
    observed.broker.signal(Signal::TERM);
    let answer = sleep.join().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.answer()["result"]["content"][0]["text"],
        "slept 500 ms"
    );
    assert_eq!(
        call.rest().pop().unwrap()["result"]["content"][0]["text"],
        "counted to 8"
    );
    assert_eq!(observed.broker.wait().code(), Some(0));
}

#[test]
fn a_call_that_waits_for_its_client_can_be_answered_while_draining() {
    let mut broker = Broker::setup().setting("drain", "5s").start();
    let mut session = broker.session();
    let call = session.call_message("ask", json!({ "kind": "roots" }));
    let mut stream = session.post_stream(&call);
    let question = stream.message();
    broker.signal(Signal::TERM);
    eventually("it drains", || health(&broker) == 503);
    let reply = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "roots": [] } });
    assert_eq!(session.post(&reply).status, 202);
    let answer = stream.message();
    assert_eq!(answer["result"]["content"][0]["text"], r#"{"roots":[]}"#);
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn an_idle_broker_stops_at_once_with_all_its_children() {
    let mut broker = Broker::setup()
        .server("fake", &["--grandchild"])
        .setting("drain", "10s")
        .start();
    let mut groups = Vec::new();
    for _ in 0..6 {
        groups.push(broker.session().child().1);
    }
    let begun = Instant::now();
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    for group in groups {
        assert_eq!(process::group(group), []);
    }
}

#[test]
fn children_are_stopped_side_by_side() {
    let mut broker = Broker::setup()
        .server("fake", &["--ignore-term"])
        .setting("stop_grace", "500ms")
        .setting("kill_grace", "500ms")
        .start();
    let sessions: Vec<Session> = (0..6).map(|_| broker.session()).collect();
    let begun = Instant::now();
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    let took = begun.elapsed();
    drop(sessions);
    // One ladder takes a second; one after the other would be six.
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn the_drain_has_an_end() {
    let mut broker = Broker::setup().setting("drain", "300ms").start();
    let mut session = broker.session();
    let mut call = long_call(&mut session, 1000);
    let begun = Instant::now();
    broker.signal(Signal::TERM);
    let last = call.rest().pop().expect("an answer");
    assert_eq!(last["error"]["code"], -32000, "{last}");
    assert_eq!(broker.wait().code(), Some(0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_second_signal_stops_the_drain_and_the_children_at_once() {
    let mut broker = Broker::setup()
        .server("fake", &["--ignore-term"])
        .setting("drain", "1m")
        .setting("stop_grace", "1m")
        .setting("kill_grace", "1m")
        .start();
    let mut session = broker.session();
    let (_, group) = session.child();
    let _call = long_call(&mut session, 10_000);
    broker.signal(Signal::TERM);
    eventually("it drains", || health(&broker) == 503);
    broker.signal(Signal::INT);
    assert_eq!(broker.wait().code(), Some(0));
    assert_eq!(process::group(group), []);
}

#[test]
fn a_second_signal_cuts_the_stop_ladder_short() {
    let mut broker = Broker::setup()
        .server("fake", &["--ignore-term"])
        .setting("stop_grace", "1m")
        .setting("kill_grace", "1m")
        .start();
    let (_, group) = broker.session().child();
    broker.signal(Signal::TERM);
    broker.wait_for_log("the broker is shutting down");
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    assert_eq!(process::group(group), []);
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_the_end() {
    let mut broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut connection = crate::support::Connection::open(broker.addr());
    let call = session.call_message("big", json!({ "bytes": 8 << 20 }));
    connection.send(&session.request("POST").body(call.to_string()));
    // The head of the answer is there, the rest fills the buffers and goes no further.
    assert_eq!(connection.head().0, 200);
    let begun = Instant::now();
    broker.signal(Signal::TERM);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn no_socket_is_left_in_the_state_directory() {
    let mut broker = Broker::setup().user("alice", &[]).start();
    broker.user("alice").ready();
    let state = broker.dir().path().join("state");
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    let left = fs::read_dir(state).unwrap().map(|it| it.unwrap().path());
    let left: Vec<_> = left.filter(|it| !it.is_file() && !it.is_dir()).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_broker_that_was_killed_does_not_hinder_the_next() {
    let mut broker = Broker::setup().user("alice", &[]).start();
    let children = broker.children();
    broker.signal(Signal::KILL);
    assert_eq!(broker.wait().code(), None);
    assert_eq!(children, []);
    let mut command = std::process::Command::new(crate::support::broker::PROGRAM);
    command.args(["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
    command.arg(broker.dir().path().join("state"));
    command.args(crate::support::user::as_ourselves());
    let next = Broker::launch(command, crate::support::TempDir::new());
    let client = next.client().with_token(broker.token("alice"));
    client.ready();
}

/// So many sessions are busy at once.
const BUSY: usize = 64;
const BUSY_DRAIN_MS: u64 = 6000;

#[test]
fn no_answer_is_lost_that_was_given_in_time() {
    let setup = Broker::setup()
        .setting("drain", format!("{BUSY_DRAIN_MS}ms"))
        .setting("max_sessions_per_user", 0);
    let mut observed = Observed::start(setup);
    let mut sessions: Vec<Session> = (0..BUSY).map(|_| observed.broker.session()).collect();
    let groups: Vec<i32> = observed
        .broker
        .children()
        .iter()
        .map(|it| it.group)
        .collect();
    assert_eq!(groups.len(), BUSY);
    // Any time below the drain's, in an order that is different each run.
    let seed = std::process::id() as u64 * 7919;
    let times = (0..BUSY as u64).map(|no| (seed + no * no * 6007) % (BUSY_DRAIN_MS * 3 / 4));
    let times: Vec<u64> = times.collect();
    let calls: Vec<_> = sessions
        .iter_mut()
        .zip(&times)
        .map(|(session, ms)| session.call_aside("sleep", json!({ "ms": ms })))
        .collect();
    let messages = (BUSY * 3) as f64;
    eventually("all children have their call", || {
        observed.metrics().get("child_messages_sent_total") == messages
    });
    observed.broker.signal(Signal::TERM);
    eventually("it drains", || health(&observed.broker) == 503);
    let refused = observed.broker.client().initialize();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("Retry-After"), Some("30"));
    assert_eq!(sessions[0].post(&ping()).status, 503);
    for (call, ms) in calls.into_iter().zip(times) {
        let answer = call.join().expect("a whole response");
        assert_eq!(answer.status, 200, "{ms} ms: {answer:?}");
        let text = answer.answer()["result"]["content"][0]["text"].clone();
        assert_eq!(text, format!("slept {ms} ms"));
    }
    assert_eq!(observed.broker.wait().code(), Some(0));
    for group in groups {
        assert_eq!(process::group(group), []);
    }
}
