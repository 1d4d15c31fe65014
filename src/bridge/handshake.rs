//! What a client has told its child that another child must be told again before it can take the
//! first one's place; pure.
//!
//! Two things live by it: a session whose child is gone gets a new one (`revive`), and the child of
//! a session that has ended gets another session of the same client (`park`).

use std::borrow::Cow;

use serde_json::Value;

use crate::jsonrpc::{self, Message};
use crate::mcp::method;

/// Subscriptions that are remembered; a session with more cannot be given another child.
const MAX_SUBSCRIPTIONS: usize = 1024;
/// What names a client (2025-11-25, lifecycle, "Initialization").
const IDENTITY: [&str; 3] = ["protocolVersion", "capabilities", "clientInfo"];

/// The state that a client has put into its child, as the texts it came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// `params` of `initialize`; empty if there were none.
    pub(crate) initialize: Box<str>,
    /// The child's `result` of it.
    pub(crate) result: Box<str>,
    /// `params` of the last `logging/setLevel`.
    pub(crate) log_level: Option<Box<str>>,
    /// `params` of each `resources/subscribe` in force.
    pub(crate) subscriptions: Vec<Box<str>>,
    /// More was subscribed to than is remembered.
    pub(crate) is_overfull: bool,
    /// Children that have had it before this one.
    pub(crate) children: u32,
}

/// What a request will change in the child if it succeeds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Initialize(Box<str>),
    LogLevel(Box<str>),
    Subscribe(Box<str>),
    Unsubscribe(Box<str>),
}

impl Change {
    pub(super) fn of(message: &Message<'_>) -> Option<Self> {
        let change = match &*message.method {
            method::INITIALIZE => Self::Initialize,
            method::SET_LEVEL => Self::LogLevel,
            method::SUBSCRIBE => Self::Subscribe,
            method::UNSUBSCRIBE => Self::Unsubscribe,
            _ => return None,
        };
        Some(change(message.params.unwrap_or_default().into()))
    }
}

impl Handshake {
    /// A change has been made: the child answered it with `result`.
    pub(super) fn apply(&mut self, change: Change, result: &str) {
        match change {
            Change::Initialize(params) => {
                (self.initialize, self.result) = (params, result.into());
            }
            Change::LogLevel(params) => self.log_level = Some(params),
            Change::Subscribe(params) => {
                self.unsubscribe(&params);
                match self.subscriptions.len() < MAX_SUBSCRIPTIONS {
                    true => self.subscriptions.push(params),
                    false => self.is_overfull = true,
                }
            }
            Change::Unsubscribe(params) => self.unsubscribe(&params),
        }
    }

    fn unsubscribe(&mut self, params: &str) {
        let uri = uri(params);
        self.subscriptions.retain(|other| self::uri(other) != uri);
    }

    /// The revision that was negotiated; empty if the child did not say.
    pub(crate) fn version(&self) -> Cow<'_, str> {
        version(&self.result)
    }

    /// Whether `initialize`, the `params` of another one, are from the same client: the same
    /// revision, capabilities, name and version.
    pub(crate) fn is_of_same_client(&self, initialize: &str) -> bool {
        let values = |params: &str| -> Option<Vec<Value>> {
            let value = |name| match jsonrpc::member(params, name) {
                Some(text) => serde_json::from_str(text).ok(),
                None => Some(Value::Null),
            };
            IDENTITY.into_iter().map(value).collect()
        };
        let own = values(&self.initialize);
        own.is_some() && own == values(initialize)
    }

    /// Whether a child that has the other one knows all that this one's child does.
    pub(super) fn is_told_by(&self, other: &Self) -> bool {
        !self.is_overfull
            && self.initialize == other.initialize
            && self.log_level == other.log_level
            && self.subscriptions == other.subscriptions
    }

    /// Whether nothing is left in the child that another session could notice.
    pub(super) fn leaves_no_trace(&self) -> bool {
        self.log_level.is_none() && self.subscriptions.is_empty() && !self.is_overfull
    }

    /// The line that a new child is told first; `id` is the text of its id.
    pub(super) fn first_line(&self, id: &str) -> Vec<u8> {
        line(id, method::INITIALIZE, &self.initialize)
    }

    /// The lines that follow once the new child has answered; the ids begin with `id_prefix`, which
    /// is the inside of a JSON string.
    pub(super) fn further_lines(&self, id_prefix: &str) -> Vec<u8> {
        let mut lines =
            format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, method::INITIALIZED).into_bytes();
        lines.push(b'\n');
        let level = self
            .log_level
            .iter()
            .map(|params| (method::SET_LEVEL, params));
        let subscriptions = self
            .subscriptions
            .iter()
            .map(|params| (method::SUBSCRIBE, params));
        for (no, (method, params)) in level.chain(subscriptions).enumerate() {
            lines.extend(line(&format!(r#""{id_prefix}{no}""#), method, params));
        }
        lines
    }
}

/// The revision in a `result` of `initialize`; empty if there is none.
pub(super) fn version(result: &str) -> Cow<'_, str> {
    jsonrpc::member(result, "protocolVersion")
        .and_then(jsonrpc::text)
        .unwrap_or_default()
}

