//! What passes for a head and what does not: one row, one case. The rows are those inputs that
//! servers are known to read differently (RFC 9112 section 11).

use super::*;

const MAX_BODY: usize = 1000;

fn status(refusal: Refusal) -> u16 {
    let response = String::from_utf8(refusal.response()).unwrap();
    response["HTTP/1.1 ".len()..][..3].parse().unwrap()
}

/// Scans and parses, as a connection does.
fn read(bytes: &[u8]) -> Result<Head, u16> {
    match scan(bytes, 0).map_err(status)? {
        Scan::Complete(len) => parse(&bytes[..len], MAX_BODY).map_err(status),
        Scan::Incomplete => panic!("incomplete: {:?}", bytes.escape_ascii().to_string()),
    }
}

/// A POST with these field lines beside `Host`.
fn post(fields: &[u8]) -> Result<Head, u16> {
    let head = [b"POST /p HTTP/1.1\r\nHost: h\r\n", fields, b"\r\n\r\n"];
    read(&head.concat())
}

fn request_line(line: &[u8]) -> Result<Head, u16> {
    read(&[line, b"\r\nHost: h\r\n\r\n"].concat())
}

fn sender(connection: u64) -> Sender {
    Sender {
        connection,
        door: Door::Public,
        peer: None,
    }
}

/// What tiny_http gets.
fn forwarded(mut head: Head) -> String {
    String::from_utf8(head.complete(0, &sender(7))).unwrap()
}

#[test]
fn framing() {
    let check = |fields: &str, expected: Result<Framing, u16>| {
        let framing = post(fields.as_bytes()).map(|head| head.framing);
        assert_eq!(framing, expected, "{fields:?}");
    };
    let length = |len| Ok(Framing::Length(len));
    check("X: y", length(0));
    check("Content-Length: 0", length(0));
    check("Content-Length: 3", length(3));
    check("content-length:3", length(3));
    check("Content-Length: \t 3 \t ", length(3));
    check("Content-Length: 0003", length(3));
    check("Content-Length: 1000", length(1000));
    check("Content-Length: 1001", Err(413));
    check("Content-Length: 100000000000", Err(413));
    check("Content-Length: 1000000000000000", Err(413));
    check("Content-Length: 9223372036854775807", Err(413));
    check("Content-Length: 18446744073709551615", Err(413));
    check("Content-Length: 18446744073709551621", Err(413));
    check("Content-Length: 3\r\nContent-Length: 4", Err(400));
    check("Content-Length: 3\r\nContent-Length: 3", Err(400));
    check("Content-Length: 3\r\ncontent-length: 3", Err(400));
    check("Content-Length: 3, 3", Err(400));
    check("Content-Length: 3 3", Err(400));
    check("Content-Length: 0x3", Err(400));
    check("Content-Length: +3", Err(400));
    check("Content-Length: -1", Err(400));
    check("Content-Length: 3.0", Err(400));
    check("Content-Length: ", Err(400));
    check("Content-Length:", Err(400));
    check("Content-Length: a", Err(400));
    check("Content-Length: 3\r\nTransfer-Encoding: chunked", Err(400));
    check("Transfer-Encoding: chunked\r\nContent-Length: 3", Err(400));
    check("Transfer-Encoding: x\r\nContent-Length: 3", Err(400));
    check("Transfer-Encoding: chunked", Ok(Framing::Chunked));
    check("transfer-encoding:CHUNKED", Ok(Framing::Chunked));
    check("Transfer-Encoding: \t chunked ", Ok(Framing::Chunked));
    check("Transfer-Encoding: xchunked", Err(501));
    check("Transfer-Encoding: chunkedx", Err(501));
    check("Transfer-Encoding: identity", Err(501));
    check("Transfer-Encoding: gzip, chunked", Err(501));
    check("Transfer-Encoding: chunked, identity", Err(501));
    check("Transfer-Encoding: chunked, chunked", Err(501));
    check("Transfer-Encoding: chunked;q=1", Err(501));
    check("Transfer-Encoding: \"chunked\"", Err(501));
    check("Transfer-Encoding: ,chunked", Err(501));
    check("Transfer-Encoding: ", Err(501));
    let two = "Transfer-Encoding: chunked\r\nTransfer-Encoding: ";
    check(&format!("{two}chunked"), Err(400));
    check(&format!("{two}identity"), Err(400));
    check("X: y\r\n Transfer-Encoding: chunked", Err(400));
    check("Transfer-Encoding:\r\n chunked", Err(400));
    check("Transfer-Encoding : chunked", Err(400));
    check("Content-Length : 3", Err(400));
    // Another field, to everybody who reads it after us as well.
    check("Transfer_Encoding: chunked", length(0));
    check("Content-Length-: 3", length(0));
}

