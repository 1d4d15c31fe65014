//! One JSON-RPC 2.0 message: its head and its spans; pure.
//!
//! The broker forwards the bytes of `params`, `result` and `error` as they came, so nothing here
//! builds a tree: a message is checked to be JSON once, and what routing needs is borrowed from
//! the text. Knows no MCP: method and field names belong to `mcp`.

mod edit;

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) use edit::{Edit, Member, members};
pub(crate) use ends::answered_by;

/// Error codes of JSON-RPC 2.0 section 5.1, and MCP's own from the implementation range.
pub(crate) mod code {
    pub(crate) const PARSE_ERROR: i32 = -32700;
    pub(crate) const INVALID_REQUEST: i32 = -32600;
    pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
    pub(crate) const INVALID_PARAMS: i32 = -32602;
    pub(crate) const INTERNAL_ERROR: i32 = -32603;
    /// The broker could not get an answer from the child, or refuses for a reason of its own.
    pub(crate) const SERVER_ERROR: i32 = -32000;
    /// The session is unknown, ended or expired.
    pub(crate) const SESSION_NOT_FOUND: i32 = -32001;
}

/// A request id or progress token, compared by value: `"a\u0062"` and `"ab"` are one id, and so
/// are `1` and `1.0`, because a child may print it in another way than it was given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    Integer(i64),
    /// Bits of a number that is no `i64`; what a child with doubles would give back.
    Float(u64),
    String(Box<str>),
    Null,
}

impl Id {
    /// Reads the text of one JSON value; `None` for an object, an array or a boolean.
    pub(crate) fn parse(raw: &str) -> Option<Self> {
        match raw.as_bytes().first()? {
            b'"' => Some(Self::String(text(raw)?.into())),
            b'n' => Some(Self::Null),
            b'-' | b'0'..=b'9' => Self::number(raw),
            _ => None,
        }
    }

    /// A text that [`Id::parse`] reads as this id.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Integer(integer) => integer.to_string(),
            Self::Float(bits) => f64::from_bits(*bits).to_string(),
            Self::String(text) => serde_json::Value::from(&**text).to_string(),
            Self::Null => "null".to_owned(),
        }
    }

    fn number(raw: &str) -> Option<Self> {
        if let Ok(integer) = raw.parse::<i64>() {
            return Some(Self::Integer(integer));
        }
        let float = raw.parse::<f64>().ok()?;
        // 2^63: below it every integral double is an i64 exactly.
        if float.fract() == 0.0 && float.abs() < 9_223_372_036_854_775_808.0 {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "checked to be integral and in range"
            )]
            return Some(Self::Integer(float as i64));
        }
        Some(Self::Float(float.to_bits()))
    }
}

/// What a message is, by the members it has (JSON-RPC 2.0 sections 4 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Notification,
    Response,
}

/// One message, borrowed from its text.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: Kind,
    /// The text of `id` as it stands in the message; `null` where there is none.
    pub(crate) id_text: &'a str,
    /// The id by value; `Null` where there is none.
    pub(crate) id: Id,
    /// Empty in a response.
    pub(crate) method: Cow<'a, str>,
    pub(crate) params: Option<&'a str>,
    pub(crate) result: Option<&'a str>,
    pub(crate) error: Option<&'a str>,
}

/// Why a text is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// Not UTF-8 or not JSON: -32700.
    NotJson,
    /// JSON, but not one message: -32600.
    NotMessage(&'static str),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => f.write_str("not JSON"),
            Self::NotMessage(why) => write!(f, "not a JSON-RPC message: {why}"),
        }
    }
}

/// Reads one message. Every byte of the text is checked to be JSON.
///
/// # Errors
/// [`ParseError::NotJson`], or [`ParseError::NotMessage`] with the reason. A member that stands
/// twice is refused: two readers could see two different messages.
pub(crate) fn parse(text: &str) -> Result<Message<'_>, ParseError> {
    if first_byte(text) != Some(b'{') {
        // Tells "not JSON" from "JSON of another kind" for the sake of the error code.
        return match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Err(ParseError::NotMessage("it is not an object")),
            Err(_) => Err(ParseError::NotJson),
        };
    }
    let members: Members<'_> = serde_json::from_str(text).map_err(|_| ParseError::NotJson)?;
    members.into_message()
}

/// Whether the text is an array, that is, a batch (JSON-RPC 2.0 section 6).
pub(crate) fn is_batch(text: &str) -> bool {
    first_byte(text) == Some(b'[')
}

