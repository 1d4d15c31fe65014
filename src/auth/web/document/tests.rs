//! Tests of the documents that strangers name.

use std::collections::VecDeque;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;

use super::super::tests::fake::{Fake, drip, json, read, reply};
use super::*;
use crate::thread;

const SOON: Duration = Duration::from_secs(8);
const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Stands for an address of the inside, which also answers on this machine.
const BAD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A resolver that gives one answer after the other, and the last one again and again.
#[derive(Debug)]
struct Script {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl Resolver for Script {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock();
        let answer = match answers.len() {
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        };
        let mut found = self.empty();
        for address in answer {
            found.push(SocketAddr::new(address, self.port));
        }
        Ok(found)
    }
}

fn script(server: &Fake, answers: &[&[IpAddr]]) -> Script {
    Script {
        answers: Mutex::new(answers.iter().map(|answer| answer.to_vec()).collect()),
        port: server.address.port(),
        asked: Arc::default(),
    }
}

/// The rules, but for servers without TLS at `GOOD`.
fn rules() -> Rules {
    Rules {
        allows: |address| address == GOOD,
        is_https: false,
        ..Rules::default()
    }
}

fn documents(server: &Fake) -> Documents {
    Documents::with(rules(), script(server, &[&[GOOD]]))
}

const URL: &str = "http://docs.example/client.json";

fn fetch(documents: &Documents) -> Result<Arc<str>, WebError> {
    documents.fetch(URL, Instant::now())
}

#[test]
fn a_document_is_fetched_by_name_and_kept() {
    let server = Fake::http(|asked| match asked.head.contains("host: docs.example\n") {
        true => json("200 OK", &format!("{{\"asked\":{:?}}}", asked.line)),
        false => json("400 Bad Request", ""),
    });
    let documents = documents(&server);
    for _ in 0..3 {
        let document = fetch(&documents).unwrap();
        assert_eq!(&*document, "{\"asked\":\"GET /client.json\"}");
    }
    assert_eq!(server.accepted(), 1);
    documents.forget(URL);
    fetch(&documents).unwrap();
    assert_eq!(server.accepted(), 2);
}

#[test]
fn a_document_is_kept_as_long_as_its_server_says_within_limits() {
    const MINUTE: u64 = 60;
    for (fields, seconds) in [
        ("", 5 * MINUTE),
        ("Cache-Control: no-store\r\n", 5 * MINUTE),
        ("Cache-Control: max-age=1\r\n", 5 * MINUTE),
        ("Cache-Control: max-age=3600\r\n", 60 * MINUTE),
        ("Cache-Control: max-age=999999999999\r\n", 24 * 60 * MINUTE),
    ] {
        let fields = format!("Content-Type: application/json; charset=utf-8\r\n{fields}");
        let server = Fake::http(move |_| reply("200 OK", &fields, "{}"));
        let documents = documents(&server);
        let start = Instant::now();
        for (seconds, fetches) in [(0, 1), (seconds - 1, 1), (seconds, 2)] {
            let now = start + Duration::from_secs(seconds);
            documents.fetch(URL, now).unwrap();
            assert_eq!(server.accepted(), fetches, "{seconds}");
        }
    }
}

#[test]
fn what_is_no_document_is_an_error_and_not_kept() {
    let kind = "Content-Type: application/json\r\n";
    let large = "x".repeat((10 << 10) + 1);
    for (response, error) in [
        (
            reply("302 Found", "Location: http://127.0.0.2/\r\n", ""),
            "a redirect",
        ),
        (json("404 Not Found", "{}"), "status 404"),
        (json("206 Partial Content", "{}"), "status 206"),
        (json("500 Oops", "{}"), "status 500"),
        (json("200 OK", &large), "too large"),
        (
            reply("200 OK", "Content-Type: text/html\r\n", "{}"),
            "not JSON",
        ),
        (
            reply("200 OK", "Content-Type: text/json+json\r\n", "{}"),
            "not JSON",
        ),
        (reply("200 OK", "", "{}"), "not JSON"),
        (
            format!("HTTP/1.1 200 OK\r\n{kind}Content-Length: 5\r\n\r\n{{}}"),
            "cannot be reached",
        ),
    ] {
        let first = AtomicUsize::new(0);
        let server = Fake::http(move |_| match first.fetch_add(1, Ordering::SeqCst) {
            0 => response.clone(),
            _ => reply("200 OK", "Content-Type: application/cimd+json\r\n", "{}"),
        });
        let documents = documents(&server);
        let failed = fetch(&documents).unwrap_err().to_string();
        assert!(failed.contains(error), "{failed}");
        assert_eq!(&*fetch(&documents).unwrap(), "{}");
        assert_eq!(server.accepted(), 2, "{failed}");
    }
}

#[test]
fn a_document_of_ten_kibibytes_is_not_too_large() {
    let server = Fake::http(|_| json("200 OK", &"x".repeat(10 << 10)));
    assert_eq!(fetch(&documents(&server)).unwrap().len(), 10 << 10);
}

#[test]
fn the_time_of_a_fetch_is_limited_as_a_whole() {
    let server = Fake::tcp(drip);
    let timeout = Duration::from_millis(400);
    let rules = Rules { timeout, ..rules() };
    let documents = Documents::with(rules, script(&server, &[&[GOOD]]));
    let started = Instant::now();
    let failed = fetch(&documents).unwrap_err();
    assert!(matches!(failed, WebError::Timeout { .. }), "{failed}");
    assert!(started.elapsed() >= timeout && started.elapsed() < SOON);
}