#[test]
fn framing_of_http_1_0() {
    let check = |fields: &str, expected: Result<Framing, u16>| {
        let head = format!("POST /p HTTP/1.0\r\n{fields}\r\n\r\n");
        let framing = read(head.as_bytes()).map(|head| head.framing);
        assert_eq!(framing, expected, "{fields:?}");
    };
    check("Content-Length: 3", Ok(Framing::Length(3)));
    check("X: y", Ok(Framing::Length(0)));
    check("Transfer-Encoding: chunked", Err(400));
    check("Transfer-Encoding: identity", Err(400));
    check("Transfer-Encoding: chunked\r\nContent-Length: 3", Err(400));
}

#[test]
fn request_lines() {
    let check = |line: &[u8], expected: Result<(), u16>| {
        let result = request_line(line).map(|_| ());
        assert_eq!(result, expected, "{}", line.escape_ascii());
    };
    check(b"GET / HTTP/1.1", Ok(()));
    check(b"GET / HTTP/1.0", Ok(()));
    check(b"M-SEARCH / HTTP/1.1", Ok(()));
    check(b"get / HTTP/1.1", Ok(()));
    check(b"GET / HTTP/1.2", Err(505));
    check(b"GET / HTTP/2.0", Err(505));
    check(b"GET / HTTP/3.0", Err(505));
    check(b"GET / HTTP/0.9", Err(505));
    check(b"GET / HTTP/9.9", Err(505));
    check(b"PRI * HTTP/2.0", Err(505));
    check(b"GET / HTTP/2", Err(400));
    check(b"GET / HTTP/11.1", Err(400));
    check(b"GET / HTTP/1.10", Err(400));
    check(b"GET / http/1.1", Err(400));
    check(b"GET / HTTPS/1.1", Err(400));
    check(b"GET /", Err(400));
    check(b"GET / ", Err(400));
    check(b"GET", Err(400));
    check(b"GET HTTP/1.1", Err(400));
    check(b"GET / HTTP/1.1 ", Err(400));
    check(b"GET / HTTP/1.1 junk", Err(400));
    check(b"GET / x HTTP/1.1", Err(400));
    check(b"GET  / HTTP/1.1", Err(400));
    check(b"GET /  HTTP/1.1", Err(400));
    check(b"GET\t/ HTTP/1.1", Err(400));
    check(b" GET / HTTP/1.1", Err(400));
    check(b"\tGET / HTTP/1.1", Err(400));
    check(b"/ HTTP/1.1", Err(400));
    check(b"\x16\x03\x01\x02\x00\x01", Err(400)); // a TLS handshake
    check(b"G\x01ET / HTTP/1.1", Err(400));
    check(b"G(T / HTTP/1.1", Err(400));
    check(b"GE\xcc / HTTP/1.1", Err(400));
    check(b"GET /\x00 HTTP/1.1", Err(400));
    check(b"GET /\x7f HTTP/1.1", Err(400));
    check(b"GET /\xc3\xa4 HTTP/1.1", Err(400));
    check(b"GET /\rx HTTP/1.1", Err(400));
    check(b"GET /\r HTTP/1.1", Err(400));
    check(b"GET /\n HTTP/1.1", Err(400));
    check(b"GET x HTTP/1.1", Err(400));
    check(b"GET ?x HTTP/1.1", Err(400));
    check(b"OPTIONS * HTTP/1.1", Err(400));
    check(b"GET ftp://h/ HTTP/1.1", Err(400));
    check(b"GET ://h/ HTTP/1.1", Err(400));
    check(b"CONNECT h:443 HTTP/1.1", Err(501));
    check(b"TRACE / HTTP/1.1", Err(501));
}

#[test]
fn targets() {
    let check = |target: &str, path: &str, host: &str| {
        let head = request_line(format!("GET {target} HTTP/1.1").as_bytes()).unwrap();
        let expected = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        assert!(forwarded(head).starts_with(&expected), "{target}");
    };
    check("/", "/", "h");
    check("/a?b=c", "/a?b=c", "h");
    check("//a", "//a", "h");
    check("/a://b", "/a://b", "h");
    check("http://o/a", "/a", "o");
    check("HTTP://o:80/a?b", "/a?b", "o:80");
    check("https://o", "/", "o");
    check("http://h@o/a", "/a", "h@o");
    check("http:///a", "/a", "");
}

