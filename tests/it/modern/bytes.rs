//! What goes through stays as it is, in all four cells and both directions.

use serde_json::{Value, json};

use super::{client, over};
use crate::bytes::DELICATE;
use crate::support::modern::Modern;
use crate::support::{Broker, Response, Session};

/// How one of the clients calls a tool with arguments as they stand here.
type Call<'a> = Box<dyn Fn(&str, &str) -> Response + 'a>;

fn modern(broker: &Broker) -> Call<'_> {
    let client = client(broker);
    Box::new(move |tool, arguments| {
        // Not every JSON text is one for the parser of the tests.
        let request = client
            .request(&call_text(&client, tool, arguments))
            .header("Mcp-Method", "tools/call")
            .header("Mcp-Name", tool);
        request.send(client.addr)
    })
}

fn call_text(client: &Modern, tool: &str, arguments: &str) -> String {
    let meta = client.meta_text();
    format!(
        r#"{{"jsonrpc":"2.0","id":"i","method":"tools/call","params":{{"name":"{tool}","arguments":{arguments},"_meta":{meta}}}}}"#
    )
}

fn legacy(broker: &Broker) -> Call<'_> {
    let session = Session::open(broker.addr());
    Box::new(move |tool, arguments| {
        session.post_text(&format!(
            r#"{{"jsonrpc":"2.0","id":"i","method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        ))
    })
}

/// The child gets the arguments as they are, and what it answers comes as it is.
#[track_caller]
fn assert_bytes(call: &Call<'_>, cell: &str) {
    for arguments in DELICATE {
        let response = call("echo", arguments);
        assert_eq!(response.status, 200, "{cell}: {arguments}: {response:?}");
        let answer = response.messages().pop().unwrap();
        let structured = format!(r#""structuredContent":{arguments}"#);
        assert!(
            answer.contains(&structured),
            "{cell}: {arguments}: {answer}"
        );
        if arguments.contains("1e999") || arguments.contains("\\ud8") || arguments.contains("\\udc")
        {
            continue; // the test's own parser takes no such thing
        }
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["result"]["content"][0]["text"], *arguments, "{cell}");
        assert_eq!(answer["id"], "i", "{cell}");
    }
}

/// A result of the child's own making keeps all of its bytes, but for what the era adds.
#[track_caller]
fn assert_raw(call: &Call<'_>, cell: &str) {
    for payload in DELICATE {
        let mut payload = payload.to_owned();
        payload.insert_str(1, r#" "content" :[ ],"isError":false ,"#);
        let raw = json!({ "result": payload }).to_string();
        let response = call("raw", &raw);
        assert_eq!(response.status, 200, "{cell}: {payload}: {response:?}");
        let answer = response.messages().pop().unwrap();
        let inner = payload.trim_start_matches('{').trim_end_matches('}');
        assert!(answer.contains(inner), "{cell}: {payload}: {answer}");
    }
}

#[test]
fn a_modern_client_over_a_legacy_child() {
    let broker = over("legacy");
    assert_bytes(&modern(&broker), "modern over legacy");
    assert_raw(&modern(&broker), "modern over legacy");
}

#[test]
fn a_modern_client_over_a_modern_child() {
    let broker = over("modern");
    assert_bytes(&modern(&broker), "modern over modern");
    assert_raw(&modern(&broker), "modern over modern");
}

#[test]
fn a_legacy_client_over_a_modern_child() {
    let broker = over("modern");
    assert_bytes(&legacy(&broker), "legacy over modern");
    assert_raw(&legacy(&broker), "legacy over modern");
}

#[test]
fn clients_of_both_eras_over_a_dual_child() {
    let broker = over("dual");
    assert_bytes(&legacy(&broker), "legacy over dual");
    assert_bytes(&modern(&broker), "modern over dual");
    assert_raw(&legacy(&broker), "legacy over dual");
    assert_raw(&modern(&broker), "modern over dual");
    // One child for each.
    assert!(broker.children().len() >= 2);
}

/// A large body is read and written by other threads than a small one.
#[test]
fn large_and_small_calls_at_once() {
    for kind in super::KINDS {
        let broker = over(kind);
        let calls: Vec<_> = (0..12)
            .map(|n| {
                let mut client = client(&broker);
                let len = [10, 2_000, 200_000][n % 3];
                std::thread::spawn(move || {
                    let arguments = json!({ "n": n, "padding": "x".repeat(len) });
                    let echoed = client.call_text("echo", arguments.clone());
                    let echoed: Value = serde_json::from_str(&echoed).unwrap();
                    assert!(echoed == arguments, "{n}");
                })
            })
            .collect();
        calls.into_iter().for_each(|it| it.join().unwrap());
    }
}
