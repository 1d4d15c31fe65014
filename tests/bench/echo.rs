//! The messages of the bench: `initialize` and calls of the demo server's tool `echo`, each with a
//! text of its own, so that an answer to someone else's call is noticed. [`super::client`] and
//! [`super::pipe`] carry them.

use std::io::Write;

use serde_json::Value;

use super::failure::{Context, Failure, Outcome};

/// The revision of the protocol that is asked for.
pub(crate) const VERSION: &str = "2025-11-25";

/// The revision without sessions.
pub(crate) const MODERN_VERSION: &str = "2026-07-28";

/// What is called, in either era.
pub(crate) const TOOL: &str = "echo";

/// Which way of the protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// `initialize` and a session.
    Legacy,
    /// Every request says everything.
    Modern,
}

impl Era {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

/// The id of `initialize`; calls count on from here.
const FIRST_ID: u64 = 1;

/// `initialize`, without a line's end.
pub(crate) fn initialize() -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{FIRST_ID},"method":"initialize","params":{{"protocolVersion":"{VERSION}","capabilities":{{}},"clientInfo":{{"name":"bench","version":"1"}}}}}}"#
    )
}

/// `notifications/initialized`, without a line's end.
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The protocol version that an answer to `initialize` settles on.
pub(crate) fn settled_version(answer: &[u8]) -> Outcome<String> {
    let answer: Value = serde_json::from_slice(answer).at(&"answer to initialize")?;
    let version = answer["result"]["protocolVersion"].as_str();
    Ok(version
        .ok_or_else(|| Failure::new(format!("no answer to initialize: {answer}")))?
        .to_owned())
}

/// The calls of one session: what to send, and whether the answer is the right one. Reuses its
/// memory.
pub(crate) struct Calls {
    session: usize,
    id: u64,
    request: Vec<u8>,
    /// How the answer's text begins; longer than any id it could be taken for.
    text: Vec<u8>,
    id_member: Vec<u8>,
    /// What comes after the text.
    end: String,
}

impl Calls {
    pub(crate) fn new(session: usize, era: Era) -> Self {
        let end = match era {
            Era::Legacy => r#""}}}"#.to_owned(),
            Era::Modern => format!(
                r#""}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN_VERSION}","io.modelcontextprotocol/clientInfo":{{"name":"bench","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
            ),
        };
        Self {
            session,
            id: FIRST_ID,
            request: Vec::new(),
            text: Vec::new(),
            id_member: Vec::new(),
            end,
        }
    }

    /// The next call, without a line's end.
    pub(crate) fn next(&mut self) -> Outcome<&[u8]> {
        self.id += 1;
        let (id, session) = (self.id, self.session);
        self.text.clear();
        self.id_member.clear();
        self.request.clear();
        write!(
            self.text,
            "session {session:06} call {id:09}, and some words for company"
        )
        .at(&"a text")?;
        write!(self.id_member, "\"id\":{id}").at(&"an id")?;
        self.request.extend_from_slice(br#"{"jsonrpc":"2.0","#);
        self.request.extend_from_slice(&self.id_member);
        self.request.extend_from_slice(
            br#","method":"tools/call","params":{"name":"echo","arguments":{"text":""#,
        );
        self.request.extend_from_slice(&self.text);
        self.request.extend_from_slice(self.end.as_bytes());
        Ok(&self.request)
    }

    /// Whether `answer` is the one to the last call: its id, its text.
    pub(crate) fn check(&self, answer: &[u8]) -> Outcome<()> {
        let ends_here = |rest: &[u8]| !rest.first().is_some_and(u8::is_ascii_digit);
        let has_id = find(answer, &self.id_member)
            .is_some_and(|at| ends_here(&answer[at + self.id_member.len()..]));
        if has_id && find(answer, &self.text).is_some() {
            return Ok(());
        }
        let (answer, id, session) = (String::from_utf8_lossy(answer), self.id, self.session);
        Err(Failure::new(format!(
            "call {id} of session {session} was answered with: {answer}"
        )))
    }
}

/// Where `needle` begins in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_answer_is_right() {
        for era in [Era::Legacy, Era::Modern] {
            only_the_right_answer_is_right_in(era);
        }
    }

    fn only_the_right_answer_is_right_in(era: Era) {
        let mut calls = Calls::new(3, era);
        let request = String::from_utf8(calls.next().unwrap().to_vec()).unwrap();
        serde_json::from_str::<Value>(&request).unwrap();
        let text = String::from_utf8(calls.text.clone()).unwrap();
        assert!(
            calls
                .check(format!(r#"{{"id":2,"text":"{text}"}}"#).as_bytes())
                .is_ok()
        );
        assert!(
            calls
                .check(format!(r#"{{"id":23,"text":"{text}"}}"#).as_bytes())
                .is_err()
        );
        assert!(calls.check(br#"{"id":2,"text":"session 000004"}"#).is_err());
    }
}
