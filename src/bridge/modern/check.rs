//! Whether the head of a modern request says what its body says; pure (2026-07-28, streamable HTTP,
//! "Request Metadata", and basic, "`_meta`").

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::bridge::{Exchange, Reply};
use crate::jsonrpc::{self, Message, code as rpc};
use crate::mcp::{self, code, header, meta, method};

/// What a head repeats of its body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirrored {
    /// `MCP-Protocol-Version`.
    pub(crate) version: Option<String>,
    /// `Mcp-Method`.
    pub(crate) method: Option<String>,
    /// `Mcp-Name`.
    pub(crate) name: Option<String>,
    /// `Mcp-Param-...`: the rest of the name, and the value.
    pub(crate) params: Vec<(String, String)>,
}

/// What routing needs of a request that is in order.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    /// The text of the token, a part of the message.
    pub(crate) progress_token: Option<&'a str>,
    /// Its place among the severities.
    pub(crate) log_level: Option<usize>,
}

/// A request that goes no further, and what its client is told.
#[derive(Debug)]
pub(crate) struct Fault {
    code: i64,
    message: String,
    data: Option<Value>,
}

impl Fault {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    pub(super) fn mismatch(what: &str) -> Self {
        Self::new(code::HEADER_MISMATCH, format!("header mismatch: {what}"))
    }

    pub(super) fn head_missing() -> Self {
        Self::mismatch(&format!("{} is missing", header::PROTOCOL_VERSION))
    }

    fn invalid(what: impl Into<String>) -> Self {
        Self::new(i64::from(rpc::INVALID_PARAMS), what)
    }

    pub(super) fn no_method(method: &str) -> Self {
        let message = format!("method not found: {method}");
        Self::new(i64::from(rpc::METHOD_NOT_FOUND), message)
    }

    /// 2026-07-28, versioning, "Protocol Version Negotiation". The legacy revisions are no choice
    /// for a request that says so much of itself: they begin with `initialize`.
    fn unsupported(requested: &str) -> Self {
        let supported = [mcp::MODERN_VERSION];
        Self {
            data: Some(json!({ "supported": supported, "requested": requested })),
            ..Self::new(code::UNSUPPORTED_VERSION, "unsupported protocol version")
        }
    }

    pub(crate) fn code(&self) -> i64 {
        self.code
    }

    /// The response; `id` is the text of the request's id.
    pub(crate) fn to_json(&self, id: &str) -> String {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(data) = &self.data {
            error["data"] = data.clone();
        }
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
    }

    /// Ends an exchange with it.
    pub(super) fn answer<T>(&self, exchange: Box<dyn Exchange>, id: &str) -> Option<T> {
        exchange.reply(Reply::Fault {
            json: self.to_json(id).as_bytes(),
            error: self.code,
        });
        None
    }
}

/// Whether the body says of itself that it is of the modern era.
pub(crate) fn is_modern(message: &Message<'_>) -> bool {
    let meta = message.params.and_then(|it| jsonrpc::member(it, "_meta"));
    meta.is_some_and(|it| jsonrpc::member(it, meta::PROTOCOL_VERSION).is_some())
}

