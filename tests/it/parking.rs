//! Children that wait for their client's next session.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Broker, Session, eventually, fake_mcp, process, within};

/// A server whose children wait that long, and need half a second to start.
fn setup(park: &str) -> crate::support::broker::Setup {
    let entry = json!({
        "command": fake_mcp(),
        "args": ["--slow-ms", "500"],
        "broker": { "park": park },
    });
    Broker::setup().server_entry("fake", entry)
}

#[test]
fn consecutive_sessions_of_a_client_have_one_child() {
    let broker = setup("60s").start();
    let mut first = broker.session();
    let (pid, _) = first.child();
    assert_eq!(first.delete().status, 204);
    for _ in 0..5 {
        let begun = Instant::now();
        let mut next = broker.session();
        assert!(
            begun.elapsed() < Duration::from_millis(400),
            "it was started"
        );
        assert_ne!(next.id, first.id);
        assert_eq!(next.child().0, pid);
        // It was told but once that it is initialized.
        let received: Value = serde_json::from_str(&next.call_text("received", json!({}))).unwrap();
        assert_eq!(received.as_array().unwrap().len(), 1, "{received}");
        assert_eq!(next.delete().status, 204);
        assert_eq!(
            first
                .post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }))
                .status,
            404
        );
    }
    assert_eq!(broker.children().len(), 1);
}

#[test]
fn another_user_or_client_has_another_child() {
    let broker = setup("60s").user("alice", &[]).user("bob", &[]).start();
    let mut alice = broker.user("alice").ready();
    let (pid, _) = alice.child();
    alice.delete();
    let mut bob = broker.user("bob").ready();
    assert_ne!(bob.child().0, pid);
    let mut other = broker.user("alice");
    other.capabilities = json!({});
    let mut other = other.ready();
    assert_ne!(other.child().0, pid);
    let mut older = broker.user("alice").with_version("2025-06-18").ready();
    assert_ne!(older.child().0, pid);
    assert_eq!(broker.user("alice").ready().child().0, pid);
}

fn tell(session: &mut Session, method: &str, params: Value) {
    let message = json!({ "jsonrpc": "2.0", "id": "t", "method": method, "params": params });
    assert_eq!(session.post(&message).status, 200);
}

#[test]
fn a_child_with_something_left_in_it_ends() {
    let broker = setup("60s").start();
    let leave: [fn(&mut Session); 3] = [
        |session| tell(session, "logging/setLevel", json!({ "level": "debug" })),
        |session| tell(session, "resources/subscribe", json!({ "uri": "test://a" })),
        |session| {
            let ask = session.call_message("ask", json!({ "kind": "roots" }));
            let mut stream = session.post_stream(&ask);
            assert_eq!(stream.message()["method"], "roots/list");
        },
    ];
    for leave in leave {
        let mut session = broker.session();
        let (pid, _) = session.child();
        leave(&mut session);
        assert_eq!(session.delete().status, 204);
        eventually("the child ends", || !process::runs(pid));
    }
}

#[test]
fn what_the_child_says_between_two_sessions_is_for_nobody() {
    let broker = setup("60s").start();
    let mut first = broker.session();
    let (pid, _) = first.child();
    let method = "notifications/tools/list_changed";
    // One that waits for a stream, and one that comes late.
    first.call_text(
        "notify",
        json!({ "method": "notifications/prompts/list_changed" }),
    );
    let arguments = json!({ "method": method, "ms": 300 });
    let answer = first.call("notify_after", arguments);
    assert!(answer["result"].is_object(), "{answer}");
    first.delete();
    std::thread::sleep(Duration::from_millis(600)); // nothing tells that it has come and gone
    let mut next = broker.session();
    assert_eq!(next.child().0, pid);
    let mut stream = next.listen();
    next.call(
        "notify",
        json!({ "method": "notifications/resources/list_changed" }),
    );
    assert_eq!(
        stream.message()["method"],
        "notifications/resources/list_changed"
    );
}

/// It has answered all that it was asked, but nobody else will get anything from it.
#[test]
fn a_child_that_hangs_is_not_handed_on() {
    let broker = setup("60s").start();
    let mut first = broker.session();
    let (pid, _) = first.child();
    first.call_text("deaf", json!({}));
    assert_eq!(first.delete().status, 204);
    let mut next = broker.session();
    assert_ne!(next.child().0, pid);
    within(Duration::from_secs(20), "it ends", || !process::runs(pid));
}

#[test]
fn a_parked_child_ends_after_its_time() {
    let broker = setup("1s").start();
    let mut session = broker.session();
    let (pid, _) = session.child();
    session.delete();
    within(Duration::from_secs(10), "its time is over", || {
        !process::runs(pid)
    });
    assert_ne!(broker.session().child().0, pid);
}

#[test]
fn a_parked_child_ends_with_its_token() {
    let broker = setup("60s").user("alice", &[]).user("bob", &[]).start();
    let mut session = broker.user("alice").ready();
    let (pid, _) = session.child();
    session.delete();
    assert!(process::runs(pid));
    assert_eq!(broker.token_command(&["revoke", "alice"]).code, Some(0));
    eventually("it ends", || !process::runs(pid));
}

#[test]
fn a_parked_child_that_dies_is_not_handed_on() {
    let broker = setup("60s").start();
    let mut session = broker.session();
    let (pid, _) = session.child();
    session.delete();
    process::signal(pid, rustix::process::Signal::KILL);
    // Its thread goes when everybody has been told.
    eventually("the broker knows of it", || {
        let threads = process::threads(broker.pid());
        !process::runs(pid) && !threads.iter().any(|name| name.starts_with("r:"))
    });
    assert_ne!(broker.session().child().0, pid);
}

#[test]
fn a_parked_child_gives_way() {
    let broker = setup("60s")
        .options(&["--max-sessions", "1"])
        .user("alice", &[])
        .user("bob", &[])
        .start();
    let mut session = broker.user("alice").ready();
    let (pid, _) = session.child();
    session.delete();
    let bob = broker.user("bob").ready();
    eventually("it ends", || !process::runs(pid));
    assert_eq!(broker.user("alice").initialize().status, 503);
    bob.delete();
}
