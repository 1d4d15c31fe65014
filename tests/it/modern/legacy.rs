//! Legacy clients over a modern child.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{over, setup};
use crate::support::{Broker, Session, eventually};

/// What the log says when a child has refused `initialize` as a modern one does.
const FOUND_OUT: &str = "speaks the modern era only: its sessions are translated";

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or("")
}

#[test]
fn it_looks_like_any_other_child() {
    let broker = over("modern");
    let mut session = broker.client();
    let opened = session.initialize();
    assert_eq!(opened.status, 200, "{opened:?}");
    let result = opened.answer()["result"].clone();
    assert_eq!(result["protocolVersion"], "2025-11-25", "{result}");
    assert_eq!(result["serverInfo"]["name"], "fake_mcp");
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(session.post(&note).status, 202);
    let ping = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
    assert_eq!(session.post(&ping).answer()["result"], json!({}));
    let list = json!({ "jsonrpc": "2.0", "id": "l", "method": "tools/list" });
    let tools = session.post(&list).answer()["result"].clone();
    assert!(tools["tools"].as_array().unwrap().len() > 10);
    assert_eq!(session.call_text("echo", json!({ "a": 1 })), r#"{"a":1}"#);
    assert_eq!(session.delete().status, 204);
}

#[test]
fn progress_comes_under_its_token() {
    let broker = over("modern");
    let mut session = broker.session();
    let mut call = session.call_message("count", json!({ "n": 3 }));
    call["params"]["_meta"] = json!({ "progressToken": "mine" });
    let messages = session.post_stream(&call).rest();
    assert_eq!(messages.len(), 4, "{messages:?}");
    for message in &messages[..3] {
        assert_eq!(message["params"]["progressToken"], "mine");
    }
    assert_eq!(text(&messages[3]), "counted to 3");
}

/// Answers the question that comes on `stream`.
#[track_caller]
fn reply(session: &Session, question: &Value) {
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let result = json!({ "action": "accept", "content": { "name": "Ada", "color": "red" } });
    let reply = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
    assert_eq!(session.post(&reply).status, 202);
}

#[test]
fn its_questions_come_on_the_calls_own_stream() {
    let broker = over("modern");
    let mut session = broker.session();
    let call = session.call_message("test_input_required_result_multi_round", json!({}));
    let mut stream = session.post_stream(&call);
    let question = stream.message();
    reply(&session, &question);
    let question = stream.message();
    reply(&session, &question);
    let answer = stream.message();
    assert_eq!(answer["id"], call["id"]);
    assert_eq!(text(&answer), r#""Ada" likes "red""#);
    assert_eq!(stream.next(), None);
}

#[test]
fn or_on_the_get_if_one_is_open() {
    let broker = over("modern");
    let mut session = broker.session();
    let mut get = session.listen();
    let call = session.call_aside("test_input_required_result_elicitation", json!({}));
    let question = get.message();
    reply(&session, &question);
    assert_eq!(text(&call.join().unwrap().answer()), "Hello, Ada!");
}

#[test]
fn changes_come_on_the_get() {
    let broker = over("modern");
    let mut session = broker.session();
    let mut get = session.listen();
    let uri = "test://watched-resource";
    let subscribe = json!({
        "jsonrpc": "2.0", "id": "s", "method": "resources/subscribe", "params": { "uri": uri },
    });
    let response = session.post(&subscribe).answer();
    assert_eq!(response["result"], json!({}), "{response}");
    session.call_text("touch_resource", json!({ "uri": uri }));
    let change = get.message();
    assert_eq!(change["method"], "notifications/resources/updated");
    assert_eq!(change["params"]["uri"], uri);
    assert!(change["params"].get("_meta").is_none(), "{change}");
    session.call_text("test_trigger_tool_change", json!({}));
    assert_eq!(get.message()["method"], "notifications/tools/list_changed");
}

#[test]
fn a_cancelled_call_is_cancelled_in_the_child() {
    let broker = over("modern");
    let mut session = broker.session();
    let mut call = session.call_message("count", json!({ "n": 1000, "delay_ms": 50 }));
    call["params"]["_meta"] = json!({ "progressToken": 1 });
    let mut stream = session.post_stream(&call);
    stream.message();
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": call["id"] },
    });
    assert_eq!(session.post(&cancel).status, 202);
    eventually("the child hears of it", || {
        session
            .call_text("received", json!({}))
            .contains("notifications/cancelled")
    });
}

#[test]
fn a_session_can_be_revived() {
    let broker = Broker::setup()
        .server_entry(
            "fake",
            json!({
                "command": crate::support::fake_mcp(),
                "args": ["--era", "modern"],
                "broker": { "revive": true },
            }),
        )
        .setting("idle_timeout", "1s")
        .start();
    let mut session = broker.session();
    let uri = "test://watched-resource";
    let subscribe = json!({
        "jsonrpc": "2.0", "id": "s", "method": "resources/subscribe", "params": { "uri": uri },
    });
    assert_eq!(session.post(&subscribe).status, 200);
    let first = session.child().0;
    eventually("the child ends", || broker.children().is_empty());
    let second = session.child().0;
    assert_ne!(first, second);
    // It listens again for what the client had subscribed to.
    let mut get = session.listen();
    session.call_text("touch_resource", json!({ "uri": uri }));
    let change = get.message();
    assert_eq!(change["method"], "notifications/resources/updated");
}

/// With `era` left at `auto`, the first `initialize` finds it out, in place.
#[test]
fn what_it_is_is_found_out_once() {
    let broker = setup("modern").start();
    let mut first = broker.session();
    assert_eq!(first.call_text("echo", json!({})), "{}");
    let pid = first.child().0;
    let mut second = broker.session();
    assert_ne!(second.child().0, pid);
    assert_eq!(second.call_text("echo", json!({})), "{}");
    let log = broker.log();
    assert_eq!(log.matches(FOUND_OUT).count(), 1, "{log}");
    // Also by the broker that comes after it.
    let broker = broker.restart(Signal::TERM);
    assert_eq!(broker.session().call_text("echo", json!({})), "{}");
    assert!(!broker.log().contains(FOUND_OUT), "{}", broker.log());
}
