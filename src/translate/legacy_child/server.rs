//! The child as it presents itself: its answer to `initialize`, and what clients hear of it.

use std::borrow::Cow;

use crate::jsonrpc::{Edit, Message, member, result_response, text};
use crate::mcp::{LEGACY_VERSIONS, MODERN_VERSION, method};
use crate::translate::Failure;

use super::response::server_info_meta;

/// Our own requests have strings as ids; the front's are integers.
pub(super) const INITIALIZE_ID: &str = "mcp-broker/initialize";

/// What `server/discover` says stands as long as the child runs, and a new child, perhaps of a
/// new version, may take its place at any time: a client may be that late to notice.
const DISCOVER_TTL_MS: u32 = 60_000;

/// The first revisions with what older children do not know. They are dates: they compare as text.
const COMPLETIONS_SINCE: &str = "2025-03-26";
const SAMPLES_LISTS_SINCE: &str = "2025-11-25";

/// 2025-11-25, lifecycle, "Initialization": as a client that can do all that any modern client
/// may be able to do, because the child hears of it only once.
pub(super) fn initialize() -> String {
    let version = LEGACY_VERSIONS[LEGACY_VERSIONS.len() - 1];
    format!(
        r#"{{"jsonrpc":"2.0","id":"{INITIALIZE_ID}","method":"{}","params":{{"protocolVersion":"{version}","capabilities":{{"roots":{{}},"sampling":{{"tools":{{}},"context":{{}}}},"elicitation":{{"form":{{}},"url":{{}}}}}},"clientInfo":{{"name":"mcp-broker","version":"{}"}}}}}}"#,
        method::INITIALIZE,
        env!("CARGO_PKG_VERSION"),
    )
}

pub(super) fn initialized() -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, method::INITIALIZED)
}

/// An initialized child.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// `_meta` of a result that has none of its own.
    pub(super) meta: Option<String>,
    /// Its `serverInfo` as it stands.
    pub(super) info: Option<String>,
    pub(super) logs: bool,
    pub(super) tools_change: bool,
    pub(super) prompts_change: bool,
    pub(super) resources_change: bool,
    pub(super) subscribes: bool,
    /// Whether an answer to `sampling/createMessage` may have several contents.
    pub(super) samples_lists: bool,
    /// The members of `server/discover`'s result.
    discover: String,
}

impl Server {
    /// Reads the answer to [`initialize`].
    ///
    /// # Errors
    /// Why there is no talking with this child.
    pub(super) fn read(answer: &Message<'_>) -> Result<Self, Failure> {
        let failure = |why, said: Option<Cow<'_, str>>| Failure {
            why,
            said: said.map(Cow::into_owned),
        };
        if let Some(error) = answer.error {
            let message = member(error, "message").and_then(text);
            return Err(failure("refused to initialize", message));
        }
        let result = answer.result.unwrap_or_default();
        let version = member(result, "protocolVersion").and_then(text);
        // 2025-11-25, lifecycle, "Version Negotiation": the child may choose an older one.
        match version {
            Some(version) if LEGACY_VERSIONS.contains(&version.as_ref()) => {
                Ok(Self::new(&version, result))
            }
            Some(version) => {
                let why = "chose a protocol version that is none of those up to 2025-11-25";
                Err(failure(why, Some(version)))
            }
            None => {
                let why = "named no protocol version when it was initialized";
                Err(failure(why, None))
            }
        }
    }

    fn new(version: &str, result: &str) -> Self {
        let object = |name| member(result, name).filter(|it| it.starts_with('{'));
        let capabilities = object("capabilities").unwrap_or("{}");
        let says = |group: &str, name: &str| {
            let group = member(capabilities, group).unwrap_or_default();
            member(group, name) == Some("true")
        };
        let info = object("serverInfo").map(str::to_owned);
        Self {
            meta: info.as_deref().map(server_info_meta),
            logs: member(capabilities, "logging").is_some_and(|it| it.starts_with('{')),
            tools_change: says("tools", "listChanged"),
            prompts_change: says("prompts", "listChanged"),
            resources_change: says("resources", "listChanged"),
            subscribes: says("resources", "subscribe"),
            samples_lists: version >= SAMPLES_LISTS_SINCE,
            discover: discover(version, result, info.as_deref()),
            info,
        }
    }

    /// The answer to `server/discover`.
    pub(super) fn discovered(&self, id: i64) -> String {
        result_response(&id.to_string(), &self.discover)
    }
}