#[test]
fn fields() {
    let check = |fields: &[u8], expected: Result<(), u16>| {
        let result = post(fields).map(|_| ());
        assert_eq!(result, expected, "{}", fields.escape_ascii());
    };
    check(b"X: y", Ok(()));
    check(b"X:", Ok(()));
    check(b"X: a\tb", Ok(()));
    check(b"X: :", Ok(()));
    check(b"Cookie: a\r\nCookie: b", Ok(()));
    check(b"X", Err(400));
    check(b"X y", Err(400));
    check(b": y", Err(400));
    check(b":", Err(400));
    check(b"X : y", Err(400));
    check(b"X\t: y", Err(400));
    check(b" X: y", Err(400));
    check(b"X: y\r\n z", Err(400));
    check(b"X: y\r\n\tz", Err(400));
    check(b"X: y\nZ: z", Err(400));
    check(b"X: y\rZ: z", Err(400));
    check(b"X: y\r\r\nZ: z", Err(400));
    check(b"X: \r", Err(400));
    check(b"X: a\x00b", Err(400));
    check(b"X: a\x0bb", Err(400));
    check(b"X: a\x7fb", Err(400));
    check(b"X: \xc3\xa4", Ok(()));
    check(b"Origin: \xc3\xa4", Err(400));
    check(b"Authorization: \xc3\xa4", Err(400));
    check(b"Connection: Origin\r\nOrigin: http://o", Err(400));
    check(b"X: \xa0", Ok(()));
    check(b"X\x00: y", Err(400));
    check(b"X\xc3\xa4: y", Err(400));
    check(b"X(: y", Err(400));
    check(b"Host: h", Err(400));
    check(b"host: other", Err(400));
    check(b"Expect: 100-continue", Ok(()));
    check(b"expect: 100-CONTINUE", Ok(()));
    check(b"Expect: 200-ok", Err(417));
    check(b"Expect: 100-continue, x", Err(417));
    check(b"Expect:", Err(417));
}

#[test]
fn host_is_needed_since_http_1_1() {
    let read = |head: &[u8]| read(head).map(|_| ());
    assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n"), Err(400));
    assert_eq!(read(b"GET / HTTP/1.1\r\nX-Host: h\r\n\r\n"), Err(400));
    assert_eq!(read(b"GET http://h/ HTTP/1.1\r\n\r\n"), Err(400));
    assert_eq!(read(b"GET / HTTP/1.0\r\n\r\n"), Ok(()));
    assert_eq!(read(b"GET / HTTP/1.1\r\nHost:\r\n\r\n"), Ok(()));
}

#[test]
fn limits() {
    let line = |len: usize| {
        let path = "a".repeat(len - "GET / HTTP/1.1\r\n".len());
        format!("GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n")
    };
    let field = |len: usize| {
        let start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
        format!("{start}{}\r\n\r\n", "a".repeat(len - start.len() - 4))
    };
    let fields = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
            "X: y\r\n".repeat(count - 1)
        )
    };
    let check = |head: String, expected: Result<(), u16>| {
        assert_eq!(read(head.as_bytes()).map(|_| ()), expected);
        // The same when it comes in small pieces, and no later than it must.
        let mut seen = 0;
        let piecewise = loop {
            let end = (seen + 64).min(head.len());
            match scan(&head.as_bytes()[..end], seen) {
                Ok(Scan::Incomplete) => seen = end,
                Ok(Scan::Complete(len)) => {
                    break parse(&head.as_bytes()[..len], MAX_BODY).map(|_| ());
                }
                Err(refusal) => break Err(refusal),
            }
        };
        assert_eq!(piecewise.map_err(status), expected);
    };
    check(line(REQUEST_LINE_MAX_BYTES), Ok(()));
    check(line(REQUEST_LINE_MAX_BYTES + 1), Err(414));
    check(line(REQUEST_LINE_MAX_BYTES + 100), Err(414));
    check(field(HEAD_MAX_BYTES), Ok(()));
    check(field(HEAD_MAX_BYTES + 1), Err(431));
    check(field(HEAD_MAX_BYTES + 100), Err(431));
    check(fields(FIELDS_MAX), Ok(()));
    check(fields(FIELDS_MAX + 1), Err(431));
    check(fields(1000), Err(431));
}