fn uri(params: &str) -> Option<Cow<'_, str>> {
    jsonrpc::member(params, "uri").and_then(jsonrpc::text)
}

/// A request to the child; `id` is the text of its id.
pub(super) fn line(id: &str, method: &str, params: &str) -> Vec<u8> {
    let params = match params.is_empty() {
        true => String::new(),
        // A line end between tokens would be the end of the line.
        false => format!(r#","params":{}"#, params.replace(['\n', '\r'], " ")),
    };
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\"{params}}}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_is_in_force() {
        let mut handshake = Handshake::default();
        let mut apply = |method: &str, params: &str| {
            let text =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
            let message = jsonrpc::parse(&text).unwrap();
            handshake.apply(
                Change::of(&message).unwrap(),
                r#"{"protocolVersion":"2025-11-25"}"#,
            );
        };
        apply("initialize", r#"{"clientInfo":{"name":"a"}}"#);
        apply("logging/setLevel", r#"{"level":"info"}"#);
        apply("logging/setLevel", r#"{"level":"debug"}"#);
        for uri in ["x:1", "x:2", "x:1", "x:3"] {
            apply("resources/subscribe", &format!(r#"{{"uri":"{uri}"}}"#));
        }
        apply("resources/unsubscribe", r#"{"uri":"x:\u0032","_meta":{}}"#);
        let lines = String::from_utf8(handshake.further_lines("own/")).unwrap();
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
                r#"{"jsonrpc":"2.0","id":"own/0","method":"logging/setLevel","params":{"level":"debug"}}"#,
                r#"{"jsonrpc":"2.0","id":"own/1","method":"resources/subscribe","params":{"uri":"x:1"}}"#,
                r#"{"jsonrpc":"2.0","id":"own/2","method":"resources/subscribe","params":{"uri":"x:3"}}"#,
            ]
        );
        assert_eq!(handshake.version(), "2025-11-25");
        assert!(!handshake.leaves_no_trace());
    }

    #[test]
    fn tells_clients_apart() {
        let one =
            r#"{"protocolVersion":"v","capabilities":{"a":1,"b":2},"clientInfo":{"name":"n"}}"#;
        let handshake = Handshake {
            initialize: one.into(),
            ..Handshake::default()
        };
        for (other, same) in [
            (one, true),
            // Neither order nor what belongs to the request alone.
            (
                r#"{"_meta":{"x":1},"clientInfo":{"name":"n"},"capabilities":{"b":2,"a":1},"protocolVersion":"v"}"#,
                true,
            ),
            (
                r#"{"protocolVersion":"w","capabilities":{"a":1,"b":2},"clientInfo":{"name":"n"}}"#,
                false,
            ),
            (
                r#"{"protocolVersion":"v","capabilities":{"a":1},"clientInfo":{"name":"n"}}"#,
                false,
            ),
            (
                r#"{"protocolVersion":"v","capabilities":{"a":1,"b":2},"clientInfo":{"name":"m"}}"#,
                false,
            ),
            (
                r#"{"protocolVersion":"v","capabilities":{"a":1,"b":2}}"#,
                false,
            ),
            ("", false),
        ] {
            assert_eq!(handshake.is_of_same_client(other), same, "{other}");
        }
    }
}
