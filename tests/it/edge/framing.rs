//! Where a request ends (RFC 9112 section 6): one reading, or none. Behind each request that must
//! not be served stands another one, which must not be served either.

use serde_json::json;

use super::*;

#[test]
fn framing_content_length_twice() {
    let target = Target::start();
    target.refuses(
        post("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        400,
    );
    target.refuses(
        post("Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        400,
    );
    target.assert_unharmed();
}

#[test]
fn framing_content_length_is_no_number() {
    let target = Target::start();
    target.refuses(post("Content-Length: 3, 3\r\n\r\nabc"), 400);
    target.refuses(post("Content-Length: 0x3\r\n\r\nabc"), 400);
    target.refuses(post("Content-Length: -1\r\n\r\nabc"), 400);
    target.refuses(post("Content-Length: \r\n\r\nabc"), 400);
    target.refuses(
        post("Content-Length: 18446744073709551621\r\n\r\nabcde"),
        413,
    );
    target.refuses(post("Content-Length: +3\r\n\r\nabc"), 400);
    target.serves(post("Content-Length: 3\r\n\r\nabc"), 405);
    target.assert_unharmed();
}

#[test]
fn framing_content_length_beside_transfer_encoding() {
    let target = Target::start();
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    target.refuses(post(both), 400);
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n";
    target.refuses(post(both), 400);
    target.assert_unharmed();
}

/// tiny_http takes every value for `chunked`.
#[test]
fn cve_2026_66752_an_odd_transfer_encoding_never_reaches_tiny_http() {
    let target = Target::start();
    let codings = [
        "xchunked",
        "chunkedx",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, identity",
        "chunked, chunked",
        "\"chunked\"",
        "chunked;q=1",
        "",
    ];
    for coding in codings {
        target.refuses(
            post(&format!("Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n")),
            501,
        );
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n";
    target.refuses(post(twice), 400);
    target.refuses(post("Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"), 400);
    target.refuses(post("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), 400);
    // It cannot be made a field of this hop only.
    let nominated = "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    target.refuses(post(nominated), 400);
    target.assert_unharmed();
}

/// tiny_http leaves what a handler did not read to be the next request.
#[test]
fn cve_2026_66752_a_chunk_never_becomes_a_request() {
    let target = Target::start();
    let bait = target.bait();
    let chunk = format!("{:x}\r\n{bait}\r\n0\r\n\r\n", bait.len());
    target.serves(
        post(&format!("Transfer-Encoding: chunked\r\n\r\n{chunk}")),
        405,
    );
    let sized = format!("Content-Length: {}\r\n\r\n{bait}", bait.len());
    target.serves(post(&sized), 405);
    // The same with more than tiny_http reads ahead.
    let padded = format!("{}{bait}", "\r\n".repeat(5000));
    let sized = format!("Content-Length: {}\r\n\r\n{padded}", padded.len());
    target.serves(post(&sized), 405);
    target.assert_unharmed();
}

#[test]
fn cve_2026_66752_a_chunk_extension_never_becomes_a_request() {
    let target = Target::locked();
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1f; /healthz HTTP/1.1\r\n{}\r\n0\r\n\r\n", "x".repeat(31));
    target.serves(format!("{head}{chunk}"), 401);
    target.refuses(format!("{head}5;a\nb\r\nabcde\r\n0\r\n\r\n"), 400);
    target.refuses(format!("{head}5;a\rb\r\nabcde\r\n0\r\n\r\n"), 400);
    target.refuses(
        format!("{head}5;{}\r\nabcde\r\n0\r\n\r\n", "x".repeat(300)),
        400,
    );
    target.assert_unharmed();
}

#[test]
fn framing_transfer_encoding_in_http_1_0() {
    let target = Target::start();
    let old = "POST /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    target.refuses(old, 400);
    target.assert_unharmed();
}

#[test]
fn framing_folded_transfer_encoding() {
    let target = Target::start();
    target.refuses(
        post("X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        400,
    );
    target.refuses(
        post("X: y\r\n\tTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        400,
    );
    target.refuses(post("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"), 400);
    target.assert_unharmed();
}

#[test]
fn framing_chunk_sizes_extensions_and_trailers() {
    let target = Target::start();
    let chunked = |body: &str| post(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"));
    target.refuses(chunked("+3\r\nabc\r\n0\r\n\r\n"), 400);
    target.refuses(chunked("0x3\r\nabc\r\n0\r\n\r\n"), 400);
    target.refuses(chunked("-3\r\nabc\r\n0\r\n\r\n"), 400);
    target.refuses(chunked("\r\nabc\r\n0\r\n\r\n"), 400);
    target.refuses(chunked("ffffffffffffffff\r\nabc\r\n0\r\n\r\n"), 400);
    target.refuses(chunked("10000000000000003\r\nabc\r\n0\r\n\r\n"), 400);
    target.refuses(chunked("7fffffffffffff\r\nabc"), 413);
    target.refuses(chunked("3\nabc\r\n0\r\n\r\n"), 400);
    target.serves(chunked("3;ext=\"0\"\r\nabc\r\n0\r\n\r\n"), 405);
    target.serves(chunked("3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"), 405);
    let trailer = "X: GET /healthz HTTP/1.1\r\nContent-Length: 100\r\nHost: localhost";
    target.serves(chunked(&format!("0\r\n{trailer}\r\n\r\n")), 405);
    target.assert_unharmed();
}

#[test]
fn framing_bytes_after_a_bad_chunk() {
    let target = Target::start();
    let chunked = |body: &str| post(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"));
    target.refuses(chunked("3\r\nabcd\r\n0\r\n\r\n"), 400);
    target.refuses(chunked("x\r\n"), 400);
    target.refuses(chunked("3\r\nabc"), 400);
    target.refuses(chunked("5\r\nabcde\r\n"), 400);
    target.assert_unharmed();
}

#[test]
fn framing_bytes_after_a_refusal_are_nobodys_request() {
    let target = Target::start();
    // All in one packet, and more than is read at once.
    let tail = target.bait().repeat(200);
    for (head, status) in [
        (post("Content-Length: 5000000\r\n\r\n"), 413),
        (post("Content-Length: x\r\n\r\n"), 400),
        (post("Expect: x\r\n\r\n"), 417),
        (post("Transfer-Encoding: x\r\n\r\n"), 501),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
    ] {
        assert_eq!(target.statuses(head + &tail), [status]);
    }
    target.assert_unharmed();
}

#[test]
fn framing_truncated_bodies_are_not_served() {
    let target = Target::start();
    let initialize = target.broker.client().initialize_message().to_string();
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Accept: application/json, text/event-stream\r\n";
    let long = format!("{initialize}{}", " ".repeat(2000));
    let len = initialize.len();
    for bytes in [
        format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{initialize}",
            len + 1
        ),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{initialize}\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{initialize}\r\n0\r\n"),
        format!("{head}Content-Length: {}\r\n\r\n{initialize}", len + 1),
        format!("{head}Content-Length: {}\r\n\r\n{long}", long.len() + 1),
    ] {
        let mut connection = target.connect();
        connection.send_bytes(bytes.as_bytes());
        connection.shut_write();
        assert_eq!(connection.rest(), b"", "{bytes}");
    }
    // The one child is the session's.
    assert_eq!(target.broker.children().len(), 1);
    target.assert_unharmed();
}

#[test]
fn framing_offer_of_an_upgrade() {
    let target = Target::start();
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                 HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 5\r\n\r\nhello";
    target.serves(post(offer), 405);
    // With a body that has to be read.
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let request = target.session.request("POST").body(ping.to_string());
    let request = request
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAAQAAP__");
    assert_eq!(request.send(target.broker.addr()).status, 200);
    target.assert_unharmed();
}