/// Holds a request to the rules that need no child.
///
/// # Errors
/// [`Fault`] for the first that it breaks.
pub(crate) fn check<'a>(mirrored: &Mirrored, message: &Message<'a>) -> Result<Envelope<'a>, Fault> {
    let source = name_source(&message.method);
    let [meta, name] = jsonrpc::pick(
        message.params.unwrap_or("{}"),
        ["_meta", source.unwrap_or_default()],
    );
    let [version, capabilities, log_level_text, progress_token] = jsonrpc::pick(
        meta.unwrap_or("{}"),
        [
            meta::PROTOCOL_VERSION,
            meta::CLIENT_CAPABILITIES,
            meta::LOG_LEVEL,
            meta::PROGRESS_TOKEN,
        ],
    );
    check_version(mirrored.version.as_deref(), version)?;
    if !capabilities.is_some_and(|it| it.starts_with('{')) {
        let what = format!("_meta lacks {}", meta::CLIENT_CAPABILITIES);
        return Err(Fault::invalid(what));
    }
    check_standard(mirrored, message, source.map(|source| (source, name)))?;
    if method::was_removed(&message.method) {
        return Err(Fault::no_method(&message.method));
    }
    let log_level = match log_level_text {
        Some(raw) => Some(
            log_level(raw)
                .ok_or_else(|| Fault::invalid(format!("{} is no log level", meta::LOG_LEVEL)))?,
        ),
        None => None,
    };
    if progress_token.is_some_and(|it| !it.starts_with(['"', '-']) && !it.starts_with(is_digit)) {
        return Err(Fault::invalid("progressToken is neither text nor a number"));
    }
    Ok(Envelope {
        progress_token,
        log_level,
    })
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// The place of a severity among all of them; `raw` is the text of a JSON value.
pub(super) fn log_level(raw: &str) -> Option<usize> {
    let level = jsonrpc::text(raw)?;
    mcp::LOG_LEVELS.iter().position(|known| *known == level)
}

/// "Protocol Version Header".
fn check_version(head: Option<&str>, body: Option<&str>) -> Result<(), Fault> {
    let Some(head) = head else {
        return Err(Fault::head_missing());
    };
    let Some(body) = body.and_then(jsonrpc::text) else {
        let what = format!("_meta lacks {}", meta::PROTOCOL_VERSION);
        return Err(Fault::invalid(what));
    };
    if head != body {
        let name = header::PROTOCOL_VERSION;
        let what = format!("{name} is not {} of the body", meta::PROTOCOL_VERSION);
        return Err(Fault::mismatch(&what));
    }
    match head == mcp::MODERN_VERSION {
        true => Ok(()),
        false => Err(Fault::unsupported(head)),
    }
}

/// The member of `params` that `Mcp-Name` repeats, if the method has one.
fn name_source(method: &str) -> Option<&'static str> {
    match method {
        method::TOOLS_CALL | method::PROMPTS_GET => Some("name"),
        method::RESOURCES_READ => Some("uri"),
        _ => None,
    }
}

/// "Standard Request Headers". `source` is the member that `Mcp-Name` repeats, and its text.
fn check_standard(
    mirrored: &Mirrored,
    message: &Message<'_>,
    source: Option<(&str, Option<&str>)>,
) -> Result<(), Fault> {
    let missing = |name: &str| Fault::mismatch(&format!("{name} is missing"));
    let differs =
        |name: &str, of: &str| Fault::mismatch(&format!("{name} is not {of} of the body"));
    let Some(head) = &mirrored.method else {
        return Err(missing(header::METHOD));
    };
    if *head != message.method {
        return Err(differs(header::METHOD, "method"));
    }
    let Some((source, body)) = source else {
        return Ok(());
    };
    match (&mirrored.name, body.and_then(jsonrpc::text)) {
        (None, _) => Err(missing(header::NAME)),
        (Some(head), Some(body)) if decode(head).is_some_and(|head| head == body) => Ok(()),
        (Some(_), _) => Err(differs(header::NAME, source)),
    }
}

