//! Which parameters of which tool a client repeats in the head of its call; pure (2026-07-28,
//! streamable HTTP, "Custom Headers from Tool Parameters").

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::check::{Fault, Mirrored, decode};
use crate::jsonrpc;
use crate::mcp::header;

const ANNOTATION: &str = "x-mcp-header";
/// Pages of a list of tools that are asked for.
const MAX_PAGES: usize = 64;
/// How often the list is asked for anew because it has changed meanwhile.
const MAX_RESTARTS: usize = 3;
/// Nesting of a schema that is looked into.
const MAX_DEPTH: usize = 64;

/// The keywords of JSON Schema whose values are schemas: by names of their own, one, or several.
const OF_NAMED_SCHEMAS: [&str; 5] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
];
const OF_A_SCHEMA: [&str; 12] = [
    "items",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
    "contentSchema",
];
const OF_SCHEMAS: [&str; 5] = ["items", "prefixItems", "allOf", "anyOf", "oneOf"];

/// What is known of the child's tools.
#[derive(Debug)]
pub(super) enum Tools {
    /// Nobody has asked since the last change; calls that came too early wait here.
    Unknown { held: Vec<Held>, is_asked: bool },
    /// By name; tools without such parameters are left out.
    Known(Arc<Params>),
}

pub(super) type Params = HashMap<Box<str>, Vec<Param>>;

/// A call that waits for the tools to be known.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) no: u64,
    /// For the child.
    pub(super) line: Vec<u8>,
    pub(super) mirrored: Option<Mirrored>,
}

/// One parameter that stands in the head, too.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Param {
    /// What follows `Mcp-Param-`.
    name: String,
    /// The way to it through the arguments.
    path: Vec<String>,
}

/// What the head of a call is worth.
#[derive(Debug)]
pub(super) enum Verdict {
    Fits,
    Differs(Fault),
}

/// A list of tools that is being asked for, page by page.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    found: HashMap<Box<str>, Vec<Param>>,
    pages: usize,
    restarts: usize,
    /// They have changed since.
    pub(super) is_stale: bool,
}

impl Default for Tools {
    fn default() -> Self {
        let held = Vec::new();
        Self::Unknown {
            held,
            is_asked: false,
        }
    }
}

/// Holds a call to its tool's schema.
pub(super) fn check(tools: &Params, mirrored: Option<&Mirrored>, params: Option<&str>) -> Verdict {
    let (Some(mirrored), Some(call)) = (mirrored, params) else {
        return Verdict::Fits;
    };
    if tools.is_empty() {
        return Verdict::Fits;
    }
    let name = jsonrpc::member(call, "name").and_then(jsonrpc::text);
    let Some(params) = name.and_then(|name| tools.get(&*name)) else {
        return Verdict::Fits;
    };
    let arguments = jsonrpc::member(call, "arguments").unwrap_or("{}");
    match params.iter().find_map(|it| it.fault(mirrored, arguments)) {
        Some(fault) => Verdict::Differs(fault),
        None => Verdict::Fits,
    }
}

impl Tools {
    /// Keeps a call until the tools are known; true for the first, which makes somebody ask.
    pub(super) fn hold(&mut self, call: Held) -> bool {
        let Self::Unknown { held, is_asked } = self else {
            return false;
        };
        held.push(call);
        !std::mem::replace(is_asked, true)
    }

    /// Whoever brought a call that waits has gone; false if there is no such call.
    pub(super) fn drop_held(&mut self, no: u64) -> bool {
        match self {
            Self::Unknown { held, .. } => held.extract_if(.., |call| call.no == no).count() > 0,
            Self::Known(_) => false,
        }
    }

    /// The tools are known; gives the calls that waited for that.
    pub(super) fn learn(&mut self, inquiry: Inquiry) -> Vec<Held> {
        match std::mem::replace(self, Self::Known(Arc::new(inquiry.found))) {
            Self::Unknown { held, .. } => held,
            Self::Known(_) => Vec::new(),
        }
    }

