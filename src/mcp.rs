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
}

pub(crate) mod method {
    pub(crate) const INITIALIZE: &str = "initialize";
    pub(crate) const PING: &str = "ping";
    pub(crate) const INITIALIZED: &str = "notifications/initialized";
    pub(crate) const SET_LEVEL: &str = "logging/setLevel";
    pub(crate) const SUBSCRIBE: &str = "resources/subscribe";
    pub(crate) const UNSUBSCRIBE: &str = "resources/unsubscribe";
    pub(crate) const CANCELLED: &str = "notifications/cancelled";
    pub(crate) const PROGRESS: &str = "notifications/progress";
}

/// The revisions of the legacy era that a session may negotiate, oldest first.
pub(crate) const LEGACY_VERSIONS: [&str; 4] =
    ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

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
