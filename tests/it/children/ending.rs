//! The stop ladder, and processes that try to outlive it.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Broker, Session, eventually, process, within};

/// Ends a session by DELETE and waits until nothing is left of its process group.
fn end(broker: &Broker, session: &Session, group: i32) -> Duration {
    let begun = Instant::now();
    assert_eq!(session.delete().status, 204);
    eventually("nothing is left of the group", || {
        process::group(group).is_empty()
    });
    let took = begun.elapsed();
    eventually("no zombie", || process::zombies(broker.pid()).is_empty());
    took
}

#[test]
fn a_child_that_ends_with_its_stdin_is_not_signalled() {
    let broker = Broker::setup().setting("stop_grace", "10s").start();
    let mut session = broker.session();
    let (_, group) = session.child();
    let took = end(&broker, &session, group);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!broker.log().contains("SIGTERM"), "{}", broker.log());
}

#[test]
fn a_child_that_outlives_its_stdin_gets_sigterm() {
    let broker = Broker::setup().setting("kill_grace", "10s").start();
    let mut session = broker.session();
    let (_, group) = session.child();
    session.call("deaf", json!({}));
    let took = end(&broker, &session, group);
    assert!(took >= Duration::from_millis(300), "SIGTERM after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!broker.log().contains("SIGKILL"), "{}", broker.log());
}

#[test]
fn a_child_that_ignores_sigterm_is_killed_after_both_graces() {
    let broker = Broker::start(&["--ignore-term"]);
    let mut session = broker.session();
    let (_, group) = session.child();
    let took = end(&broker, &session, group);
    assert!(took >= Duration::from_millis(600), "SIGKILL after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn grandchildren_end_with_their_session() {
    let broker = Broker::start(&["--grandchild"]);
    let mut session = broker.session();
    let (pid, group) = session.child();
    let stubborn = session.call_text("spawn_grandchild", json!({ "ignore_term": true }));
    let stubborn: i32 = stubborn.parse().unwrap();
    assert!(
        process::group(group).len() >= 3,
        "{:?}",
        process::group(group)
    );
    end(&broker, &session, group);
    assert!(!process::runs(pid) && !process::runs(stubborn));
}

#[test]
fn grandchildren_that_hold_the_pipes_do_not_hide_the_end_of_the_child() {
    let broker = Broker::start(&["--grandchild"]);
    let mut session = broker.session();
    let (_, group) = session.child();
    let exit = session.call_message("exit", json!({ "code": 9 }));
    let answer = session.post(&exit).answer();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("exit status 9"), "{message}");
    let ping = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
    assert_eq!(session.post(&ping).status, 404);
    eventually("nothing is left of the group", || {
        process::group(group).is_empty()
    });
}

#[test]
fn one_that_left_the_group_with_the_pipes_holds_nobody_up() {
    let mut broker = Broker::start(&[]);
    let mut session = broker.session();
    let (pid, _) = session.child();
    let escaped = session.call_text("spawn_grandchild", json!({ "setsid": true }));
    let escaped: i32 = escaped.parse().unwrap();
    eventually("it has left", || process::group(escaped).len() == 1);
    assert_eq!(session.delete().status, 204);
    eventually("the child ends", || !process::runs(pid));
    eventually("no zombie", || process::zombies(broker.pid()).is_empty());
    broker.assert_well();
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    assert!(!process::runs(escaped));
}

#[test]
fn one_that_left_the_group_and_writes_for_ever_holds_nobody_up() {
    let script = r#"read line
        echo '{"jsonrpc":"2.0","id":"init","result":{"protocolVersion":"2025-11-25"}}'
        setsid yes '{"jsonrpc":"2.0","method":"notifications/noise"}' &
        setsid yes "noise" >&2 &
        read line
        read line
        exit 4"#;
    let entry = json!({ "command": "/bin/sh", "args": ["-c", script] });
    let mut broker = Broker::setup().server_entry("noisy", entry).start();
    let session = broker.client().ready();
    let ping = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
    let response = session.post(&ping);
    let last = response.answer();
    let message = last["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("exit status 4"), "{last}");
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn a_child_that_closes_its_stdout_can_answer_nothing_and_is_ended() {
    let script = r#"read line
        echo '{"jsonrpc":"2.0","id":"init","result":{"protocolVersion":"2025-11-25"}}'
        read line
        exec >&-
        exec sleep 1000"#;
    let entry = json!({ "command": "/bin/sh", "args": ["-c", script] });
    let broker = Broker::setup().server_entry("closer", entry).start();
    let session = broker.client().ready();
    let ping = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
    let response = session.post(&ping);
    // It may have been ended before the request came.
    assert!([-32000, -32001].contains(&response.answer()["error"]["code"].as_i64().unwrap()));
    within(Duration::from_secs(10), "its child ends", || {
        broker.children().is_empty()
    });
    eventually("the session is gone", || session.post(&ping).status == 404);
}

#[test]
fn a_broker_that_stops_while_a_child_starts_leaves_nothing() {
    let broker = Broker::start(&["--slow-ms", "400"]);
    let client = broker.client();
    let opening = {
        let mut client = client.clone();
        std::thread::spawn(move || client.initialize())
    };
    eventually("a child starts", || !broker.children().is_empty());
    broker.signal(Signal::TERM);
    let response = opening.join().unwrap();
    assert!(
        [200, 404, 500, 503].contains(&response.status),
        "{response:?}"
    );
    let mut broker = broker;
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn no_zombie_is_left_by_many_short_sessions() {
    let broker = Broker::start(&[]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let session = broker.session();
                    assert_eq!(session.delete().status, 204);
                }
            });
        }
    });
    eventually("all have ended", || broker.children().is_empty());
    eventually("no zombie", || process::zombies(broker.pid()).is_empty());
}
