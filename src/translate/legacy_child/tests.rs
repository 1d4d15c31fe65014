//! The golden dialogues of a legacy child, and what they cannot show.

use std::time::Duration;

use super::super::tests::play;
use super::*;

/// What the child says of itself, but for the dialogues that are about that.
const ABLE: &str = r#"{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"logging":{}}"#;

fn child(context: &str) -> LegacyChild {
    LegacyChild::new(Options {
        server_name: "files".to_owned(),
        sealer: Sealer::new([7; 32], context),
        input_timeout: Duration::from_secs(60),
    })
}

/// A child that has been initialized when the dialogue begins.
struct Initialized {
    child: LegacyChild,
    result: String,
}

impl Initialized {
    fn with(capabilities: &str) -> Self {
        Self::saying(&format!(
            r#"{{"protocolVersion":"2025-11-25","capabilities":{capabilities},"serverInfo":{{"name":"files","version":"1"}}}}"#
        ))
    }

    fn saying(result: &str) -> Self {
        Self {
            child: child("alice files 1"),
            result: result.to_owned(),
        }
    }
}

impl Translator for Initialized {
    fn begin(&mut self, now: Instant, out: &mut Vec<Out>) {
        let answer = jsonrpc::result_response(r#""mcp-broker/initialize""#, &self.result);
        self.child.begin(now, out);
        self.child.child_says(&answer, now, out);
        assert_eq!(out.len(), 2, "initialize, notifications/initialized");
        out.clear();
    }

    fn client_says(&mut self, line: &str, now: Instant, out: &mut Vec<Out>) {
        self.child.client_says(line, now, out);
    }

    fn child_says(&mut self, line: &str, now: Instant, out: &mut Vec<Out>) {
        self.child.child_says(line, now, out);
    }

    fn due(&self) -> Option<Instant> {
        self.child.due()
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Out>) {
        self.child.tick(now, out);
    }
}

/// A child that the dialogue initializes itself; what we call ourselves there changes with each
/// release.
struct Unversioned(LegacyChild);

impl Translator for Unversioned {
    fn begin(&mut self, now: Instant, out: &mut Vec<Out>) {
        self.0.begin(now, out);
        for out in out {
            if let Out::Child(line) = out {
                *line = line.replace(env!("CARGO_PKG_VERSION"), "VERSION");
            }
        }
    }

    fn client_says(&mut self, line: &str, now: Instant, out: &mut Vec<Out>) {
        self.0.client_says(line, now, out);
    }

    fn child_says(&mut self, line: &str, now: Instant, out: &mut Vec<Out>) {
        self.0.child_says(line, now, out);
    }

    fn due(&self) -> Option<Instant> {
        self.0.due()
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Out>) {
        self.0.tick(now, out);
    }
}

fn golden(file: &str) {
    play(file, |_| Box::new(Initialized::with(ABLE)));
}

#[test]
fn begins() {
    play("legacy_child_begin.txt", |_| {
        Box::new(Unversioned(child("alice files 1")))
    });
}

#[test]
fn is_discovered() {
    play("legacy_child_discover.txt", |_| {
        Box::new(Initialized::saying(
            r#"{"protocolVersion":"2025-06-18", "capabilities":{ "tools" : {"listChanged":true}, "tasks":{"list":{}}, "logging":{},"experimental":{"x":{"n":1.0}} }, "serverInfo":{ "name":"files","title":"\u0046iles", "version":"1" },"instructions":"Say \"please\"."}"#,
        ))
    });
}

#[test]
fn serves_calls() {
    golden("legacy_child_calls.txt");
}

#[test]
fn follows_log_levels() {
    golden("legacy_child_levels.txt");
    play("legacy_child_levels_without.txt", |_| {
        Box::new(Initialized::with("{}"))
    });
}

#[test]
fn asks_clients() {
    golden("legacy_child_asking.txt");
}

#[test]
fn asks_only_what_a_client_can_be_asked() {
    golden("legacy_child_capabilities.txt");
}

#[test]
fn resumes_suspended_calls() {
    golden("legacy_child_retries.txt");
}

#[test]
fn answers_older_children_in_their_words() {
    play("legacy_child_older.txt", |_| {
        Box::new(Initialized::saying(
            r#"{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"files","version":"1"}}"#,
        ))
    });
}

#[test]
fn resumes_nothing_for_a_state_that_is_not_its_own() {
    golden("legacy_child_hostile.txt");
}

#[test]
fn sends_users_to_urls() {
    golden("legacy_child_visits.txt");
}

#[test]
fn notifies_those_that_listen() {
    golden("legacy_child_listens.txt");
    play("legacy_child_listens_without.txt", |_| {
        Box::new(Initialized::with("{}"))
    });
}

/// A talk with a child that has been initialized.
struct Talk {
    child: Initialized,
    now: Instant,
}

impl Talk {
    fn new() -> Self {
        let (mut child, now) = (Initialized::with(ABLE), Instant::now());
        child.begin(now, &mut Vec::new());
        Self { child, now }
    }

