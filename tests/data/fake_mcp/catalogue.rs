//! What the server says it offers, and the fields an era adds to a result. Tables, no behaviour.

use serde_json::{Value, json};

use crate::call::Era;

/// The revisions spoken after `initialize`, the newest first.
pub(crate) const LEGACY_VERSIONS: [&str; 4] =
    ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// The revision spoken without.
pub(crate) const MODERN_VERSION: &str = "2026-07-28";

const INSTRUCTIONS: &str = "A server for tests.";

/// A tool of no arguments: name and description.
const PLAIN_TOOLS: [(&str, &str); 32] = [
    ("test_simple_text", "Returns a text"),
    ("test_image_content", "Returns an image"),
    ("test_audio_content", "Returns a sound"),
    ("test_embedded_resource", "Returns a resource"),
    (
        "test_multiple_content_types",
        "Returns text, image and resource",
    ),
    ("test_error_handling", "Returns an error"),
    ("test_tool_with_progress", "Reports progress three times"),
    ("test_tool_with_logging", "Sends three log messages"),
    ("test_logging_tool", "Sends a log message if one is wanted"),
    ("test_reconnection", "Takes a while"),
    ("test_missing_capability", "Needs sampling"),
    ("test_streaming_elicitation", "Reports progress, then asks"),
    ("test_trigger_tool_change", "Changes the list of tools"),
    ("test_trigger_prompt_change", "Changes the list of prompts"),
    (
        "test_elicitation_sep1034_defaults",
        "Asks, with default values",
    ),
    ("test_elicitation_sep1330_enums", "Asks, with choices"),
    ("test_input_required_result_elicitation", "Asks for a name"),
    ("test_input_required_result_sampling", "Asks the model"),
    (
        "test_input_required_result_list_roots",
        "Asks for the roots",
    ),
    (
        "test_input_required_result_request_state",
        "Asks, and keeps state",
    ),
    (
        "test_input_required_result_multiple_inputs",
        "Asks three things at once",
    ),
    (
        "test_input_required_result_multi_round",
        "Asks twice, one after the other",
    ),
    (
        "test_input_required_result_tampered_state",
        "Asks, and checks the state",
    ),
    (
        "test_input_required_result_capabilities",
        "Asks what the client can answer",
    ),
    ("pid", "Returns pid, ppid, pgid and sid"),
    ("received", "Returns the notifications received so far"),
    (
        "garbage",
        "Writes lines that are not JSON-RPC, then answers",
    ),
    ("deaf", "Answers, and reads nothing from then on"),
    ("result_before_progress", "Answers, then reports progress"),
    (
        "escape_id",
        "Answers with every character of the id escaped",
    ),
    (
        "late_after_cancel",
        "Waits to be cancelled, then answers all the same",
    ),
    ("echo", "Returns its arguments, byte for byte"),
];

/// Arguments of a tool: name and JSON Schema type of each.
type Arguments = &'static [(&'static str, &'static str)];

/// A tool with arguments: name, description, arguments.
const TOOLS: [(&str, &str, Arguments); 19] = [
    ("test_sampling", "Asks the model", &[("prompt", "string")]),
    (
        "test_elicitation",
        "Asks the user",
        &[("message", "string")],
    ),
    ("sleep", "Waits", &[("ms", "integer")]),
    (
        "env",
        "Returns a variable of the environment, or the names of all",
        &[("name", "string")],
    ),
    ("big", "Returns a long text", &[("bytes", "integer")]),
    (
        "raw",
        "Returns this text as its result",
        &[("result", "string")],
    ),
    (
        "count",
        "Reports progress n times",
        &[("n", "integer"), ("delay_ms", "integer")],
    ),
    (
        "ask",
        "Asks for sampling, elicitation (by form or by URL) or roots",
        &[("kind", "string")],
    ),
    (
        "flood",
        "Sends n large messages: progress, or log messages",
        &[("n", "integer"), ("bytes", "integer")],
    ),
    (
        "log",
        "Sends n log messages",
        &[("n", "integer"), ("level", "string")],
    ),
    (
        "notify",
        "Sends a notification",
        &[("method", "string"), ("params", "object")],
    ),
    (
        "notify_after",
        "Answers, then sends a notification",
        &[("method", "string"), ("ms", "integer")],
    ),
    (
        "change_after",
        "Answers, then changes the list of tools or prompts",
        &[("list", "string"), ("ms", "integer")],
    ),
    ("exit", "Ends the process", &[("code", "integer")]),
    (
        "stderr",
        "Writes a line to stderr, n times",
        &[("text", "string"), ("n", "integer")],
    ),
    (
        "longline",
        "Writes a long line that is not JSON, then answers",
        &[("bytes", "integer")],
    ),
    (
        "touch_resource",
        "Says that a resource has changed",
        &[("uri", "string")],
    ),
    (
        "witness",
        "Says who answers whom, after some progress; or dies",
        &[
            ("mark", "string"),
            ("steps", "integer"),
            ("step_ms", "integer"),
            ("pad", "integer"),
            ("die", "string"),
        ],
    ),
    (
        "deluge",
        "Sends n log messages that say who speaks, among noise",
        &[
            ("mark", "string"),
            ("n", "integer"),
            ("bytes", "integer"),
            ("garbage", "integer"),
            ("stderr", "integer"),
        ],
    ),
];

/// The result of `initialize`.
pub(crate) fn initialize(version: &str) -> Value {
    json!({
        "protocolVersion": version,
        "capabilities": capabilities(),
        "serverInfo": identity(),
        "instructions": INSTRUCTIONS,
    })
}

