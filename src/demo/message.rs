//! JSON-RPC as the demo server writes it, and the reading of parameters. Beside [`super::server`],
//! the only user; knows no method and no tool.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

pub(super) const PARSE_ERROR: i64 = -32700;
pub(super) const INVALID_REQUEST: i64 = -32600;
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
pub(super) const INVALID_PARAMS: i64 = -32602;
pub(super) const RESOURCE_NOT_FOUND: i64 = -32002;

/// A JSON-RPC error: code and message.
pub(super) struct Fault(pub(super) i64, pub(super) String);

pub(super) fn text_param<'a>(params: &'a Map<String, Value>, name: &str) -> Result<&'a str, Fault> {
    let value = params.get(name).and_then(Value::as_str);
    value.ok_or_else(|| Fault(INVALID_PARAMS, format!("params.{name} must be a string")))
}

pub(super) fn text_argument<'a>(
    arguments: &'a Map<String, Value>,
    name: &str,
) -> Result<&'a str, String> {
    arguments
        .get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("{name} must be a string"))
}

pub(super) fn number(
    arguments: &Map<String, Value>,
    name: &str,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, String> {
    let Some(value) = arguments.get(name) else {
        return Ok(None);
    };
    match value.as_u64() {
        Some(value) if range.contains(&value) => Ok(Some(value)),
        _ => Err(format!(
            "{name} must be a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

pub(super) fn progress_token(params: &Map<String, Value>) -> Option<Value> {
    let token = params.get("_meta")?.get("progressToken")?;
    (token.is_string() || token.is_number()).then(|| token.clone())
}

pub(super) fn text_result(text: &str, is_error: bool) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": is_error })
}

pub(super) fn response(id: &Value, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

pub(super) fn error_response(id: &Value, Fault(code, message): Fault) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}
