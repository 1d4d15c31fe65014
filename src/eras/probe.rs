//! What a process that is spoken to in both eras at once gives away about its program. Knows
//! nothing of who wants to know, nor of what becomes of it.
//!
//! 2026-07-28, stdio, "Backward Compatibility": `server/discover` is answered by a modern server
//! with a result or a modern error; any other error, or silence, means legacy. So that silence need
//! not be waited for, `initialize` comes right behind: whoever answers that has read both.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::mcp::{self, code, method};
use crate::talk::{Silence, Talk, initialize_params, modern_params};

/// How long `server/discover` may still be answered after `initialize` was.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is asked whether anybody still wants to know.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It speaks 2026-07-28.
    Modern,
    /// It works, and does not.
    Legacy,
    /// It has ended, or not said a word in time. Servers are known that `server/discover` does this
    /// to; but it may be one that does not work for any reason.
    Broken,
    /// The broker does not want to know any more.
    Cancelled,
}

/// What one response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Modern,
    Legacy,
    /// It has understood `initialize`.
    Greeted,
    /// It has not, or does not like it.
    NotGreeted,
    Nothing,
}

/// Speaks to a new process in both eras.
pub(crate) fn probe(talk: &Talk, deadline: Instant, is_wanted: &dyn Fn() -> bool) -> Outcome {
    talk.request(method::DISCOVER, &modern_params());
    talk.request(method::INITIALIZE, &initialize_params());
    listen(talk, deadline, Some(GRACE), is_wanted)
}

/// Speaks to a new process in the legacy era only: one that a probe did not come through.
pub(super) fn greet(talk: &Talk, deadline: Instant, is_wanted: &dyn Fn() -> bool) -> Outcome {
    talk.request(method::INITIALIZE, &initialize_params());
    listen(talk, deadline, None, is_wanted)
}

/// `grace`: another answer than that to `initialize` may come yet.
fn listen(
    talk: &Talk,
    mut deadline: Instant,
    grace: Option<Duration>,
    is_wanted: &dyn Fn() -> bool,
) -> Outcome {
    let mut has_greeted = false;
    // However much it says meanwhile.
    let mut look = Instant::now() + POLL;
    loop {
        match talk.hear(deadline.min(look)) {
            Ok(message) => match (judge(&message), grace) {
                (Said::Modern, _) => return Outcome::Modern,
                (Said::Legacy, _) | (Said::Greeted, None) => return Outcome::Legacy,
                (Said::NotGreeted, None) => return Outcome::Broken,
                (Said::Greeted, Some(grace)) => {
                    has_greeted = true;
                    deadline = deadline.min(Instant::now() + grace);
                }
                // It may know only the other.
                (Said::NotGreeted, Some(_)) | (Said::Nothing, _) => {}
            },
            Err(Silence::Cancelled) => return Outcome::Cancelled,
            Err(Silence::Late) if !is_wanted() => return Outcome::Cancelled,
            Err(Silence::Late) if Instant::now() < deadline => look = Instant::now() + POLL,
            Err(Silence::Ended(_) | Silence::Late) if has_greeted => return Outcome::Legacy,
            Err(Silence::Ended(_) | Silence::Late) => return Outcome::Broken,
        }
    }
}

fn judge(response: &Value) -> Said {
    let error = response.get("error");
    match (response["id"].as_str(), error) {
        (Some(method::DISCOVER), None) => {
            match lists_modern(&response["result"]["supportedVersions"]) {
                true => Said::Modern,
                false => Said::Legacy,
            }
        }
        (Some(method::DISCOVER), Some(error)) if is_modern(error) => Said::Modern,
        (Some(method::DISCOVER), Some(_)) => Said::Legacy,
        (Some(method::INITIALIZE), Some(error)) if is_unsupported(error) => Said::Modern,
        (Some(method::INITIALIZE), Some(_)) => Said::NotGreeted,
        (Some(method::INITIALIZE), None) => Said::Greeted,
        _ => Said::Nothing,
    }
}

/// Whether the error is one that only a server of this revision gives.
fn is_modern(error: &Value) -> bool {
    let code = error["code"].as_i64();
    is_unsupported(error)
        || code == Some(code::HEADER_MISMATCH)
        || code == Some(code::MISSING_CLIENT_CAPABILITY)
}

/// Whether the error says that 2026-07-28 should have been asked for.
fn is_unsupported(error: &Value) -> bool {
    error["code"] == code::UNSUPPORTED_VERSION && lists_modern(&error["data"]["supported"])
}

fn lists_modern(versions: &Value) -> bool {
    let versions = versions.as_array();
    versions.is_some_and(|versions| versions.iter().any(|it| it == mcp::MODERN_VERSION))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_answer_means_what_the_specification_says() {
        let check = |id: &str, key: &str, value: Value, expected: Said| {
            let message = json!({ "jsonrpc": "2.0", "id": id, key: value });
            assert_eq!(judge(&message), expected, "{message}");
        };
        let error = |code: i64, data: Value| json!({ "code": code, "message": "", "data": data });
        let supported = |versions: &[&str]| json!({ "supported": versions });

        let result = |value: Value, said: Said| check(method::DISCOVER, "result", value, said);
        let both = json!(["2025-11-25", "2026-07-28"]);
        result(json!({ "supportedVersions": both }), Said::Modern);
        result(json!({ "supportedVersions": ["2025-11-25"] }), Said::Legacy);
        result(json!({ "supportedVersions": ["2027-01-01"] }), Said::Legacy);
        result(json!({ "supportedVersions": "2026-07-28" }), Said::Legacy);
        result(json!({}), Said::Legacy);
        result(json!(null), Said::Legacy);

        let refusal = |value: Value, said: Said| check(method::DISCOVER, "error", value, said);
        let ours = supported(&["2026-07-28"]);
        refusal(error(-32022, ours.clone()), Said::Modern);
        refusal(error(-32022, supported(&["2025-11-25"])), Said::Legacy);
        refusal(error(-32022, json!(null)), Said::Legacy);
        refusal(error(-32020, json!(null)), Said::Modern);
        refusal(error(-32021, json!(null)), Said::Modern);
        for code in [-32700, -32600, -32601, -32602, -32603, -32000, -32002, 0, 1] {
            refusal(error(code, ours.clone()), Said::Legacy);
        }
        refusal(json!("no"), Said::Legacy);

        let greeting = |key: &str, value: Value, said| check(method::INITIALIZE, key, value, said);
        greeting("result", json!({}), Said::Greeted);
        greeting("error", error(-32602, ours.clone()), Said::NotGreeted);
        greeting("error", error(-32020, ours.clone()), Said::NotGreeted);
        greeting("error", error(-32022, supported(&[])), Said::NotGreeted);
        greeting("error", error(-32022, ours), Said::Modern);

        check("other", "result", json!({}), Said::Nothing);
        let of_nobody = json!({ "id": null, "error": error(-32601, json!(null)) });
        assert_eq!(judge(&of_nobody), Said::Nothing);
    }
}
