//! What the Model Context Protocol names: headers, methods, versions and eras; pure.
//!
//! Every header and era rule stands here, so that a new revision is a change to one file.

/// Header names of the Streamable HTTP transport, as tiny_http compares them (any case).
pub(crate) mod header {
    /// 2025-11-25, transports, "Session Management".
    pub(crate) const SESSION_ID: &str = "Mcp-Session-Id";
    /// 2025-11-25, transports, "Protocol Version Header".
    pub(crate) const PROTOCOL_VERSION: &str = "MCP-Protocol-Version";
    /// 2025-11-25, transports, "Resumability and Redelivery".
    pub(crate) const LAST_EVENT_ID: &str = "Last-Event-ID";
    /// 2026-07-28, streamable HTTP, "Standard Request Headers".
    pub(crate) const METHOD: &str = "Mcp-Method";
    pub(crate) const NAME: &str = "Mcp-Name";
    /// 2026-07-28, streamable HTTP, "Custom Headers from Tool Parameters"; the rest is the tool's.
    pub(crate) const PARAM_PREFIX: &str = "Mcp-Param-";
}

/// Keys of `_meta` (2026-07-28, basic, "`_meta`").
pub(crate) mod meta {
    pub(crate) const PROGRESS_TOKEN: &str = "progressToken";
    pub(crate) const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    pub(crate) const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    pub(crate) const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    pub(crate) const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    pub(crate) const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    pub(crate) const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
}

/// Error codes that MCP adds to those of JSON-RPC (2026-07-28, basic, "Error Codes").
pub(crate) mod code {
    /// Up to 2025-11-25; it must not be sent to a modern client.
    pub(crate) const RESOURCE_NOT_FOUND: i64 = -32002;
    /// 2025-11-25 only, likewise.
    pub(crate) const URL_ELICITATION_REQUIRED: i64 = -32042;
    /// Of these a server may send to a modern client only those below.
    pub(crate) const RESERVED: std::ops::RangeInclusive<i64> = -32099..=-32020;
    pub(crate) const HEADER_MISMATCH: i64 = -32020;
    pub(crate) const MISSING_CLIENT_CAPABILITY: i64 = -32021;
    pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;
}

pub(crate) mod method {
    pub(crate) const INITIALIZE: &str = "initialize";
    pub(crate) const INITIALIZED: &str = "notifications/initialized";
    pub(crate) const SET_LEVEL: &str = "logging/setLevel";
    pub(crate) const SUBSCRIBE: &str = "resources/subscribe";
    pub(crate) const UNSUBSCRIBE: &str = "resources/unsubscribe";
    pub(crate) const CANCELLED: &str = "notifications/cancelled";
    pub(crate) const PROGRESS: &str = "notifications/progress";
    pub(crate) const MESSAGE: &str = "notifications/message";
    pub(crate) const PING: &str = "ping";
    pub(crate) const TOOLS_LIST: &str = "tools/list";
    pub(crate) const TOOLS_CALL: &str = "tools/call";
    pub(crate) const PROMPTS_LIST: &str = "prompts/list";
    pub(crate) const PROMPTS_GET: &str = "prompts/get";
    pub(crate) const RESOURCES_LIST: &str = "resources/list";
    pub(crate) const RESOURCE_TEMPLATES_LIST: &str = "resources/templates/list";
    pub(crate) const RESOURCES_READ: &str = "resources/read";
    pub(crate) const SAMPLE: &str = "sampling/createMessage";
    pub(crate) const ELICIT: &str = "elicitation/create";
    pub(crate) const ROOTS: &str = "roots/list";
    pub(crate) const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
    pub(crate) const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";
    pub(crate) const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";
    pub(crate) const RESOURCE_UPDATED: &str = "notifications/resources/updated";
    /// 2026-07-28.
    pub(crate) const DISCOVER: &str = "server/discover";
    pub(crate) const LISTEN: &str = "subscriptions/listen";
    pub(crate) const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

    /// 2026-07-28, changelog, "Major changes" 2, 4 and 5: a client's requests up to 2025-11-25 that
    /// a modern one does not make. A child of both eras would take some for a change of eras. Those
    /// of tasks are not among them: an extension has taken over their names.
    pub(crate) fn was_removed(name: &str) -> bool {
        matches!(
            name,
            INITIALIZE | PING | SET_LEVEL | SUBSCRIBE | UNSUBSCRIBE
        )
    }
}

/// Severities of log messages, the least severe first (RFC 5424 section 6.2.1).
pub(crate) const LOG_LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// The revisions of the legacy era that a session may negotiate, oldest first.
pub(crate) const LEGACY_VERSIONS: [&str; 4] =
    ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// The revision of the modern era that is spoken.
pub(crate) const MODERN_VERSION: &str = "2026-07-28";

/// The only revision in which a client may send a batch.
pub(crate) const BATCH_VERSION: &str = "2025-03-26";

/// The first revision whose clients understand an event without data, which lets them resume a
/// stream that broke before its first message.
const PRIMING_SINCE: &str = "2025-11-25";

/// Whether `version` may stand in `MCP-Protocol-Version`.
pub(crate) fn is_supported(version: &str) -> bool {
    LEGACY_VERSIONS.contains(&version)
}

/// Whether streams of a session with this revision begin with an event without data.
pub(crate) fn primes_streams(version: &str) -> bool {
    // Revisions are dates, so they compare as text.
    is_supported(version) && version >= PRIMING_SINCE
}