#[test]
fn an_endless_head_is_refused_before_its_end() {
    let check = |head: &[u8], expected| {
        let endless = [head, &vec![b'a'; HEAD_MAX_BYTES]].concat();
        let refused = (1..endless.len()).find_map(|len| scan(&endless[..len], len - 1).err());
        assert_eq!(refused.map(status), Some(expected));
    };
    check(b"", 414);
    check(b"GET /", 414);
    check(b"GET / HTTP/1.1\r\nX: ", 431);
    check(b"GET / HTTP/1.1\r\nX: y\r\nHost: h\r\n", 431);
}

#[test]
fn a_head_is_found_wherever_reads_end() {
    let head = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let stream = [head.as_slice(), b"GET /next HTTP/1.1\r\n\r\n"].concat();
    for seen in 0..head.len() {
        assert_eq!(scan(&stream[..seen], 0), Ok(Scan::Incomplete), "{seen}");
        assert_eq!(
            scan(&stream, seen),
            Ok(Scan::Complete(head.len())),
            "{seen}"
        );
    }
}

#[test]
fn what_no_head_can_have_is_refused_at_once() {
    let check = |bytes: &[u8], refused: bool| {
        assert_eq!(scan(bytes, 0).is_err(), refused, "{}", bytes.escape_ascii());
    };
    check(b"", false);
    check(b"G", false);
    check(b"GET / HTTP/1.1\r", false);
    check(b" ", true);
    check(b"\r", false);
    check(b"\rG", true);
    check(b"\n", true);
    check(b"\0", true);
    check(b"\x16", true);
    check(b"{", true);
    check(b"GET / HTTP/1.1\n", true);
    check(b"GET / HTTP/1.1\r\nHost: h\n", true);
}

#[test]
fn drops_what_concerns_one_hop() {
    let check = |field: &str| {
        let head = post(format!("X: 1\r\n{field}\r\nZ: 2").as_bytes()).unwrap();
        let expected = "POST /p HTTP/1.1\r\nHost: h\r\nX: 1\r\nZ: 2\r\nContent-Length: 0\r\n\
                        Edge-Connection: 7\r\n\r\n";
        assert_eq!(forwarded(head), expected, "{field}");
    };
    check("Connection: keep-alive");
    check("CONNECTION: close");
    check("Keep-Alive: timeout=5");
    check("Proxy-Connection: keep-alive");
    check("Proxy-Authorization: Basic eA==");
    check("Transfer-Encoding: chunked");
    check("Content-Length: 9");
    check("Trailer: Y");
    check("TE: trailers");
    check(&format!("TE: {}q;q=NaN", "a;q=NaN,".repeat(60)));
    check("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings");
    check("Upgrade: websocket\r\nConnection: Upgrade");
    check("Expect: 100-continue");
    check("X-Forwarded-For: 10.0.0.1");
    check("Connection: y\r\nY: 1");
    check("Y: 1\r\nConnection: close, y");
    check("Y: 1\r\nW: 2\r\nConnection: ,\ty ,,W");
    check("Y: 1\r\nW: 2\r\nConnection: y\r\nConnection: w");
}

#[test]
fn no_client_can_send_a_field_of_ours() {
    let check = |field: &str| {
        let mut head = post(field.as_bytes()).unwrap();
        let peer = Some("10.0.0.9".parse().unwrap());
        let expected = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\
                        Edge-Connection: 7\r\nEdge-Peer: 10.0.0.9\r\n\r\n";
        let forwarded = String::from_utf8(head.complete(5, &Sender { peer, ..sender(7) })).unwrap();
        assert_eq!(forwarded, expected, "{field}");
    };
    check("Edge-Connection: 1");
    check("edge-connection: 1\r\nEDGE-CONNECTION: 2");
    check("Edge-Peer: 1.2.3.4");
    check("eDgE-pEeR:1.2.3.4");
    check("Edge-: x");
    check("Edge-Anything: x");
    check("Connection: Edge-Connection, Edge-Peer");
}

#[test]
fn other_fields_pass_as_they_are() {
    let fields = "Authorization: Bearer x\r\nmcp-session-id: 1\r\nEdge: 1\r\nX-Edge-Peer: 1\r\n\
                  Accept: a\r\nAccept: b\r\nE: ";
    let head = post(fields.as_bytes()).unwrap();
    let expected = format!(
        "POST /p HTTP/1.1\r\nHost: h\r\n{fields}\r\nContent-Length: 0\r\nEdge-Connection: 7\r\n\r\n"
    );
    assert_eq!(forwarded(head), expected);
}

