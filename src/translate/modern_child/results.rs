//! What a result of a modern child is, and what a legacy one may not hold.

use crate::jsonrpc::{self, Edit, Member, members};

/// What a response says.
pub(super) enum Verdict<'a> {
    /// It is the answer.
    Complete,
    /// The child wants something first; the whole result.
    InputRequired(&'a str),
    /// 2026-07-28, basic, "ResultType": "any value unrecognized by the client MUST be considered
    /// invalid".
    Unknown(&'a str),
}

/// 2026-07-28, basic, "ResultType"; the members are those of the result, none for an error.
pub(super) fn verdict<'a>(result: Option<&'a str>, members: &[Member<'a>]) -> Verdict<'a> {
    let Some(kind) = value(members, "resultType") else {
        return Verdict::Complete;
    };
    match jsonrpc::text(kind).as_deref() {
        Some("complete") => Verdict::Complete,
        Some("input_required") => Verdict::InputRequired(result.unwrap_or_default()),
        _ => Verdict::Unknown(kind),
    }
}

/// Takes out what a client of 2025-11-25 would refuse the whole result for. All else that is new,
/// such as `ttlMs`, it need not know (2025-11-25, schema, `Result`).
pub(super) fn conform<'a>(edit: &mut Edit<'a>, result: &'a str, members: &[Member<'a>]) {
    // 2026-07-28, changelog, minor change 10: once it had to be an object.
    if value(members, "structuredContent").is_some_and(|it| !it.starts_with('{')) {
        edit.remove(result, |name| name == "structuredContent");
    }
    let Some(tools) = value(members, "tools") else {
        return;
    };
    for tool in jsonrpc::split_batch(tools).unwrap_or_default() {
        let schema = jsonrpc::member(tool, "outputSchema");
        let kind = schema.and_then(|schema| jsonrpc::member(schema, "type"));
        if schema.is_some() && kind != Some(r#""object""#) {
            edit.remove(tool, |name| name == "outputSchema");
        }
    }
}

/// The members of a result; none if there is none.
pub(super) fn of(result: Option<&str>) -> Vec<Member<'_>> {
    result.map(members).unwrap_or_default()
}

fn value<'a>(members: &[Member<'a>], name: &str) -> Option<&'a str> {
    let mut found = members.iter().filter(|member| member.is(name));
    found.next_back().map(|member| member.value)
}
