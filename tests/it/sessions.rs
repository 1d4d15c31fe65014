//! The session contract, row by row: which request gets which status, which fields, which code.

mod bodies;
mod caps;
mod life;

use serde_json::{Value, json};

use crate::support::{Broker, Request, Response, Session};

/// 48 characters that no broker has ever minted.
pub(super) const UNKNOWN: &str = "000000000000000000000000000000000000000000000000";

fn ping() -> Value {
    json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" })
}

/// The requests that a session id can come with, as `client` would send them.
fn each_method(client: &Session) -> [Request; 3] {
    [
        client.request("POST").body(ping().to_string()),
        client.request("GET"),
        client.request("DELETE"),
    ]
}

#[track_caller]
pub(super) fn assert_error(response: &Response, status: u16, code: i64) {
    let got = (response.status, response.error_code());
    assert_eq!(got, (status, code), "{}", response.text());
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(response.json()["jsonrpc"], "2.0");
}

#[test]
fn a_foreign_origin_or_host_is_forbidden_before_anything_else() {
    let broker = Broker::setup().user("alice", &[]).start();
    let nobody = broker.client();
    let alice = broker.user("alice");
    let mut gone = broker.user("alice");
    gone.id = Some(UNKNOWN.to_owned());
    for client in [nobody, alice, gone] {
        for request in each_method(&client) {
            let check = |name: &str, value: &str| {
                let response = request.clone().header(name, value).send(broker.addr());
                assert_error(&response, 403, -32600);
                assert_eq!(response.header("WWW-Authenticate"), None);
                assert_eq!(response.header("Access-Control-Allow-Origin"), None);
            };
            check("Origin", "https://evil.example");
            check("Origin", "null");
            check("Origin", "http://localhost.evil.example");
            check("Host", "evil.example");
            check("Host", "127.0.0.1.evil.example");
        }
    }
    let health = Request::new("GET", "/healthz").header("Host", "evil.example");
    assert_eq!(health.send(broker.addr()).status, 403);
}

#[test]
fn loopback_names_and_configured_ones_are_no_foreign_hosts_and_origins() {
    let broker = Broker::setup()
        .setting("public_url", "https://mcp.example.org/mcp")
        .options(&["--allow-origin", "https://app.example.org"])
        .start();
    let check = |name: &str, value: &str| {
        let request = broker.client().request("GET").header(name, value);
        // Past that check, the session id is what is missing.
        assert_error(&request.send(broker.addr()), 400, -32600);
    };
    check("Host", "localhost");
    check("Host", "LocalHost:1");
    check("Host", "[::1]:8787");
    check("Host", "mcp.example.org");
    check("Host", "mcp.example.org:443");
    check("Origin", "http://localhost:6274");
    check("Origin", "http://127.0.0.1");
    check("Origin", "https://mcp.example.org");
    check("Origin", "https://app.example.org");
}

#[test]
fn a_page_that_may_ask_may_also_read_the_answer() {
    let broker = Broker::start(&[]);
    let origin = "http://localhost:6274";
    let client = broker.client();
    let preflight = Request::new("OPTIONS", "/mcp")
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "mcp-session-id")
        .send(broker.addr());
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.header("Access-Control-Allow-Origin"),
        Some(origin)
    );
    let allowed = preflight.header("Access-Control-Allow-Methods").unwrap();
    assert!(
        ["GET", "POST", "DELETE"]
            .iter()
            .all(|it| allowed.contains(it))
    );
    let allowed = preflight.header("Access-Control-Allow-Headers").unwrap();
    let allowed = allowed.to_ascii_lowercase();
    for name in [
        "authorization",
        "content-type",
        "mcp-session-id",
        "mcp-protocol-version",
        "last-event-id",
    ] {
        assert!(allowed.contains(name), "{name} in {allowed}");
    }
    let check = |request: Request, status: u16| {
        let response = request.header("Origin", origin).send(broker.addr());
        assert_eq!(response.status, status);
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some(origin));
        let exposed = response.header("Access-Control-Expose-Headers").unwrap();
        assert!(exposed.to_ascii_lowercase().contains("mcp-session-id"));
        assert_eq!(response.header("Vary"), Some("Origin"));
    };
    let initialize = client.initialize_message().to_string();
    check(client.request("POST").body(initialize), 200);
    check(client.request("GET"), 400);
    let stream = broker.session().request("GET").header("Origin", origin);
    let stream = stream.stream(broker.addr());
    assert_eq!(stream.header("Access-Control-Allow-Origin"), Some(origin));
}

#[test]
fn without_a_valid_bearer_all_is_unauthorized_whatever_the_session_id() {
    let broker = Broker::setup().user("alice", &[]).start();
    let alice = broker.user("alice").ready();
    let check = |authorization: Option<&str>, challenge: &str| {
        for id in [None, alice.id.clone(), Some(UNKNOWN.to_owned())] {
            let mut client = broker.client();
            client.id = id;
            for mut request in each_method(&client) {
                if let Some(authorization) = authorization {
                    request = request.header("Authorization", authorization);
                }
                let response = request.send(broker.addr());
                assert_eq!(response.status, 401, "{authorization:?}");
                assert_eq!(response.header("WWW-Authenticate"), Some(challenge));
                assert_eq!(response.header("Mcp-Session-Id"), None);
            }
        }
    };
    let bare = r#"Bearer realm="mcp-broker""#;
    let invalid = r#"Bearer realm="mcp-broker", error="invalid_token""#;
    check(None, bare);
    check(Some("Bearer 0123456789"), invalid);
    check(Some(&format!("Bearer {}x", broker.token("alice"))), invalid);
    // Another scheme is no credentials here (RFC 6750 section 3.1).
    check(Some(&format!("Basic {}", broker.token("alice"))), bare);
    check(Some("Bearer"), invalid);
    assert_eq!(alice.post(&ping()).status, 200);
    // The scheme's case does not matter (RFC 9110 section 11.1).
    let scheme = format!("bEARER {}", broker.token("alice"));
    let request = alice.request("POST").header("Authorization", &scheme);
    let response = request.body(ping().to_string()).send(broker.addr());
    assert_eq!(response.status, 200);
}

