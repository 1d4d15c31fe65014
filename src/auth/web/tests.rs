//! Tests of outgoing requests, against small servers on the loopback interface.

pub(in crate::auth) mod fake;

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use parking_lot::Mutex;

use super::*;
use fake::{Asked, Fake, drip, json, read, reply};

/// Short enough for tests that wait for it, long enough for a busy machine.
const SHORT: Duration = Duration::from_millis(400);
/// Within this a request is over that takes `SHORT` at most.
const SOON: Duration = Duration::from_secs(8);

fn web() -> Web {
    Web::with_proxy(None, TIMEOUT, None).unwrap()
}

fn hasty() -> Web {
    Web::with_proxy(None, SHORT, None).unwrap()
}

/// A server that says `{}` and passes on what it was asked.
fn echo() -> (Fake, mpsc::Receiver<Asked>) {
    let (sender, asked) = mpsc::channel();
    let sender = Mutex::new(sender);
    let server = Fake::tcp(move |mut stream| {
        if let Some(asked) = read(&stream) {
            let _ = sender.lock().send(asked);
            let _ = stream.write_all(json("200 OK", "{}").as_bytes());
        }
    });
    (server, asked)
}

fn file(name: &str, text: &str) -> PathBuf {
    let name = format!("mcp-broker-web-{}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_get_says_who_asks_and_for_what() {
    let (server, asked) = echo();
    let answer = web()
        .get_json(&server.url("/a?b=c"), Some("tok3n"))
        .unwrap();
    assert_eq!((answer.status, &*answer.body), (200, "{}"));
    let asked = asked.recv_timeout(SOON).unwrap();
    assert_eq!(asked.line, "GET /a?b=c");
    let agent = format!("user-agent: mcp-broker/{}\n", env!("CARGO_PKG_VERSION"));
    assert!(asked.head.contains(&agent), "{}", asked.head);
    for field in [
        "authorization: Bearer tok3n\n",
        "accept: application/json\n",
    ] {
        assert!(asked.head.contains(field), "{}", asked.head);
    }
    assert!(!asked.head.contains("cookie") && !asked.head.contains("accept-encoding"));
}

#[test]
fn a_form_and_its_client_are_encoded() {
    let (server, asked) = echo();
    let form = [("code", "a b&c=d+é"), ("x", "")];
    let basic = Some(("my client", "p:a+s%s é"));
    web()
        .post_form(&server.url("/token"), &form, basic)
        .unwrap();
    let asked = asked.recv_timeout(SOON).unwrap();
    assert_eq!(asked.line, "POST /token");
    assert_eq!(asked.body, "code=a+b%26c%3Dd%2B%C3%A9&x=");
    let kind = "content-type: application/x-www-form-urlencoded\n";
    assert!(asked.head.contains(kind), "{}", asked.head);
    let pair = BASE64_STANDARD.encode("my+client:p%3Aa%2Bs%25s+%C3%A9");
    let basic = format!("authorization: Basic {pair}\n");
    assert!(asked.head.contains(&basic), "{}", asked.head);
}

#[test]
fn statuses_are_answers() {
    for (line, status) in [
        ("200 OK", 200),
        ("400 Bad Request", 400),
        ("401 Unauthorized", 401),
        ("429 Too Many Requests", 429),
        ("500 Internal Server Error", 500),
    ] {
        let server = Fake::http(move |_| json(line, "{\"a\":1}"));
        let answer = web().post_form(&server.url("/"), &[], None).unwrap();
        assert_eq!((answer.status, &*answer.body), (status, "{\"a\":1}"));
    }
}

#[test]
fn what_is_no_answer_is_an_error() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for (name, response, error) in [
        (
            "redirect",
            reply("302 Found", "Location: /b\r\n", ""),
            "a redirect",
        ),
        (
            "kept method",
            reply("307 -", "Location: /b\r\n", ""),
            "a redirect",
        ),
        (
            "large",
            reply("200 OK", "", &"x".repeat((1 << 20) + 1)),
            "too large",
        ),
        (
            "endless",
            format!("{chunked}{}", chunk.repeat(300)),
            "too large",
        ),
        (
            "large head",
            reply("200 OK", &format!("A: {}\r\n", "x".repeat(40_000)), ""),
            "too large",
        ),
        (
            "garbage",
            "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(),
            "cannot be reached",
        ),
        ("nothing", String::new(), "cannot be reached"),
        (
            "half",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".to_owned(),
            "cannot be reached",
        ),
    ] {
        let server = Fake::http(move |_| response.clone());
        let url = server.url("/path?secret=query");
        let failed = web().get_json(&url, None).unwrap_err().to_string();
        assert!(failed.contains(error), "{name}: {failed}");
        assert!(
            failed.starts_with(&server.url("/path: ")),
            "{name}: {failed}"
        );
        assert_eq!(server.accepted(), 1, "{name}");
    }
}