    /// Takes the calls that wait, known or not.
    pub(super) fn take_held(&mut self) -> Vec<Held> {
        match self {
            Self::Unknown { held, .. } => std::mem::take(held),
            Self::Known(_) => Vec::new(),
        }
    }

    /// They have changed.
    pub(super) fn forget(&mut self) {
        if let Self::Known(_) = self {
            *self = Self::default();
        }
    }
}

impl Inquiry {
    /// Whether nothing has been asked yet.
    pub(super) fn is_first(&self) -> bool {
        self.pages == 0 && self.restarts == 0
    }

    /// Takes a page in; gives the text of the cursor to ask for the next one with.
    pub(super) fn take(&mut self, result: &str) -> Option<String> {
        self.pages += 1;
        // Nearly no tool has such a parameter, and reading all of them takes time.
        if result.contains(ANNOTATION) || result.contains("\\u") {
            let tools = jsonrpc::member(result, "tools").unwrap_or("[]");
            self.found.extend(annotated(tools));
        }
        let cursor = jsonrpc::member(result, "nextCursor").filter(|it| it.starts_with('"'))?;
        (self.pages < MAX_PAGES).then(|| cursor.to_owned())
    }

    /// Begins anew if the list has changed meanwhile.
    ///
    /// # Errors
    /// It is given back if it is good, or as good as it gets.
    pub(super) fn again(self) -> Result<Self, Self> {
        if !self.is_stale || self.restarts >= MAX_RESTARTS {
            return Err(self);
        }
        Ok(Self {
            restarts: self.restarts + 1,
            ..Self::default()
        })
    }
}

/// The tools of a list that have such parameters. One whose annotations break a rule is no tool for
/// a client over HTTP, and nothing is asked of who calls it.
fn annotated(tools: &str) -> Vec<(Box<str>, Vec<Param>)> {
    let Ok(Value::Array(tools)) = serde_json::from_str(tools) else {
        return Vec::new();
    };
    let of_tool = |tool: &Value| {
        let name = tool.get("name")?.as_str()?.into();
        let schema = tool.get("inputSchema")?;
        let mut params = Vec::new();
        find(schema, &mut Vec::new(), &mut params)?;
        let is_whole = params.len() == count(schema, 0);
        (is_whole && !params.is_empty() && are_unique(&params)).then_some((name, params))
    };
    tools.iter().filter_map(of_tool).collect()
}

/// "Schema Extension": finds what can be reached through `properties` alone; `None` if something
/// there breaks a rule.
fn find(schema: &Value, path: &mut Vec<String>, params: &mut Vec<Param>) -> Option<()> {
    if path.len() > MAX_DEPTH {
        return None;
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Some(());
    };
    for (key, property) in properties {
        path.push(key.clone());
        if let Some(annotation) = property.get(ANNOTATION) {
            let name = annotation.as_str().filter(|name| is_token(name))?;
            let kind = property.get("type").and_then(Value::as_str)?;
            if !["string", "integer", "boolean"].contains(&kind) {
                return None;
            }
            params.push(Param {
                name: name.to_owned(),
                path: path.clone(),
            });
        }
        find(property, path, params)?;
        path.pop();
    }
    Some(())
}

/// How many schemas in a schema have an annotation, wherever they stand. What only looks like one
/// is none: the name of a property, or a part of an example.
fn count(schema: &Value, depth: usize) -> usize {
    let Some(members) = schema.as_object().filter(|_| depth <= MAX_DEPTH) else {
        return 0;
    };
    let inner = members.iter().map(|(key, value)| match value {
        Value::Object(named) if OF_NAMED_SCHEMAS.contains(&key.as_str()) => {
            named.values().map(|it| count(it, depth + 1)).sum()
        }
        Value::Object(_) if OF_A_SCHEMA.contains(&key.as_str()) => count(value, depth + 1),
        Value::Array(items) if OF_SCHEMAS.contains(&key.as_str()) => {
            items.iter().map(|it| count(it, depth + 1)).sum()
        }
        _ => 0,
    });
    usize::from(members.contains_key(ANNOTATION)) + inner.sum::<usize>()
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_tchar)
}

