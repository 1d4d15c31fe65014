//! A request of a modern client, and what of it a legacy child may see.

use std::borrow::Cow;

use crate::jsonrpc::{Edit, Member, Message, members, text};
use crate::mcp::{LOG_LEVELS, meta, method};

use super::capabilities::Capabilities;
use super::seal::{Asked, Digest, digest};

/// What is asked for, as far as it matters to the translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// `tools/call` and `prompts/get`.
    Call,
    /// `resources/read`.
    Read,
    /// A list of tools, prompts, resources or templates.
    List,
    Other,
}

impl Method {
    fn of(name: &str) -> Self {
        match name {
            method::TOOLS_CALL | method::PROMPTS_GET => Self::Call,
            method::RESOURCES_READ => Self::Read,
            method::TOOLS_LIST
            | method::PROMPTS_LIST
            | method::RESOURCES_LIST
            | method::RESOURCE_TEMPLATES_LIST => Self::List,
            _ => Self::Other,
        }
    }

    /// 2026-07-28, mrtr, "Supported Requests".
    pub(super) fn may_ask(self) -> bool {
        matches!(self, Self::Call | Self::Read)
    }

    /// 2026-07-28, caching, "Cacheable Results".
    pub(super) fn is_cacheable(self) -> bool {
        matches!(self, Self::Read | Self::List)
    }
}

/// What a legacy child takes for something else than a modern client means by it, if anything.
///
/// 2026-07-28, changelog, "Major changes" 6: `tasks/...` is of an extension now.
pub(super) fn is_misunderstood(name: &str) -> bool {
    method::was_removed(name) || name.starts_with("tasks/")
}

/// Members of `params` that only the retry of a suspended request has.
pub(super) fn is_of_a_retry(name: &str) -> bool {
    matches!(name, "inputResponses" | "requestState")
}

/// 2026-07-28, basic, "`_meta`", "Per-request protocol fields".
fn is_of_the_era(name: &str) -> bool {
    matches!(
        name,
        meta::PROTOCOL_VERSION | meta::CLIENT_INFO | meta::CLIENT_CAPABILITIES | meta::LOG_LEVEL
    )
}

/// A request, borrowed from its line.
pub(super) struct Request<'a> {
    line: &'a str,
    params: &'a str,
    members: Vec<Member<'a>>,
    /// Members of `_meta`, if there is one.
    meta: Option<Vec<Member<'a>>>,
    name: Cow<'a, str>,
    pub(super) method: Method,
    /// That the front made; unique among all requests of this child.
    pub(super) id: i64,
    pub(super) capabilities: Capabilities,
    pub(super) progress_token: Option<&'a str>,
    log_level: Option<&'a str>,
    pub(super) state: Option<&'a str>,
    pub(super) responses: Option<&'a str>,
}

impl<'a> Request<'a> {
    pub(super) fn read(line: &'a str, id: i64, message: Message<'a>) -> Self {
        let mut request = Self {
            line,
            params: message.params.unwrap_or("{}"),
            members: members(message.params.unwrap_or("{}")),
            meta: None,
            method: Method::of(&message.method),
            name: message.method,
            id,
            capabilities: Capabilities::default(),
            progress_token: None,
            log_level: None,
            state: None,
            responses: None,
        };
        for at in 0..request.members.len() {
            let member = request.members[at];
            match text(member.key).unwrap_or_default().as_ref() {
                "_meta" => request.read_meta(member.value),
                "requestState" => request.state = Some(member.value),
                "inputResponses" => request.responses = Some(member.value),
                _ => {}
            }
        }
        request
    }

    fn read_meta(&mut self, meta: &'a str) {
        let members = members(meta);
        for member in &members {
            match text(member.key).unwrap_or_default().as_ref() {
                meta::CLIENT_CAPABILITIES => self.capabilities = Capabilities::read(member.value),
                meta::PROGRESS_TOKEN => self.progress_token = Some(member.value),
                meta::LOG_LEVEL => self.log_level = Some(member.value),
                _ => {}
            }
        }
        self.meta = Some(members);
    }

    pub(super) fn asked(&self, room: usize) -> Asked {
        Asked::new(&self.name, self.params, room)
    }

    pub(super) fn digest(&self) -> Digest {
        digest(&self.name, self.params)
    }

    /// The place in [`LOG_LEVELS`] of the level that is asked for.
    ///
    /// # Errors
    /// What stands there is no level (2026-07-28, logging, "Error Handling").
    pub(super) fn log_level(&self) -> Result<Option<usize>, InvalidLevel> {
        let Some(level) = self.log_level else {
            return Ok(None);
        };
        let level = text(level).ok_or(InvalidLevel)?;
        let known = LOG_LEVELS.iter().position(|it| *it == level);
        known.map(Some).ok_or(InvalidLevel)
    }

    /// The line without what a legacy child does not know (2026-07-28, basic, "`_meta`").
    pub(super) fn for_child(&self) -> String {
        let mut edit = Edit::of(self.line);
        let nothing_is_left = match &self.meta {
            None => false,
            Some(meta) => {
                let mut members = meta.iter();
                let is_kept = members.any(|it| !is_of_the_era(&text(it.key).unwrap_or_default()));
                if is_kept {
                    edit.remove_of(meta, is_of_the_era);
                }
                !is_kept
            }
        };
        let has_extra = self.state.is_some() || self.responses.is_some();
        if nothing_is_left || has_extra {
            edit.remove_of(&self.members, |name| {
                is_of_a_retry(name) || (nothing_is_left && name == "_meta")
            });
        }
        edit.done()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidLevel;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::parse;

    fn request(line: &str) -> Request<'_> {
        Request::read(line, 1, parse(line).unwrap())
    }

    #[test]
    fn the_child_sees_all_but_what_is_of_the_other_era() {
        let check = |line: &str, wanted: &str| assert_eq!(request(line).for_child(), wanted);
        check(
            r#"{ "params" : {"n":12345678901234567890.10 , "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28", "progressToken":1, "x":"\u0061", "io.modelcontextprotocol/clientCapabilities":{}} }, "method":"m", "id":1,"jsonrpc":"2.0"}"#,
            r#"{ "params" : {"n":12345678901234567890.10 , "_meta":{"progressToken":1, "x":"\u0061"} }, "method":"m", "id":1,"jsonrpc":"2.0"}"#,
        );
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"io.modelcontextprotocol\/clientInfo":{}},"requestState":1,"a":[ ],"inputResponses":{}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":[ ]}}"#,
        );
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#,
        );
    }

    #[test]
    fn knows_the_levels() {
        let level = |raw: &str| {
            let line = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"_meta":{{"{}":{raw}}}}}}}"#,
                meta::LOG_LEVEL
            );
            request(&line).log_level()
        };
        assert_eq!(level(r#""debug""#), Ok(Some(0)));
        assert_eq!(level(r#""emergenc\u0079""#), Ok(Some(7)));
        assert_eq!(level(r#""loud""#), Err(InvalidLevel));
        assert_eq!(level("3"), Err(InvalidLevel));
    }
}