#[test]
fn an_answer_of_a_mebibyte_is_not_too_large() {
    let server = Fake::http(|_| reply("200 OK", "", &"x".repeat(1 << 20)));
    let answer = web().get_json(&server.url("/"), None).unwrap();
    assert_eq!(answer.body.len(), 1 << 20);
}

#[test]
fn an_answer_that_is_not_text_is_an_error() {
    let server = Fake::tcp(|mut stream| {
        let _ = read(&stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe");
    });
    let failed = web().get_json(&server.url("/"), None).unwrap_err();
    assert!(matches!(failed, WebError::Content { .. }), "{failed}");
}

#[test]
fn the_time_of_an_exchange_is_limited_as_a_whole() {
    let silent = Fake::tcp(|stream| drop((read(&stream), read(&stream))));
    let dripping = Fake::tcp(drip);
    for server in [&silent, &dripping] {
        let started = Instant::now();
        let failed = hasty().get_json(&server.url("/slow"), None).unwrap_err();
        assert!(matches!(failed, WebError::Timeout { .. }), "{failed}");
        assert!(started.elapsed() >= SHORT && started.elapsed() < SOON);
    }
}

#[test]
fn nobody_there_is_an_error_that_says_so() {
    let url = Fake::http(|_| String::new()).url("/gone");
    let failed = web().get_json(&url, None).unwrap_err();
    assert!(matches!(failed, WebError::Unreachable { .. }), "{failed}");
}

#[test]
fn a_server_without_tls_is_not_trusted() {
    let server = Fake::tcp(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let url = format!("https://{}/", server.address);
    let failed = web().get_json(&url, None).unwrap_err();
    assert!(matches!(failed, WebError::Tls { .. }), "{failed}");
    assert!(failed.to_string().contains("ca_file"), "{failed}");
}

#[test]
fn only_https_and_this_machine_are_asked() {
    for url in [
        "",
        "not a url",
        "/path",
        "example.org/path",
        "http://example.org/",
        "http://127.0.0.1.example.org/",
        "http://192.168.0.1/",
        "http://localhost.example.org/",
        "ftp://localhost/",
        "file:///etc/passwd",
        "https:///path",
        "https://user@example.org/",
        "https://user:secret@example.org/",
        "https://example.org/#fragment",
        "https://example.org/a/../b",
        "https://example.org/a/%2E%2e/b",
        "https://example.org:99999/",
        "https://example.org\\@evil.example/",
        "https://exa mple.org/",
        "https://example.org/\r\nX: y",
    ] {
        let failed = web().get_json(url, Some("secret")).unwrap_err();
        assert!(matches!(failed, WebError::Url { .. }), "{url:?}: {failed}");
        assert!(Web::check(url).is_err(), "{url:?}");
    }
    for url in [
        "https://example.org",
        "HTTPS://EXAMPLE.ORG/a/..b/.well-known?c",
        "https://[2001:db8::1]:8443/",
        "http://localhost:3000/",
        "http://LOCALHOST/",
        "http://127.0.0.2/",
        "http://[::1]:3000/",
    ] {
        assert!(Web::check(url).is_ok(), "{url:?}");
    }
}

#[test]
fn no_error_holds_a_secret() {
    let secrets = [
        "s3cret-query",
        "s3cret-token",
        "s3cret-form",
        "s3cret-client",
    ];
    let over = |url: &str| {
        let form = [("refresh_token", secrets[2])];
        let basic = Some(("client", secrets[3]));
        [
            hasty().get_json(url, Some(secrets[1])).unwrap_err(),
            hasty()
                .get_json(url, Some("s3cret-token\r\nX: y"))
                .unwrap_err(),
            hasty().post_form(url, &form, basic).unwrap_err(),
        ]
    };
    let moved = Fake::http(|asked| {
        let place = format!("Location: /x?{}\r\n", asked.body);
        reply("302 Found", &place, &asked.head)
    });
    let echo = Fake::http(|asked| format!("{}\r\n{}\r\n\r\n", asked.head, asked.body));
    let gone = Fake::http(|_| String::new()).url("/a?b=s3cret-query");
    for url in [
        &moved.url("/a?b=s3cret-query"),
        &echo.url("/a?b=s3cret-query"),
        &gone,
        "https://user:s3cret-client@example.org/",
        "https://s3cret-token:s3cret-client@",
        "http://[::1]:99999/?s3cret-query",
    ] {
        for failed in over(url) {
            let text = format!("{failed} {failed:?}");
            assert!(secrets.iter().all(|it| !text.contains(it)), "{text}");
            assert_eq!(failed.to_string().lines().count(), 1, "{failed}");
        }
    }
    let body = "s3cret-token".to_owned();
    let answer = Answer {
        status: 200,
        body,
        cache: None,
    };
    assert_eq!(format!("{answer:?}"), "Answer(200, 12 bytes, None)");
}

#[test]
fn the_lifetime_of_an_answer_is_what_its_server_says() {
    let seconds = |number| Some(Duration::from_secs(number));
    for (fields, expected) in [
        ("", None),
        ("Cache-Control: public\r\n", None),
        ("Cache-Control: max-age=60\r\n", seconds(60)),
        ("cache-control: public, Max-Age=\"61\"\r\n", seconds(61)),
        ("Cache-Control: s-maxage=9, max-age=62\r\n", seconds(62)),
        ("Cache-Control: max-age=63, max-age=9\r\n", seconds(63)),
        (
            "Cache-Control: public\r\nCache-Control: max-age=64\r\n",
            seconds(64),
        ),
        ("Cache-Control: max-age=60, no-store\r\n", seconds(0)),
        ("Cache-Control: no-cache\r\n", seconds(0)),
        ("Cache-Control: max-age=soon\r\n", None),
        ("Cache-Control: max-age=-1\r\n", None),
    ] {
        let server = Fake::http(move |_| reply("200 OK", fields, "{}"));
        let answer = web().get_json(&server.url("/"), None).unwrap();
        assert_eq!(answer.cache, expected, "{fields}");
    }
}

#[test]
fn a_bad_file_of_roots_is_an_error_at_start() {
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n";
    for (path, why) in [
        (PathBuf::from("/nonexistent/ca.pem"), "No such file"),
        (file("empty.pem", ""), "no certificate"),
        (file("key.pem", key), "no certificate"),
        (file("broken.pem", broken), "not PEM"),
    ] {
        let failed = Web::new(Some(&path), TIMEOUT).err().unwrap().to_string();
        assert!(failed.contains(why), "{failed}");
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn a_proxy_is_for_others_than_this_machine() {
    let (proxy, asked) = echo();
    let (server, _asked) = echo();
    let named = Proxy::new(&format!("http://{}", proxy.address)).unwrap();
    let web = Web::with_proxy(None, TIMEOUT, Some(named)).unwrap();
    web.get_json(&server.url("/"), None).unwrap();
    assert_eq!((server.accepted(), proxy.accepted()), (1, 0));
    web.get_json("https://provider.invalid/", None).unwrap_err();
    let asked = asked.recv_timeout(SOON).unwrap();
    assert_eq!(asked.line, "CONNECT provider.invalid:443");
}