fn are_unique(params: &[Param]) -> bool {
    let same = |a: &Param, b: &Param| a.name.eq_ignore_ascii_case(&b.name);
    let is_first = |(at, param): (usize, &Param)| !params[..at].iter().any(|it| same(it, param));
    params.iter().enumerate().all(is_first)
}

impl Param {
    /// "Server Behavior for Custom Headers".
    fn fault(&self, mirrored: &Mirrored, arguments: &str) -> Option<Fault> {
        let mut heads = mirrored
            .params
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(&self.name));
        let (head, second) = (heads.next(), heads.next());
        let body = self
            .path
            .iter()
            .try_fold(arguments, |object, key| jsonrpc::member(object, key));
        let body = body.filter(|it| *it != "null");
        let what = match (head, body) {
            _ if second.is_some() => "stands twice",
            (None, None) => return None,
            (Some((_, head)), Some(body)) => match decode(head) {
                Some(head) if fits(&head, body) => return None,
                Some(_) => "is not the argument of the body",
                None => "is not encoded as it must be",
            },
            (None, Some(_)) => "is missing",
            (Some(_), None) => "has no argument in the body",
        };
        let name = format!("{}{}", header::PARAM_PREFIX, self.name);
        Some(Fault::mismatch(&format!("{name} {what}")))
    }
}