#[test]
fn one_address_of_the_inside_spoils_a_name() {
    let server = Fake::http(|_| json("200 OK", "{}"));
    for answer in [&[BAD][..], &[GOOD, BAD], &[BAD, GOOD], &[GOOD, GOOD, BAD]] {
        let documents = Documents::with(rules(), script(&server, &[answer]));
        let failed = fetch(&documents).unwrap_err();
        assert!(matches!(failed, WebError::NotPublic { .. }), "{failed}");
        assert!(!failed.to_string().contains("127."), "{failed}");
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_name_that_changes_after_the_check_gains_nothing() {
    let server = Fake::http(|_| json("200 OK", "{}"));
    let names = script(&server, &[&[GOOD], &[BAD]]);
    let asked = names.asked.clone();
    let documents = Documents::with(rules(), names);
    fetch(&documents).unwrap();
    // Checked and connected to by one and the same look-up.
    assert_eq!((asked.load(Ordering::SeqCst), server.accepted()), (1, 1));
    documents.forget(URL);
    let failed = fetch(&documents).unwrap_err();
    assert!(matches!(failed, WebError::NotPublic { .. }), "{failed}");
    assert_eq!((asked.load(Ordering::SeqCst), server.accepted()), (2, 1));
}

#[test]
fn the_rules_of_the_program_keep_strangers_out_of_the_inside() {
    let listener = Fake::tcp(drop);
    let port = listener.address.port();
    let named = Documents::with(Rules::default(), script(&listener, &[&[GOOD]]));
    let failed = named.fetch("https://docs.example/a", Instant::now());
    assert!(matches!(failed, Err(WebError::NotPublic { .. })));
    let documents = Documents::new();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "0",
        "localhost",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ] {
        let url = format!("https://{host}:{port}/client.json");
        let failed = documents.fetch(&url, Instant::now()).unwrap_err();
        assert!(
            matches!(failed, WebError::NotPublic { .. }),
            "{url}: {failed}"
        );
    }
    assert_eq!(listener.accepted(), 0);
}

#[test]
fn an_address_that_cannot_be_a_document_is_refused_unasked() {
    let long = format!("https://docs.example/{}", "x".repeat(2048));
    let documents = Documents::new();
    for url in [
        "http://docs.example/a",
        "https://docs.example",
        "https://docs.example/",
        "https://docs.example?a",
        "https://docs.example:80/a",
        "https://docs.example:22/a",
        "https://docs.example:0/a",
        "https://user@docs.example/a",
        "https://docs.example/a#b",
        "https://docs.example/a/../b",
        "ftp://docs.example/a",
        "data:application/json,{}",
        &long,
    ] {
        let failed = documents.fetch(url, Instant::now()).unwrap_err();
        assert!(matches!(failed, WebError::Url { .. }), "{url}: {failed}");
    }
}

#[test]
fn the_name_goes_to_the_checked_address_for_its_certificate() {
    let (sender, hellos) = mpsc::channel();
    let sender = Mutex::new(sender);
    let server = Fake::tcp(move |mut stream: TcpStream| {
        let mut hello = vec![0; 4096];
        let length = stream.read(&mut hello).unwrap_or(0);
        hello.truncate(length);
        let _ = sender.lock().send(hello);
    });
    let rules = Rules {
        is_https: true,
        ..rules()
    };
    let documents = Documents::with(rules, script(&server, &[&[GOOD]]));
    documents
        .fetch("https://docs.example/a", Instant::now())
        .unwrap_err();
    let hello = hellos.recv_timeout(SOON).unwrap();
    let name = b"docs.example";
    assert_eq!(hello[0], 22, "a TLS handshake");
    assert!(
        hello.windows(name.len()).any(|it| it == name),
        "no name in it"
    );
}

#[test]
fn four_documents_are_fetched_at_once() {
    let (arrive, arrivals) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let (arrive, gate) = (Mutex::new(arrive), Mutex::new(gate));
    let server = Fake::tcp(move |mut stream| {
        let _ = read(&stream);
        let _ = arrive.lock().send(());
        let _ = gate.lock().recv_timeout(SOON);
        let answer = json("200 OK", "{}");
        let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
    });
    let rules = Rules {
        timeout: SOON,
        ..rules()
    };
    let documents = Arc::new(Documents::with(rules, script(&server, &[&[GOOD]])));
    let fetches: Vec<_> = (0..4)
        .map(|no| {
            let documents = documents.clone();
            let url = format!("http://docs.example/{no}.json");
            let fetch = move || documents.fetch(&url, Instant::now()).is_ok();
            thread::spawn("fetch", fetch).unwrap()
        })
        .collect();
    for _ in 0..4 {
        arrivals.recv_timeout(SOON).unwrap();
    }
    assert!(matches!(fetch(&documents), Err(WebError::Busy)));
    drop(release);
    assert!(fetches.into_iter().all(|fetch| fetch.join() == Some(true)));
    fetch(&documents).unwrap();
}

#[test]
fn no_more_than_256_documents_are_kept() {
    let documents = Documents::new();
    let now = Instant::now();
    let time = |no: usize| Some(Duration::from_secs(1000 + no as u64));
    for no in 0..300 {
        documents.keep(
            &format!("https://a.example/{no}"),
            "{}".into(),
            now,
            time(no),
        );
    }
    assert_eq!(documents.kept.lock().len(), MAX_KEPT);
    let has = |no: usize| {
        documents
            .find(&format!("https://a.example/{no}"), now)
            .is_some()
    };
    assert!(!has(43) && has(44) && has(299));
}
