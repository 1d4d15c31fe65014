//! Questions of a legacy child in the middle of a modern call: the call is answered, stays open in
//! the child, and the retry resumes it (2026-07-28, mrtr).

use serde_json::{Value, json};

use rustix::process::Signal;

use super::{client, over, setup, user};
use crate::support::modern::{Modern, text};
use crate::support::{eventually, process};

const CONFIRM: &str = "test_input_required_result_tampered_state";

/// The result of a call that asks for something.
#[track_caller]
fn asked(answer: &Value) -> (Value, Value) {
    let result = &answer["result"];
    assert_eq!(result["resultType"], "input_required", "{answer}");
    assert!(result["requestState"].is_string(), "{answer}");
    (
        result["inputRequests"].clone(),
        result["requestState"].clone(),
    )
}

/// Begins a call that asks for a confirmation.
#[track_caller]
fn confirm(client: &mut Modern, arguments: Value) -> (String, Value) {
    let (requests, state) = asked(&client.call(CONFIRM, arguments));
    let keys: Vec<_> = requests.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 1, "{requests}");
    (keys[0].clone(), state)
}

fn accepted(content: Value) -> Value {
    json!({ "action": "accept", "content": content })
}

#[track_caller]
fn assert_refused(answer: &Value) {
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
}

fn retry(client: &mut Modern, arguments: Value, state: &Value, key: &str) -> Value {
    let message = client.message(
        "tools/call",
        json!({
            "name": CONFIRM,
            "arguments": arguments,
            "requestState": state,
            "inputResponses": { key: accepted(json!({ "ok": true })) },
        }),
    );
    client.post(&message).answer()
}

#[test]
fn several_questions_at_once() {
    let broker = over("legacy");
    let mut client = client(&broker);
    let tool = "test_input_required_result_multiple_inputs";
    let (requests, state) = asked(&client.call(tool, json!({})));
    let methods = |key: &str| requests[key]["method"].as_str().unwrap_or("").to_owned();
    let keys: Vec<String> = requests.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 3, "{requests}");
    let mut answers = json!({ "one that was not asked": { "action": "accept" } });
    for key in &keys {
        answers[key] = match methods(key).as_str() {
            "elicitation/create" => accepted(json!({ "name": "Ada" })),
            "sampling/createMessage" => json!({
                "role": "assistant", "model": "m",
                "content": { "type": "text", "text": "hello" },
            }),
            "roots/list" => json!({ "roots": [{ "uri": "file:///home/ada" }] }),
            other => panic!("{other}: {requests}"),
        };
    }
    let done = text(&client.retry(tool, json!({}), &state, answers));
    for word in ["Ada", "hello", "file:///home/ada"] {
        assert!(done.contains(word), "{done}");
    }
}

