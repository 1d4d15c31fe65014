//! The demo server from a client's side: lines in, lines out, the time passed in.

use super::*;

struct Client {
    server: Server,
    now: Instant,
}

impl Client {
    fn new(capabilities: Value) -> Self {
        let mut client = Self {
            server: Server::new(Some("ada".into())),
            now: Instant::now(),
        };
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": capabilities });
        let hello = client.ask("initialize", params);
        assert_eq!(hello["result"]["protocolVersion"], "2025-06-18");
        assert!(
            client
                .say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
                .is_empty()
        );
        client
    }

    fn raw(&mut self, line: &str) -> Vec<Value> {
        self.server.line(line.as_bytes(), self.now);
        self.heard()
    }

    fn say(&mut self, message: &Value) -> Vec<Value> {
        self.raw(&message.to_string())
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let mut heard =
            self.say(&json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }));
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(heard[0]["id"], 7);
        heard.remove(0)
    }

    fn call(&mut self, id: u64, params: Value) -> Vec<Value> {
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }))
    }

    fn after(&mut self, millis: u64) -> Vec<Value> {
        self.now += Duration::from_millis(millis);
        self.server.advance(self.now);
        self.heard()
    }

    fn heard(&mut self) -> Vec<Value> {
        let mut out = Vec::new();
        self.server.flush(&mut out).unwrap();
        let lines = out
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

fn text(message: &Value) -> &str {
    message["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
}

#[test]
fn versions_are_negotiated() {
    let cases = VERSIONS.map(|known| (known, known)).into_iter();
    for (wanted, got) in cases.chain([("2030-01-01", "2025-11-25"), ("", "2025-11-25")]) {
        let params = json!({ "protocolVersion": wanted, "capabilities": {} });
        assert_eq!(
            Client::new(json!({})).ask("initialize", params)["result"]["protocolVersion"],
            got
        );
    }
}

#[test]
fn every_list_is_there_and_every_entry_works() {
    let mut client = Client::new(json!({}));
    let tools = client.ask("tools/list", json!({}));
    let names: Vec<&str> = tools["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .collect();
    assert_eq!(names, ["echo", "time", "count", "ask", "whoami"]);
    assert_eq!(
        text(&client.ask(
            "tools/call",
            json!({ "name": "echo", "arguments": { "text": "ä\n" } })
        )),
        "ä\n"
    );
    assert_eq!(
        text(&client.ask("tools/call", json!({ "name": "whoami" }))),
        "ada"
    );
    assert!(text(&client.ask("tools/call", json!({ "name": "time" }))).ends_with('Z'));

    let uri = client.ask("resources/list", json!({}))["result"]["resources"][0]["uri"].take();
    let read = client.ask("resources/read", json!({ "uri": uri }));
    assert_eq!(read["result"]["contents"][0]["uri"], ABOUT);
    assert_eq!(
        client.ask("resources/templates/list", json!({}))["result"]["resourceTemplates"],
        json!([])
    );

    assert_eq!(
        client.ask("prompts/list", json!({}))["result"]["prompts"][0]["name"],
        "greet"
    );
    let greet = json!({ "name": "greet", "arguments": { "name": "Ada", "language": "French" } });
    let said = client.ask("prompts/get", greet);
    assert!(
        said["result"]["messages"][0]["content"]["text"]
            .as_str()
            .unwrap()
            .contains("Bonjour, Ada")
    );
    let half = json!({
        "ref": { "type": "ref/prompt", "name": "greet" },
        "argument": { "name": "language", "value": "Ge" }
    });
    assert_eq!(
        client.ask("completion/complete", half)["result"]["completion"]["values"],
        json!(["German"])
    );
    assert_eq!(client.ask("ping", json!({}))["result"], json!({}));
}

const ABOUT: &str = catalog::ABOUT_URI;

#[test]
fn what_is_no_message_gets_an_error_without_id() {
    for (line, code) in [
        ("{", -32700),
        ("\u{feff}{}", -32700),
        ("[]", -32600),
        ("7", -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
    ] {
        let heard = Client::new(json!({})).raw(line);
        assert_eq!(heard.len(), 1, "{line}");
        assert_eq!(
            (&heard[0]["error"]["code"], &heard[0]["id"]),
            (&json!(code), &Value::Null)
        );
    }
    for quiet in [
        "",
        "\r\n",
        r#"{"jsonrpc":"2.0","method":"notifications/unheard-of"}"#,
    ] {
        assert!(Client::new(json!({})).raw(quiet).is_empty(), "{quiet}");
    }
}

#[test]
fn requests_that_cannot_be_served_get_their_error() {
    let mut client = Client::new(json!({}));
    for (method, params, code) in [
        ("nope", json!({}), -32601),
        ("ping", json!([]), -32602),
        ("initialize", json!({}), -32602),
        ("tools/call", json!({ "name": "nope" }), -32602),
        (
            "tools/call",
            json!({ "name": "echo", "arguments": 1 }),
            -32602,
        ),
        ("resources/read", json!({ "uri": "demo://nope" }), -32002),
        ("prompts/get", json!({ "name": "nope" }), -32602),
        ("prompts/get", json!({ "name": "greet" }), -32602),
        ("logging/setLevel", json!({ "level": "loud" }), -32602),
        ("completion/complete", json!({}), -32602),
    ] {
        assert_eq!(
            client.ask(method, params)["error"]["code"],
            code,
            "{method}"
        );
    }
}

#[test]
fn wrong_arguments_are_told_to_the_model() {
    let mut client = Client::new(json!({}));
    for (name, arguments) in [
        ("echo", json!({})),
        ("count", json!({})),
        ("count", json!({ "to": 0 })),
        ("count", json!({ "to": 1.5 })),
        ("count", json!({ "to": 2, "delay_ms": 1001 })),
        ("ask", json!({ "question": 1 })),
    ] {
        let answer = client.ask(
            "tools/call",
            json!({ "name": name, "arguments": arguments }),
        );
        assert_eq!(answer["result"]["isError"], true, "{name} {arguments}");
    }
}

#[test]
fn a_batch_is_answered_as_one() {
    let mut client = Client::new(json!({}));
    let ping = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
    let heard =
        client.say(&json!([ping(1), { "jsonrpc": "2.0", "method": "notifications/x" }, ping(2)]));
    assert_eq!(heard.len(), 1);
    assert_eq!(
        (&heard[0][0]["id"], &heard[0][1]["id"]),
        (&json!(1), &json!(2))
    );
}

#[test]
fn count_reports_progress_and_holds_nothing_up() {
    let mut client = Client::new(json!({}));
    client.ask("logging/setLevel", json!({ "level": "debug" }));
    let count = json!({
        "name": "count",
        "arguments": { "to": 2, "delay_ms": 10 },
        "_meta": { "progressToken": "t" }
    });
    let heard = client.call(1, count.clone());
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0]["method"], "notifications/message");
    assert_eq!(
        client.call(1, count)[0]["result"]["isError"],
        true,
        "an id that is under way"
    );
    client.ask("ping", json!({}));
    assert!(client.after(9).is_empty());
    let heard = client.after(1);
    assert_eq!(
        heard[0]["params"],
        json!({ "progressToken": "t", "progress": 1, "total": 2 })
    );
    let heard = client.after(10);
    assert_eq!(
        (heard.len(), text(&heard[1]), &heard[1]["id"]),
        (2, "counted to 2", &json!(1))
    );
    assert!(client.server.next_due().is_none());
}

#[test]
fn a_cancelled_count_is_never_answered() {
    let mut client = Client::new(json!({}));
    assert!(
        client
            .call(1, json!({ "name": "count", "arguments": { "to": 3 } }))
            .is_empty()
    );
    let cancel = |id: u64| {
        let params = json!({ "requestId": id });
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params })
    };
    assert!(client.say(&cancel(2)).is_empty());
    assert!(client.server.next_due().is_some());
    assert!(client.say(&cancel(1)).is_empty());
    assert!(client.server.next_due().is_none());
    assert!(client.after(10_000).is_empty());
}

