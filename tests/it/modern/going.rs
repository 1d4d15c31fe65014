//! Clients that go, subscriptions that end, and a broker that does.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{KINDS, client, over, setup};
use crate::support::modern::subscription_id;
use crate::support::{DEADLINE, process, within};

/// Within which the child hears that a client has gone.
const TOLD: Duration = Duration::from_secs(2);

#[test]
fn a_closed_stream_cancels_the_call_in_the_child() {
    for kind in KINDS {
        let broker = over(kind);
        let mut client = client(&broker);
        let mut asking = client.clone().with_meta("progressToken", "t");
        let call = asking.call_message("count", json!({ "n": 1000, "delay_ms": 100 }));
        let mut stream = asking.stream(&call);
        assert_eq!(stream.message()["params"]["progressToken"], "t");
        assert_eq!(client.cancelled(), 0);
        drop(stream);
        within(TOLD, "it is cancelled", || client.cancelled() == 1);
    }
}

#[test]
fn so_does_a_client_that_goes_before_anything_was_written() {
    for kind in KINDS {
        let broker = over(kind);
        let mut client = client(&broker);
        client.call_text("echo", json!({}));
        let call = client.call_message("sleep", json!({ "ms": 600_000 }));
        // It may go so early that the child never hears of its request; not time and again.
        let mut heard = 0;
        for _ in 0..10 {
            let before = client.cancelled();
            let connection = client.begin(&call);
            client.call_text("echo", json!({}));
            drop(connection);
            let deadline = std::time::Instant::now() + TOLD;
            while client.cancelled() == before && std::time::Instant::now() < deadline {}
            heard += client.cancelled() - before;
            if heard == 2 {
                break;
            }
        }
        assert_eq!(heard, 2, "{kind}");
    }
}

#[test]
fn changes_come_to_those_who_subscribed() {
    for kind in KINDS {
        let broker = over(kind);
        let mut client = client(&broker);
        let (first, mut tools) = client.listen(json!({ "toolsListChanged": true }));
        assert_eq!(first["params"]["notifications"]["toolsListChanged"], true);
        let filter = json!({ "resourceSubscriptions": ["test://watched-resource"] });
        let (_, mut resources) = client.listen(filter);
        client.call_text("test_trigger_tool_change", json!({}));
        let arguments = json!({ "uri": "test://watched-resource" });
        client.call_text("touch_resource", arguments);
        client.call_text("touch_resource", json!({ "uri": "test://other" }));
        let change = tools.message();
        assert_eq!(change["method"], "notifications/tools/list_changed");
        assert_eq!(subscription_id(&change["params"]), 1, "{kind}");
        let change = resources.message();
        assert_eq!(change["method"], "notifications/resources/updated");
        assert_eq!(change["params"]["uri"], "test://watched-resource");
        assert_eq!(subscription_id(&change["params"]), 2, "{kind}");
    }
}

/// 2026-07-28, subscriptions, "Graceful Closure".
#[test]
fn a_broker_that_stops_ends_subscriptions_with_a_result() {
    for kind in KINDS {
        let mut broker = over(kind);
        let mut client = client(&broker);
        let (_, mut stream) = client.listen(json!({ "toolsListChanged": true }));
        broker.signal(Signal::TERM);
        let last = stream.message();
        assert_eq!(last["id"], client.last_request, "{kind}: {last}");
        assert_eq!(last["result"]["resultType"], "complete");
        assert_eq!(subscription_id(&last["result"]), client.last_request);
        assert_eq!(stream.next(), None);
        assert_eq!(broker.wait().code(), Some(0), "{kind}");
    }
}

#[test]
fn a_child_that_ends_ends_them_abruptly_and_is_told_to_those_who_wait() {
    for kind in KINDS {
        let broker = over(kind);
        let mut client = client(&broker);
        let (_, mut stream) = client.listen(json!({ "toolsListChanged": true }));
        let pid = client.pid();
        // It is a stream once it has waited for a second.
        let call = client.call_message("sleep", json!({ "ms": 600_000 }));
        let mut waiting = client.stream(&call);
        let mut counting = client.clone().with_meta("progressToken", 1);
        let count = counting.call_message("count", json!({ "n": 1000, "delay_ms": 50 }));
        let mut counting = counting.stream(&count);
        counting.message();
        process::signal(pid, Signal::KILL);
        let rest = counting.rest().pop().unwrap();
        assert_eq!(rest["error"]["code"], -32603, "{kind}: {rest}");
        let rest = waiting.rest().pop().unwrap();
        assert_eq!(rest["id"], call["id"], "{kind}: {rest}");
        assert_eq!(rest["error"]["code"], -32603, "{kind}: {rest}");
        // No result: the client sees that this was no graceful end.
        assert_eq!(stream.next_message(), None, "{kind}");
        let mut next = client;
        assert_ne!(next.pid(), pid, "{kind}");
    }
}

#[test]
fn a_child_that_cannot_be_started_is_a_500_that_says_why() {
    for kind in ["legacy", "modern"] {
        let broker = crate::support::Broker::setup()
            .server("fake", &["--era", kind, "--exit-at-start", "3"])
            .start();
        let mut client = client(&broker);
        let message = client.message("tools/list", json!({}));
        let response = client.post(&message);
        assert_eq!(response.status, 500, "{kind}: {response:?}");
        assert!(response.error_message().contains('3'), "{response:?}");
        assert_eq!(response.json()["id"], message["id"]);
    }
}

#[test]
fn a_call_in_flight_may_finish_while_the_broker_drains() {
    for kind in KINDS {
        let mut broker = setup(kind).setting("drain", "10s").start();
        let mut client = client(&broker).with_meta("progressToken", 1);
        let call = client.call_message("count", json!({ "n": 8, "delay_ms": 50 }));
        let mut stream = client.stream(&call);
        stream.message();
        broker.signal(Signal::TERM);
        let last: Value = stream.rest().pop().unwrap();
        assert_eq!(last["result"]["content"][0]["text"], "counted to 8");
        assert_eq!(broker.wait().code(), Some(0), "{kind}");
    }
}

#[test]
fn a_slow_call_is_a_stream_that_lives() {
    let broker = over("legacy");
    let mut client = client(&broker);
    client.call_text("echo", json!({})); // it takes longer while the child starts
    let call = client.call_message("sleep", json!({ "ms": 4000 }));
    let mut stream = client.stream(&call);
    let first = stream.next().unwrap();
    assert!(first.comment && first.data.is_none(), "{first:?}");
    assert!(DEADLINE > Duration::from_millis(4000));
    assert_eq!(stream.message()["id"], call["id"]);
    assert_eq!(stream.next(), None);
}
