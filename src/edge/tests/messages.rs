//! What passes between the two sides, and in which order.

use super::*;

#[test]
fn passes_a_request_and_its_response() {
    let edge = Fixture::start();
    let mut client = edge.send(post("/echo?a=b", "X: y\r\nContent-Length: 4\r\n\r\nbody"));
    let expected = "POST /echo?a=b HTTP/1.1\r\nHost: h\r\nX: y\r\nContent-Length: 4\r\n\
                    Edge-Connection: 1\r\nEdge-Peer: 127.0.0.1\r\n\r\nbody";
    assert_eq!(client.response(), (200, expected.to_owned()));
}

#[test]
fn requests_of_a_connection_follow_each_other() {
    let edge = Fixture::start();
    let mut client = edge.connect();
    for no in 0..50 {
        let body = no.to_string();
        client.send(post(
            "/echo",
            &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        ));
        let (status, echo) = client.response();
        assert!(
            status == 200 && echo.ends_with(&format!("\r\n\r\n{body}")),
            "{echo}"
        );
    }
}

#[test]
fn pipelined_requests_are_served_one_after_the_other() {
    let edge = Fixture::start();
    let mut client = edge.connect();
    let gates: String = (1..=3)
        .map(|no| post(&format!("/gate?{no}"), "\r\n"))
        .collect();
    client.send(gates + &post("/echo", "Content-Length: 4\r\n\r\nlast"));
    for no in 1..=3 {
        assert_eq!(edge.arrived(), format!("/gate?{no}"));
        // The next one waits until this one is answered.
        assert!(edge.fake.arrived.recv_timeout(QUIET).is_err());
        edge.fake.release.send(()).unwrap();
    }
    for _ in 1..=3 {
        assert_eq!(client.response(), (200, "ok".to_owned()));
    }
    assert!(client.response().1.ends_with("\r\n\r\nlast"));
}

#[test]
fn one_empty_line_before_a_request_is_ignored() {
    let edge = Fixture::start();
    let mut client = edge.send(format!("\r\n{}", post("/ok", "\r\n")));
    assert_eq!(client.response().0, 200);
    client.send(format!("\r\n{}", post("/ok", "\r\n")));
    assert_eq!(client.response().0, 200);
}

#[test]
fn chunked_bodies_arrive_with_a_length() {
    let edge = Fixture::start();
    let head = post("/echo", "Transfer-Encoding: chunked\r\nTrailer: T\r\n\r\n");
    let body = "4;ext=\"1\"\r\nbody\r\n00a\r\n, and more\r\n0\r\nT: x\r\n\r\n";
    let expected = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 14\r\n\
                    Edge-Connection: 1\r\nEdge-Peer: 127.0.0.1\r\n\r\nbody, and more";
    let mut client = edge.send(format!("{head}{body}"));
    assert_eq!(client.response(), (200, expected.to_owned()));
    // The same on the same connection, byte by byte.
    for byte in format!("{head}{body}").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response(), (200, expected.to_owned()));
}

#[test]
fn what_follows_a_body_is_the_next_request() {
    let edge = Fixture::start();
    let chunked = post(
        "/ok",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    );
    let sized = post("/ok", "Content-Length: 1\r\n\r\nx");
    let mut client = edge.send(format!("{chunked}{sized}{}", post("/gate", "\r\n")));
    assert_eq!(client.response().0, 200);
    assert_eq!(client.response().0, 200);
    assert_eq!(
        [edge.arrived(), edge.arrived(), edge.arrived()],
        ["/ok", "/ok", "/gate"]
    );
    edge.fake.release.send(()).unwrap();
    assert_eq!(client.response().0, 200);
    assert!(edge.fake.arrived.try_recv().is_err());
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    let edge = Fixture::start();
    let expect = "Expect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut client = edge.send(post("/echo", expect));
    assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    let (status, echo) = client.response();
    assert!(status == 200 && echo.ends_with("\r\n\r\nbody") && !echo.contains("Expect"));
    client.send(post(
        "/echo",
        "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
    ));
    assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("4\r\nbody\r\n0\r\n\r\n");
    assert!(client.response().1.ends_with("\r\n\r\nbody"));
}

#[test]
fn a_client_that_does_not_wait_gets_no_100() {
    let edge = Fixture::start();
    let check = |request: String| {
        let mut client = edge.send(request);
        assert_eq!(status(&client.until("\r\n\r\n")), 200);
    };
    check(post(
        "/ok",
        "Expect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
    ));
    check(post("/ok", "Expect: 100-continue\r\n\r\n"));
    let old = "POST /ok HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut client = edge.send(old);
    assert!(client.is_quiet());
    client.send("body");
    assert_eq!(status(&client.until("\r\n\r\n")), 200);
}

