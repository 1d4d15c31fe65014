//! What a request must look like, in its head and in its body, before and within a session.

use serde_json::json;

use super::{assert_error, ping};
use crate::support::{Broker, Session};

/// A client without a session and one with: both are told the same.
fn before_and_within(broker: &Broker) -> [Session; 2] {
    [broker.client(), broker.session()]
}

#[test]
fn a_body_larger_than_allowed_is_too_large() {
    let broker = Broker::setup().options(&["--max-body", "2KiB"]).start();
    for client in before_and_within(&broker) {
        let spaces = " ".repeat(2048);
        let body = format!("{}{spaces}", ping());
        assert_eq!(client.post_text(&body).status, 413);
    }
    let session = broker.session();
    let spaces = " ".repeat(2048 - ping().to_string().len());
    assert_eq!(
        session.post_text(&format!("{}{spaces}", ping())).status,
        200
    );
}

#[test]
fn a_body_that_is_not_json_is_a_parse_error() {
    let broker = Broker::start(&[]);
    for client in before_and_within(&broker) {
        let check = |body: &[u8]| {
            let response = client.request("POST").body(body).send(broker.addr());
            assert_error(&response, 400, -32700);
            assert!(response.json()["id"].is_null());
        };
        check(b"");
        check(b"hello");
        check(b"{");
        check(br#"{"jsonrpc":"2.0","id":1,"method":"initialize",}"#);
        check(br#"{"jsonrpc":"2.0","id":1,"method":"initialize"}{}"#);
        check(br#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":01}}"#);
        check(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}");
        check(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\x00b\"}");
    }
}

#[test]
fn a_body_that_is_no_message_is_an_invalid_request() {
    let broker = Broker::start(&[]);
    for client in before_and_within(&broker) {
        let check = |body: &str| assert_error(&client.post_text(body), 400, -32600);
        check("1");
        check("null");
        check("[]");
        check("{}");
        check(r#"{"id":1,"method":"initialize"}"#);
        check(r#"{"jsonrpc":"1.0","id":1,"method":"initialize"}"#);
        check(r#"{"jsonrpc":"2.0","id":1}"#);
        check(r#"{"jsonrpc":"2.0","id":1,"method":7}"#);
        check(r#"{"jsonrpc":"2.0","id":{},"method":"initialize"}"#);
        check(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"initialize"}"#);
        check(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","result":{}}"#);
    }
    assert_eq!(broker.children().len(), 1);
}

#[test]
fn the_content_type_must_be_json() {
    let broker = Broker::start(&[]);
    for client in before_and_within(&broker) {
        let request = client.request("POST").body(ping().to_string());
        let check = |value: Option<&str>| {
            let request = match value {
                Some(value) => request.clone().header("Content-Type", value),
                None => request.clone().without("Content-Type"),
            };
            assert_error(&request.send(broker.addr()), 415, -32600);
        };
        check(None);
        check(Some("text/plain"));
        check(Some("application/x-www-form-urlencoded"));
        check(Some("application/jsonp"));
    }
    let session = broker.session();
    let request = session.request("POST").body(ping().to_string());
    let request = request.header("Content-Type", "Application/JSON; charset=utf-8");
    assert_eq!(request.send(broker.addr()).status, 200);
}

#[test]
fn the_client_must_accept_both_json_and_streams() {
    let broker = Broker::start(&[]);
    for client in before_and_within(&broker) {
        let check = |method: &str, value: Option<&str>| {
            let request = client.request(method).body(ping().to_string());
            let request = match value {
                Some(value) => request.header("Accept", value),
                None => request.without("Accept"),
            };
            assert_error(&request.send(broker.addr()), 406, -32600);
        };
        check("POST", None);
        check("POST", Some("application/json"));
        check("POST", Some("text/event-stream"));
        check("POST", Some("text/html, application/json"));
        check("GET", None);
        check("GET", Some("application/json"));
    }
    let session = broker.session();
    let check = |accept: &str| {
        let request = session.request("POST").body(ping().to_string());
        let response = request.header("Accept", accept).send(broker.addr());
        assert_eq!(response.status, 200, "{accept}");
    };
    check("*/*");
    check("text/event-stream,application/json");
    check("application/*;q=0.9, text/*;q=0.1");
    check("Application/JSON, Text/Event-Stream");
}

#[test]
fn an_unsupported_protocol_version_is_refused_with_the_ones_that_are() {
    let broker = Broker::start(&[]);
    for (no, client) in before_and_within(&broker).into_iter().enumerate() {
        for method in ["POST", "GET"] {
            let check = |version: &str| {
                let request = client.request(method).body(ping().to_string());
                let request = request.header("MCP-Protocol-Version", version);
                let response = request.send(broker.addr());
                let told = match (no, method) {
                    // One that may be of an era to come.
                    (0, "POST") => {
                        assert_error(&response, 400, -32022);
                        let error = &response.json()["error"];
                        assert_eq!(error["data"]["requested"], version);
                        assert_eq!(response.json()["id"], ping()["id"]);
                        error["data"]["supported"].to_string()
                    }
                    _ => {
                        assert_error(&response, 400, -32000);
                        response.error_message()
                    }
                };
                for known in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
                    assert!(told.contains(known), "{told}");
                }
            };
            check("1999-01-01");
            check("2027-01-01");
            check("");
            check("2025-11-25 ,2025-06-18");
        }
    }
    let session = broker.session();
    let request = session.request("POST").body(ping().to_string());
    let request = request.without("MCP-Protocol-Version");
    assert_eq!(request.send(broker.addr()).status, 200);
}

#[test]
fn a_field_that_stands_twice_is_refused() {
    let broker = Broker::start(&[]);
    let session = broker.session();
    let bytes = session.request("DELETE").bytes(broker.addr());
    let check = |line: &str| {
        let mut connection = crate::support::Connection::open(broker.addr());
        let head = String::from_utf8(bytes.clone()).unwrap();
        let head = head.replacen("\r\n", &format!("\r\n{line}\r\n"), 1);
        connection.send_bytes(head.as_bytes());
        assert_eq!(connection.response().status, 400, "{line}");
    };
    check(&format!("Mcp-Session-Id: {}", super::UNKNOWN));
    check("MCP-Protocol-Version: 2025-06-18");
    check("Host: localhost");
    assert_eq!(session.post(&ping()).status, 200);
}

#[test]
fn notifications_and_responses_are_accepted_with_an_empty_body() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let check = |body: serde_json::Value| {
        let response = session.post(&body);
        assert_eq!((response.status, response.text()), (202, ""), "{body}");
    };
    check(json!({ "jsonrpc": "2.0", "method": "notifications/x", "params": { "a": 1 } }));
    check(json!({ "jsonrpc": "2.0", "id": 99, "result": {} }));
    check(json!({ "jsonrpc": "2.0", "id": 99, "error": { "code": 1, "message": "no" } }));
    let received = session.call_text("received", json!({}));
    assert!(received.contains(r#"{"method":"notifications/x","params":{"a":1}}"#));
}

#[test]
fn many_requests_follow_each_other_on_one_connection() {
    let broker = Broker::start(&[]);
    let mut session = broker.session();
    let mut connection = crate::support::Connection::open(broker.addr());
    for index in 0..50 {
        let call = session.call_message("echo", json!({ "index": index }));
        connection.send(&session.request("POST").body(call.to_string()));
        let answer = connection.response().answer();
        assert_eq!(answer["result"]["structuredContent"]["index"], index);
    }
}