/// "Value Encoding": what a field's value stands for; `None` if it is broken.
pub(super) fn decode(value: &str) -> Option<String> {
    let encoded = value
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="));
    let Some(encoded) = encoded else {
        return Some(value.to_owned());
    };
    let bytes = BASE64_STANDARD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrored(version: &str, method: &str, name: &str) -> Mirrored {
        let field = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        Mirrored {
            version: field(version),
            method: field(method),
            name: field(name),
            params: Vec::new(),
        }
    }

    fn code(mirrored: &Mirrored, line: &str) -> i64 {
        let message = jsonrpc::parse(line).unwrap();
        check(mirrored, &message).map_or_else(|fault| fault.code(), |_| 0)
    }

    const VERSION: &str = "2026-07-28";

    fn request(method: &str, more: &str, meta: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{more}"_meta":{{{meta}}}}}}}"#
        )
    }

    #[test]
    fn holds_the_head_to_the_body() {
        let meta = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#;
        let list = request("tools/list", "", meta);
        assert_eq!(code(&mirrored(VERSION, "tools/list", ""), &list), 0);
        assert_eq!(code(&mirrored("", "tools/list", ""), &list), -32020);
        assert_eq!(
            code(&mirrored("2025-11-25", "tools/list", ""), &list),
            -32020
        );
        assert_eq!(code(&mirrored(VERSION, "", ""), &list), -32020);
        assert_eq!(code(&mirrored(VERSION, "tools/List", ""), &list), -32020);
        let call = request("tools/call", r#""name":"a\u00e4","#, meta);
        assert_eq!(code(&mirrored(VERSION, "tools/call", ""), &call), -32020);
        assert_eq!(code(&mirrored(VERSION, "tools/call", "a"), &call), -32020);
        let encoded = format!("=?base64?{}?=", BASE64_STANDARD.encode("aä"));
        assert_eq!(code(&mirrored(VERSION, "tools/call", &encoded), &call), 0);
        let read = request("resources/read", r#""uri":"x:1","#, meta);
        assert_eq!(code(&mirrored(VERSION, "resources/read", "x:1"), &read), 0);
        let nameless = request("tools/call", "", meta);
        assert_eq!(
            code(&mirrored(VERSION, "tools/call", "a"), &nameless),
            -32020
        );
    }

    #[test]
    fn wants_its_metadata() {
        let head = mirrored(VERSION, "tools/list", "");
        let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
        let capabilities = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
        let with = |meta: &str| code(&head, &request("tools/list", "", meta));
        assert_eq!(with(""), -32602);
        assert_eq!(with(version), -32602);
        assert_eq!(with(capabilities), -32602);
        let both = format!("{version},{capabilities}");
        assert_eq!(with(&both), 0);
        let level = |level: &str| {
            with(&format!(
                r#"{both},"io.modelcontextprotocol/logLevel":{level}"#
            ))
        };
        assert_eq!(level(r#""error""#), 0);
        assert_eq!(level(r#""loud""#), -32602);
        assert_eq!(level("1"), -32602);
        assert_eq!(with(&format!(r#"{both},"progressToken":true"#)), -32602);
        assert_eq!(with(&format!(r#"{both},"progressToken":"a""#)), 0);
    }

    #[test]
    fn names_the_versions_it_knows() {
        let old = request(
            "tools/list",
            "",
            r#""io.modelcontextprotocol/protocolVersion":"1900-01-01","io.modelcontextprotocol/clientCapabilities":{}"#,
        );
        let message = jsonrpc::parse(&old).unwrap();
        let fault = check(&mirrored("1900-01-01", "tools/list", ""), &message).unwrap_err();
        assert_eq!(
            fault.to_json("7"),
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32022,"data":{"requested":"1900-01-01","supported":["2026-07-28"]},"message":"unsupported protocol version"}}"#
        );
    }

    #[test]
    fn decodes_only_what_is_strictly_base64() {
        let check = |value: &str, expected: Option<&str>| {
            assert_eq!(decode(value).as_deref(), expected, "{value}");
        };
        check("us-west1", Some("us-west1"));
        check("=?base64?SGVsbG8sIOS4lueVjA==?=", Some("Hello, 世界"));
        check(
            "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=",
            Some("=?base64?literal?="),
        );
        check("=?BASE64?YQ==?=", Some("=?BASE64?YQ==?="));
        check("=?base64?YQ?=", None);
        check("=?base64?YR==?=", None);
        check("=?base64?Y Q==?=", None);
        check("=?base64?_w==?=", None);
        check("=?base64?/w==?=", None); // not UTF-8
        check("=?base64??=", Some(""));
        check("=?base64?YQ==", Some("=?base64?YQ=="));
    }
}
