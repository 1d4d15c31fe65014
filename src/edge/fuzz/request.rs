//! Requests on one connection: the same whatever reads give, and unambiguous for who gets them.

use std::net::IpAddr;

use crate::edge::Door;
use crate::edge::body::Chunked;
use crate::edge::head::{self, DOOR_FIELD, FIELDS_MAX, Framing, HEAD_MAX_BYTES, Scan, Sender};
use crate::edge::refuse::Refusal;
use crate::fuzz::input::{Input, reads};

const MAX_BODY: usize = 3000;
const CONNECTION: u64 = 1042;
const HOP: &str = "127.0.0.1";

/// The first byte says where reads end, the rest is what a client sends.
pub(crate) fn request(data: &[u8]) {
    let mut input = Input::new(data);
    let seed = input.byte();
    let bytes = input.rest();
    let mut whole = Peer::default();
    whole.read(bytes);
    let mut pieces = Peer::default();
    for read in reads(bytes, seed) {
        pieces.read(read);
    }
    // Where two things are wrong, it may be the other one that is seen first.
    assert_eq!(whole.refusal.is_some(), pieces.refusal.is_some());
    assert_eq!(whole.state(), pieces.state());
}

/// What `connection` does with what it reads, without a socket.
#[derive(Default)]
struct Peer {
    buffer: Vec<u8>,
    /// Of the buffer, while it is the part of a head.
    seen: usize,
    head: Option<Begun>,
    /// Requests as they are passed on.
    passed: Vec<Vec<u8>>,
    refusal: Option<Refusal>,
}

struct Begun {
    head: head::Head,
    raw: Vec<u8>,
    chunked: Option<Chunked>,
}

impl Peer {
    /// The requests that were passed on, and what is left: of the next head, of the next body.
    fn state(&self) -> Vec<String> {
        let mut state: Vec<&[u8]> = self.passed.iter().map(Vec::as_slice).collect();
        state.push(&self.buffer);
        if let Some(begun) = &self.head {
            state.push(&begun.raw);
            state.push(begun.chunked.as_ref().map_or(b"", Chunked::bytes));
        }
        state
            .iter()
            .map(|part| part.escape_ascii().to_string())
            .collect()
    }

    fn read(&mut self, bytes: &[u8]) {
        if self.refusal.is_some() {
            return;
        }
        self.buffer.extend_from_slice(bytes);
        loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return,
                Err(refusal) => {
                    self.refusal = Some(refusal);
                    self.buffer.clear();
                    self.head = None;
                    return;
                }
            }
        }
    }

    /// False if more must come.
    fn step(&mut self) -> Result<bool, Refusal> {
        let Some(begun) = &mut self.head else {
            return self.begin();
        };
        let body = match (begun.head.framing, &mut begun.chunked) {
            (Framing::Length(len), _) if self.buffer.len() < len => return Ok(false),
            (Framing::Length(len), _) => self.buffer.drain(..len).collect(),
            (Framing::Chunked, Some(body)) => {
                let used = body.feed(&self.buffer)?;
                self.buffer.drain(..used);
                assert!(body.len() <= MAX_BODY, "a body that is too large");
                if !body.is_end() {
                    return Ok(false);
                }
                body.bytes().to_vec()
            }
            (Framing::Chunked, None) => unreachable!("set when it began"),
        };
        if let Some(mut begun) = self.head.take() {
            let hop = HOP.parse().ok();
            let peer = begun.head.peer(hop, &[IpAddr::from([127, 0, 0, 1])]);
            let sender = Sender {
                connection: CONNECTION,
                door: Door::Public,
                peer,
            };
            let mut passed = begun.head.complete(body.len(), &sender);
            check_head(&begun.raw, &passed, body.len());
            passed.extend_from_slice(&body);
            self.passed.push(passed);
        }
        Ok(true)
    }

    fn begin(&mut self) -> Result<bool, Refusal> {
        head::skip_empty_lines(&mut self.buffer);
        let Scan::Complete(len) = head::scan(&self.buffer, self.seen)? else {
            self.seen = self.buffer.len();
            return Ok(false);
        };
        self.seen = 0;
        let raw: Vec<u8> = self.buffer.drain(..len).collect();
        let head = head::parse(&raw, MAX_BODY)?;
        let chunked = (head.framing == Framing::Chunked).then(|| Chunked::new(MAX_BODY));
        self.head = Some(Begun { head, raw, chunked });
        Ok(true)
    }
}

