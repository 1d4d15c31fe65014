//! `tools/call`: the tools that the conformance suite calls. All of them exist in both eras; the
//! ones that ask do so by a request of their own or by an `input_required` result, as `call`
//! decides. Other names go to `probes`.

use serde_json::{Value, json};

use crate::call::{Ask, Call, Fault, Outcome, Reply, State};
use crate::content::{PNG, WAV, elicit};
use crate::message::Answer;
use crate::probes;

/// Runs the tool that the call names.
pub(crate) fn run(call: &Call) -> Reply {
    let name = call.name();
    if let Some(content) = fixed_content(&name) {
        return Ok(Outcome::Result(json!({ "content": content })));
    }
    match name.as_str() {
        "test_error_handling" => Err(Fault::Tool(
            "This tool intentionally returns an error for testing".into(),
        )),
        "test_tool_with_progress" => with_progress(call),
        "test_tool_with_logging" => with_logging(call),
        "test_logging_tool" => {
            call.log("info", "Log message");
            text("Logged")
        }
        "test_reconnection" => {
            call.sleep(100)?;
            text("Reconnection test completed")
        }
        "test_trigger_tool_change" => {
            call.server.change_list("tools");
            text("Tool list changed")
        }
        "test_trigger_prompt_change" => {
            call.server.change_list("prompts");
            text("Prompt list changed")
        }
        "test_x_mcp_header" | "json_schema_2020_12_tool" | "test_changed" => {
            text(call.arguments_text())
        }
        _ => asking(call, &name).unwrap_or_else(|| probes::run(call, &name)),
    }
}

/// A result of one text.
pub(crate) fn text(text: impl Into<String>) -> Reply {
    let content = json!({ "type": "text", "text": text.into() });
    Ok(Outcome::Result(json!({ "content": [content] })))
}

/// The request to sample an answer to `prompt`.
pub(crate) fn sample(key: &'static str, prompt: &str) -> Ask {
    let content = json!({ "type": "text", "text": prompt });
    let messages = json!([{ "role": "user", "content": content }]);
    Ask {
        key,
        method: "sampling/createMessage",
        params: json!({ "messages": messages, "maxTokens": 100 }),
    }
}

/// The request to elicit a name.
pub(crate) fn ask_name(key: &'static str, message: &str) -> Ask {
    elicit(
        key,
        message,
        json!({ "name": { "type": "string" } }),
        &["name"],
    )
}

/// The request for the client's roots.
pub(crate) fn roots(key: &'static str) -> Ask {
    Ask {
        key,
        method: "roots/list",
        params: json!({}),
    }
}

fn fixed_content(name: &str) -> Option<Value> {
    let image = json!({ "type": "image", "data": PNG, "mimeType": "image/png" });
    let resource = |uri: &str, kind: &str, text: &str| {
        let resource = json!({ "uri": uri, "mimeType": kind, "text": text });
        json!({ "type": "resource", "resource": resource })
    };
    Some(match name {
        "test_simple_text" => {
            json!([{ "type": "text", "text": "This is a simple text response for testing." }])
        }
        "test_image_content" => json!([image]),
        "test_audio_content" => {
            json!([{ "type": "audio", "data": WAV, "mimeType": "audio/wav" }])
        }
        "test_embedded_resource" => json!([resource(
            "test://embedded-resource",
            "text/plain",
            "This is an embedded resource content.",
        )]),
        "test_multiple_content_types" => json!([
            { "type": "text", "text": "Multiple content types test:" },
            image,
            resource(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            ),
        ]),
        _ => return None,
    })
}

fn with_progress(call: &Call) -> Reply {
    call.progress(0, 100);
    call.sleep(50)?;
    call.progress(50, 100);
    call.sleep(50)?;
    call.progress(100, 100);
    text("Tool with progress completed")
}

fn with_logging(call: &Call) -> Reply {
    call.log("info", "Tool execution started");
    call.sleep(50)?;
    call.log("info", "Tool processing data");
    call.sleep(50)?;
    call.log("info", "Tool execution completed");
    text("Tool with logging completed")
}

/// The tools that need the client; `None` for any other name.
fn asking(call: &Call, name: &str) -> Option<Reply> {
    Some(match name {
        "test_sampling" | "test_missing_capability" => test_sampling(call),
        "test_elicitation" => test_elicitation(call),
        "test_elicitation_sep1034_defaults" => {
            let message = "Please review the defaults";
            completed(call, elicit("defaults", message, defaults(), &[]))
        }
        "test_elicitation_sep1330_enums" => {
            let message = "Please choose";
            completed(call, elicit("enums", message, enums(), &[]))
        }
        "test_streaming_elicitation" => {
            call.progress(1, 2);
            completed(call, ask_name("streamed_name", "What is your name?"))
        }
        "test_input_required_result_elicitation" => greet(call),
        "test_input_required_result_sampling" => {
            let ask = sample("capital_question", "What is the capital of France?");
            let answer = call.ask(State::Optional, ask);
            answer.and_then(|answer| text(sampled(&answer)))
        }
        "test_input_required_result_list_roots" => {
            let answer = call.ask(State::Optional, roots("client_roots"));
            answer.and_then(|answer| text(format!("Roots: {}", answer["roots"])))
        }
        "test_input_required_result_request_state"
        | "test_input_required_result_tampered_state" => confirm(call),
        "test_input_required_result_multiple_inputs" => multiple_inputs(call),
        "test_input_required_result_multi_round" => multi_round(call),
        "test_input_required_result_capabilities" => what_it_can(call),
        _ => return None,
    })
}