/// 2026-07-28, discover, "DiscoverResult": what the child said of itself, as it said it.
fn discover(version: &str, result: &str, info: Option<&str>) -> String {
    let capabilities = member(result, "capabilities").filter(|it| it.starts_with('{'));
    let capabilities = modern_capabilities(version, capabilities.unwrap_or("{}"));
    let mut discover = format!(
        r#"{{"resultType":"complete","supportedVersions":["{MODERN_VERSION}"],"capabilities":{capabilities}"#
    );
    if let Some(instructions) = member(result, "instructions").filter(|it| it.starts_with('"')) {
        discover.push_str(r#","instructions":"#);
        discover.push_str(instructions);
    }
    discover.push_str(&format!(
        r#","ttlMs":{DISCOVER_TTL_MS},"cacheScope":"private""#
    ));
    if let Some(info) = info {
        discover.push_str(r#","_meta":"#);
        discover.push_str(&server_info_meta(info));
    }
    discover.push('}');
    discover
}

/// 2026-07-28, changelog, "Major changes" 6: tasks are an extension now, and another one than what
/// the child means by the word. All other capabilities mean what they meant, but that one could
/// not be declared once (2025-03-26, changelog, "Other schema changes").
fn modern_capabilities(version: &str, capabilities: &str) -> String {
    let mut edit = Edit::of(capabilities);
    let has = |name| member(capabilities, name).is_some();
    let may_complete = version < COMPLETIONS_SINCE && (has("prompts") || has("resources"));
    if may_complete && !has("completions") {
        edit.put(capabilities, &[("completions", "{}")]);
    }
    edit.remove(capabilities, |name| name == "tasks");
    if let Some(extensions) = member(capabilities, "extensions") {
        edit.remove(extensions, |name| name == "io.modelcontextprotocol/tasks");
    }
    edit.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::parse;

    fn read(answer: &str) -> Result<Server, Failure> {
        let line = format!(r#"{{"jsonrpc":"2.0","id":"{INITIALIZE_ID}",{answer}}}"#);
        Server::read(&parse(&line).unwrap())
    }

    #[test]
    fn what_we_say_is_a_message() {
        assert!(parse(&initialize()).is_ok());
        assert!(parse(&initialized()).is_ok());
    }

    #[test]
    fn drops_only_the_old_tasks() {
        assert_eq!(
            modern_capabilities(
                "2025-11-25",
                r#"{ "tasks":{"list":{}}, "tools":{"listChanged" : true},"experimental":{"tasks":{}},"extensions":{"io.modelcontextprotocol/tasks":{},"a/b":{}}}"#
            ),
            r#"{ "tools":{"listChanged" : true},"experimental":{"tasks":{}},"extensions":{"a/b":{}}}"#
        );
    }

    #[test]
    fn a_child_that_could_not_declare_completions_may_have_them() {
        let check = |version: &str, capabilities: &str, wanted: &str| {
            assert_eq!(
                modern_capabilities(version, capabilities),
                wanted,
                "{version}"
            );
        };
        let (prompts, both) = (r#"{"prompts":{}}"#, r#"{"completions":{},"prompts":{}}"#);
        check("2024-11-05", prompts, both);
        check("2024-11-05", both, both);
        check("2025-03-26", prompts, prompts);
        let resources = r#"{"tasks":{}, "resources":{} }"#;
        check(
            "2024-11-05",
            resources,
            r#"{"completions":{},"resources":{} }"#,
        );
        check("2024-11-05", r#"{"tools":{}}"#, r#"{"tools":{}}"#);
    }

    #[test]
    fn knows_what_the_child_can_do() {
        let server = read(
            r#""result":{"protocolVersion":"2024-11-05","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":false},"logging":{}},"serverInfo":{"name":"s","version":"1"}}"#,
        )
        .unwrap();
        assert!(server.logs && server.tools_change && server.subscribes);
        assert!(!server.prompts_change && !server.resources_change);
    }

    #[test]
    fn says_why_a_child_is_of_no_use() {
        let check = |answer, why: &str, said: Option<&str>| {
            let failure = read(answer).unwrap_err();
            assert!(failure.why.contains(why), "{failure:?}");
            assert_eq!(failure.said.as_deref(), said);
        };
        let refuses = "refused to initialize";
        check(
            r#""error":{"code":-32022,"message":"modern \"only\""}"#,
            refuses,
            Some("modern \"only\""),
        );
        check(r#""error":{"code":-1}"#, refuses, None);
        let modern = r#""result":{"protocolVersion":"2026-07-28"}"#;
        check(modern, "none of those", Some("2026-07-28"));
        check(r#""result":{}"#, "no protocol version", None);
        check(r#""result":null"#, "no protocol version", None);
    }
}
