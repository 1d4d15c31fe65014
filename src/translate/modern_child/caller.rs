//! Who calls a modern child: what each request says of the client, and the requests that are the
//! broker's own.

use crate::jsonrpc::{self, Edit, Id, members};
use crate::mcp::{MODERN_VERSION, meta, method};

/// Begins the ids of the broker's own requests, to the child and to the client. The ids of a replay
/// do not begin so, and a client that uses it is refused.
const OWN_IDS: &str = "mcp-broker/era/";

/// The number of one of the broker's own requests.
pub(super) type No = u64;

/// The text of the id of an own request.
pub(super) fn id_text(no: No) -> String {
    format!(r#""{OWN_IDS}{no}""#)
}

/// Whether only the broker may use this id.
pub(super) fn is_own(id: &Id) -> bool {
    matches!(id, Id::String(text) if text.starts_with(OWN_IDS))
}

/// Which own request an id belongs to.
pub(super) fn own_no(id: &Id) -> Option<No> {
    match id {
        Id::String(text) => text.strip_prefix(OWN_IDS)?.parse().ok(),
        _ => None,
    }
}

/// An own request is not wanted any more. 2026-07-28, cancellation, "Cancellation Flow"; towards a
/// client that of 2025-11-25.
pub(super) fn cancellation(no: No) -> String {
    let (method, id) = (method::CANCELLED, id_text(no));
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":{id}}}}}"#)
}

/// What a client has said of itself at `initialize`, and since.
pub(super) struct Caller {
    last_no: No,
    version: String,
    /// The texts that came.
    client_info: Option<Box<str>>,
    capabilities: Box<str>,
    log_level: Option<String>,
}

impl Caller {
    pub(super) fn new() -> Self {
        Self {
            last_no: 0,
            version: format!(r#""{MODERN_VERSION}""#),
            client_info: None,
            capabilities: "{}".into(),
            log_level: None,
        }
    }

    /// 2025-11-25, lifecycle, "Initialization": `params` of `initialize`.
    pub(super) fn introduce(&mut self, params: Option<&str>) {
        let object = |name| jsonrpc::member(params?, name).filter(|text| is_object(text));
        self.client_info = object("clientInfo").map(Into::into);
        self.capabilities = object("capabilities").unwrap_or("{}").into();
    }

    pub(super) fn capabilities(&self) -> &str {
        &self.capabilities
    }

    /// From now on the child shall say what is at least as severe; the level is one of those that
    /// MCP knows.
    pub(super) fn set_log_level(&mut self, level: &str) {
        self.log_level = Some(format!(r#""{level}""#));
    }

    pub(super) fn next_no(&mut self) -> No {
        self.last_no += 1;
        self.last_no
    }

    /// A request of the broker's own. It is not about anything that a client asked for, so it asks
    /// for no log messages.
    pub(super) fn request(&mut self, method: &str, params: &[(&str, &str)]) -> (No, String) {
        let no = self.next_no();
        let (id, meta) = (id_text(no), object(&self.identity()));
        let mut all = vec![("_meta", meta.as_str())];
        all.extend_from_slice(params);
        let params = object(&all);
        let line =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        (no, line)
    }

    /// A request of the client with what a modern one carries in `_meta`; `None` if its `params`
    /// are nothing that can carry it. 2026-07-28, basic, "`_meta`", "Per-request protocol fields".
    pub(super) fn complete(&self, line: &str, params: Option<&str>) -> Option<String> {
        let mut fields = self.identity();
        // 2026-07-28, logging, "Per-request log level".
        fields.extend(self.log_level.iter().map(|it| (meta::LOG_LEVEL, &**it)));
        let mut edit = Edit::of(line);
        match params {
            None => {
                let params = object(&[("_meta", &object(&fields))]);
                edit.put(line, &[("params", &params)]);
            }
            Some(params) if is_object(params) => match jsonrpc::member(params, "_meta") {
                None => _ = edit.put(params, &[("_meta", &object(&fields))]),
                Some(meta) if !is_object(meta) => _ = edit.replace(meta, object(&fields)),
                Some(meta) if names_any(meta, &fields) => {
                    _ = edit.replace(meta, instead(meta, &fields));
                }
                Some(meta) => _ = edit.put(meta, &fields),
            },
            Some("null") => {
                let with = object(&[("_meta", &object(&fields))]);
                edit.replace(params?, with);
            }
            Some(_) => return None,
        }
        Some(edit.done())
    }

    fn identity(&self) -> Vec<(&str, &str)> {
        let mut fields = vec![(meta::PROTOCOL_VERSION, self.version.as_str())];
        fields.extend(self.client_info.iter().map(|it| (meta::CLIENT_INFO, &**it)));
        fields.push((meta::CLIENT_CAPABILITIES, &self.capabilities));
        fields
    }
}

/// Whether a client has put something of its own where these fields belong.
fn names_any(meta: &str, fields: &[(&str, &str)]) -> bool {
    let is_taken = |name: &str| fields.iter().any(|(key, _)| *key == name);
    let members = members(meta);
    let mut names = members.iter().filter_map(|it| jsonrpc::text(it.key));
    names.any(|name| is_taken(&name))
}

/// The object with these fields in place of its own of the same names.
fn instead(meta: &str, fields: &[(&str, &str)]) -> String {
    let is_taken = |name: &str| fields.iter().any(|(key, _)| *key == name);
    let rest = Edit::of(meta).remove(meta, is_taken).done();
    Edit::of(&rest).put(&rest, fields).done()
}

/// The text of an object; the keys are without quotes and escapes.
fn object(members: &[(&str, &str)]) -> String {
    let empty = "{}";
    Edit::of(empty).put(empty, members).done()
}

pub(super) fn is_object(text: &str) -> bool {
    text.starts_with('{')
}