#[test]
fn a_finished_stream_keeps_its_connection() {
    let edge = Fixture::start();
    let mut client = edge.connect();
    let expected = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n";
    for method in ["GET", "POST", "GET"] {
        client.send(request(method, "/chunks", "\r\n"));
        assert_eq!(client.take(expected.len()), expected);
    }
    client.send(post("/ok", "\r\n"));
    assert_eq!(client.response(), (200, "ok".to_owned()));
}

#[test]
fn http_1_0_gets_a_stream_without_chunks() {
    let edge = Fixture::start();
    let mut client = edge.send("GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let expected = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nonetwo";
    assert_eq!(client.rest(), expected);
}

#[test]
fn events_pass_at_once() {
    let edge = Fixture::start();
    let head = "HTTP/1.1 200 OK\r\n";
    let mut client = edge.send(request("GET", "/stream", "\r\n"));
    let expected = format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    assert_eq!(client.take(expected.len()), expected);
    let mut client = edge.send("GET /stream HTTP/1.0\r\n\r\n");
    let expected = format!("{head}Connection: close\r\n\r\none");
    assert_eq!(client.take(expected.len()), expected);
}

#[test]
fn a_response_to_head_has_no_body() {
    let edge = Fixture::start();
    let mut client = edge.connect();
    for _ in 0..2 {
        client.send(request("HEAD", "/head", "\r\n"));
        let expected = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(client.take(expected.len()), expected);
    }
    client.send(post("/ok", "\r\n"));
    assert_eq!(client.response().1, "ok");
}

#[test]
fn closes_when_asked_to() {
    let edge = Fixture::start();
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let mut client = edge.send(post("/ok", "Connection: close\r\n\r\n"));
    assert_eq!(client.rest(), ok);
    let mut client = edge.send("POST /ok HTTP/1.0\r\n\r\n");
    assert_eq!(client.rest(), ok);
    // What was sent after that is nobody's request.
    let mut client =
        edge.send(post("/ok", "Connection: close\r\n\r\n") + &post("/smuggled", "\r\n"));
    assert_eq!(client.rest(), ok);
    assert_eq!(
        ["/ok"; 3],
        [edge.arrived(), edge.arrived(), edge.arrived()]
            .each_ref()
            .map(|s| &**s)
    );
    assert!(edge.fake.arrived.try_recv().is_err());
}

#[test]
fn a_last_response_is_whole_whatever_else_was_sent() {
    let edge = Fixture::start();
    for _ in 0..20 {
        let surplus = "x".repeat(500_000);
        let mut client = edge.send(post("/bytes?100000", "Connection: close\r\n\r\n") + &surplus);
        assert_eq!(client.response().1.len(), 100_000);
        assert_eq!(client.rest(), "");
    }
}

#[test]
fn a_response_without_length_ends_with_its_connection() {
    let edge = Fixture::start();
    let mut client = edge.send(request("GET", "/until-close", "\r\n"));
    assert_eq!(
        client.rest(),
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall"
    );
}

#[test]
fn a_response_that_breaks_off_does_not_look_complete() {
    let edge = Fixture::start();
    let mut client = edge.send(request("GET", "/half", "\r\n"));
    assert_eq!(
        client.rest(),
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
    );
    let mut client = edge.send(request("GET", "/none", "\r\n"));
    assert_eq!(status(&client.rest()), 502);
}

#[test]
fn a_refusal_is_read_before_the_connection_ends() {
    let edge = Fixture::start();
    let check = |rest: &str, expected: u16| {
        // More than the edge has read when it refuses.
        let body = "x".repeat(500_000);
        let mut client = edge.send(post("/smuggled", &format!("{rest}\r\n\r\n{body}")));
        let answer = client.rest();
        assert_eq!(status(&answer), expected, "{rest}");
        assert!(answer.contains("\r\nConnection: close\r\n"));
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    };
    check("Content-Length: 500000", 413);
    check("Content-Length: 100000000000", 413);
    check("Content-Length: x", 400);
    check("Transfer-Encoding: chunked\r\n\r\n1f5\r\n", 400);
    check("Transfer-Encoding: chunked\r\n\r\n7a120", 413);
    check("Transfer-Encoding: gzip", 501);
    check("Expect: x", 417);
    assert!(edge.fake.arrived.try_recv().is_err());
}