/// A head, line by line.
struct Plain<'a> {
    method: &'a str,
    target: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Plain<'a> {
    #[track_caller]
    fn read(head: &'a [u8]) -> Self {
        let text = head.strip_suffix(b"\r\n\r\n");
        let text = text.unwrap_or_else(|| panic!("no blank line: {:?}", head.escape_ascii()));
        // Values that we do not pass on may have any byte above ASCII.
        let mut lines = text.split(|byte| *byte == b'\n').map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            assert!(!line.contains(&b'\r') && !line.contains(&0), "{line:?}");
            str::from_utf8(line).unwrap_or("x-binary: ")
        });
        let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, _] = words[..] else {
            panic!("a request line of {} words", words.len());
        };
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
            assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
            (name, value.trim_matches([' ', '\t']))
        });
        Self {
            method,
            target,
            fields: fields.collect(),
        }
    }

    fn values(&self, name: &str) -> Vec<&'a str> {
        let fields = self.fields.iter();
        let found = fields.filter(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value).collect()
    }
}

/// What went in as one request comes out as the same one, for every reader.
fn check_head(raw: &[u8], passed: &[u8], body_len: usize) {
    let (before, after) = (Plain::read(raw), Plain::read(passed));
    assert_eq!(before.method, after.method);
    let is_absolute = !before.target.starts_with('/');
    assert!(is_absolute || before.target == after.target);
    assert!(after.target.starts_with('/') && before.target.contains(&after.target[1..]));
    let length = body_len.to_string();
    assert_eq!(after.values("Content-Length"), [length.as_str()]);
    assert_eq!(after.values("Edge-Connection"), ["1042"]);
    let peers = after.values("Edge-Peer");
    assert!(
        peers.len() == 1 && peers[0].parse::<IpAddr>().is_ok(),
        "{peers:?}"
    );
    assert_eq!(after.values("Host").len(), 1);
    if !is_absolute && before.values("Host").len() == 1 {
        assert_eq!(before.values("Host"), after.values("Host"));
    }
    let is_get = before.method == "GET";
    let close: &[&str] = if is_get { &["close"] } else { &[] };
    assert_eq!(after.values("Connection"), close);
    for name in [
        "Transfer-Encoding",
        "TE",
        "Expect",
        "Upgrade",
        "Trailer",
        DOOR_FIELD,
    ] {
        assert!(after.values(name).is_empty(), "{name} was passed on");
    }
    for name in ["Authorization", "Origin", "Accept", "Content-Type"] {
        assert_eq!(before.values(name), after.values(name), "{name}");
    }
    check_again(&after, passed, body_len);
}

/// The edge's own reading of what it wrote, and tiny_http's of each field.
fn check_again(after: &Plain<'_>, passed: &[u8], body_len: usize) {
    for (name, value) in &after.fields {
        let line = format!("{name}: {value}");
        let read: tiny_http::Header = line.parse().unwrap_or_else(|()| panic!("{line:?}"));
        assert_eq!(read.field.as_str().as_str(), *name);
        assert_eq!(read.value.as_str(), *value);
    }
    if after.fields.len() > FIELDS_MAX || passed.len() > HEAD_MAX_BYTES {
        return; // ours beside as many as a client may send
    }
    assert_eq!(head::scan(passed, 0), Ok(Scan::Complete(passed.len())));
    let again = head::parse(passed, MAX_BODY);
    let again = again.unwrap_or_else(|why| panic!("{why}: {:?}", passed.escape_ascii()));
    assert_eq!(again.framing, Framing::Length(body_len));
}
