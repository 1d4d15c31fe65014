//! Answers of a legacy child as a modern client wants them.

use crate::jsonrpc::{Edit, Id, code, error_response, member, members, text};
use crate::mcp::{self, meta};

use super::capabilities::Capabilities;
use super::request::Method;
use super::server::Server;

/// A list is as fresh as the moment, since a legacy child does not say how long it holds; and it
/// is this user's, since the child is.
const CACHE: [(&str, &str); 2] = [("ttlMs", "0"), ("cacheScope", r#""private""#)];

const COMPLETE: &str = r#""complete""#;

/// `_meta` with nothing but the server's name and version.
pub(super) fn server_info_meta(info: &str) -> String {
    format!(r#"{{"{}":{info}}}"#, meta::SERVER_INFO)
}

/// The result of a call, for the client that waits under `id`: what a modern one must have and a
/// legacy one has not, is put into it.
///
/// - 2026-07-28, basic, "ResultType"
/// - 2026-07-28, caching, "Cacheable Results"
/// - 2026-07-28, basic, "`_meta`", "Per-response protocol fields"
pub(super) fn result<'a>(
    server: &Server,
    method: Method,
    line: &'a str,
    result: &'a str,
    id: Option<(&'a str, i64)>,
) -> String {
    let mut edit = Edit::of(line);
    if let Some((old, new)) = id {
        edit.replace(old, new.to_string());
    }
    let members = members(result);
    let has = |name: &str| members.iter().any(|it| it.is(name));
    let mut new = Vec::with_capacity(4);
    match members.iter().find(|it| it.is("resultType")) {
        None => new.push(("resultType", COMPLETE)),
        // A legacy child knows no other; a client would take the result for invalid.
        Some(own) if text(own.value).as_deref() != Some("complete") => {
            edit.replace(own.value, COMPLETE);
        }
        Some(_) => {}
    }
    if method.is_cacheable() {
        new.extend(CACHE.into_iter().filter(|(name, _)| !has(name)));
    }
    if let (Some(meta), Some(info)) = (&server.meta, &server.info) {
        match members.iter().find(|it| it.is("_meta")) {
            None => new.push(("_meta", meta)),
            Some(own) if own.value.starts_with('{') => {
                if member(own.value, meta::SERVER_INFO).is_none() {
                    edit.put(own.value, &[(meta::SERVER_INFO, info)]);
                }
            }
            Some(_) => {}
        }
    }
    edit.put(result, &new).done()
}

/// The error that a call ended with, for the client that waits under `id`.
pub(super) fn error<'a>(line: &'a str, error: &'a str, id: Option<(&'a str, i64)>) -> String {
    let mut edit = Edit::of(line);
    if let Some((old, new)) = id {
        edit.replace(old, new.to_string());
    }
    if let Some((old, new)) = member(error, "code").zip(modern_code(error)) {
        edit.replace(old, new.to_string());
    }
    edit.done()
}

/// What a modern client is to get instead of the error's code, if anything.
///
/// 2026-07-28, basic, "Error Codes"; resources, "Error Handling".
fn modern_code(error: &str) -> Option<i32> {
    match error_code(error)? {
        mcp::code::RESOURCE_NOT_FOUND => Some(code::INVALID_PARAMS),
        // What the child means by it, the specification does not; ours are made elsewhere.
        own if mcp::code::RESERVED.contains(&own) => Some(code::INTERNAL_ERROR),
        _ => None,
    }
}

pub(super) fn error_code(error: &str) -> Option<i64> {
    match Id::parse(member(error, "code")?)? {
        Id::Integer(code) => Some(code),
        _ => None,
    }
}

/// The text of the child's own words, in their quotes.
pub(super) fn error_message(error: &str) -> String {
    let message = member(error, "message").filter(|it| text(it).is_some());
    message
        .unwrap_or(r#""the server gave no reason""#)
        .to_owned()
}

/// Whether a tool says that it failed (2025-11-25, tools, "Error Handling").
pub(super) fn is_failure(result: &str) -> bool {
    member(result, "isError") == Some("true")
}

/// 2026-07-28, schema, `MissingRequiredClientCapabilityError`.
pub(super) fn missing_capability(id: i64, missing: Capabilities) -> String {
    let required = missing.to_json();
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{},"message":"The server needs to ask the client, which does not declare the capability: see data","data":{{"requiredCapabilities":{required}}}}}}}"#,
        mcp::code::MISSING_CLIENT_CAPABILITY
    )
}

pub(super) fn refusal(id: i64, code: i32, message: &str) -> String {
    error_response(&id.to_string(), code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::parse;

    fn server() -> Server {
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s"}}}"#;
        Server::read(&parse(answer).unwrap()).unwrap()
    }

    fn dressed(method: Method, line: &str) -> String {
        let message = parse(line).unwrap();
        let id = Some((message.id_text, 9));
        result(&server(), method, line, message.result.unwrap(), id)
    }

    #[test]
    fn all_but_the_new_members_stays_as_it_came() {
        assert_eq!(
            dressed(
                Method::Call,
                r#"{ "result" : {"n": 12345678901234567890.10,"s":"\u0061\/" , "_meta":{ "x":1e2 }}, "id":1.0, "jsonrpc":"2.0" }"#
            ),
            r#"{ "result" : {"resultType":"complete","n": 12345678901234567890.10,"s":"\u0061\/" , "_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}, "x":1e2 }}, "id":9, "jsonrpc":"2.0" }"#
        );
    }

    #[test]
    fn what_the_child_says_itself_is_kept() {
        let line = r#"{"jsonrpc":"2.0","id":9,"result":{"resultType":"complete","ttlMs":5,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{}}}}"#;
        assert_eq!(dressed(Method::List, line), line);
    }

    #[test]
    fn a_result_of_no_known_type_is_complete() {
        let line = |own: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":9,"result":{{"resultType" : {own} ,"a":1}}}}"#)
        };
        for own in [r#""input_required""#, r#""task""#, "null", r#"{"x":1}"#] {
            let is = dressed(Method::Call, &line(own));
            assert!(is.contains(r#""resultType" : "complete" ,"a":1"#), "{is}");
            assert_eq!(is.matches("resultType").count(), 1, "{is}");
        }
        let written = dressed(Method::Call, &line(r#""\u0063omplete""#));
        assert!(
            written.contains(r#""resultType" : "\u0063omplete""#),
            "{written}"
        );
    }

    #[test]
    fn an_empty_result_gets_all() {
        assert_eq!(
            dressed(Method::Read, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
            r#"{"jsonrpc":"2.0","id":9,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}}}"#
        );
    }
}
