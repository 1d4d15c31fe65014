//! Which answer is JSON and which a stream, and which stream gets what the child says on its own.

mod questions;
mod resume;

use serde_json::{Value, json};

use crate::support::{Broker, Session, eventually};

/// A call with a progress token.
pub(super) fn with_progress(session: &mut Session, tool: &str, arguments: Value) -> Value {
    let mut call = session.call_message(tool, arguments);
    call["params"]["_meta"] = json!({ "progressToken": format!("token {}", call["id"]) });
    call
}

fn notify(session: &mut Session, method: &str) {
    session.call("notify", json!({ "method": method }));
}

#[test]
fn an_answer_without_anything_before_it_is_plain_json() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let call = session.call_message("echo", json!({ "a": 1 }));
    let response = session.post(&call);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    let len = response.body.len().to_string();
    assert_eq!(response.header("Content-Length"), Some(len.as_str()));
    assert_eq!(response.header("Transfer-Encoding"), None);
    assert_eq!(
        response.answer()["result"]["structuredContent"],
        json!({ "a": 1 })
    );
}

#[test]
fn an_error_of_the_child_is_an_answer_too() {
    let broker = Broker::start(&[]);
    let session = broker.session();
    let message = json!({ "jsonrpc": "2.0", "id": "x", "method": "no/such/method" });
    let response = session.post(&message);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(response.error_code(), -32601);
}

#[test]
fn progress_goes_to_its_requests_own_stream_in_order() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut get = session.listen();
    let one = with_progress(&mut session, "count", json!({ "n": 20, "delay_ms": 5 }));
    let two = with_progress(&mut session, "count", json!({ "n": 10, "delay_ms": 10 }));
    let (mut one_stream, mut two_stream) = (session.post_stream(&one), session.post_stream(&two));
    let check = |call: &Value, n: usize, messages: Vec<Value>| {
        let (answer, progress) = messages.split_last().expect("an answer");
        assert_eq!(answer["id"], call["id"]);
        let steps = progress.iter().map(|it| &it["params"]["progress"]);
        assert!(
            steps.eq(&(1..=n).map(Value::from).collect::<Vec<_>>()),
            "{progress:?}"
        );
        let token = &call["params"]["_meta"]["progressToken"];
        assert!(
            progress
                .iter()
                .all(|it| it["params"]["progressToken"] == *token)
        );
    };
    check(&two, 10, two_stream.rest());
    check(&one, 20, one_stream.rest());
    // Nothing of it went to the session's own stream.
    notify(&mut session, "notifications/tools/list_changed");
    assert_eq!(get.message()["method"], "notifications/tools/list_changed");
}

#[test]
fn a_stream_is_never_cached_nor_held_back_and_has_unique_event_ids() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let call = with_progress(&mut session, "count", json!({ "n": 3, "delay_ms": 0 }));
        let mut stream = session.post_stream(&call);
        let cache = stream
            .header("Cache-Control")
            .unwrap_or_default()
            .to_owned();
        assert!(cache.contains("no-cache"), "{cache}");
        assert_eq!(stream.header("X-Accel-Buffering"), Some("no"));
        assert_eq!(stream.header("Content-Length"), None);
        while let Some(event) = stream.next() {
            assert!(matches!(event.kind.as_deref(), None | Some("message")));
            ids.push(event.id.expect("an id"));
        }
    }
    let mut get = session.listen();
    notify(&mut session, "notifications/prompts/list_changed");
    ids.push(get.next_message().and_then(|it| it.id).expect("an id"));
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "{ids:?}");
}

#[test]
fn a_slow_answer_becomes_a_stream_after_about_a_second() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let call = session.call_message("sleep", json!({ "ms": 2000 }));
    let begun = std::time::Instant::now();
    let mut stream = session.post_stream(&call);
    let first = stream.next().expect("a first event");
    let after = begun.elapsed().as_millis();
    assert!(after >= 900, "a stream after {after} ms");
    assert!(
        first.comment || first.data.as_deref() == Some(""),
        "{first:?}"
    );
    let answer = stream.message();
    assert_eq!(answer["result"]["content"][0]["text"], "slept 2000 ms");
    assert_eq!(stream.next(), None);
}

