//! What stands against another child or another request, beside the caps on sessions.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Broker, Response, Session, eventually, fake_mcp};

#[track_caller]
fn assert_refused(response: &Response, status: u16) -> u64 {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.error_code(), -32000);
    let seconds = response
        .header("Retry-After")
        .and_then(|it| it.parse().ok());
    seconds.unwrap_or_else(|| panic!("no Retry-After: {response:?}"))
}

#[test]
fn below_the_memory_floor_nobody_is_let_in() {
    let broker = Broker::setup()
        .setting("min_free_memory", "1024GiB")
        .start();
    let response = broker.client().initialize();
    assert!(assert_refused(&response, 503) > 0);
    assert!(response.error_message().contains("memory"));
    assert_eq!(broker.children(), []);
    assert!(!broker.log().contains("session opened"));
}

#[test]
fn a_command_that_exits_at_once_is_not_run_again_and_again() {
    let broken = json!({ "command": fake_mcp(), "args": ["--exit-at-start", "3"] });
    let good = json!({ "command": fake_mcp() });
    let broker = Broker::setup()
        .server_entry("broken", broken)
        .server_entry("good", good)
        .user("alice", &[])
        .user("bob", &[])
        .start();
    let start = |user: &str, path: &str| broker.user(user).at(path).initialize();
    for _ in 0..3 {
        assert_eq!(start("alice", "/mcp/broken").status, 500);
    }
    let started = Instant::now();
    let response = start("alice", "/mcp/broken");
    assert!((1..=2).contains(&assert_refused(&response, 503)));
    let message = response.error_message();
    for part in ["exit status 3", "fake_mcp: cannot start"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(start("alice", "/mcp/good").status, 200);
    assert_eq!(start("bob", "/mcp/broken").status, 500);
    eventually("the next try", || {
        start("alice", "/mcp/broken").status == 500
    });
    assert!(started.elapsed() > Duration::from_millis(500));
    let seconds = assert_refused(&start("alice", "/mcp/broken"), 503);
    assert!((2..=3).contains(&seconds), "{seconds}");
}

/// A call that is in flight until the client answers.
fn ask(session: &mut Session) -> crate::support::Events {
    let ask = session.call_message("ask", json!({ "kind": "roots" }));
    let mut stream = session.post_stream(&ask);
    stream.message();
    stream
}

#[test]
fn requests_in_flight_are_bounded() {
    let broker = Broker::setup()
        .setting("max_in_flight", 2)
        .setting("max_in_flight_per_user", 3)
        .user("alice", &[])
        .user("bob", &[])
        .start();
    let mut one = broker.user("alice").ready();
    let _asked = [ask(&mut one), ask(&mut one)];
    let ping = |id: u32| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
    let response = one.post(&ping(77));
    assert_eq!(assert_refused(&response, 429), 1);
    assert_eq!(response.json()["id"], 77);
    assert!(response.error_message().contains("session"));
    let mut two = broker.user("alice").ready();
    let _third = ask(&mut two);
    let response = two.post(&ping(78));
    assert_eq!(assert_refused(&response, 429), 1);
    assert!(response.error_message().contains("user"));
    // What is no request is taken all the same, and others are not concerned.
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" });
    assert_eq!(two.post(&notification).status, 202);
    assert_eq!(broker.user("bob").ready().post(&ping(1)).status, 200);
    // A session that ends gives its room back.
    one.delete();
    eventually("there is room", || two.post(&ping(79)).status == 200);
}

#[test]
fn a_session_has_a_maximum_age() {
    let broker = Broker::setup().setting("max_session_age", "2s").start();
    let mut session = broker.session();
    let begun = Instant::now();
    eventually("it is too old", || {
        let message = session.call_message("echo", json!({}));
        session.post(&message).status == 404
    });
    assert!(begun.elapsed() > Duration::from_millis(1500));
    assert_eq!(broker.session().call_text("echo", json!({})), "{}");
}
