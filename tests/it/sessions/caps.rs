//! How many sessions there may be, in all and of one user, and what happens at the limit.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{assert_error, ping};
use crate::support::{Broker, Events, Session, eventually};

const SLOW: &[&str] = &["--slow-ms", "300"];

#[test]
fn never_more_sessions_than_allowed_however_many_arrive_at_once() {
    let broker = Broker::setup()
        .server("fake", SLOW)
        .options(&["--max-sessions", "4", "--max-sessions-per-user", "0"])
        .start();
    let done = AtomicBool::new(false);
    let (responses, most) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(broker.children().len());
            }
            most
        });
        let open = || broker.client().initialize();
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
        let responses = clients.into_iter().map(|it| it.join().unwrap());
        let responses: Vec<_> = responses.collect();
        done.store(true, Ordering::Relaxed);
        (responses, watch.join().unwrap())
    });
    let (opened, refused): (Vec<_>, Vec<_>) = responses.iter().partition(|it| it.status == 200);
    assert_eq!(opened.len(), 4);
    for response in refused {
        assert_error(response, 503, -32000);
        assert_eq!(response.header("Retry-After"), Some("30"));
        assert_eq!(response.header("Mcp-Session-Id"), None);
    }
    assert_eq!(most, 4, "children at a time");
}

/// As after a restart, when all clients come back: more than there are threads to open them.
#[test]
fn none_of_many_that_arrive_at_once_is_sent_away() {
    let broker = Broker::setup()
        .options(&["--max-sessions", "0", "--max-sessions-per-user", "0"])
        .start();
    let arrival = Barrier::new(200);
    let open = || {
        let mut client = broker.client();
        arrival.wait();
        client.initialize().status
    };
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..200).map(|_| scope.spawn(open)).collect();
        clients.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 200]);
}

#[test]
fn an_ended_session_makes_room() {
    let broker = Broker::setup().options(&["--max-sessions", "1"]).start();
    let first = broker.session();
    assert_eq!(broker.client().initialize().status, 503);
    assert_eq!(first.post(&ping()).status, 200);
    assert_eq!(first.delete().status, 204);
    broker.session();
}

#[test]
fn a_child_that_does_not_start_takes_no_room() {
    let broker = Broker::setup()
        .server_entry("missing", json!({ "command": "/nonexistent/server" }))
        .server("quitter", &["--exit-at-start", "3"])
        .server("fake", &[])
        .options(&["--max-sessions", "1"])
        .start();
    for path in [
        "/mcp/missing",
        "/mcp/quitter",
        "/mcp/missing",
        "/mcp/quitter",
    ] {
        assert_eq!(broker.client().at(path).initialize().status, 500, "{path}");
    }
    broker.client().at("/mcp/fake").ready();
}

#[test]
fn zero_means_unlimited() {
    let broker = Broker::setup()
        .options(&["--max-sessions", "0", "--max-sessions-per-user", "0"])
        .start();
    let sessions: Vec<Session> = (0..20).map(|_| broker.session()).collect();
    assert!(sessions.iter().all(|it| it.post(&ping()).status == 200));
}

#[test]
fn a_users_stalest_session_makes_room_for_a_new_one() {
    let broker = two_each();
    let bob = broker.user("bob").ready();
    let first = broker.user("alice").ready();
    let second = broker.user("alice").ready();
    assert_eq!(first.post(&ping()).status, 200);
    let third = broker.user("alice").ready();
    assert_error(&second.post(&ping()), 404, -32001);
    for session in [first, third, bob] {
        assert_eq!(session.post(&ping()).status, 200);
    }
    eventually("the child of the stalest ends", || {
        broker.children().len() == 3
    });
}

#[test]
fn an_open_get_does_not_count_as_use() {
    let broker = two_each();
    let first = broker.user("alice").ready();
    let second = broker.user("alice").ready();
    let mut stream = first.listen();
    assert_eq!(second.post(&ping()).status, 200);
    broker.user("alice").ready();
    assert_eq!(stream.rest(), Vec::<serde_json::Value>::new());
    assert_error(&first.post(&ping()), 404, -32001);
    assert_eq!(second.post(&ping()).status, 200);
}

#[test]
fn a_session_with_a_request_in_flight_makes_room_only_if_all_have_one() {
    let broker = two_each();
    let mut first = broker.user("alice").ready();
    let second = broker.user("alice").ready();
    let mut call = in_flight(&mut first);
    assert_eq!(second.post(&ping()).status, 200);
    // The stalest is the first, but it is at work.
    let mut third = broker.user("alice").ready();
    assert_error(&second.post(&ping()), 404, -32001);
    let _other = in_flight(&mut third);
    broker.user("alice").ready();
    let last = call.rest().pop().expect("an answer");
    assert_eq!(last["error"]["code"], -32000, "{last}");
    assert_error(&first.post(&ping()), 404, -32001);
    assert_eq!(third.post(&ping()).status, 200);
}

fn two_each() -> Broker {
    Broker::setup()
        .user("alice", &[])
        .user("bob", &[])
        .options(&["--max-sessions-per-user", "2"])
        .start()
}

/// A call that goes on for a minute, and that the child is known to work at.
fn in_flight(session: &mut Session) -> Events {
    let mut call = session.call_message("count", json!({ "n": 3000, "delay_ms": 20 }));
    call["params"]["_meta"] = json!({ "progressToken": "at work" });
    let mut stream = session.post_stream(&call);
    assert_eq!(stream.message()["params"]["progress"], 1);
    stream
}
