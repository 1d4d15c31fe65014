//! A question of the child to the client, and the answer to it.

use crate::jsonrpc::{
    Edit, Id, Message, code, error_response, member, members, result_response, split_batch, text,
};
use crate::mcp::{meta, method};

use super::capabilities::Capabilities;
use super::server::Server;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Elicit,
    Sample,
    Roots,
}

/// 2026-07-28, mrtr, "InputRequests": one entry.
#[derive(Debug)]
pub(super) struct Question {
    /// Names it among those of its call.
    key: Box<str>,
    /// The key as a JSON string.
    key_text: Box<str>,
    /// The child's id, by value and as it stands; `None` if the child waits for no answer.
    id: Option<(Id, Box<str>)>,
    kind: Kind,
    params: Option<Box<str>>,
    pub(super) need: Capabilities,
    /// Whether the client has been asked, in the round that it is to answer.
    pub(super) is_asked: bool,
    /// Whether it can be no other call's than that which it is filed under.
    pub(super) is_surely_its_own: bool,
}

impl Question {
    /// Whether a child asks a client by this method.
    pub(super) fn is_one(name: &str) -> bool {
        Kind::of(name).is_some()
    }

    /// Reads a request of the child, whose id is the key if it is a text.
    pub(super) fn read(message: &Message<'_>) -> Option<Self> {
        let kind = Kind::of(&message.method)?;
        let (key, key_text) = match &message.id {
            Id::String(id) => (id.clone(), message.id_text.into()),
            _ => numbered(0),
        };
        Some(Self {
            key,
            key_text,
            id: Some((message.id.clone(), message.id_text.into())),
            kind,
            params: message.params.map(Into::into),
            need: kind.need(message.params.unwrap_or("{}")),
            is_asked: false,
            is_surely_its_own: true,
        })
    }