/// The messages of a batch as they stand.
///
/// # Errors
/// [`ParseError`] if the text is not a JSON array with at least one element.
pub(crate) fn split_batch(text: &str) -> Result<Vec<&str>, ParseError> {
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| ParseError::NotJson)?;
    if items.is_empty() {
        return Err(ParseError::NotMessage("the batch is empty"));
    }
    Ok(items.into_iter().map(RawValue::get).collect())
}

/// The value of one member of an object, as it stands; `None` if there is no such member or the
/// text is no object.
pub(crate) fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let [found] = pick(object, [name]);
    found
}

/// Several members in one reading.
pub(crate) fn pick<'a, const N: usize>(object: &'a str, names: [&str; N]) -> [Option<&'a str>; N] {
    struct Picked<'n, const N: usize>([&'n str; N]);
    impl<'de, const N: usize> Visitor<'de> for Picked<'_, N> {
        type Value = [Option<&'de str>; N];
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some(key) = map.next_key::<&RawValue>()? {
                let key = text(key.get());
                let at = key.and_then(|key| self.0.iter().position(|name| *name == key));
                match at {
                    Some(at) => found[at] = Some(map.next_value::<&RawValue>()?.get()),
                    None => _ = map.next_value::<IgnoredAny>()?,
                }
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(object)
        .deserialize_map(Picked(names))
        .unwrap_or([None; N])
}

/// The value of a JSON string, borrowed where it has no escapes; `None` for anything else.
pub(crate) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// A response with a result, which is given as its text; `id` is the text of the request's id.
pub(crate) fn result_response(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// An error response; `id` is the text of the request's id.
pub(crate) fn error_response(id: &str, code: i32, message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#)
}

fn first_byte(text: &str) -> Option<u8> {
    text.bytes().find(|byte| !byte.is_ascii_whitespace())
}

/// The members of a message that have a meaning in JSON-RPC 2.0.
#[derive(Default)]
struct Members<'a> {
    version: Option<&'a str>,
    id: Option<&'a str>,
    method: Option<&'a str>,
    params: Option<&'a str>,
    result: Option<&'a str>,
    error: Option<&'a str>,
    repeated: bool,
}

impl<'a> Members<'a> {
    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
        match key {
            "jsonrpc" => Some(&mut self.version),
            "id" => Some(&mut self.id),
            "method" => Some(&mut self.method),
            "params" => Some(&mut self.params),
            "result" => Some(&mut self.result),
            "error" => Some(&mut self.error),
            _ => None,
        }
    }

    fn into_message(self) -> Result<Message<'a>, ParseError> {
        let refuse = |why| Err(ParseError::NotMessage(why));
        if self.repeated {
            return refuse("a member stands twice");
        }
        if self.version.and_then(text).as_deref() != Some("2.0") {
            return refuse("\"jsonrpc\" is not \"2.0\"");
        }
        let id_text = self.id.unwrap_or("null");
        let Some(id) = Id::parse(id_text) else {
            return refuse("\"id\" is neither a string nor a number");
        };
        let answers = usize::from(self.result.is_some()) + usize::from(self.error.is_some());
        let (kind, method) = match (self.method, answers) {
            (Some(method), 0) => {
                let Some(method) = text(method) else {
                    return refuse("\"method\" is not a string");
                };
                if self.id.is_some() && id == Id::Null {
                    return refuse("the id of a request is null"); // MCP, "Requests"
                }
                let kind = if self.id.is_some() {
                    Kind::Request
                } else {
                    Kind::Notification
                };
                (kind, method)
            }
            (None, 1) => {
                // 2025-11-25, basic, "Error Responses": only there the id may be missing.
                if self.id.is_none() && self.result.is_some() {
                    return refuse("a result without \"id\"");
                }
                (Kind::Response, Cow::Borrowed(""))
            }
            (None, 0) => return refuse("it has neither \"method\" nor \"result\" nor \"error\""),
            _ => return refuse("it is a request and a response at once"),
        };
        Ok(Message {
            kind,
            id_text,
            id,
            method,
            params: self.params,
            result: self.result,
            error: self.error,
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members::default();
                while let Some(key) = map.next_key::<&RawValue>()? {
                    // A key with a lone surrogate is no text, and none of ours.
                    let key = text(key.get()).unwrap_or_default();
                    let Some(slot) = members.slot(&key) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if slot.replace(map.next_value::<&RawValue>()?.get()).is_some() {
                        members.repeated = true;
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

mod ends;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
