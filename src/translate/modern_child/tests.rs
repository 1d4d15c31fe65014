//! Golden dialogues, and what they cannot show.

use super::*;
use crate::translate::tests::play;

/// Plays a file with children that have not been spoken to.
fn played(file: &str) {
    play(file, |_| Box::new(ModernChild::new("demo")));
}

/// With children that offer this, initialized by a client that has declared that.
fn played_open(file: &str, offered: &str, declared: &str) {
    play(file, |now| {
        let mut child = ModernChild::new("demo");
        open(&mut child, offered, declared, now);
        Box::new(child)
    });
}

fn open(child: &mut ModernChild, offered: &str, declared: &str, now: Instant) {
    let mut out = Vec::new();
    let initialize = format!(
        r#"{{"jsonrpc":"2.0","id":"i","method":"initialize","params":{{"capabilities":{declared}}}}}"#
    );
    let discovered = format!(
        r#"{{"jsonrpc":"2.0","id":"mcp-broker/era/1","result":{{"supportedVersions":["2026-07-28"],"capabilities":{offered}}}}}"#
    );
    child.client_says(&initialize, now, &mut out);
    child.child_says(&discovered, now, &mut out);
    assert!(matches!(child.phase, Phase::Open), "{out:?}");
}

#[test]
fn opening() {
    played("modern_child_opening.txt");
}

#[test]
fn requests() {
    played_open("modern_child_requests.txt", "{}", "{}");
}

#[test]
fn logging() {
    played_open("modern_child_logging.txt", r#"{"logging":{}}"#, "{}");
}

#[test]
fn subscriptions() {
    let offered = r#"{"resources":{"subscribe":true,"listChanged":true},"tools":{"listChanged":true},"prompts":{"listChanged":false}}"#;
    played_open("modern_child_subscriptions.txt", offered, "{}");
}

#[test]
fn rounds() {
    let declared = r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}"#;
    played_open("modern_child_rounds.txt", "{}", declared);
}

#[test]
fn cancelling() {
    let declared = r#"{"elicitation":{},"sampling":{}}"#;
    played_open("modern_child_cancelling.txt", "{}", declared);
}

/// A child with all that can be offered, for a client that can all; and what it says.
struct Stage {
    child: ModernChild,
    now: Instant,
}

impl Stage {
    fn new() -> Self {
        let (mut child, now) = (ModernChild::new("demo"), Instant::now());
        let offered = r#"{"resources":{"subscribe":true}}"#;
        open(&mut child, offered, r#"{"roots":{}}"#, now);
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
}

fn only_text(mut out: Vec<Out>) -> String {
    assert_eq!(out.len(), 1, "{out:?}");
    match out.remove(0) {
        Out::Child(line) | Out::Client(line) => line,
        Out::Failed(failure) => panic!("{failure:?}"),
    }
}

#[test]
fn subscriptions_are_bounded() {
    let mut stage = Stage::new();
    let mut subscribe = |no: usize| {
        only_text(stage.client(&format!(
            r#"{{"jsonrpc":"2.0","id":{no},"method":"resources/subscribe","params":{{"uri":"x:{no}"}}}}"#
        )))
    };
    for no in 0..1024 {
        assert!(subscribe(no).contains("subscriptions/listen"));
    }
    assert_eq!(
        subscribe(1024),
        r#"{"jsonrpc":"2.0","id":1024,"error":{"code":-32603,"message":"too many subscriptions"}}"#
    );
    let one =
        r#"{"jsonrpc":"2.0","id":"u","method":"resources/unsubscribe","params":{"uri":"x:7"}}"#;
    assert_eq!(stage.client(one).len(), 3); // both requests are answered
    let other =
        r#"{"jsonrpc":"2.0","id":7,"method":"resources/subscribe","params":{"uri":"x:new"}}"#;
    assert!(only_text(stage.client(other)).contains("subscriptions/listen"));
}

#[test]
fn pings_are_bounded() {
    let mut stage = Stage::new();
    let ping = |no: usize| format!(r#"{{"jsonrpc":"2.0","id":{no},"method":"ping"}}"#);
    for no in 0..64 {
        assert!(only_text(stage.client(&ping(no))).contains("server/discover"));
    }
    assert!(only_text(stage.client(&ping(64))).contains("many pings"));
    stage.child(r#"{"jsonrpc":"2.0","id":"mcp-broker/era/2","result":{}}"#);
    assert!(only_text(stage.client(&ping(65))).contains("server/discover"));
}

#[test]
fn rounds_are_bounded() {
    let mut stage = Stage::new();
    let call = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"a"}}"#;
    let mut sent = only_text(stage.client(call));
    let (mut rounds, began) = (0, stage.now);
    while sent.contains("tools/call") {
        rounds += 1;
        let id = jsonrpc::parse(&sent).unwrap().id_text.to_owned();
        let mut out = stage.child(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","requestState":"s"}}}}"#
        ));
        assert_eq!(out.is_empty(), (2..64).contains(&rounds), "{rounds}");
        if let Some(due) = stage.child.due() {
            stage.now = due;
            stage.child.tick(due, &mut out);
        }
        sent = only_text(out);
    }
    // 50 ms doubled up to 5 s.
    let passed = stage.now.duration_since(began);
    assert_eq!(passed, std::time::Duration::from_millis(6350 + 55 * 5000));
    assert_eq!(rounds, 64);
    assert_eq!(
        sent,
        r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32603,"message":"the server has no answer after 64 rounds"}}"#
    );
}

