//! What a child that nobody translates shows of its era, and which versions are served from it.

use serde_json::Value;

use super::super::desk::Taken;
use super::ModernInbound;
use crate::bridge::EraNews;
use crate::jsonrpc::{self, Message, code as rpc};
use crate::mcp::{self, code};

/// Errors that only a child of the modern era knows.
const MODERN_ERRORS: [i64; 3] = [
    code::HEADER_MISMATCH,
    code::MISSING_CLIENT_CAPABILITY,
    code::UNSUPPORTED_VERSION,
];

impl ModernInbound {
    /// 2026-07-28, discover: every server of the era answers it. One that has no tools need not
    /// know `tools/list`, but it does not take it for something that comes too early.
    pub(super) fn note_era(&mut self, asked: &Taken, message: &Message<'_>) {
        if self.is_known || self.shared.lane.is_translating() {
            return;
        }
        let is_modern = match (asked, error_code(message)) {
            (_, None) => true,
            (_, Some(error)) if MODERN_ERRORS.contains(&error) => true,
            (Taken::Call(call), Some(_)) if call.is_discover => false,
            (Taken::Tools(_), Some(error)) => {
                let may_be = [rpc::METHOD_NOT_FOUND, rpc::INTERNAL_ERROR].map(i64::from);
                match may_be.contains(&error) {
                    true => return,
                    false => false,
                }
            }
            _ => return,
        };
        self.is_known = true;
        if let Some(tell) = &self.shared.options.era_news
            && !is_modern
        {
            tell(EraNews::NotAsKnown);
        }
    }
}

pub(super) fn error_code(message: &Message<'_>) -> Option<i64> {
    let code = jsonrpc::member(message.error?, "code");
    code.and_then(|code| code.parse().ok())
}

/// The part of a `result` of `server/discover` that names the versions, and what it is to be: those
/// that are served here.
pub(super) fn served_versions(result: &str) -> Option<(&str, String)> {
    let versions = jsonrpc::member(result, "supportedVersions")?;
    let mut served: Vec<Value> = serde_json::from_str(versions).ok()?;
    let is_served = |version: &Value| {
        let is = |version: &str| version == mcp::MODERN_VERSION || mcp::is_supported(version);
        version.as_str().is_some_and(is)
    };
    let all = served.len();
    served.retain(is_served);
    (served.len() < all).then(|| (versions, Value::from(served).to_string()))
}