#[test]
fn keeps_connections_alive() {
    let check = |version: &str, field: &str, expected: bool| {
        let head = format!("POST / HTTP/{version}\r\nHost: h\r\n{field}\r\n\r\n");
        let head = read(head.as_bytes()).unwrap();
        assert_eq!(head.keep_alive, expected, "{version} {field}");
        assert_eq!(head.is_http_10, version == "1.0");
    };
    check("1.1", "X: y", true);
    check("1.1", "Connection: keep-alive", true);
    check("1.1", "Connection: close", false);
    check("1.1", "Connection: keep-alive, CLOSE", false);
    check("1.1", "Connection: x\r\nConnection: close", false);
    check("1.1", "Connection: disclose", true);
    check("1.0", "X: y", false);
    check("1.0", "Connection: keep-alive", false);
}

#[test]
fn expects_continue_since_http_1_1() {
    let check = |version: &str, expected: bool| {
        let head = format!("POST / HTTP/{version}\r\nHost: h\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(read(head.as_bytes()).unwrap().expects_continue, expected);
    };
    check("1.1", true);
    check("1.0", false);
}

#[test]
fn the_peer_is_the_nearest_hop_that_is_not_trusted() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let trusted = [ip("127.0.0.1"), ip("10.0.0.1"), ip("::1")];
    let check = |hop: Option<&str>, fields: &str, expected: Option<&str>| {
        let head = post(format!("X: y\r\n{fields}").trim_end().as_bytes()).unwrap();
        let peer = head.peer(hop.map(ip), &trusted);
        assert_eq!(peer, expected.map(ip), "{hop:?} {fields:?}");
    };
    let xff = |value: &str| format!("X-Forwarded-For: {value}");
    check(Some("9.9.9.9"), "", Some("9.9.9.9"));
    check(Some("9.9.9.9"), &xff("1.1.1.1"), Some("9.9.9.9"));
    check(Some("127.0.0.2"), &xff("1.1.1.1"), Some("127.0.0.2"));
    check(Some("127.0.0.1"), "", Some("127.0.0.1"));
    check(Some("127.0.0.1"), &xff("1.1.1.1"), Some("1.1.1.1"));
    check(Some("::ffff:127.0.0.1"), &xff("1.1.1.1"), Some("1.1.1.1"));
    check(Some("::1"), &xff("2001:db8::1"), Some("2001:db8::1"));
    check(Some("127.0.0.1"), &xff("1.1.1.1, 2.2.2.2"), Some("2.2.2.2"));
    check(Some("127.0.0.1"), &xff("1.1.1.1,10.0.0.1"), Some("1.1.1.1"));
    check(
        Some("127.0.0.1"),
        &xff("1.1.1.1, ::ffff:10.0.0.1"),
        Some("1.1.1.1"),
    );
    check(Some("127.0.0.1"), &xff("10.0.0.1"), Some("127.0.0.1"));
    check(Some("127.0.0.1"), &xff(""), Some("127.0.0.1"));
    check(Some("127.0.0.1"), &xff("unknown"), Some("127.0.0.1"));
    // Who stands before something unreadable may be anybody's invention.
    check(
        Some("127.0.0.1"),
        &xff("1.1.1.1, unknown"),
        Some("127.0.0.1"),
    );
    check(
        Some("127.0.0.1"),
        &xff("1.1.1.1, unknown, 2.2.2.2"),
        Some("2.2.2.2"),
    );
    let two_fields = format!("{}\r\n{}", xff("1.1.1.1"), xff("2.2.2.2"));
    check(Some("127.0.0.1"), &two_fields, Some("2.2.2.2"));
    check(None, "", None);
    check(None, &xff("1.1.1.1"), Some("1.1.1.1"));
}

#[test]
fn empty_lines_before_a_request_are_skipped_wherever_reads_end() {
    let check = |bytes: &[u8], left: &[u8]| {
        let mut buffer = bytes.to_vec();
        skip_empty_lines(&mut buffer);
        assert_eq!(buffer, left);
    };
    check(b"\r\n\r\nGET", b"GET");
    check(b"\r\n\r", b"\r");
    check(b"GET\r\n", b"GET\r\n");
}