#[test]
fn a_call_is_not_put_off_for_ever() {
    let mut stage = Stage::new();
    let call = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"a"}}"#;
    stage.client(call);
    let later = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","requestState":"s"}}}}"#
        )
    };
    stage.child(&later("5"));
    stage.now += std::time::Duration::from_secs(300);
    assert_eq!(
        only_text(stage.child(&later(r#""mcp-broker/era/2""#))),
        r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32603,"message":"the server has put the call off for 300 s"}}"#
    );
    assert!(stage.child.rounds.is_empty());
    assert_eq!(stage.child.due(), None);
}

fn asks(id: &str, questions: usize) -> String {
    let questions: Vec<String> = (0..questions)
        .map(|no| format!(r#""{no}":{{"method":"roots/list"}}"#))
        .collect();
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{{}}}}}}}"#,
        questions.join(",")
    )
}

#[test]
fn questions_are_bounded() {
    let mut stage = Stage::new();
    let call = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"a"}}"#;
    stage.client(call);
    assert_eq!(stage.child(&asks("5", 64)).len(), 64);
    // The same id again: they are withdrawn.
    assert_eq!(stage.client(call).len(), 65);
    assert_eq!(
        only_text(stage.child(&asks("5", 65))),
        r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32603,"message":"the server asks more than 64 questions at once"}}"#
    );
    assert!(stage.child.rounds.is_empty());
}