    /// One entry of the error that demands URLs to be visited (2025-11-25, elicitation, "URL
    /// Elicitation Required Error").
    pub(super) fn visit(elicitation: &str, number: u32) -> Self {
        let (key, key_text) = numbered(number);
        Self {
            key,
            key_text,
            id: None,
            kind: Kind::Elicit,
            params: Some(elicitation.into()),
            need: Capabilities {
                url: true,
                ..Capabilities::default()
            },
            is_asked: false,
            is_surely_its_own: true,
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Gives it a key of this call if its id makes none.
    pub(super) fn name(&mut self, number: u32) {
        if !matches!(self.id, Some((Id::String(_), _))) {
            self.rename(number);
        }
    }

    /// Gives it another key.
    pub(super) fn rename(&mut self, number: u32) {
        (self.key, self.key_text) = numbered(number);
    }

    pub(super) fn is(&self, id: &Id) -> bool {
        self.id.as_ref().is_some_and(|(own, _)| own == id)
    }

    /// It will not be put to a client again.
    pub(super) fn forget_params(&mut self) {
        self.params = None;
    }

    /// What is kept of it.
    pub(super) fn bytes(&self) -> usize {
        self.key.len() + self.params.as_deref().map_or(0, str::len)
    }

    /// The entry of `inputRequests` for a client of these capabilities: the child's own params,
    /// without what no longer exists there.
    pub(super) fn to_entry(&self, client: Capabilities) -> String {
        let (key, method) = (&self.key_text, self.kind.method());
        let Some(params) = self.params.as_deref() else {
            return format!(r#"{key}:{{"method":"{method}"}}"#);
        };
        let mut edit = Edit::of(params);
        // 2026-07-28, schema, `InputRequest`: nothing reports on its progress.
        let meta = member(params, "_meta").filter(|it| it.starts_with('{'));
        let is_progress = |name: &str| name == meta::PROGRESS_TOKEN;
        let empty = meta.filter(|it| members(it).iter().all(|own| own.is(meta::PROGRESS_TOKEN)));
        if let (Some(meta), None) = (meta, empty) {
            edit.remove(meta, is_progress);
        }
        // 2026-07-28, schema, `includeContext`: for clients that declare it only. It may be
        // ignored, so that it is no reason to refuse the question.
        let is_unwanted_context = !client.sampling_context && includes_context(params);
        edit.remove(params, |name| match name {
            // 2026-07-28, changelog, "Major changes" 6 and "Minor changes" 11.
            "task" => true,
            "elicitationId" => self.kind == Kind::Elicit,
            "includeContext" => self.kind == Kind::Sample && is_unwanted_context,
            "_meta" => empty.is_some(),
            _ => false,
        });
        let params = edit.done();
        format!(r#"{key}:{{"method":"{method}","params":{params}}}"#)
    }

    /// Whether it can be the answer; if not, what it has to be.
    ///
    /// 2026-07-28, mrtr, "Error Handling"; schema, `InputResponse`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(&self, answer: &str) -> Result<(), &'static str> {
        let value = |name| member(answer, name).unwrap_or_default();
        let (is_right, wanted) = match self.kind {
            Kind::Elicit => (
                action(answer).is_some(),
                "an object whose action is accept, decline or cancel",
            ),
            Kind::Sample => (
                ["role", "model"]
                    .iter()
                    .all(|it| value(it).starts_with('"'))
                    && value("content").starts_with(['{', '[']),
                "an object with role, content and model",
            ),
            Kind::Roots => (
                value("roots").starts_with('['),
                "an object with an array of roots",
            ),
        };
        if is_right { Ok(()) } else { Err(wanted) }
    }

    /// The answer to the child, as it came; `None` if the child waits for none.
    ///
    /// 2025-11-25, changelog, "Major changes" 7: older children know one content in each message
    /// only. A list of one is taken apart for them, any other is no answer.
    pub(super) fn answer(&self, answer: &str, server: &Server) -> Option<String> {
        let (_, id) = self.id.as_ref()?;
        let content = match self.kind {
            Kind::Sample if !server.samples_lists => member(answer, "content"),
            _ => None,
        };
        let Some(content) = content.filter(|it| it.starts_with('[')) else {
            return Some(result_response(id, answer));
        };
        match split_batch(content).as_deref() {
            Ok([one]) => {
                let answer = Edit::of(answer).replace(content, *one).done();
                Some(result_response(id, &answer))
            }
            _ => {
                let why = "the client answered with a list of contents, which this version of \
                           the protocol has not";
                self.refusal(code::INTERNAL_ERROR, why)
            }
        }
    }

    /// The answer to the child when there is none; `None` if the child waits for none.
    pub(super) fn refusal(&self, code: i32, why: &str) -> Option<String> {
        let (_, id) = self.id.as_ref()?;
        Some(error_response(id, code, why))
    }

    /// What a legacy client says that lacks the capability.
    ///
    /// 2025-11-25, elicitation, sampling and roots, "Error Handling".
    pub(super) fn unsupported(&self, client: Capabilities) -> Option<String> {
        let (is_known, method) = match self.kind {
            Kind::Elicit => (client.form || client.url, "elicitation in this mode"),
            Kind::Sample => (client.sampling, "sampling with tools"),
            Kind::Roots => (false, ""),
        };
        if is_known {
            let why = format!("the client does not support {method}");
            return self.refusal(code::INVALID_PARAMS, &why);
        }
        let why = format!("the client does not support {}", self.kind.method());
        self.refusal(code::METHOD_NOT_FOUND, &why)
    }
}

/// Whether an answer that has been checked consents to what the child wants.
pub(super) fn is_accepted(answer: &str) -> bool {
    action(answer).is_some_and(|it| it == "accept")
}

/// 2026-07-28, elicitation, "Response Actions".
fn action(answer: &str) -> Option<&'static str> {
    let action = member(answer, "action").and_then(text)?;
    let known = ["accept", "decline", "cancel"];
    known.into_iter().find(|it| *it == action)
}

fn includes_context(params: &str) -> bool {
    let value = member(params, "includeContext").and_then(text);
    value.is_some_and(|it| it != "none")
}

fn numbered(number: u32) -> (Box<str>, Box<str>) {
    let key = format!("q{number}");
    (key.as_str().into(), format!(r#""{key}""#).into())
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name {
            method::ELICIT => Some(Self::Elicit),
            method::SAMPLE => Some(Self::Sample),
            method::ROOTS => Some(Self::Roots),
            _ => None,
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Elicit => method::ELICIT,
            Self::Sample => method::SAMPLE,
            Self::Roots => method::ROOTS,
        }
    }

    /// 2026-07-28, mrtr, "Server Requirements" 7.
    fn need(self, params: &str) -> Capabilities {
        let has = |name| member(params, name).is_some_and(|it| it != "null");
        let mut need = Capabilities::default();
        match self {
            Self::Elicit => {
                need.url = member(params, "mode").and_then(text).as_deref() == Some("url");
                need.form = !need.url;
            }
            Self::Sample => {
                need.sampling = true;
                need.sampling_tools = has("tools") || has("toolChoice");
            }
            Self::Roots => need.roots = true,
        }
        need
    }
}