#[test]
fn only_clients_that_understand_it_get_an_event_without_data_first() {
    let broker = Broker::start(&[]);
    let check = |version: &str, primed: bool| {
        let mut session = broker.client().with_version(version).ready();
        let call = with_progress(&mut session, "count", json!({ "n": 1, "delay_ms": 0 }));
        for mut stream in [session.listen(), session.post_stream(&call)] {
            let first = stream.next().expect("a first event");
            let is_primer = first.data.as_deref() == Some("") && first.id.is_some();
            assert_eq!(is_primer, primed, "{version}: {first:?}");
            assert!(primed || first.comment, "{version}: {first:?}");
        }
    };
    check("2024-11-05", false);
    check("2025-03-26", false);
    check("2025-06-18", false);
    check("2025-11-25", true);
}

#[test]
fn every_legacy_revision_is_negotiated() {
    let broker = Broker::start(&[]);
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = broker.client().with_version(version);
        let response = client.initialize();
        assert_eq!(response.answer()["result"]["protocolVersion"], version);
        let mut session = broker.client().with_version(version).ready();
        assert_eq!(session.call_text("echo", json!({})), "{}");
    }
}

#[test]
fn what_belongs_to_no_request_goes_to_the_open_get() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut get = session.listen();
    let subscribe = json!({ "jsonrpc": "2.0", "id": "s", "method": "resources/subscribe",
        "params": { "uri": "test://watched-resource" } });
    assert_eq!(session.post(&subscribe).status, 200);
    let check = |session: &mut Session, tool: &str, arguments: Value, method: &str| {
        let call = with_progress(session, tool, arguments);
        let response = session.post(&call);
        // With a GET to go to, it is none of the POST's business.
        assert_eq!(response.messages().len(), 1, "{tool}: {}", response.text());
        method.to_owned()
    };
    let methods = [
        check(
            &mut session,
            "log",
            json!({ "n": 1 }),
            "notifications/message",
        ),
        check(
            &mut session,
            "test_trigger_tool_change",
            json!({}),
            "notifications/tools/list_changed",
        ),
        check(
            &mut session,
            "touch_resource",
            json!({ "uri": "test://watched-resource" }),
            "notifications/resources/updated",
        ),
    ];
    for method in methods {
        assert_eq!(get.message()["method"], *method);
    }
}

#[test]
fn without_a_get_it_goes_to_the_newest_open_post() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let older = with_progress(&mut session, "count", json!({ "n": 1000, "delay_ms": 20 }));
    let mut older = session.post_stream(&older);
    older.message();
    let call = session.call_message("log", json!({ "n": 3 }));
    let response = session.post(&call);
    assert!(response.is_stream(), "{response:?}");
    let (logged, answer) = (response.messages(), response.answer());
    assert_eq!(logged.len(), 4, "{logged:?}");
    assert!(
        logged[..3]
            .iter()
            .all(|it| it.contains("notifications/message"))
    );
    assert_eq!(answer["result"]["content"][0]["text"], "logged 3");
    // The older one has seen nothing but its own progress.
    for _ in 0..5 {
        assert_eq!(older.message()["method"], "notifications/progress");
    }
}

#[test]
fn without_any_stream_it_waits_for_the_next_get() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    // The fixture sends it right after its answer, when no POST is open any more.
    let arguments = json!({ "method": "notifications/tools/list_changed" });
    session.call("notify_after", arguments);
    let mut get = session.listen();
    assert_eq!(get.message()["method"], "notifications/tools/list_changed");
    // It is delivered once: a later GET has only what comes later.
    drop(get);
    let mut get = session.listen();
    notify(&mut session, "notifications/prompts/list_changed");
    assert_eq!(
        get.message()["method"],
        "notifications/prompts/list_changed"
    );
}

