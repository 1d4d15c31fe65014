//! One line from the client, taken apart without losing a byte: values stay the text they came as
//! until somebody asks. Knows JSON-RPC 2.0, nothing of MCP.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON object whose values are still text. Of a repeated key the last one counts.
#[derive(Default)]
pub(crate) struct Object(BTreeMap<String, Box<RawValue>>);

impl Object {
    /// The object that `text` is, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }

    /// The value's text, as it came.
    pub(crate) fn raw(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|raw| raw.get())
    }

    /// The value, if it is an object.
    pub(crate) fn object(&self, key: &str) -> Option<Self> {
        Self::parse(self.raw(key)?)
    }

    /// The value, if it is a string.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.raw(key)?).ok()
    }

    /// The value, if it is a number from 0 to 2^64 - 1.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        serde_json::from_str(self.raw(key)?).ok()
    }

    /// Whether the value is `true`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.raw(key) == Some("true")
    }

    /// The value as a tree.
    pub(crate) fn value(&self, key: &str) -> Option<Value> {
        serde_json::from_str(self.raw(key)?).ok()
    }
}

/// What a line is.
pub(crate) enum Incoming {
    Request {
        id: String,
        method: String,
        params: Option<String>,
    },
    Notification {
        method: String,
        params: Option<String>,
    },
    Response {
        id: String,
        answer: Answer,
    },
}

/// The client's answer to a request of ours, as text.
#[derive(Clone)]
pub(crate) enum Answer {
    Result(String),
    Error(String),
}

impl Incoming {
    /// Tells what `line` is; the error is a JSON-RPC code and message (section 5.1).
    pub(crate) fn parse(line: &[u8]) -> Result<Self, (i64, &'static str)> {
        let text = std::str::from_utf8(line).map_err(|_| (-32700, "not UTF-8"))?;
        let Some(object) = Object::parse(text) else {
            let valid = serde_json::from_str::<&RawValue>(text).is_ok();
            return Err(if valid {
                (-32600, "not a JSON-RPC message")
            } else {
                (-32700, "not JSON")
            });
        };
        let id = object.raw("id").map(str::to_owned);
        let params = object.raw("params").map(str::to_owned);
        if let Some(method) = object.text("method") {
            return Ok(match id {
                Some(id) => Self::Request { id, method, params },
                None => Self::Notification { method, params },
            });
        }
        let answer = match (object.raw("result"), object.raw("error")) {
            (Some(result), None) => Answer::Result(result.to_owned()),
            (None, Some(error)) => Answer::Error(error.to_owned()),
            _ => return Err((-32600, "neither request nor response")),
        };
        let id = id.ok_or((-32600, "response without id"))?;
        Ok(Self::Response { id, answer })
    }
}

/// A request id by value: `"a\u0062"` and `"ab"` are the same id, `1` and `"1"` are not.
pub(crate) fn id_key(raw: &str) -> String {
    match serde_json::from_str::<String>(raw) {
        Ok(text) => quote(&text),
        Err(_) => raw.to_owned(),
    }
}

/// `text` as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    Value::from(text).to_string()
}
