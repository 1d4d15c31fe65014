//! Fuzz target: the fields of a head, against readers that know nothing of `request`, `policy` and
//! `route`.

use std::sync::Arc;

use tiny_http::{Header, Method, TestRequest};

use super::policy::Policy;
use super::request::Incoming;
use super::route::{self, Route};
use crate::edge;
use crate::fuzz::input::Input;
use crate::mcp::header;

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const HOST: &str = "mcp.example.org";
const ORIGIN: &str = "https://app.example.org";

/// The first field is the path, the others are lines of a head.
pub(crate) fn fields(data: &[u8]) {
    let mut input = Input::new(data);
    let method = [
        Method::Post,
        Method::Get,
        Method::Delete,
        Method::Head,
        Method::Options,
    ];
    let method = method[usize::from(input.byte()) % 5].clone();
    let path = input.text();
    check_route(path, &method);
    let mut lines: Vec<(&str, &str)> = Vec::new();
    let mut request = TestRequest::new().with_method(method);
    while !input.is_empty() {
        let line = input.text();
        // What the edge lets through: ASCII without controls, no space around.
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        if !value
            .bytes()
            .all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte))
        {
            continue;
        }
        let Ok(field) = Header::from_bytes(name, value) else {
            continue;
        };
        lines.push((name, value));
        request = request.with_header(field);
    }
    let is_numbered = values(&lines, edge::CONNECTION_FIELD)
        .last()
        .is_some_and(|last| last.parse::<u64>().is_ok());
    let incoming = Incoming::read(&request.into());
    assert_eq!(incoming.is_ok(), is_numbered);
    if let Ok(incoming) = incoming {
        check_fields(&incoming, &lines);
        check_accept(&incoming, &lines);
        check_policy(&incoming);
    }
}

fn values<'a>(lines: &[(&str, &'a str)], name: &str) -> Vec<&'a str> {
    let lines = lines.iter();
    let found = lines.filter(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, value)| *value).collect()
}

fn check_fields(incoming: &Incoming, lines: &[(&str, &str)]) {
    let single = [
        ("Host", &incoming.host),
        ("Origin", &incoming.origin),
        ("Authorization", &incoming.authorization),
        ("Content-Type", &incoming.content_type),
        (header::SESSION_ID, &incoming.session_id),
        (header::PROTOCOL_VERSION, &incoming.protocol_version),
        (header::LAST_EVENT_ID, &incoming.last_event_id),
    ];
    let mut is_repeated = false;
    for (name, read) in single {
        let sent = values(lines, name);
        is_repeated |= sent.len() > 1;
        assert_eq!(read.as_deref(), sent.first().copied(), "{name}");
    }
    assert_eq!(incoming.has_repeated_field, is_repeated);
    let accept = values(lines, "Accept");
    assert_eq!(
        incoming.accept,
        (!accept.is_empty()).then(|| accept.join(","))
    );
}

fn check_accept(incoming: &Incoming, lines: &[(&str, &str)]) {
    let accept = values(lines, "Accept").join(",").to_ascii_lowercase();
    let names = |range: &str| accept.contains(range);
    assert!(!incoming.accepts("application/json") || names("application/") || names("*/*"));
    assert!(!incoming.accepts("text/event-stream") || names("text/") || names("*/*"));
    if !accept.contains("q=") && !accept.contains('"') {
        let mut ranges = accept
            .split(',')
            .map(|range| range.split(';').next().unwrap_or_default());
        let wanted = ["application/json", "application/*", "*/*"];
        let has_json = ranges.any(|range| wanted.contains(&range.trim()));
        assert_eq!(incoming.accepts("application/json"), has_json, "{accept:?}");
    }
    let media_type = incoming
        .content_type
        .as_deref()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let is_json = media_type
        .strip_prefix("application/json")
        .is_some_and(|rest| rest.trim_start().is_empty() || rest.trim_start().starts_with(';'));
    assert_eq!(incoming.has_json(), is_json, "{media_type:?}");
}

fn is_loopback(authority: &str) -> bool {
    LOOPBACK.iter().any(|name| {
        let port = authority.strip_prefix(name);
        port.is_some_and(|port| port.is_empty() || is_port(port))
    })
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn check_policy(incoming: &Incoming) {
    let policy = Policy {
        hosts: vec![HOST.to_owned()],
        origins: vec![ORIGIN.to_owned()],
    };
    let host = incoming
        .host
        .clone()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let own = host.strip_prefix(HOST);
    let is_ours = is_loopback(&host) || own.is_some_and(|port| port.is_empty() || is_port(port));
    let origin = incoming.origin.as_deref().map(str::to_ascii_lowercase);
    let may_ask = origin.as_deref().is_none_or(|origin| {
        let authority = origin
            .strip_prefix("http://")
            .or(origin.strip_prefix("https://"));
        origin == ORIGIN || authority.is_some_and(is_loopback)
    });
    match policy.check(incoming.host.as_deref(), incoming.origin.as_deref()) {
        Ok(allowed) => {
            assert!(is_ours && may_ask, "{host:?} {origin:?}");
            assert_eq!(allowed, incoming.origin);
        }
        Err(_) => assert!(!is_ours || !may_ask, "{host:?} {origin:?}"),
    }
}

fn check_route(url: &str, method: &Method) {
    let servers: [Arc<str>; 2] = ["a".into(), "b.c".into()];
    let path = url.split('?').next().unwrap_or_default();
    let is_mcp = ["/mcp/a", "/mcp/b.c"].contains(&path);
    match route::find(&servers, method, url) {
        Route::Mcp(server) => assert_eq!(path, format!("/mcp/{server}")),
        Route::Preflight => assert!(is_mcp && *method == Method::Options),
        Route::Health => assert!(path == "/healthz" && *method == Method::Get),
        Route::MethodNotAllowed(allow) => {
            let mut allowed = allow.split(", ");
            assert!(allowed.all(|allowed| allowed != method.as_str()));
        }
        Route::Metrics => panic!("only the admin listener has it"),
        Route::NotFound => assert!(!is_mcp && path != "/healthz"),
    }
    let alone = route::find(&servers[..1], method, url);
    assert!(path != "/mcp" || alone == route::find(&servers[..1], method, "/mcp/a"));
}