#[test]
fn cancelling_reaches_the_child_and_ends_the_stream() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let call = with_progress(&mut session, "count", json!({ "n": 3000, "delay_ms": 20 }));
    let mut stream = session.post_stream(&call);
    stream.message();
    let params = json!({ "requestId": call["id"], "reason": "no longer wanted" });
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
    assert_eq!(session.post(&cancel).status, 202);
    let received = session.call_text("received", json!({}));
    assert!(received.contains("no longer wanted"), "{received}");
    // No answer comes, only the end.
    let rest = stream.rest();
    assert!(
        rest.iter()
            .all(|it| it["method"] == "notifications/progress"),
        "{rest:?}"
    );
    // The id is free again.
    let again = json!({ "jsonrpc": "2.0", "id": call["id"], "method": "ping" });
    assert_eq!(session.post(&again).status, 200);
}

#[test]
fn an_answer_to_a_cancelled_request_is_still_delivered() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let call = session.call_message("late_after_cancel", json!({}));
    let posted = {
        let (session, call) = (session.clone(), call.clone());
        std::thread::spawn(move || session.post(&call))
    };
    let params = json!({ "requestId": call["id"] });
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
    // The first one may come before the call does.
    eventually("the call ends", || {
        assert_eq!(session.post(&cancel).status, 202);
        posted.is_finished()
    });
    let answer = posted.join().unwrap().answer();
    let text = &answer["result"]["content"][0]["text"];
    assert_eq!(text, "cancelled, and answered all the same");
}

#[test]
fn an_answer_is_matched_by_the_ids_value_not_by_its_spelling() {
    let broker = Broker::start(&[]);
    let session = broker.session();
    for id in ["abc", "ä\u{2028}😀", "\"\\/"] {
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": { "name": "escape_id", "arguments": {} } });
        let response = session.post(&call);
        assert_eq!(response.answer()["id"], id, "{}", response.text());
    }
}

#[test]
fn a_session_of_2025_03_26_may_batch() {
    let broker = Broker::start(&[]);
    let mut session = broker.client().with_version("2025-03-26").ready();
    let batch = json!([
        session.call_message("echo", json!({ "no": 1 })),
        { "jsonrpc": "2.0", "method": "notifications/x" },
        session.call_message("sleep", json!({ "ms": 50 })),
        session.call_message("no such tool", json!({})),
    ]);
    let response = session.post(&batch);
    assert_eq!(response.status, 200);
    assert!(response.is_stream());
    let mut answers: Vec<Value> = response
        .messages()
        .iter()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    answers.sort_by_key(|it| it["id"].as_u64());
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert_eq!(answers[0]["result"]["structuredContent"]["no"], 1);
    assert_eq!(answers[1]["result"]["content"][0]["text"], "slept 50 ms");
    assert_eq!(answers[2]["error"]["code"], -32602);
    let received = session.call_text("received", json!({}));
    assert!(received.contains("notifications/x"), "{received}");
    // Without requests there is nothing to answer.
    let notes = json!([{ "jsonrpc": "2.0", "method": "notifications/y" }]);
    let response = session.post(&notes);
    assert_eq!((response.status, response.text()), (202, ""));
    // One bad element, and nothing of it is done.
    let call = session.call_message("echo", json!({}));
    assert_eq!(session.post(&json!([call, 1])).status, 400);
    let twice = session.call_message("echo", json!({}));
    assert_eq!(session.post(&json!([twice, twice])).status, 400);
    assert_eq!(session.post(&json!([])).error_code(), -32600);
}

#[test]
fn other_sessions_may_not_batch() {
    let broker = Broker::start(&[]);
    for version in ["2024-11-05", "2025-06-18", "2025-11-25"] {
        let mut session = broker.client().with_version(version).ready();
        let batch = json!([session.call_message("echo", json!({}))]);
        let response = session.post(&batch);
        assert_eq!(
            (response.status, response.error_code()),
            (400, -32600),
            "{version}"
        );
    }
}
