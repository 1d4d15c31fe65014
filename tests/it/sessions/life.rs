//! How sessions begin and end: children that do not start, that die at work, clients that leave.

use serde_json::{Value, json};

use super::{assert_error, each_method, ping};
use crate::support::{Broker, Session, eventually, process, within};
use std::time::Duration;

#[test]
fn a_program_that_is_not_there_is_named_with_the_os_error() {
    let broker = Broker::setup()
        .server_entry("missing", json!({ "command": "/nonexistent/server" }))
        .start();
    let response = broker.client().initialize();
    assert_error(&response, 500, -32603);
    assert_eq!(response.header("Mcp-Session-Id"), None);
    let message = response.error_message();
    for part in [
        "\"missing\"",
        "/nonexistent/server",
        "No such file or directory",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_child_that_ends_while_starting_is_quoted_without_its_secrets() {
    let env = json!({ "SECRET_IN_STDERR": "${user.env.KEY}" });
    let entry = json!({
        "command": crate::support::fake_mcp(),
        "args": ["--exit-at-start", "3"],
        "env": env,
    });
    let broker = Broker::setup()
        .server_entry("broken", entry)
        .user("alice", &["--env", "KEY=hunter2-very-secret"])
        .start();
    let response = broker.user("alice").initialize();
    assert_error(&response, 500, -32603);
    assert_eq!(response.json()["id"], "init");
    let message = response.error_message();
    for part in [
        "\"broken\"",
        "exit status 3",
        "cannot start",
        "token *** was refused",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(!message.contains("hunter2"), "{message}");
    assert!(!broker.log().contains("hunter2"), "{}", broker.log());
    eventually("no zombie", || process::zombies(broker.pid()).is_empty());
}

#[test]
fn delete_ends_the_session_its_child_and_its_streams() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let (pid, _) = session.child();
    let mut stream = session.listen();
    let response = session.delete();
    assert_eq!((response.status, response.text()), (204, ""));
    for request in each_method(&session) {
        assert_error(&request.send(broker.addr()), 404, -32001);
    }
    assert_eq!(stream.rest(), Vec::<Value>::new());
    eventually("the child ends", || !process::runs(pid));
    eventually("it is reaped", || process::zombies(broker.pid()).is_empty());
}

#[test]
fn a_newer_get_takes_over_from_an_older_one() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut older = session.listen();
    let mut newer = session.listen();
    assert_eq!(older.rest(), Vec::<Value>::new());
    session.call(
        "notify",
        json!({ "method": "notifications/tools/list_changed" }),
    );
    assert_eq!(
        newer.message()["method"],
        "notifications/tools/list_changed"
    );
}

#[test]
fn an_id_in_flight_is_refused_and_the_first_one_untouched() {
    let broker = Broker::start(&[]);
    let session = broker.session();
    let check = |first: &str, second: &str| {
        // In flight until the client answers what the child asks.
        let ask = |id: &str| {
            let params = r#"{"name":"ask","arguments":{"kind":"roots"}}"#;
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#)
        };
        let request = session.request("POST").body(ask(first));
        let mut stream = request.stream(broker.addr());
        let question = stream.message();
        let response = session.post_text(&ask(second));
        assert_error(&response, 400, -32600);
        // The id comes back as it was written.
        let id = format!(r#""id":{second}"#);
        assert!(response.text().contains(&id), "{}", response.text());
        let reply = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "roots": [] } });
        assert_eq!(session.post(&reply).status, 202);
        let last = stream.rest().pop().expect("an answer");
        assert_eq!(last["result"]["content"][0]["text"], r#"{"roots":[]}"#);
    };
    check("7", "7");
    check("7", "7.0");
    check(r#""ab""#, r#""a\u0062""#);
}

#[test]
fn ids_that_differ_in_type_or_value_are_different() {
    let broker = Broker::start(&[]);
    let session = broker.session();
    let mut stream = session.post_stream(&count(json!(7), 20, 50));
    stream.message();
    assert_eq!(session.post(&count(json!("7"), 1, 0)).answer()["id"], "7");
    assert_eq!(session.post(&count(json!(8), 1, 0)).answer()["id"], 8);
    assert_eq!(stream.rest().pop().unwrap()["id"], 7);
    // Free again.
    assert_eq!(session.post(&count(json!(7), 1, 0)).answer()["id"], 7);
}

fn count(id: Value, n: u32, delay_ms: u32) -> Value {
    let arguments = json!({ "n": n, "delay_ms": delay_ms });
    let token = format!("token of {id}");
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
        "name": "count", "arguments": arguments, "_meta": { "progressToken": token },
    }})
}

#[test]
fn requests_in_flight_when_the_child_dies_learn_how_it_ended() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let asleep = session.call_aside("sleep", json!({ "ms": 60_000 }));
    let stream = session.post_stream(&count(json!("streamed"), 2000, 30));
    let exit = session.call_message("exit", json!({ "code": 5 }));
    let exit = session.post(&exit);
    let check = |answer: Value| {
        assert_eq!(answer["error"]["code"], -32000, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("exit status 5"), "{message}");
        assert!(message.contains("\"fake\""), "{message}");
    };
    let asleep = asleep.join().unwrap();
    assert_eq!(exit.status, 200);
    check(exit.answer());
    let mut stream = stream;
    check(stream.rest().pop().expect("an answer"));
    // It was sent at about the same time as the call that ended the child.
    if asleep.status == 200 {
        check(asleep.answer());
    } else {
        assert_error(&asleep, 404, -32001);
    }
    for request in each_method(&session) {
        assert_error(&request.send(broker.addr()), 404, -32001);
    }
}

#[test]
fn a_child_killed_by_a_signal_is_said_to_be() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let (pid, _) = session.child();
    let mut stream = session.post_stream(&count(json!(1), 2000, 30));
    process::signal(pid, rustix::process::Signal::KILL);
    let last = stream.rest().pop().expect("an answer");
    let message = last["error"]["message"].as_str().unwrap();
    assert!(message.contains("signal 9"), "{message}");
    eventually("the session is gone", || {
        session.post(&ping()).status == 404
    });
}

#[test]
fn an_idle_session_ends_although_a_get_is_open() {
    let broker = Broker::setup().options(&["--idle-timeout", "1s"]).start();
    let session = broker.session();
    let mut stream = session.listen();
    // The end of the stream is the event; that the session ends with it is what is tested.
    assert_eq!(stream.rest(), Vec::<Value>::new());
    assert_error(&session.post(&ping()), 404, -32001);
    within(Duration::from_secs(5), "its child ends", || {
        broker.children().is_empty()
    });
}

#[test]
fn a_long_call_in_flight_is_not_idle() {
    let broker = Broker::setup()
        .options(&["--idle-timeout", "500ms"])
        .start();
    let mut session: Session = broker.session();
    assert_eq!(
        session.call_text("sleep", json!({ "ms": 1500 })),
        "slept 1500 ms"
    );
    // Idle time begins with the answer.
    assert_eq!(session.post(&ping()).status, 200);
}
