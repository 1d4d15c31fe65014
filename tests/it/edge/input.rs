//! Heads that servers read in different ways, or choke on.

use serde_json::json;

use super::*;

fn line(line: &str) -> String {
    format!("{line}\r\nHost: localhost\r\n\r\n")
}

#[test]
fn input_bad_request_lines() {
    let target = Target::start();
    target.refuses(line("GET"), 400);
    target.refuses(line("GET /healthz"), 400);
    target.refuses(line("GET /healthz HTTP/1.1 junk"), 400);
    target.refuses(line("GET  /healthz HTTP/1.1"), 400);
    target.refuses(line(" GET /healthz HTTP/1.1"), 400);
    target.refuses(line("GET healthz HTTP/1.1"), 400);
    target.refuses(line("G\x01T /healthz HTTP/1.1"), 400);
    target.refuses(line("{\"jsonrpc\":\"2.0\"}"), 400);
    target.refuses(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", 400);
    target.serves(line("get /healthz HTTP/1.1"), 405);
    target.assert_unharmed();
}

#[test]
fn input_versions() {
    let target = Target::start();
    target.refuses(line("GET /healthz HTTP/1.2"), 505);
    target.refuses(line("GET /healthz HTTP/2.0"), 505);
    target.refuses(line("GET /healthz HTTP/0.9"), 505);
    target.refuses(line("GET /healthz http/1.1"), 400);
    target.refuses("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    target.refuses(line("GET /healthz"), 400);
    target.assert_unharmed();
}

#[test]
fn input_empty_lines_before_a_request() {
    let target = Target::start();
    target.serves(format!("\r\n{}", get("\r\n")), 200);
    target.refuses(format!("\n{}", get("\r\n")), 400);
    target.refuses(format!("\r\n\n{}", get("\r\n")), 400);
    target.assert_unharmed();
}

#[test]
fn input_bad_fields() {
    let target = Target::start();
    target.refuses(get("no colon\r\n\r\n"), 400);
    target.refuses(get("X : y\r\n\r\n"), 400);
    target.refuses(get(": y\r\n\r\n"), 400);
    target.refuses(get("X\x01: y\r\n\r\n"), 400);
    target.refuses(get("X: a\0b\r\n\r\n"), 400);
    target.refuses(get("X: a\rb\r\n\r\n"), 400);
    target.refuses(get("X: y\r\n folded\r\n\r\n"), 400);
    target.assert_unharmed();
}

#[test]
fn input_bare_line_feeds() {
    let target = Target::start();
    target.refuses("GET /healthz HTTP/1.1\nHost: localhost\n\n", 400);
    target.refuses(get("X: y\nZ: z\r\n\r\n"), 400);
    target.refuses(get("\n"), 400);
    target.assert_unharmed();
}

#[test]
fn input_bytes_outside_of_ascii() {
    let target = Target::start();
    // Legal, and of no interest to anybody here: it is dropped (RFC 9110 section 5.5).
    target.serves(get("X: ä\r\n\r\n"), 200);
    target.refuses(get("Origin: ä\r\n\r\n"), 400);
    target.refuses(get("Ä: x\r\n\r\n"), 400);
    target.refuses(line("GET /healthz?ä HTTP/1.1"), 400);
    target.refuses(b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400);
    target.assert_unharmed();
}

#[test]
fn input_host() {
    let target = Target::start();
    target.refuses("GET /healthz HTTP/1.1\r\n\r\n", 400);
    target.refuses(get("Host: localhost\r\n\r\n"), 400);
    target.serves("GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403);
    // `Connection` cannot take it away.
    target.refuses(get("Connection: Host\r\n\r\n"), 400);
    target.assert_unharmed();
}

#[test]
fn input_forms_of_the_target() {
    let target = Target::start();
    target.serves(line("GET http://localhost/healthz HTTP/1.1"), 200);
    target.serves(line("GET http://evil.example/healthz HTTP/1.1"), 403);
    target.serves(line("GET http:///healthz HTTP/1.1"), 403);
    target.serves(line("GET /healthz?http://evil.example/ HTTP/1.1"), 200);
    target.serves(line("GET //healthz HTTP/1.1"), 404);
    target.refuses(line("OPTIONS * HTTP/1.1"), 400);
    target.refuses(line("CONNECT localhost:80 HTTP/1.1"), 501);
    target.refuses(line("TRACE /healthz HTTP/1.1"), 501);
    target.assert_unharmed();
}

#[test]
fn input_expectations() {
    let target = Target::start();
    target.refuses(get("Expect: x\r\n\r\n"), 417);
    let mut connection = target.connect();
    connection.send_bytes(post("Expect: 100-continue\r\nContent-Length: 4\r\n\r\n").as_bytes());
    let (status, fields) = connection.head();
    assert_eq!((status, fields), (100, Vec::new()));
    connection.send_bytes(b"body");
    assert_eq!(connection.response().status, 405);
    drop(connection);
    // HTTP/1.0 knows no 100.
    let mut connection = target.connect();
    let old = b"POST /healthz HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                Content-Length: 4\r\n\r\nbody";
    connection.send_bytes(old);
    assert_eq!(connection.response().status, 405);
    // A body that is refused is not asked for.
    let mut connection = target.connect();
    let large = post("Expect: 100-continue\r\nContent-Length: 5000000\r\n\r\n");
    connection.send_bytes(large.as_bytes());
    assert_eq!(connection.response().status, 413);
    drop(connection);
    target.assert_unharmed();
}

#[test]
fn input_a_client_that_waits_for_100_and_may_not_ask() {
    let target = Target::locked();
    let mut connection = target.connect();
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                Content-Length: 2000\r\n\r\n";
    connection.send_bytes(head.as_bytes());
    assert_eq!(connection.head().0, 100);
    // It does not send the body yet; nobody waits for it.
    assert!(target.is_healthy());
    connection.send_bytes(&[b'x'; 2000]);
    assert_eq!(connection.response().status, 401);
    drop(connection);
    target.assert_unharmed();
}

#[test]
fn input_head_requests() {
    let target = Target::start();
    let mut connection = target.connect();
    for _ in 0..2 {
        connection.send(&Request::new("HEAD", "/healthz"));
        assert_eq!(connection.response().status, 405);
    }
    connection.send(&Request::new("GET", "/healthz"));
    assert_eq!(connection.response().text(), "ok\n");
    drop(connection);
    target.assert_unharmed();
}

#[test]
fn input_http_1_0() {
    let target = Target::start();
    let old = "GET /healthz HTTP/1.0\r\nHost: localhost\r\n";
    target.refuses(format!("{old}\r\n"), 200);
    target.refuses(format!("{old}Connection: keep-alive\r\n\r\n"), 200);
    target.assert_unharmed();
}

#[test]
fn input_response_after_close_is_never_cut_short() {
    let mut target = Target::start();
    let text = "x".repeat(300_000);
    for round in 0..50 {
        let call = target.session.call_message("echo", json!({ "text": text }));
        let body = call.to_string();
        let request = target.session.request("POST").header("Connection", "close");
        let head = String::from_utf8(request.bytes(target.broker.addr())).expect("a head");
        let head = head.replace("Content-Length: 0", "Transfer-Encoding: chunked");
        let mut connection = target.connect();
        connection.send_bytes(head.as_bytes());
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        connection.send_bytes(chunk.as_bytes());
        let response = connection.response();
        assert!(response.answer().to_string().contains(&text), "{round}");
        assert_eq!(connection.rest(), b"");
    }
    target.assert_unharmed();
}