/// The result of `server/discover`.
pub(crate) fn discover() -> Value {
    let result = json!({
        "supportedVersions": [MODERN_VERSION],
        "capabilities": capabilities(),
        "instructions": INSTRUCTIONS,
    });
    cacheable(Era::Modern, result)
}

/// The result of `tools/list`; a changed list has one tool more.
pub(crate) fn tools(era: Era, changed: bool) -> Value {
    let plain = PLAIN_TOOLS.iter().map(|(name, text)| tool(name, text, &[]));
    let others = TOOLS
        .iter()
        .map(|(name, text, args)| tool(name, text, args));
    let mut tools: Vec<Value> = plain.chain(others).collect();
    tools.push(json!({
        "name": "spawn_grandchild",
        "description": "Starts a process that holds stdin, stdout and stderr, returns its pid",
        "inputSchema": {
            "type": "object",
            "properties": {
                "ignore_term": { "type": "boolean" },
                "setsid": { "type": "boolean" },
                "clear_env": { "type": "boolean" },
                "orphan": { "type": "boolean" },
            },
        },
    }));
    tools.push(json!({
        "name": "test_x_mcp_header",
        "description": "Has an argument that HTTP clients repeat in a header",
        "inputSchema": {
            "type": "object",
            "properties": { "region": { "type": "string", "x-mcp-header": "Region" } },
        },
    }));
    tools.push(json_schema_tool());
    if changed {
        tools.push(tool("test_changed", "Comes and goes", &[]));
    }
    cacheable(era, json!({ "tools": tools }))
}

/// The result of `prompts/list`; a changed list has one prompt more.
pub(crate) fn prompts(era: Era, changed: bool) -> Value {
    let argument = |name: &str| json!({ "name": name, "description": name, "required": true });
    let prompt = |name: &str, arguments: Vec<Value>| {
        let description = "A prompt for tests";
        json!({ "name": name, "description": description, "arguments": arguments })
    };
    let mut prompts = vec![
        prompt("test_simple_prompt", vec![]),
        prompt(
            "test_prompt_with_arguments",
            vec![argument("arg1"), argument("arg2")],
        ),
        prompt(
            "test_prompt_with_embedded_resource",
            vec![argument("resourceUri")],
        ),
        prompt("test_prompt_with_image", vec![]),
        prompt("test_input_required_result_prompt", vec![]),
    ];
    if changed {
        prompts.push(prompt("test_changed", vec![]));
    }
    cacheable(era, json!({ "prompts": prompts }))
}

/// The result of `resources/list`.
pub(crate) fn resources(era: Era) -> Value {
    let resource = |name: &str, kind: &str| {
        json!({
            "uri": format!("test://{name}"),
            "name": name,
            "description": "A resource for tests",
            "mimeType": kind,
        })
    };
    let resources = [
        resource("static-text", "text/plain"),
        resource("static-binary", "image/png"),
        resource("watched-resource", "text/plain"),
    ];
    cacheable(era, json!({ "resources": resources }))
}

/// The result of `resources/templates/list`.
pub(crate) fn templates(era: Era) -> Value {
    let template = json!({
        "uriTemplate": "test://template/{id}/data",
        "name": "template",
        "description": "A template for tests",
        "mimeType": "application/json",
    });
    cacheable(era, json!({ "resourceTemplates": [template] }))
}

/// A result with what a modern one says about caching (2026-07-28, "Caching").
pub(crate) fn cacheable(era: Era, mut result: Value) -> Value {
    if era == Era::Modern {
        result["ttlMs"] = Value::from(0);
        result["cacheScope"] = Value::from("private");
    }
    result
}

/// A result with what every modern one carries: its type and who made it.
pub(crate) fn dress(era: Era, mut result: Value) -> Value {
    if era == Era::Modern {
        if result.get("resultType").is_none() {
            result["resultType"] = Value::from("complete");
        }
        result["_meta"]["io.modelcontextprotocol/serverInfo"] = identity();
    }
    result
}

fn capabilities() -> Value {
    json!({
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "subscribe": true, "listChanged": true },
        "logging": {},
        "completions": {},
    })
}

fn identity() -> Value {
    json!({ "name": "fake_mcp", "version": env!("CARGO_PKG_VERSION") })
}

fn tool(name: &str, description: &str, arguments: &[(&str, &str)]) -> Value {
    let property = |(name, kind): &(&str, &str)| (name.to_string(), json!({ "type": kind }));
    let properties: serde_json::Map<_, _> = arguments.iter().map(property).collect();
    json!({
        "name": name,
        "description": description,
        "inputSchema": { "type": "object", "properties": properties },
    })
}

/// The schema keywords that SEP-1613 and SEP-2106 want to pass unchanged.
fn json_schema_tool() -> Value {
    json!({
        "name": "json_schema_2020_12_tool",
        "description": "Has a schema with keywords of JSON Schema 2020-12",
        "inputSchema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {
                "address": {
                    "$anchor": "addressDef",
                    "type": "object",
                    "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
                },
            },
            "properties": {
                "name": { "type": "string" },
                "address": { "$ref": "#/$defs/address" },
                "contactMethod": { "type": "string", "enum": ["phone", "email"] },
                "phone": { "type": "string" },
                "email": { "type": "string" },
            },
            "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
            "if": {
                "properties": { "contactMethod": { "const": "phone" } },
                "required": ["contactMethod"],
            },
            "then": { "required": ["phone"] },
            "else": { "required": ["email"] },
            "additionalProperties": false,
        },
    })
}