    fn client(&mut self, line: &str) -> Vec<Out> {
        let mut out = Vec::new();
        self.child.client_says(line, self.now, &mut out);
        out
    }

    fn child(&mut self, line: &str) -> Vec<Out> {
        let mut out = Vec::new();
        self.child.child_says(line, self.now, &mut out);
        out
    }

    /// Time passes until something is due.
    fn tick(&mut self) -> Vec<Out> {
        let mut out = Vec::new();
        self.now = self.child.due().unwrap_or(self.now);
        self.child.tick(self.now, &mut out);
        out
    }
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{},"sampling":{},"roots":{}}}"#;

/// A `tools/call` with something more in its params.
fn tools_call(id: usize, more: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"a"{more},{META}}}}}"#
    )
}

fn question(id: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"elicitation/create","params":{params}}}"#)
}

fn state(out: &[Out]) -> String {
    let [Out::Client(line)] = out else {
        panic!("one answer: {out:?}");
    };
    let result = parse(line).unwrap().result.unwrap();
    member(result, "requestState").unwrap().to_owned()
}

#[test]
fn payloads_pass_byte_for_byte_in_every_direction() {
    let odd =
        r#"{ "b":12345678901234567890.10 ,"a":[1E5,-0.0,"\u00e9\/\ud83d\ude00é"	], "":null }"#;
    let mut talk = Talk::new();
    let has_it = |out: Vec<Out>| {
        let [Out::Client(line) | Out::Child(line)] = out.as_slice() else {
            panic!("one message: {out:?}");
        };
        assert!(line.contains(odd), "{line}");
        state_or_none(line)
    };
    has_it(talk.client(&tools_call(1, &format!(r#","arguments":{odd}"#))));
    let note = r#"{"jsonrpc":"2.0","method":"notifications/message","params":"#;
    has_it(talk.child(&format!("{note}{odd}}}")));
    talk.child(&question("q", odd));
    let state = has_it(talk.tick()).unwrap();
    let answer = format!(r#"{{"action":"accept","content":{odd}}}"#);
    let more =
        format!(r#","arguments":{odd},"requestState":{state},"inputResponses":{{"q":{answer}}}"#);
    has_it(talk.client(&tools_call(2, &more)));
    let result = format!(r#"{{"content":[],"structuredContent":{odd},"_meta":{odd}}}"#);
    has_it(talk.child(&jsonrpc::result_response("1", &result)));
    talk.client(&tools_call(3, ""));
    let error = format!(r#"{{"code":-32002,"message":"m","data":{odd}}}"#);
    has_it(talk.child(&format!(r#"{{"jsonrpc":"2.0","id":3,"error":{error}}}"#)));
    talk.client(
        r#"{"jsonrpc":"2.0","id":4,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}}}"#,
    );
    let note = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"x":"#;
    has_it(talk.child(&format!("{note}{odd}}}}}")));
}

fn state_or_none(line: &str) -> Option<String> {
    let result = parse(line).unwrap().result?;
    member(result, "requestState").map(str::to_owned)
}

#[test]
fn a_state_is_void_from_the_moment_it_expires() {
    for (late, is_good) in [(1, true), (0, false)] {
        let mut talk = Talk::new();
        talk.client(&tools_call(1, ""));
        talk.child(&question("q", "{}"));
        let more = format!(r#","requestState":{}"#, state(&talk.tick()));
        talk.now = talk.child.due().unwrap() - Duration::from_millis(late);
        let out = talk.client(&tools_call(2, &more));
        let [Out::Client(line)] = out.as_slice() else {
            panic!("one answer: {out:?}");
        };
        assert_eq!(line.contains("input_required"), is_good, "{line}");
    }
}

#[test]
fn what_is_kept_for_retries_is_bounded() {
    let mut talk = Talk::new();
    let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(12 << 10));
    talk.client(&tools_call(1, ""));
    assert_eq!(talk.child(&question("a", &long)), []);
    assert_eq!(talk.child(&question("b", &long)), []);
    let refused = talk.child(&question("c", &long));
    assert!(matches!(refused.as_slice(), [Out::Child(line)] if line.contains("too many")));
    let more = format!(r#","requestState":{}"#, state(&talk.tick()));
    // What its questions said is forgotten with the call: there is room for one such answer.
    talk.child(&jsonrpc::result_response("1", &long));
    let out = talk.client(&tools_call(2, &more));
    assert!(matches!(out.as_slice(), [.., Out::Client(line)] if line.len() > long.len()));
}

#[test]
fn subscriptions_are_bounded() {
    let listen = |id: usize, uris: &[String]| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"subscriptions/listen","params":{{"notifications":{{"resourceSubscriptions":{uris:?}}}}}}}"#
        )
    };
    let is_refused = |out: &[Out]| matches!(out, [Out::Client(line)] if line.contains("-32603"));
    let mut talk = Talk::new();
    let uris: Vec<_> = (0..1024).map(|it| format!("x:{it}")).collect();
    assert_eq!(talk.client(&listen(1, &uris)).len(), 1024);
    assert!(is_refused(&talk.client(&listen(2, &["x:1".to_owned()]))));
    talk.client(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
    let long = ["x:".repeat(1 << 18), "y:".repeat(1 << 18)];
    assert!(is_refused(&talk.client(&listen(3, &long))));
}

/// Whatever both sides do: each side gets only messages, a client no more than one answer to each
/// of its requests, and none to others.
#[test]
fn holds_whatever_is_said_in_whatever_order() {
    for seed in 0..25 {
        let mut dice = Dice(seed);
        let mut talk = Talk::new();
        let (mut open, mut state) = (Vec::new(), r#""none""#.to_owned());
        for id in 1..200 {
            let out = match dice.roll(9) {
                0 | 1 => {
                    open.push(id);
                    talk.client(&tools_call(id, ""))
                }
                2 | 3 => {
                    open.push(id);
                    let answers = ["{}", r#"{"k1":{"action":"accept"},"k2":{"action":"x"}}"#];
                    let answers = answers[dice.roll(2)];
                    let more = format!(r#","requestState":{state},"inputResponses":{answers}"#);
                    talk.client(&tools_call(id, &more))
                }
                4 => {
                    let gone = dice.roll(id);
                    open.retain(|it| *it != gone);
                    talk.client(&format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{gone}}}}}"#
                    ))
                }
                5 | 6 => talk.child(&question(&format!("k{}", dice.roll(3)), "{}")),
                7 => {
                    let result = ["{}", "[]", r#"{"isError":true}"#][dice.roll(3)];
                    talk.child(&jsonrpc::result_response(
                        &dice.roll(id).to_string(),
                        result,
                    ))
                }
                _ => talk.tick(),
            };
            for out in out {
                let (Out::Client(line) | Out::Child(line)) = &out else {
                    panic!("{out:?}");
                };
                let message = parse(line).unwrap();
                if let (Out::Client(_), Id::Integer(id)) = (&out, &message.id) {
                    let at = open.iter().position(|it| i64::try_from(*it) == Ok(*id));
                    open.swap_remove(at.unwrap_or_else(|| panic!("seed {seed}: {line}")));
                    state = state_or_none(line).unwrap_or(state);
                }
            }
        }
    }
}

/// Numbers that look like chance and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // Knuth's constants.
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}
