//! What the child asks of the client, and how the answer finds its way back.

use serde_json::{Value, json};

use crate::support::{Broker, Events, Session};

/// The request of the child that comes next on a stream.
#[track_caller]
fn question(stream: &mut Events, method: &str) -> Value {
    let question = stream.message();
    assert_eq!(question["method"], method, "{question}");
    assert!(!question["id"].is_null(), "{question}");
    question
}

#[track_caller]
fn reply(session: &Session, question: &Value, result: &Value) {
    let reply = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
    let response = session.post(&reply);
    assert_eq!((response.status, response.text()), (202, ""));
}

#[test]
fn the_child_asks_on_the_stream_of_the_call_and_gets_its_answer() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut check = |kind: &str, method: &str, result: Value| {
        let call = session.call_message("ask", json!({ "kind": kind }));
        let mut stream = session.post_stream(&call);
        let question = question(&mut stream, method);
        reply(&session, &question, &result);
        let answer = stream.message();
        assert_eq!(answer["id"], call["id"]);
        let heard = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(heard).unwrap(), result);
        assert_eq!(stream.next(), None);
    };
    let content = json!({ "type": "text", "text": "hello" });
    let sampled = json!({ "role": "assistant", "model": "m", "content": content });
    check("sampling", "sampling/createMessage", sampled);
    let elicited = json!({ "action": "accept", "content": { "name": "Ada" } });
    check("elicitation", "elicitation/create", elicited);
    let roots = json!({ "roots": [{ "uri": "file:///home/ada" }] });
    check("roots", "roots/list", roots);
}

#[test]
fn the_child_asks_on_the_get_if_one_is_open() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut get = session.listen();
    let call = session.call_aside("ask", json!({ "kind": "roots" }));
    let question = question(&mut get, "roots/list");
    reply(&session, &question, &json!({ "roots": [] }));
    let response = call.join().unwrap();
    assert_eq!(response.messages().len(), 1, "{}", response.text());
    let answer = response.answer();
    assert_eq!(answer["result"]["content"][0]["text"], r#"{"roots":[]}"#);
}

#[test]
fn a_client_may_answer_with_an_error() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let call = session.call_message("ask", json!({ "kind": "elicitation" }));
    let mut stream = session.post_stream(&call);
    let question = question(&mut stream, "elicitation/create");
    let error = json!({ "code": -32603, "message": "the user is asleep" });
    let refusal = json!({ "jsonrpc": "2.0", "id": question["id"], "error": error });
    assert_eq!(session.post(&refusal).status, 202);
    let answer = stream.message();
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert!(
        answer.to_string().contains("the user is asleep"),
        "{answer}"
    );
}

#[test]
fn the_ids_of_both_sides_are_independent() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut call = session.call_message("ask", json!({ "kind": "roots", "id": 7 }));
    call["id"] = json!(7);
    let mut stream = session.post_stream(&call);
    let question = question(&mut stream, "roots/list");
    assert_eq!(question["id"], 7);
    reply(&session, &question, &json!({ "roots": [] }));
    let answer = stream.message();
    assert_eq!(answer["id"], 7);
    assert_eq!(answer["result"]["content"][0]["text"], r#"{"roots":[]}"#);
}

#[test]
fn two_users_never_see_each_others_messages() {
    let broker = Broker::setup().user("alice", &[]).user("bob", &[]).start();
    let (mut alice, mut bob) = (broker.user("alice").ready(), broker.user("bob").ready());
    let (mut to_alice, mut to_bob) = (alice.listen(), bob.listen());
    let tell = |session: &mut Session, name: &str| {
        let arguments = json!({ "method": "notifications/x", "params": { "for": name } });
        session.call("notify", arguments);
    };
    for _ in 0..10 {
        tell(&mut alice, "alice");
        tell(&mut bob, "bob");
    }
    for _ in 0..10 {
        assert_eq!(to_alice.message()["params"]["for"], "alice");
        assert_eq!(to_bob.message()["params"]["for"], "bob");
    }
}