/// Whether a decoded field says what the text of a JSON value does. Numbers are compared as such.
fn fits(head: &str, body: &str) -> bool {
    match body.as_bytes().first() {
        Some(b'"') => jsonrpc::text(body).is_some_and(|body| body == head),
        Some(b't' | b'f') => head == body,
        Some(b'-' | b'0'..=b'9') => {
            // As floats, large integers that differ would be the same.
            let integer = |text: &str| serde_json::from_str::<i128>(text).ok();
            let number = |text: &str| serde_json::from_str::<f64>(text).ok();
            match (integer(head), integer(body)) {
                (Some(head), Some(body)) => head == body,
                _ => head == body || number(head).is_some_and(|it| number(body) == Some(it)),
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"tools":[
        {"name":"plain","inputSchema":{"type":"object","properties":{"a":{"type":"string"}}}},
        {"name":"sql","inputSchema":{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "limit":{"type":"integer","x-mcp-header":"Limit"},
            "deep":{"type":"object","properties":{"dry":{"type":"boolean","x-mcp-header":"Dry"}}}}}},
        {"name":"number","inputSchema":{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}},
        {"name":"twice","inputSchema":{"properties":{
            "a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}},
        {"name":"items","inputSchema":{"properties":{
            "a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}}}},
        {"name":"spaced","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A B"}}}}
    ],"nextCursor":"x"}"#;

    fn known() -> Tools {
        let mut inquiry = Inquiry::default();
        assert_eq!(inquiry.take(LIST).as_deref(), Some("\"x\""));
        assert_eq!(inquiry.take(r#"{"tools":[]}"#), None);
        let found = inquiry.found;
        assert_eq!(found.keys().map(|it| &**it).collect::<Vec<_>>(), ["sql"]);
        Tools::Known(Arc::new(found))
    }

    fn fits(params: &[(&str, &str)], call: &str) -> bool {
        let params = params
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let mirrored = Mirrored {
            params: params.collect(),
            ..Mirrored::default()
        };
        let Tools::Known(tools) = known() else {
            panic!("they are known")
        };
        match check(&tools, Some(&mirrored), Some(call)) {
            Verdict::Fits => true,
            Verdict::Differs(fault) => {
                assert_eq!(fault.code(), -32020);
                false
            }
        }
    }

    #[test]
    fn holds_calls_to_the_schemas_of_their_tools() {
        let call = |arguments: &str| format!(r#"{{"name":"sql","arguments":{arguments}}}"#);
        assert!(fits(&[], &call("{}")));
        assert!(fits(&[], r#"{"name":"sql"}"#));
        assert!(fits(&[], &call(r#"{"region":null}"#)));
        assert!(fits(&[("region", "eu")], &call(r#"{"region":"e\u0075"}"#)));
        assert!(!fits(&[("region", "us")], &call(r#"{"region":"eu"}"#)));
        assert!(!fits(&[], &call(r#"{"region":"eu"}"#)));
        assert!(!fits(&[("Region", "eu")], &call("{}")));
        assert!(!fits(
            &[("Region", "eu"), ("region", "eu")],
            &call(r#"{"region":"eu"}"#)
        ));
        assert!(fits(
            &[("Region", "=?base64?w6Q=?=")],
            &call(r#"{"region":"ä"}"#)
        ));
        assert!(!fits(
            &[("Region", "=?base64?w6Q?=")],
            &call(r#"{"region":"ä"}"#)
        ));
        assert!(fits(&[("Limit", "42.0")], &call(r#"{"limit":42}"#)));
        assert!(!fits(&[("Limit", "43")], &call(r#"{"limit":42}"#)));
        let large = call(r#"{"limit":9007199254740993}"#);
        assert!(fits(&[("Limit", "9007199254740993")], &large));
        assert!(!fits(&[("Limit", "9007199254740992")], &large));
        assert!(!fits(&[("Limit", "+42")], &call(r#"{"limit":42}"#)));
        assert!(fits(&[("Limit", "4.2e1")], &call(r#"{"limit":42}"#)));
        assert!(!fits(&[("Limit", "x")], &call(r#"{"limit":42}"#)));
        assert!(fits(&[("Dry", "true")], &call(r#"{"deep":{"dry":true}}"#)));
        assert!(!fits(&[("Dry", "True")], &call(r#"{"deep":{"dry":true}}"#)));
        assert!(fits(
            &[("A", "x")],
            r#"{"name":"number","arguments":{"a":1}}"#
        ));
        assert!(fits(&[("X", "x")], r#"{"name":"unheard-of"}"#));
    }

    #[test]
    fn holds_calls_back_until_the_tools_are_known() {
        let mut tools = Tools::default();
        assert!(matches!(tools, Tools::Unknown { .. }));
        let call = |no| Held {
            no,
            line: Vec::new(),
            mirrored: None,
        };
        assert!(tools.hold(call(1)));
        assert!(!tools.hold(call(2)));
        let held = tools.learn(Inquiry::default());
        assert_eq!(held.iter().map(|it| it.no).collect::<Vec<_>>(), [1, 2]);
        assert!(matches!(tools, Tools::Known(_)));
        tools.forget();
        assert!(matches!(tools, Tools::Unknown { .. }));
    }

    #[test]
    fn only_schemas_are_annotated() {
        let names = |schema: &str| {
            let list = format!(r#"[{{"name":"t","inputSchema":{schema}}}]"#);
            annotated(&list).len()
        };
        let a = r#""a":{"type":"string","x-mcp-header":"A"}"#;
        assert_eq!(names(&format!(r#"{{"properties":{{{a}}}}}"#)), 1);
        let looks_like = [
            r#""properties":{A,"x-mcp-header":{"type":"string"}}"#,
            r#""properties":{A},"default":{"x-mcp-header":"B"}"#,
            r#""properties":{A},"examples":[{"x-mcp-header":"B"}]"#,
            r#""properties":{A,"b":{"const":{"x-mcp-header":"B"}}}"#,
            r#""properties":{A,"b":{"enum":[{"x-mcp-header":"B"}]}}"#,
        ];
        for schema in looks_like {
            assert_eq!(
                names(&format!("{{{}}}", schema.replace('A', a))),
                1,
                "{schema}"
            );
        }
        let elsewhere = [
            r#""properties":{A},"$defs":{"b":{"x-mcp-header":"B"}}"#,
            r#""properties":{A},"allOf":[{"properties":{"b":{"x-mcp-header":"B"}}}]"#,
            r#""properties":{A,"b":{"items":{"x-mcp-header":"B"}}}"#,
            r#""properties":{A},"x-mcp-header":"B""#,
        ];
        for schema in elsewhere {
            assert_eq!(
                names(&format!("{{{}}}", schema.replace('A', a))),
                0,
                "{schema}"
            );
        }
    }
}