fn test_sampling(call: &Call) -> Reply {
    let prompt = call.arguments().text("prompt").unwrap_or_default();
    let answer = call.ask(State::Optional, sample("sample", &prompt))?;
    text(format!("LLM response: {}", sampled(&answer)))
}

fn test_elicitation(call: &Call) -> Reply {
    let message = call.arguments().text("message").unwrap_or_default();
    let properties = json!({
        "username": { "type": "string", "description": "User's response" },
        "email": { "type": "string", "description": "User's email address" },
    });
    let ask = elicit("user", &message, properties, &["username", "email"]);
    let answer = call.ask(State::Optional, ask)?;
    text(format!("User response: {}", action_and_content(&answer)))
}

fn completed(call: &Call, ask: Ask) -> Reply {
    let answer = call.ask(State::Optional, ask)?;
    text(format!(
        "Elicitation completed: {}",
        action_and_content(&answer)
    ))
}

fn greet(call: &Call) -> Reply {
    let answer = call.ask(State::Optional, ask_name("user_name", "What is your name?"))?;
    let name = answer["content"]["name"].as_str().unwrap_or("stranger");
    text(format!("Hello, {name}!"))
}

fn confirm(call: &Call) -> Reply {
    let properties = json!({ "ok": { "type": "boolean" } });
    let ask = elicit("confirm", "Please confirm", properties, &["ok"]);
    let answer = call.ask(State::Needed, ask)?;
    text(format!("state-ok: {}", action_and_content(&answer)))
}

fn multiple_inputs(call: &Call) -> Reply {
    let asks = vec![
        ask_name("user_name", "What is your name?"),
        sample("greeting", "Generate a greeting"),
        roots("client_roots"),
    ];
    for ask in &asks {
        call.need(ask.capability())?;
    }
    report(&call.ask_all(State::Needed, asks)?)
}

fn multi_round(call: &Call) -> Reply {
    let first = ask_name("step1", "Step 1: What is your name?");
    let first = call.ask(State::Needed, first)?;
    let properties = json!({ "color": { "type": "string" } });
    let message = "Step 2: What is your favorite color?";
    let second = elicit("step2", message, properties, &["color"]);
    let second = call.ask(State::Needed, second)?;
    text(format!(
        "{} likes {}",
        first["content"]["name"], second["content"]["color"]
    ))
}

/// Asks only what the client can answer.
fn what_it_can(call: &Call) -> Reply {
    let mut asks = vec![
        ask_name("user_name", "What is your name?"),
        sample("greeting", "Generate a greeting"),
        roots("client_roots"),
    ];
    asks.retain(|ask| call.can(ask.capability()));
    report(&call.ask_all(State::Optional, asks)?)
}

fn report(answers: &[Answer]) -> Reply {
    let texts: Vec<String> = answers
        .iter()
        .map(|answer| match answer {
            Answer::Result(result) => format!("result {result}"),
            Answer::Error(error) => format!("error {error}"),
        })
        .collect();
    text(texts.join("\n"))
}

fn sampled(answer: &Value) -> String {
    let text = answer["content"]["text"].as_str();
    text.unwrap_or("no text").to_owned()
}

fn action_and_content(answer: &Value) -> String {
    let action = answer["action"].as_str().unwrap_or("none");
    format!("action={action}, content={}", answer["content"])
}

/// A default of each primitive type (SEP-1034).
fn defaults() -> Value {
    json!({
        "name": { "type": "string", "default": "John Doe" },
        "age": { "type": "integer", "default": 30 },
        "score": { "type": "number", "default": 95.5 },
        "status": {
            "type": "string",
            "enum": ["active", "inactive", "pending"],
            "default": "active",
        },
        "verified": { "type": "boolean", "default": true },
    })
}

/// The five ways to offer a choice (SEP-1330).
fn enums() -> Value {
    let titled = |titles: [&str; 3]| {
        let entry =
            |(index, title)| json!({ "const": format!("value{}", index + 1), "title": title });
        Value::from_iter(titles.iter().enumerate().map(entry))
    };
    let options = json!(["option1", "option2", "option3"]);
    json!({
        "untitledSingle": { "type": "string", "enum": options },
        "titledSingle": {
            "type": "string",
            "oneOf": titled(["First Option", "Second Option", "Third Option"]),
        },
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": { "type": "array", "items": { "type": "string", "enum": options } },
        "titledMulti": {
            "type": "array",
            "items": { "anyOf": titled(["First Choice", "Second Choice", "Third Choice"]) },
        },
    })
}
