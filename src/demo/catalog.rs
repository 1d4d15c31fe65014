//! What the demo server offers, as its lists say it: tools, the resource, the prompt. Beside
//! [`super`], which does what is written here; this file knows no request and no client.

use serde_json::{Value, json};

/// The one resource.
pub(super) const ABOUT_URI: &str = "demo://about";

/// How far `count` counts at most.
pub(super) const MAX_COUNT: u64 = 1000;

/// The longest pause between two steps of `count`, in milliseconds.
pub(super) const MAX_DELAY_MS: u64 = 1000;

/// Language and greeting of the prompt; the first is the default.
const GREETINGS: [(&str, &str); 5] = [
    ("English", "Hello"),
    ("French", "Bonjour"),
    ("German", "Guten Tag"),
    ("Italian", "Buongiorno"),
    ("Spanish", "Hola"),
];

const ABOUT: &str = "This is the demo server built into mcp-broker. Every session has a process \
    of it to itself. Call `count` with a progress token to see progress, `ask` to be asked \
    something, `whoami` to see who the broker says you are. Put a server of your own in its \
    place with: mcp-broker serve -- COMMAND ARG...";

/// The result of `tools/list`.
pub(super) fn tools() -> Value {
    json!({ "tools": [
        tool("echo", "Says back the text it is given.", &json!({
            "type": "object",
            "properties": { "text": { "type": "string", "description": "What to say back" } },
            "required": ["text"]
        })),
        tool("time", "Tells the time in UTC (RFC 3339).", &json!({ "type": "object" })),
        tool("count", "Counts, step by step, and reports progress when asked to.", &json!({
            "type": "object",
            "properties": {
                "to": {
                    "type": "integer", "minimum": 1, "maximum": MAX_COUNT,
                    "description": "The last number"
                },
                "delay_ms": {
                    "type": "integer", "minimum": 0, "maximum": MAX_DELAY_MS, "default": 100,
                    "description": "Pause before each number, in milliseconds"
                }
            },
            "required": ["to"]
        })),
        tool("ask", "Asks the user something through the client, and tells the answer.", &json!({
            "type": "object",
            "properties": { "question": { "type": "string", "description": "What to ask" } },
            "required": ["question"]
        })),
        tool("whoami", "Tells which user this server was started for.", &json!({
            "type": "object"
        })),
    ] })
}

fn tool(name: &str, description: &str, schema: &Value) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": schema,
        "annotations": { "readOnlyHint": true, "openWorldHint": false },
    })
}

/// The result of `resources/list`.
pub(super) fn resources() -> Value {
    json!({ "resources": [{
        "uri": ABOUT_URI,
        "name": "about",
        "description": "What this server is for",
        "mimeType": "text/plain",
    }] })
}

/// The result of `resources/read` for [`ABOUT_URI`].
pub(super) fn about() -> Value {
    json!({ "contents": [{ "uri": ABOUT_URI, "mimeType": "text/plain", "text": ABOUT }] })
}

/// The result of `prompts/list`.
pub(super) fn prompts() -> Value {
    json!({ "prompts": [{
        "name": "greet",
        "description": "Greets someone, in a language of your choice",
        "arguments": [
            { "name": "name", "description": "Who to greet", "required": true },
            { "name": "language", "description": "English if not given", "required": false },
        ],
    }] })
}

/// The result of `prompts/get` for `greet`; `None` when it does not know the language.
pub(super) fn greeting(name: &str, language: Option<&str>) -> Option<Value> {
    let wanted = language.unwrap_or(GREETINGS[0].0);
    let (language, hello) = GREETINGS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(wanted))?;
    let text = format!("Say \"{hello}, {name}!\" and ask in {language} how you can help.");
    Some(json!({
        "description": format!("Greets {name} in {language}"),
        "messages": [{ "role": "user", "content": { "type": "text", "text": text } }],
    }))
}

/// The languages of `greet` that begin with `typed`, for `completion/complete`.
pub(super) fn languages(typed: &str) -> Vec<&'static str> {
    let typed = typed.to_lowercase();
    GREETINGS
        .iter()
        .map(|(language, _)| *language)
        .filter(|language| language.to_lowercase().starts_with(&typed))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_complete_by_what_was_typed() {
        assert_eq!(languages("g"), ["German"]);
        assert_eq!(languages("").len(), GREETINGS.len());
        assert!(languages("x").is_empty());
        assert!(greeting("Ada", Some("german")).is_some());
        assert!(greeting("Ada", Some("Latin")).is_none());
    }
}
