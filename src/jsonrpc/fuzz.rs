//! Fuzz target: what is borrowed from a message against serde_json's own tree of it.

use serde_json::Value;
use serde_json::value::RawValue;

use super::*;
use crate::fuzz::input::text as utf8;

/// Of longer messages not every cut is tried.
const ENDS_MAX_BYTES: usize = 256;

/// What a client or a child sends as one message or as a batch.
pub(crate) fn message(data: &[u8]) {
    let text = utf8(data);
    let tree = match serde_json::from_str::<Value>(text) {
        Ok(tree) => Some(tree),
        Err(_) if serde_json::from_str::<&RawValue>(text).is_err() => None,
        // JSON that a tree cannot hold: too deep, a number too large, half a surrogate pair.
        Err(_) => return check_spans(text),
    };
    check_spans(text);
    check_ends(text);
    match (parse(text), &tree) {
        (Err(ParseError::NotJson), None) => {}
        (Ok(message), Some(tree)) => check_message(&message, tree),
        (Err(ParseError::NotMessage(why)), Some(tree)) => check_refused(tree, why),
        (found, _) => panic!("{found:?} of {tree:?}"),
    }
    match (split_batch(text), &tree) {
        (Ok(items), Some(Value::Array(values))) => {
            let items: Vec<Value> = items.iter().map(|item| value(item)).collect();
            assert_eq!(&items, values);
            assert!(is_batch(text));
        }
        (Err(ParseError::NotMessage(_)), Some(Value::Array(values))) if values.is_empty() => {}
        (Err(ParseError::NotJson), Some(Value::Array(_))) => panic!("a batch was refused"),
        (Err(_), _) => {}
        (Ok(_), tree) => panic!("a batch of {tree:?}"),
    }
    match &tree {
        Some(Value::Object(members)) => {
            for (name, it) in members {
                assert_eq!(member(text, name).map(value).as_ref(), Some(it));
            }
        }
        Some(_) => assert_eq!(member(text, "id"), None),
        None => {} // only texts that are JSON are asked for a member
    }
}

fn value(raw: &str) -> Value {
    serde_json::from_str(raw).unwrap_or_else(|error| panic!("{error}: {raw:?}"))
}

/// However much is cut out of a message, no other request is taken for the one it answers.
fn check_ends(text: &str) {
    let Some(message) = parse(text).ok().filter(|_| text.len() <= ENDS_MAX_BYTES) else {
        return;
    };
    let expected = (message.kind == Kind::Response).then_some(message.id);
    let bytes = text.as_bytes();
    for cut in 0..=bytes.len() {
        let (head, rest) = bytes.split_at(cut);
        for tail in [rest, &rest[rest.len() / 2..]] {
            let found = answered_by(head, tail);
            assert!(
                found.is_none() || found == expected,
                "{found:?} at {cut} of {text}"
            );
        }
    }
}

/// Whatever is borrowed points into the text, and is JSON without white space around it.
fn check_spans(whole: &str) {
    let is_part = |part: &str| {
        let bytes = whole.as_bytes().as_ptr_range();
        let part_bytes = part.as_bytes().as_ptr_range();
        assert!(bytes.start <= part_bytes.start && part_bytes.end <= bytes.end);
        let raw: &RawValue = serde_json::from_str(part).unwrap_or_else(|_| panic!("{part:?}"));
        assert_eq!(raw.get(), part);
    };
    if let Ok(message) = parse(whole) {
        [message.params, message.result]
            .into_iter()
            .flatten()
            .for_each(is_part);
        if message.id_text != "null" {
            is_part(message.id_text);
        }
        let answer = error_response(message.id_text, code::SERVER_ERROR, message.method.as_ref());
        let answer = parse(&answer).unwrap_or_else(|why| panic!("{why}: {answer}"));
        assert_eq!((answer.kind, answer.id), (Kind::Response, message.id));
    }
    split_batch(whole)
        .unwrap_or_default()
        .into_iter()
        .for_each(is_part);
    member(whole, "params").into_iter().for_each(is_part);
}

fn check_message(message: &Message<'_>, tree: &Value) {
    assert_eq!(tree["jsonrpc"], "2.0");
    let is_call = tree.get("method").is_some();
    let kind = match (is_call, tree.get("id").is_some()) {
        (true, true) => Kind::Request,
        (true, false) => Kind::Notification,
        (false, _) => Kind::Response,
    };
    assert_eq!(message.kind, kind);
    assert_eq!(message.method, tree["method"].as_str().unwrap_or_default());
    assert_eq!(message.params.map(value).as_ref(), tree.get("params"));
    assert_eq!(message.result.map(value).as_ref(), tree.get("result"));
    assert_eq!(
        tree.get("result").is_some() || tree.get("error").is_some(),
        !is_call
    );
    assert_eq!(value(message.id_text), tree["id"]);
    match (&message.id, &tree["id"]) {
        (Id::Null, Value::Null) => assert_ne!(kind, Kind::Request),
        (Id::String(id), Value::String(other)) => assert_eq!(**id, **other),
        (Id::Integer(id), Value::Number(other)) => match other.as_i64() {
            Some(other) => assert_eq!(*id, other),
            None => check_near(*id as f64, other),
        },
        (Id::Float(bits), Value::Number(other)) => check_near(f64::from_bits(*bits), other),
        (id, other) => panic!("{id:?} of {other}"),
    }
    if !tree["id"].is_f64() {
        let printed = tree["id"].to_string();
        let id = Id::parse(&printed);
        assert_eq!(id.as_ref(), Some(&message.id), "{printed}");
    }
}

/// A tree's number may be off in its last digits.
fn check_near(id: f64, other: &serde_json::Number) {
    let other = other.as_f64().unwrap_or_default();
    let is_near = (id - other).abs() <= id.abs() * 1e-15;
    assert!(is_near, "{id} is not {other}");
}

/// What no rule speaks against is not refused. A member that stands twice cannot be seen here.
fn check_refused(tree: &Value, why: &str) {
    if why == "a member stands twice" {
        return;
    }
    let has = |name: &str| tree.get(name).is_some();
    let id_is_good = matches!(tree.get("id"), Some(Value::String(_) | Value::Number(_)));
    let is_version_2 = tree.get("jsonrpc").is_some_and(|version| version == "2.0");
    let is_call = tree["method"].is_string() && !has("result") && !has("error");
    let is_answer = !has("method") && has("result") != has("error") && id_is_good;
    let is_message = is_version_2 && ((is_call && (!has("id") || id_is_good)) || is_answer);
    assert!(!is_message, "{why}: {tree}");
}
