//! What a modern request must look like, and what is said to one that does not.

use serde_json::{Value, json};

use super::{KINDS, client, over, setup};
use crate::support::modern::{MODERN, Modern};
use crate::support::{Broker, Connection, Request, Response, eventually};

fn discover(client: &Modern) -> Value {
    client.clone().message("server/discover", json!({}))
}

#[track_caller]
fn assert_error(response: &Response, status: u16, code: i64) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.error_code(), code, "{response:?}");
}

#[test]
fn what_every_result_says() {
    for kind in KINDS {
        let broker = over(kind);
        let mut client = client(&broker);
        let found = client.ask("server/discover", json!({}))["result"].clone();
        assert_eq!(found["resultType"], "complete", "{kind}: {found}");
        assert_eq!(found["supportedVersions"], json!([MODERN]), "{kind}");
        assert_eq!(
            found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "fake_mcp",
            "{kind}: {found}"
        );
        for list in ["tools/list", "prompts/list", "resources/list"] {
            let result = client.ask(list, json!({}))["result"].clone();
            assert_eq!(result["resultType"], "complete", "{kind}: {list}");
            assert!(result["ttlMs"].is_u64(), "{kind}: {list}: {result}");
            assert!(result["cacheScope"].is_string(), "{kind}: {list}");
        }
        assert_eq!(client.call_text("echo", json!({})), "{}");
    }
}

#[test]
fn there_is_no_session() {
    for kind in KINDS {
        let broker = over(kind);
        let mut client = client(&broker);
        let message = client.call_message("echo", json!({}));
        let request = client.request(&message.to_string());
        let response = request
            .clone()
            .header("Mcp-Session-Id", "made up")
            .header("Last-Event-ID", "1-1")
            .send(broker.addr());
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("Mcp-Session-Id"), None);
        for method in ["GET", "DELETE"] {
            let request = Request::new(method, "/mcp")
                .header("Accept", "text/event-stream")
                .header("MCP-Protocol-Version", MODERN);
            let response = request.send(broker.addr());
            assert_eq!(response.status, 405, "{response:?}");
            assert_eq!(response.header("Allow"), Some("POST"));
        }
        assert_eq!(client.call_text("echo", json!({})), "{}");
    }
}

#[test]
fn a_head_that_says_something_else() {
    for kind in KINDS {
        let broker = over(kind);
        let mut client = client(&broker);
        let found = discover(&client).to_string();
        let call = client.call_message("echo", json!({})).to_string();
        // Twice: before there is a child, and with one.
        for _ in 0..2 {
            let send = |request: Request| request.send(broker.addr());
            let head = |request: Request, name: &str| request.without(name);
            let (found, call) = (client.request(&found), client.request(&call));
            for response in [
                send(head(found.clone(), "Mcp-Method")),
                send(found.clone().header("Mcp-Method", "tools/list")),
                send(head(call.clone(), "Mcp-Name")),
                send(call.clone().header("Mcp-Name", "pid")),
                send(call.clone().header("Mcp-Name", "=?base64?!?=")),
                send(head(found.clone(), "MCP-Protocol-Version")),
            ] {
                assert_error(&response, 400, -32020);
            }
            let encoded = call.clone().header("Mcp-Name", "=?base64?ZWNobw==?=");
            assert_eq!(send(encoded).status, 200);
        }
    }
}

#[test]
fn a_version_that_nobody_knows() {
    let broker = over("legacy");
    let mut client = client(&broker);
    for _ in 0..2 {
        let body = discover(&client).to_string().replace(MODERN, "2031-01-01");
        let request = client
            .request(&body)
            .header("MCP-Protocol-Version", "2031-01-01");
        let response = request.send(broker.addr());
        assert_error(&response, 400, -32022);
        let data = &response.json()["error"]["data"];
        assert_eq!(data["supported"], json!([MODERN]));
        assert_eq!(data["requested"], "2031-01-01");
        assert_eq!(response.json()["id"], discover(&client)["id"]);
        client.call_text("echo", json!({}));
        client.last_request = 0;
    }
}

#[test]
fn a_head_of_another_era_than_the_body() {
    let broker = over("legacy");
    let client = client(&broker);
    let send = |body: &str| {
        let request = client.request(body);
        let request = request.header("MCP-Protocol-Version", "2025-11-25");
        request.send(broker.addr())
    };
    let body = discover(&client).to_string();
    let response = send(&body);
    assert_error(&response, 400, -32020);
    let message = response.error_message();
    assert!(message.contains("MCP-Protocol-Version is not"), "{message}");
    let response = send(&body.replace(MODERN, "2025-11-25"));
    assert_error(&response, 400, -32022);
    assert_eq!(
        response.json()["error"]["data"]["supported"],
        json!([MODERN])
    );
    assert!(broker.children().is_empty());
}