#[test]
fn no_more_calls_than_allowed_are_under_way() {
    let mut client = Client::new(json!({}));
    let count = json!({ "name": "count", "arguments": { "to": 1 } });
    for id in 0..MAX_JOBS as u64 {
        assert!(client.call(id, count.clone()).is_empty());
    }
    assert_eq!(client.call(99, count)[0]["result"]["isError"], true);
    assert_eq!(client.after(100).len(), MAX_JOBS);
}

#[test]
fn ask_takes_every_answer() {
    let question = json!({ "name": "ask", "arguments": { "question": "Tea?" } });
    for (reply, told, is_error) in [
        (
            json!({ "result": { "action": "accept", "content": { "answer": "yes" } } }),
            "the answer is: yes",
            false,
        ),
        (
            json!({ "result": { "action": "accept" } }),
            "the client accepted, but sent no answer",
            true,
        ),
        (
            json!({ "result": { "action": "decline" } }),
            "the user declined to answer",
            false,
        ),
        (
            json!({ "result": { "action": "cancel" } }),
            "the user dismissed the question",
            false,
        ),
        (
            json!({ "error": { "code": -1, "message": "no" } }),
            "the client could not ask: no",
            true,
        ),
    ] {
        let mut client = Client::new(json!({ "elicitation": {} }));
        let asked = client.call(1, question.clone());
        assert_eq!(
            (&asked[0]["method"], &asked[0]["params"]["message"]),
            (&json!("elicitation/create"), &json!("Tea?"))
        );
        let mut reply = reply;
        reply["jsonrpc"] = json!("2.0");
        reply["id"] = json!(99);
        assert!(client.say(&reply).is_empty(), "an answer to nothing");
        reply["id"] = asked[0]["id"].clone();
        let heard = client.say(&reply);
        assert_eq!(
            (text(&heard[0]), &heard[0]["result"]["isError"]),
            (told, &json!(is_error))
        );
        assert!(client.say(&reply).is_empty(), "a second answer");
    }
}

#[test]
fn ask_does_not_ask_who_cannot_be_asked() {
    let question = json!({ "name": "ask", "arguments": { "question": "Tea?" } });
    for capabilities in [json!({}), json!({ "elicitation": { "url": {} } })] {
        let heard = Client::new(capabilities).call(1, question.clone());
        assert_eq!(
            (heard.len(), &heard[0]["result"]["isError"]),
            (1, &json!(false))
        );
    }
    let mut client = Client::new(json!({ "elicitation": { "form": {} } }));
    assert_eq!(client.call(1, question)[0]["method"], "elicitation/create");
    let heard = client.after(600_000);
    assert_eq!(
        (&heard[0]["method"], &heard[1]["result"]["isError"]),
        (&json!("notifications/cancelled"), &json!(true))
    );
}