#[test]
fn initialize_mints_a_session_id_and_brings_the_childs_own_answer() {
    let broker = Broker::start(&[]);
    let mut client = broker.client();
    let response = client.initialize();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    let id = response.header("Mcp-Session-Id").expect("a session id");
    assert_eq!(id.len(), 48);
    assert!(id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')));
    let answer = response.json();
    assert_eq!(answer["id"], "init");
    assert_eq!(answer["result"]["serverInfo"]["name"], "fake_mcp");
    let mut other = broker.client();
    assert_ne!(other.initialize().header("Mcp-Session-Id"), Some(id));
}

#[test]
fn only_initialize_may_come_without_a_session_id() {
    let broker = Broker::start(&[]);
    let client = broker.client();
    let check = |method: &str, body: &str| {
        let response = client.request(method).body(body).send(broker.addr());
        assert_error(&response, 400, -32600);
    };
    check("POST", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    check("POST", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    check(
        "POST",
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
    );
    check("POST", r#"{"jsonrpc":"2.0","method":"initialize"}"#);
    check("POST", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    check("POST", &format!("[{}]", client.initialize_message()));
    check("GET", "");
    check("DELETE", "");
    assert_eq!(broker.children(), [], "only initialize may start a child");
}

#[test]
fn a_second_initialize_in_a_session_is_refused() {
    let broker = Broker::start(&[]);
    let session = broker.session();
    let response = session.post(&session.initialize_message());
    assert_error(&response, 400, -32600);
    assert_eq!(response.json()["id"], "init");
    assert_eq!(session.post(&ping()).status, 200);
}

#[test]
fn an_unknown_session_id_is_not_found() {
    let broker = Broker::start(&[]);
    let mut client = broker.session();
    let known = client.id.clone().unwrap();
    for id in [
        UNKNOWN,
        "x",
        &known[..47],
        &known.to_uppercase(),
        "../../etc/passwd",
    ] {
        client.id = Some(id.to_owned());
        for request in each_method(&client) {
            assert_error(&request.send(broker.addr()), 404, -32001);
        }
        let initialize = client.post(&client.initialize_message());
        assert_error(&initialize, 404, -32001);
    }
}

#[test]
fn an_ended_session_is_gone_where_that_is_wanted() {
    let broker = Broker::setup().options(&["--gone-status", "410"]).start();
    let session = broker.session();
    assert_eq!(session.delete().status, 204);
    for request in each_method(&session) {
        assert_error(&request.send(broker.addr()), 410, -32001);
    }
}

#[test]
fn a_session_of_somebody_else_is_forbidden() {
    let broker = Broker::setup().user("alice", &[]).user("bob", &[]).start();
    let alice = broker.user("alice").ready();
    let mut bob = broker.user("bob");
    bob.id = alice.id.clone();
    for request in each_method(&bob) {
        assert_error(&request.send(broker.addr()), 403, -32600);
    }
    assert_eq!(alice.post(&ping()).status, 200);
}

#[test]
fn two_tokens_are_two_principals_with_two_children() {
    let broker = Broker::setup().user("alice", &[]).user("bob", &[]).start();
    let (mut alice, mut bob) = (broker.user("alice").ready(), broker.user("bob").ready());
    assert_ne!(alice.child().0, bob.child().0);
    assert_eq!(bob.delete().status, 204);
    assert_eq!(alice.post(&ping()).status, 200);
}

#[test]
fn each_server_is_at_its_own_path() {
    let broker = Broker::setup().server("a", &[]).server("b", &[]).start();
    let mut a = broker.client().at("/mcp/a").ready();
    let mut b = broker.client().at("/mcp/b").ready();
    assert_ne!(a.child().0, b.child().0);
    // A session is known at its own server's path only.
    let stray = a.clone().at("/mcp/b");
    for request in each_method(&stray) {
        assert_error(&request.send(broker.addr()), 404, -32001);
    }
    assert_eq!(a.post(&ping()).status, 200);
    // Which one would `/mcp` be?
    for path in ["/mcp", "/mcp/c", "/mcp/", "/", "/mcp/a/b"] {
        let client = broker.client().at(path);
        assert_eq!(
            client.post(&client.initialize_message()).status,
            404,
            "{path}"
        );
    }
    let broker = Broker::setup().server("only", &[]).start();
    broker.client().at("/mcp/only").ready();
    broker.client().at("/mcp").ready();
}

#[test]
fn other_methods_are_not_allowed() {
    let broker = Broker::start(&[]);
    let check = |method: &str, path: &str, allow: &str| {
        let response = Request::new(method, path).send(broker.addr());
        assert_eq!(response.status, 405, "{method} {path}");
        assert_eq!(response.header("Allow"), Some(allow));
    };
    check("PUT", "/mcp", "GET, POST, DELETE, OPTIONS");
    check("PATCH", "/mcp", "GET, POST, DELETE, OPTIONS");
    check("HEAD", "/mcp", "GET, POST, DELETE, OPTIONS");
    check("POST", "/healthz", "GET");
}

#[test]
fn healthz_needs_no_token() {
    let broker = Broker::setup().user("alice", &[]).start();
    let response = Request::new("GET", "/healthz").send(broker.addr());
    assert_eq!(response.status, 200);
}