#[test]
fn what_stands_twice_or_not_alone() {
    let broker = over("legacy");
    let mut client = client(&broker);
    for is_open in [false, true] {
        let call = client.call_message("echo", json!({})).to_string();
        for field in ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"] {
            let head = client.request(&call).bytes(broker.addr());
            let head = String::from_utf8(head).unwrap();
            let line = head.lines().find(|it| it.starts_with(field)).unwrap();
            let twice = head.replacen(line, &format!("{line}\r\n{line}"), 1);
            let mut connection = Connection::open(broker.addr());
            connection.send_bytes(twice.as_bytes());
            assert_error(&connection.response(), 400, -32020);
        }
        let single = client.request(&call);
        let batch = single.body(format!("[{call}]")).send(broker.addr());
        assert_error(&batch, 400, -32600);
        if !is_open {
            let message = batch.error_message();
            assert!(message.contains("has no batches"), "{message}");
        }
        client.call_text("echo", json!({}));
    }
}

#[test]
fn a_method_that_nobody_knows() {
    for kind in KINDS {
        let broker = over(kind);
        let mut client = client(&broker);
        for method in ["no/such", "initialize", "ping", "resources/subscribe"] {
            let message = client.message(method, json!({}));
            let response = client.post(&message);
            assert_error(&response, 404, -32601);
            assert_eq!(response.json()["id"], message["id"]);
        }
    }
}

#[test]
fn a_capability_that_the_client_lacks() {
    for kind in KINDS {
        let broker = over(kind);
        let mut client = client(&broker);
        client.capabilities = json!({});
        let message = client.call_message("test_missing_capability", json!({ "prompt": "p" }));
        let response = client.post(&message);
        assert_error(&response, 400, -32021);
        let data = &response.json()["error"]["data"];
        assert!(
            data["requiredCapabilities"]["sampling"].is_object(),
            "{data}"
        );
    }
}

#[test]
fn what_is_no_request() {
    let broker = over("legacy");
    let mut client = client(&broker);
    for _ in 0..2 {
        let status = |body: &str| client.post_text(body).status;
        assert_eq!(status("{"), 400);
        assert_eq!(status(r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#), 400);
        assert_eq!(status(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), 400);
        let note = client.post_text(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
        assert_eq!((note.status, note.text()), (202, ""));
        client.call_text("echo", json!({}));
    }
    let message = discover(&client).to_string();
    let plain = client.request(&message);
    let send = |request: Request| request.send(broker.addr()).status;
    assert_eq!(
        send(plain.clone().header("Content-Type", "text/plain")),
        415
    );
    assert_eq!(
        send(plain.clone().header("Accept", "application/json")),
        406
    );
    assert_eq!(send(plain), 200);
}

#[test]
fn parameters_that_stand_in_heads() {
    for kind in KINDS {
        let broker = over(kind);
        let mut client = client(&broker);
        let call = client.call_message("test_x_mcp_header", json!({ "region": "eu" }));
        let call = call.to_string();
        let send = |value: Option<&str>| {
            let request = client.request(&call);
            let request = match value {
                Some(value) => request.header("mcp-param-REGION", value),
                None => request,
            };
            request.send(broker.addr())
        };
        // The first waits for the list of tools.
        assert_error(&send(None), 400, -32020);
        assert_error(&send(Some("us")), 400, -32020);
        assert_error(&send(Some("=?base64?ZXU?=")), 400, -32020);
        assert_eq!(send(Some("eu")).status, 200);
        assert_eq!(send(Some("=?base64?ZXU=?=")).status, 200);
    }
}

#[test]
fn a_stream_is_not_to_be_buffered() {
    let broker = over("modern");
    let mut client = client(&broker).with_meta("progressToken", 1);
    let message = client.call_message("count", json!({ "n": 1 }));
    let stream = client.stream(&message);
    assert_eq!(stream.header("X-Accel-Buffering"), Some("no"));
    let (_, stream) = client.listen(json!({ "toolsListChanged": true }));
    assert_eq!(stream.header("X-Accel-Buffering"), Some("no"));
}

#[test]
fn a_page_may_send_the_heads_that_it_asks_for() {
    let broker = Broker::start(&[]);
    let preflight = Request::new("OPTIONS", "/mcp")
        .header("Origin", "http://localhost:6274")
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "mcp-method, Mcp-Param-Region,mcp-param-a b, x-other",
        )
        .send(broker.addr());
    assert_eq!(preflight.status, 204);
    let allowed = preflight.header("Access-Control-Allow-Headers").unwrap();
    let allowed: Vec<_> = allowed.split(", ").collect();
    for name in ["Mcp-Method", "Mcp-Name", "Mcp-Param-Region"] {
        assert!(allowed.contains(&name), "{name} in {allowed:?}");
    }
    let is_strange = |it: &&str| it.contains(' ') || it.eq_ignore_ascii_case("x-other");
    assert!(!allowed.iter().any(is_strange), "{allowed:?}");
}

#[test]
fn too_many_calls_at_once() {
    for kind in KINDS {
        let broker = setup(kind).setting("max_in_flight", 1).start();
        let mut client = client(&broker).with_meta("progressToken", 1);
        let call = client.call_message("count", json!({ "n": 1000, "delay_ms": 100 }));
        let mut stream = client.stream(&call);
        stream.message();
        let message = client.message("tools/list", json!({}));
        let refused = client.post(&message);
        assert_error(&refused, 429, -32603);
        assert_eq!(refused.json()["id"], message["id"]);
        assert_eq!(refused.header("Retry-After"), Some("1"));
        drop(stream);
        eventually("there is room again", || {
            client.post(&message).status == 200
        });
    }
}