#[test]
fn what_is_kept_is_bounded_and_let_go() {
    let mut stage = Stage::new();
    let megabytes = |count: usize| "x".repeat(count * 1024 * 1024);
    let call = |id: &str, name: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{name}"}}}}"#
        )
    };
    stage.client(&call("1", &megabytes(10)));
    // Goes through, but cannot be asked about.
    stage.client(&call("2", &megabytes(10)));
    assert!(only_text(stage.child(&asks("2", 1))).contains("the call is too large"));
    stage.child(&asks("1", 2));
    let answer = |no: usize| {
        let text = megabytes(4);
        format!(r#"{{"jsonrpc":"2.0","id":"mcp-broker/era/{no}","result":{{"roots":["{text}"]}}}}"#)
    };
    assert_eq!(stage.client(&answer(2)), []);
    let out = stage.client(&answer(3));
    assert!(only_text(out).contains("the client's answer is too large"));
    // Nothing of it is left.
    assert!(stage.child.rounds.is_empty());
    stage.client(&call("3", &megabytes(10)));
    stage.child(&asks("3", 1));
    let again = only_text(stage.client(&answer(4)));
    assert!(again.contains(r#""inputResponses":{"0":{"roots":["#));
    stage.client(&call("4", &megabytes(4)));
    assert_eq!(stage.child(&asks("4", 1)).len(), 1);
}

/// What is not ours comes through byte for byte, into the last round and out of it.
#[test]
fn leaves_all_other_bytes_alone() {
    let ours = |name: &str| name.starts_with("io.modelcontextprotocol/");
    let payloads = [
        r#"{"n":123456789012345678901234567890,"f":-0.0e-0,"e":1E+400}"#,
        r#"{ "\u0061" : "\ud83d\ude00\/\b" , "a"	: "é😀" }"#,
        r#"{"dup":1,"dup":[ { } , [ ] ],"":null}"#,
        "{\"s\":\"\\ud800\", \"t\"\r:true}",
    ];
    for payload in payloads {
        let mut stage = Stage::new();
        let params = format!(r#"{{ "arguments":{payload},"_meta":{{ "progressToken" : 1.0 }} }}"#);
        let line = format!(
            r#"{{"id" : "\u0031","method":"tools/call" ,"params":{params},"x":{payload}, "jsonrpc":"2.0"}}"#
        );
        let sent = only_text(stage.client(&line));
        let stripped = |sent: &str| {
            let params = jsonrpc::member(sent, "params").unwrap();
            let meta = jsonrpc::member(params, "_meta").unwrap();
            Edit::of(sent).remove(meta, ours).done()
        };
        // White space in front of the first member that is kept goes with those before it.
        assert_eq!(
            stripped(&sent),
            line.replace("{ \"progressToken\"", "{\"progressToken\"")
        );
        let question = format!(
            r#"{{"jsonrpc":"2.0","id":"1","result":{{"resultType":"input_required","inputRequests":{{"\u0061":{{"method":"roots/list","params":{payload}}}}},"requestState":"\u0073"}}}}"#
        );
        let asked = only_text(stage.child(&question));
        assert_eq!(
            asked,
            format!(
                r#"{{"jsonrpc":"2.0","id":"mcp-broker/era/2","method":"roots/list","params":{payload}}}"#
            )
        );
        let answer = format!(r#"{{"jsonrpc":"2.0","id":"mcp-broker/era/2","result":{payload} }}"#);
        let again = only_text(stage.client(&answer));
        assert_eq!(
            again,
            sent.replace(r#""\u0031""#, r#""mcp-broker/era/3""#)
                .replace(
                    r#""params":{"#,
                    &format!(
                        r#""params":{{"inputResponses":{{"\u0061":{}}},"requestState":"\u0073","#,
                        payload
                    )
                )
        );
        let result = format!(r#"{{ "content":[{payload}], "structuredContent" : {payload} }}"#);
        let last = format!(r#"{{"result":{result},"jsonrpc":"2.0", "id" :"mcp-broker/era/3" }}"#);
        assert_eq!(
            only_text(stage.child(&last)),
            last.replace(r#""mcp-broker/era/3""#, r#""\u0031""#)
        );
    }
}

#[test]
fn takes_over_where_initialize_was_refused() {
    let mut out = Vec::new();
    let initialize = r#"{"jsonrpc":"2.0","id":9,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
    let mut child = ModernChild::take_over("demo", initialize, None, &mut out);
    assert!(only_text(out).contains("server/discover"));
    let mut out = Vec::new();
    let discovered = r#"{"jsonrpc":"2.0","id":"mcp-broker/era/1","result":{"supportedVersions":["2026-07-28"]}}"#;
    child.child_says(discovered, Instant::now(), &mut out);
    assert_eq!(
        only_text(out),
        r#"{"jsonrpc":"2.0","id":9,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"demo","version":"0"}}}"#
    );
}

#[test]
fn knows_a_modern_refusal() {
    for (error, is_modern) in [
        (
            r#"{"code":-32022,"message":"m","data":{"supported":["2026-07-28"],"requested":"2025-11-25"}}"#,
            true,
        ),
        (
            r#"{"code":-32022,"message":"m","data":{"supported":["2027-01-01","2026\u002d07-28"]}}"#,
            true,
        ),
        (
            r#"{"code":-32022,"message":"m","data":{"supported":["2027-01-01"]}}"#,
            false,
        ),
        (
            r#"{"code":-32601,"message":"initialize: see 2026-07-28"}"#,
            true,
        ),
        (
            r#"{"code":-32602,"message":"no _meta","data":{"versions":["2026-07-28"]}}"#,
            true,
        ),
        (
            r#"{"code":-32602,"message":"no 2026-07-28 here","data":{"supported":["2025-11-25"],"requested":"2026-07-28"}}"#,
            false,
        ),
        (
            r#"{"code":-32602,"message":"no","data":{"requested":"2026-07-28"}}"#,
            false,
        ),
        (
            r#"{"code":-32022,"message":"m","data":{"supported":["2025-11-25","2026-07-28"]}}"#,
            false,
        ),
        (r#"{"code":-32603,"message":"no database"}"#, false),
        (r#"{"code":-32603,"message":7}"#, false),
        ("[]", false),
    ] {
        let asked = r#"{"params":{"protocolVersion":"2025-11-25"}}"#;
        assert_eq!(is_modern_refusal(error, asked), is_modern, "{error}");
    }
}

/// So that no client can make a legacy server pass for a modern one.
#[test]
fn does_not_take_an_echo_for_a_modern_refusal() {
    let echo = r#"{"code":-32602,"message":"Unsupported protocol version: 2026-07-28"}"#;
    for asked in [
        r#"{"params":{"protocolVersion":"2026-07-28"}}"#,
        r#"{"params":{"protocolVersion":"2026\u002d07-28"}}"#,
        r#"{"params":{"clientInfo":{"name":"for 2026-07-28"}}}"#,
        r#"{"params":{"capabilities":{"experimental":{"2026-07-28":{}}}}}"#,
    ] {
        assert!(!is_modern_refusal(echo, asked), "{asked}");
        let named = r#"{"code":-32602,"message":"m","data":{"supported":["2026-07-28"]}}"#;
        assert!(is_modern_refusal(named, asked), "{asked}");
        let coded = r#"{"code":-32022,"message":"m","data":{"requested":"2026-07-28"}}"#;
        assert!(is_modern_refusal(coded, asked), "{asked}");
    }
    assert!(is_modern_refusal(
        echo,
        r#"{"params":{"protocolVersion":"2025-11-25"}}"#
    ));
}

#[test]
fn a_second_try_has_an_end() {
    let (mut out, now) = (Vec::new(), Instant::now());
    let until = now + std::time::Duration::from_secs(5);
    let initialize = r#"{"jsonrpc":"2.0","id":9,"method":"initialize"}"#;
    let mut child = ModernChild::take_over("demo", initialize, Some(until), &mut out);
    assert_eq!(child.due(), Some(until));
    out.clear();
    child.tick(now, &mut out);
    assert_eq!(out, []);
    child.tick(until, &mut out);
    assert!(only_text(out).contains(r#""id":9,"error""#));
    assert_eq!(child.due(), None);
}
