//! The bytes of `params` and `result` go through as they are: nothing is read into a tree and
//! printed again.

use serde_json::json;

use crate::support::{Broker, Response, Session};

/// JSON texts that change when a program reads and prints them.
pub(crate) const DELICATE: [&str; 16] = [
    r#"{"n":1234567890123456789012345678901234567890}"#,
    r#"{"a":1,"\u0061":2}"#,
    r#"{"a":1,"a":2}"#,
    r#"{"z":1,"y":2,"a":3}"#,
    r#"{"n":1e999}"#,
    r#"{"n":-0.0}"#,
    r#"{"n":1.50}"#,
    r#"{"n":1E+2}"#,
    r#"{"n":0.1000000000000000055511151231257827}"#,
    "{\"s\":\"\u{2028}\u{2029}\"}",
    r#"{"s":"\u2028\u2029"}"#,
    r#"{"s":"\ud800"}"#,
    r#"{"s":"\udc00\ud800 \u0000 \/"}"#,
    "{\"s\":\"\u{7f}\u{feff}\u{fffd}\u{10ffff}é\"}",
    "{ \"a\" :\t[ 1 ,2 ] }",
    r#"{"event":"data: id: \n\n","s":"\r\n"}"#,
];

/// The text of `result` in an answer, cut out by hand.
#[track_caller]
fn result_text(answer: &str) -> &str {
    let (_, result) = answer.split_once(r#""result":"#).expect("a result");
    result.strip_suffix('}').expect("the end of the message")
}

/// Calls with arguments as they stand here.
fn call_text(id: &str, tool: &str, arguments: &str) -> String {
    let params = format!(r#"{{"name":"{tool}","arguments":{arguments}}}"#);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#)
}

fn raw(id: &str, result: &str) -> String {
    let arguments = json!({ "result": result }).to_string();
    call_text(id, "raw", &arguments)
}

#[track_caller]
fn last(response: &Response) -> String {
    response.messages().pop().expect("a message")
}

#[test]
fn a_result_reaches_the_client_byte_for_byte() {
    let broker = Broker::start(&[]);
    let session = broker.session();
    for text in DELICATE {
        let response = session.post_text(&raw("1", text));
        assert_eq!(result_text(response.text()), text);
    }
}

#[test]
fn a_result_on_a_stream_is_the_same_bytes() {
    let broker = Broker::start(&[]);
    let session = broker.client().with_version("2025-03-26").ready();
    for text in DELICATE {
        let batch = format!("[{},{}]", raw("1", text), raw("2", text));
        let response = session.post_text(&batch);
        let messages = response.messages();
        assert!(response.is_stream() && messages.len() == 2, "{response:?}");
        assert!(
            messages.iter().all(|it| result_text(it) == text),
            "{messages:?}"
        );
    }
}

#[test]
fn params_reach_the_child_byte_for_byte() {
    let broker = Broker::start(&[]);
    let session = broker.session();
    for text in DELICATE {
        let response = session.post_text(&call_text("1", "echo", text));
        let (_, echoed) = response
            .text()
            .split_once(r#""structuredContent":"#)
            .unwrap();
        assert_eq!(echoed.strip_suffix("}}"), Some(text));
    }
}

#[test]
fn the_id_comes_back_as_it_was_written() {
    let broker = Broker::start(&[]);
    let session = broker.session();
    for id in [
        r#""\u0061b""#,
        "-7",
        "9007199254740993",
        r#""""#,
        r#""😀\/""#,
    ] {
        let response = session.post_text(&call_text(id, "echo", "{}"));
        let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"#);
        assert!(response.text().starts_with(&start), "{}", response.text());
    }
}

#[test]
fn a_line_end_between_tokens_of_a_childs_message_breaks_no_event() {
    let broker = Broker::start(&[]);
    let session = broker.client().with_version("2025-03-26").ready();
    // To JSON it is white space; to an event stream, as a raw byte, the end of a line.
    let result = "{\"content\":[],\r\"structuredContent\":{\"a\":1}}";
    let batch = format!("[{},{}]", raw("1", result), raw("2", result));
    for message in session.post_text(&batch).messages() {
        let message: serde_json::Value = serde_json::from_str(&message).expect("a whole message");
        assert_eq!(message["result"]["structuredContent"]["a"], 1);
    }
}

#[test]
fn a_result_of_4_mib_arrives_whole() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let bytes = 4 * 1024 * 1024;
    let text = session.call_text("big", json!({ "bytes": bytes }));
    assert_eq!(text.len(), bytes);
    assert!(text.bytes().all(|it| it == b'x'));
    // And on a stream.
    let mut call = session.call_message("big", json!({ "bytes": bytes }));
    call["id"] = json!("streamed");
    let session = broker.client().with_version("2025-03-26").ready();
    let other = call_text("2", "echo", "{}");
    let response = session.post_text(&format!("[{call},{other}]"));
    let messages = response.messages();
    let big = messages
        .iter()
        .find(|it| it.len() > bytes)
        .expect("the big one");
    assert!(big.contains(&"x".repeat(bytes)));
}

#[test]
fn a_request_of_almost_4_mib_arrives_whole() {
    let broker = Broker::start(&[]);
    let mut session: Session = broker.session();
    let sent = "y".repeat(4 * 1024 * 1024 - 1000);
    let answer = session.call("echo", json!({ "text": sent }));
    assert!(answer["result"]["structuredContent"]["text"] == *sent);
}

#[test]
fn a_body_of_many_lines_reaches_the_child_as_one() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let call = session.call_message("echo", json!({ "a": [1, { "b": "c" }] }));
    let pretty = serde_json::to_string_pretty(&call).unwrap();
    assert!(pretty.contains('\n'));
    for body in [
        pretty.clone(),
        pretty.replace('\n', "\r\n"),
        format!("\n{pretty}\r\n\n"),
    ] {
        let answer = last(&session.post_text(&body));
        assert!(answer.contains(r#""structuredContent":{"#), "{answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["result"]["structuredContent"]["a"][1]["b"], "c");
    }
    let notification = "{\n\"jsonrpc\": \"2.0\",\n\"method\":\n\"notifications/pretty\"\n}\n";
    assert_eq!(session.post_text(notification).status, 202);
    let received = session.call_text("received", json!({}));
    assert!(received.contains("notifications/pretty"), "{received}");
}
