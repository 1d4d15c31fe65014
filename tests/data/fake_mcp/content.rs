//! Resources, prompts and completion: what the conformance suite reads, and nothing more.

use serde_json::{Value, json};

use crate::call::{Ask, Call, Era, Fault, State};
use crate::catalogue;

/// A PNG of one red pixel, base64.
pub(crate) const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC";
/// A WAV file of two silent samples, base64.
pub(crate) const WAV: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQIAAACAgA==";

/// `resources/read`.
pub(crate) fn read(call: &Call) -> Result<Value, Fault> {
    let uri = call.params.text("uri").unwrap_or_default();
    let id = uri.strip_prefix("test://template/");
    let content = match (uri.as_str(), id.and_then(|id| id.strip_suffix("/data"))) {
        ("test://static-text", _) => json!({
            "uri": uri,
            "mimeType": "text/plain",
            "text": "This is the content of the static text resource.",
        }),
        ("test://static-binary", _) => json!({
            "uri": uri,
            "mimeType": "image/png",
            "blob": PNG,
        }),
        ("test://watched-resource", _) => json!({
            "uri": uri,
            "mimeType": "text/plain",
            "text": "Watched resource content",
        }),
        (_, Some(id)) => json!({
            "uri": uri,
            "mimeType": "application/json",
            "text": json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") })
                .to_string(),
        }),
        _ => {
            // -32002 until 2025-11-25, "invalid params" since.
            let code = match call.era {
                Era::Legacy => -32002,
                Era::Modern => -32602,
            };
            let data = json!({ "uri": uri });
            return Err(Fault::Rpc(code, "resource not found".into(), Some(data)));
        }
    };
    Ok(catalogue::cacheable(
        call.era,
        json!({ "contents": [content] }),
    ))
}

/// `completion/complete`: words that begin with what has been typed.
pub(crate) fn complete(call: &Call) -> Result<Value, Fault> {
    let argument = call.params.object("argument");
    let argument = argument.ok_or_else(|| Fault::params("argument is missing"))?;
    let typed = argument.text("value").unwrap_or_default();
    let words = ["paris", "park", "party", "test", "testing"];
    let values: Vec<&str> = words
        .into_iter()
        .filter(|word| word.starts_with(&typed))
        .collect();
    Ok(json!({
        "completion": { "total": values.len(), "values": values, "hasMore": false }
    }))
}

/// `prompts/get`.
pub(crate) fn prompt(call: &Call) -> Result<Value, Fault> {
    let arguments = call.arguments();
    let argument = |name: &str| arguments.text(name).unwrap_or_default();
    let messages = match call.name().as_str() {
        "test_simple_prompt" => vec![text("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let (one, two) = (argument("arg1"), argument("arg2"));
            vec![text(&format!(
                "Prompt with arguments: arg1='{one}', arg2='{two}'"
            ))]
        }
        "test_prompt_with_embedded_resource" => {
            let resource = json!({
                "uri": argument("resourceUri"),
                "mimeType": "text/plain",
                "text": "Embedded resource content for testing.",
            });
            vec![
                user(json!({ "type": "resource", "resource": resource })),
                text("Please process the embedded resource above."),
            ]
        }
        "test_prompt_with_image" => vec![
            user(json!({ "type": "image", "data": PNG, "mimeType": "image/png" })),
            text("Please analyze the image above."),
        ],
        "test_input_required_result_prompt" => {
            let ask = elicit(
                "user_context",
                "What context should the prompt use?",
                json!({ "context": { "type": "string" } }),
                &["context"],
            );
            let answer = call.ask(State::Optional, ask)?;
            let context = answer["content"]["context"].as_str().unwrap_or("none");
            vec![text(&format!("Use this context: {context}"))]
        }
        name => return Err(Fault::params(format!("unknown prompt: {name}"))),
    };
    Ok(json!({ "messages": messages }))
}

/// An `elicitation/create` with a form of these properties.
pub(crate) fn elicit(
    key: &'static str,
    message: &str,
    properties: Value,
    required: &[&str],
) -> Ask {
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    Ask {
        key,
        method: "elicitation/create",
        params: json!({ "message": message, "requestedSchema": schema }),
    }
}

fn text(text: &str) -> Value {
    user(json!({ "type": "text", "text": text }))
}

fn user(content: Value) -> Value {
    json!({ "role": "user", "content": content })
}
