//! How a session begins: `initialize` of 2025-11-25 from `server/discover` of 2026-07-28.

use serde_json::{Value, json};

use super::caller::is_object;
use crate::jsonrpc;
use crate::mcp::{LEGACY_VERSIONS, MODERN_VERSION, code, meta};

/// What a child offers, as far as translation depends on it.
#[derive(Default)]
pub(super) struct Offer {
    pub(super) logging: bool,
    pub(super) subscribe: bool,
    /// Names of the list changes that it promises, in a filter of `subscriptions/listen`.
    pub(super) list_changes: Vec<&'static str>,
}

impl Offer {
    /// 2026-07-28, schema, `ServerCapabilities`.
    fn of(capabilities: &str) -> Self {
        let has = |feature, name| {
            jsonrpc::member(capabilities, feature).and_then(|it| jsonrpc::member(it, name))
                == Some("true")
        };
        let lists = [
            ("tools", "toolsListChanged"),
            ("prompts", "promptsListChanged"),
            ("resources", "resourcesListChanged"),
        ];
        let promised = lists.iter().filter(|(list, _)| has(list, "listChanged"));
        Self {
            logging: jsonrpc::member(capabilities, "logging").is_some_and(is_object),
            subscribe: has("resources", "subscribe"),
            list_changes: promised.map(|(_, name)| *name).collect(),
        }
    }
}

/// 2025-11-25, lifecycle, "Version Negotiation": the revision to answer `initialize` with, whose
/// `params` these are. The child knows none of them, so all are equally good.
pub(super) fn negotiate(params: Option<&str>) -> &'static str {
    let wanted = params
        .and_then(|params| jsonrpc::member(params, "protocolVersion"))
        .and_then(jsonrpc::text);
    let [.., newest] = LEGACY_VERSIONS;
    let mut known = LEGACY_VERSIONS.into_iter();
    known
        .find(|it| wanted.as_deref() == Some(it))
        .unwrap_or(newest)
}

/// The result of `initialize` that says what the one of `server/discover` said; the capabilities,
/// names and instructions are the child's own texts.
///
/// # Errors
/// Why there is none.
pub(super) fn initialize_result(
    discovered: &str,
    version: &str,
    server_name: &str,
) -> Result<(String, Offer), String> {
    let member = |name| jsonrpc::member(discovered, name);
    // 2026-07-28, discover, "DiscoverResult".
    let supported = member("supportedVersions").unwrap_or("[]");
    let versions: Vec<String> = serde_json::from_str(supported).unwrap_or_default();
    if !versions.iter().any(|known| known == MODERN_VERSION) {
        return Err(format!(
            "server \"{server_name}\" supports protocol versions {supported}, but neither \
             initialize nor {MODERN_VERSION}: it needs an update, or the broker does"
        ));
    }
    let capabilities = member("capabilities").filter(|it| is_object(it));
    let capabilities = capabilities.unwrap_or("{}");
    // 2026-07-28, basic, "Per-response protocol fields": a server need not say who it is, but in
    // 2025-11-25 it must.
    let named = member("_meta").and_then(|it| jsonrpc::member(it, meta::SERVER_INFO));
    let unnamed = json!({ "name": server_name, "version": "0" }).to_string();
    let info = named.filter(|it| is_object(it)).unwrap_or(&unnamed);
    let instructions = member("instructions").filter(|it| it.starts_with('"'));
    let instructions = instructions.map_or(String::new(), |it| format!(r#","instructions":{it}"#));
    let result = format!(
        r#"{{"protocolVersion":"{version}","capabilities":{capabilities},"serverInfo":{info}{instructions}}}"#
    );
    Ok((result, Offer::of(capabilities)))
}

/// Whether an error, as its text, with which a child has answered `initialize`, which is a line,
/// says that it speaks the modern era and no other. 2026-07-28, versioning, "Backward Compatibility
/// with Initialization-Based Versions": it names the versions that it supports "in any error".
pub(crate) fn is_modern_refusal(error: &str, initialize: &str) -> bool {
    let data = jsonrpc::member(error, "data");
    let supported = data.and_then(|data| jsonrpc::member(data, "supported"));
    let supported = supported.and_then(|it| serde_json::from_str::<Vec<Value>>(it).ok());
    if let Some(supported) = supported {
        let is_legacy = |it: &Value| LEGACY_VERSIONS.iter().any(|known| it == known);
        return supported.iter().any(|it| it == MODERN_VERSION) && !supported.iter().any(is_legacy);
    }
    let code = jsonrpc::member(error, "code").and_then(|it| it.parse::<i64>().ok());
    if code == Some(code::UNSUPPORTED_VERSION) {
        return true;
    }
    let names_it = |text: &str| text.contains(MODERN_VERSION);
    // A child of the other era may repeat what it was asked for, in whatever words.
    let asked =
        serde_json::from_str::<Value>(initialize).map_or(String::new(), |it| it.to_string());
    let requested = data.and_then(|data| jsonrpc::member(data, "requested"));
    if names_it(&asked) || requested.is_some_and(names_it) {
        return false;
    }
    let message = jsonrpc::member(error, "message").and_then(jsonrpc::text);
    message.is_some_and(|it| names_it(&it)) || data.is_some_and(names_it)
}
