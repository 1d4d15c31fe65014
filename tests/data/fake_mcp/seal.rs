//! `requestState` (2026-07-28, "Multi Round-Trip Requests"): what earlier rounds answered, tied to
//! one request and protected against change. Needs no memory of the process, so any instance can
//! take up what another one began.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

/// Stands in for a key. A test server has nothing to protect; what matters is that a changed state
/// is refused.
const KEY: &str = "fake_mcp requestState";

/// The answers so far, by key, as JSON text.
pub(crate) type Answers = BTreeMap<String, String>;

/// Packs `answers` for `request` (method and name).
pub(crate) fn seal(request: &str, answers: &Answers) -> String {
    let body = json!({ "request": request, "answers": answers }).to_string();
    let hex: String = body.bytes().map(|byte| format!("{byte:02x}")).collect();
    let tag = tag(&hex);
    format!("{hex}.{tag:016x}")
}

/// Unpacks what [`seal`] made for the same request; `None` for anything else.
pub(crate) fn open(request: &str, state: &str) -> Option<Answers> {
    let (hex, given) = state.split_once('.')?;
    if given != format!("{:016x}", tag(hex)) {
        return None;
    }
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    let body: Value = serde_json::from_slice(&bytes).ok()?;
    if body["request"] != request {
        return None;
    }
    serde_json::from_value(body["answers"].clone()).ok()
}

fn tag(hex: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (KEY, hex).hash(&mut hasher);
    hasher.finish()
}
