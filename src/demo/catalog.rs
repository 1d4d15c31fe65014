//! What the demo server offers, as its lists say it: tools, the resource, the prompt. Beside
//! [`super`], which does what is written here; this file knows no request and no client.

use std::time::{SystemTime, UNIX_EPOCH};

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

const ABOUT: &str = "This is the demo server built into mcp-broker. Every session has a process of it to itself. \
    Call `count` with a progress token to see progress, `ask` to be asked something, `whoami` to see who the broker \
    says you are. Put a server of your own in its place with: mcp-broker serve -- COMMAND ARG...";

/// The result of `tools/list`.
pub(super) fn tools() -> Value {
    json!({ "tools": [
        tool("echo", "Says back the text it is given.", &json!({
            "type": "object",
            "properties": { "text": { "type": "string", "description": "What to say back" } },
            "required": ["text"]
        })),
        tool("time", "Tells the time in UTC (RFC 3339).", &json!({ "type": "object" })),
        tool("count", "Counts, one step after the other, and reports progress when asked to.", &json!({
            "type": "object",
            "properties": {
                "to": { "type": "integer", "minimum": 1, "maximum": MAX_COUNT, "description": "The last number" },
                "delay_ms": { "type": "integer", "minimum": 0, "maximum": MAX_DELAY_MS, "default": 100,
                    "description": "Pause before each number, in milliseconds" }
            },
            "required": ["to"]
        })),
        tool("ask", "Puts a question to the user through the client, and tells what came back.", &json!({
            "type": "object",
            "properties": { "question": { "type": "string", "description": "What to ask" } },
            "required": ["question"]
        })),
        tool("whoami", "Tells which user the broker started this server for.", &json!({ "type": "object" })),
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
    Some(json!({
        "description": format!("Greets {name} in {language}"),
        "messages": [{
            "role": "user",
            "content": { "type": "text", "text": format!("Say \"{hello}, {name}!\" and ask in {language} how you can help.") },
        }],
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

/// `at` in UTC to the second, as RFC 3339 writes it. A clock before 1970 reads as 1970.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= days_in_year(year) {
        days -= days_in_year(year);
        year += 1;
    }
    let february = days_in_year(year) - 337;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        days + 1
    )
}

fn days_in_year(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_read_as_the_calendar_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn languages_complete_by_what_was_typed() {
        assert_eq!(languages("g"), ["German"]);
        assert_eq!(languages("").len(), GREETINGS.len());
        assert!(languages("x").is_empty());
        assert!(greeting("Ada", Some("german")).is_some());
        assert!(greeting("Ada", Some("Latin")).is_none());
    }
}