#[test]
fn one_question_after_the_other() {
    let broker = over("legacy");
    let mut client = client(&broker);
    let tool = "test_input_required_result_multi_round";
    let (first, state) = asked(&client.call(tool, json!({})));
    let (key, _) = first.as_object().unwrap().iter().next().unwrap();
    let answer = json!({ key: accepted(json!({ "name": "Ada" })) });
    // On another connection, as another id.
    client.last_request += 1000;
    let (second, next) = asked(&client.retry(tool, json!({}), &state, answer));
    assert_ne!(state, next);
    let (key, _) = second.as_object().unwrap().iter().next().unwrap();
    let answer = json!({ key: accepted(json!({ "color": "red" })) });
    let done = text(&client.retry(tool, json!({}), &next, answer));
    assert_eq!(done, r#""Ada" likes "red""#);
    // It was one call.
    assert_eq!(client.cancelled(), 0);
}

#[test]
fn an_answer_that_is_missing_is_asked_for_again() {
    let broker = over("legacy");
    let mut client = client(&broker);
    let (key, state) = confirm(&mut client, json!({}));
    let (again, next) = asked(&client.retry(CONFIRM, json!({}), &state, json!({})));
    assert!(again[&key].is_object(), "{again}");
    let done = retry(&mut client, json!({}), &next, &key);
    assert!(text(&done).contains("accept"), "{done}");
}

#[test]
fn an_answer_may_be_a_refusal() {
    let broker = over("legacy");
    let mut client = client(&broker);
    for action in ["decline", "cancel"] {
        let (key, state) = confirm(&mut client, json!({}));
        let answers = json!({ key: { "action": action } });
        let done = text(&client.retry(CONFIRM, json!({}), &state, answers));
        assert!(done.contains(&format!("action={action}")), "{done}");
    }
}

#[test]
fn a_state_is_good_once_for_its_request_of_its_principal() {
    let broker = setup("legacy").user("ann", &[]).user("bob", &[]).start();
    let (mut ann, mut bob) = (user(&broker, "ann"), user(&broker, "bob"));
    let arguments = json!({ "n": 1 });
    let (key, state) = confirm(&mut ann, arguments.clone());
    let (_, of_bob) = confirm(&mut bob, arguments.clone());
    let mut forged = state.as_str().unwrap().to_owned();
    let last = if forged.ends_with('0') { "1" } else { "0" };
    forged.replace_range(forged.len() - 1.., last);
    for bad in [
        json!(forged),
        json!("made up"),
        json!(""),
        json!(7),
        of_bob.clone(),
    ] {
        assert_refused(&retry(&mut ann, arguments.clone(), &bad, &key));
    }
    assert_refused(&retry(&mut bob, arguments.clone(), &state, &key));
    assert_refused(&retry(&mut ann, json!({ "n": 2 }), &state, &key));
    // None of these has touched anything: it is still good.
    assert_eq!(ann.cancelled(), 0);
    let done = retry(&mut ann, arguments.clone(), &state, &key);
    assert!(text(&done).contains("accept"), "{done}");
    assert_refused(&retry(&mut ann, arguments.clone(), &state, &key));
    let done = retry(&mut bob, arguments, &of_bob, &key);
    assert!(text(&done).contains("accept"), "{done}");
}

#[test]
fn of_many_retries_at_once_one_gets_through() {
    let broker = over("legacy");
    let mut client = client(&broker);
    let (key, state) = confirm(&mut client, json!({}));
    let retries: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, state, key) = (client.clone(), state.clone(), key.clone());
            std::thread::spawn(move || retry(&mut client, json!({}), &state, &key))
        })
        .collect();
    let answers: Vec<Value> = retries.into_iter().map(|it| it.join().unwrap()).collect();
    let good = answers.iter().filter(|it| it["result"].is_object());
    assert_eq!(good.count(), 1, "{answers:?}");
    answers
        .iter()
        .filter(|it| it["error"].is_object())
        .for_each(assert_refused);
}

#[test]
fn a_retry_that_never_comes_is_not_waited_for_any_longer() {
    let broker = setup("legacy").setting("input_timeout", "1s").start();
    let mut client = client(&broker);
    let (key, state) = confirm(&mut client, json!({}));
    eventually("the child is told", || client.cancelled() == 1);
    assert_refused(&retry(&mut client, json!({}), &state, &key));
}

#[test]
fn a_child_that_died_meanwhile_has_forgotten_it() {
    let broker = over("legacy");
    let mut client = client(&broker);
    let pid = client.pid();
    let (key, state) = confirm(&mut client, json!({}));
    process::signal(pid, Signal::KILL);
    eventually("it ends", || process::group(pid).is_empty());
    broker.wait_for_log("session ended");
    assert_refused(&retry(&mut client, json!({}), &state, &key));
    assert_ne!(client.pid(), pid);
    let (key, state) = confirm(&mut client, json!({}));
    assert!(text(&retry(&mut client, json!({}), &state, &key)).contains("accept"));
}

#[test]
fn over_a_modern_child_its_own_states_go_through() {
    for kind in ["modern", "dual"] {
        let broker = over(kind);
        let mut client = client(&broker);
        let (key, state) = confirm(&mut client, json!({}));
        assert_refused(&retry(&mut client, json!({}), &json!("made up"), &key));
        let done = retry(&mut client, json!({}), &state, &key);
        assert!(text(&done).contains("accept"), "{kind}: {done}");
    }
}
