//! Translation between the two eras of the protocol: a child of one era, dressed as one of the
//! other; pure.
//!
//! A translator stands between a bridge and its child. It takes lines of either side and says
//! what becomes of them: lines for the child, lines for the client's side. It knows no clock, no
//! thread and no process, so a conversation can be written down and played back
//! (`tests/data/eras`). What a message does not have to change for stays as it came, byte for
//! byte: fields are put in and taken out of the text, never parsed and printed again.
//!
//! - `legacy_child`: a child of up to 2025-11-25 for clients of 2026-07-28, which all share it
//! - `modern_child`: a child of 2026-07-28 for one client of up to 2025-11-25

mod legacy_child;
mod modern_child;

use std::time::Instant;

pub(crate) use legacy_child::{LegacyChild, Options as LegacyChildOptions, Sealer};
pub(crate) use modern_child::{ModernChild, is_modern_refusal};

/// What becomes of a line: one message each, without an end of line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Out {
    /// For the child's stdin.
    Child(String),
    /// For the client's side, as if the child had written it.
    Client(String),
    /// The child cannot be served from. Nothing comes after it.
    Failed(Failure),
}

/// Why a child cannot be served from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// In words that follow "it".
    pub(crate) why: &'static str,
    /// What the child says to it. There may be secrets in that.
    pub(crate) said: Option<String>,
}

impl Failure {
    /// So many characters of what the child says are told.
    const SAID_CHARS: usize = 200;

    /// Both, for people; `redact` strikes secrets out of so many characters of a text.
    pub(crate) fn told(&self, redact: impl FnOnce(&str, usize) -> String) -> String {
        match &self.said {
            None => self.why.to_owned(),
            Some(said) => format!("{}: {}", self.why, redact(said, Self::SAID_CHARS)),
        }
    }
}

/// A child in the dress of the other era.
///
/// Calls come in the order in which the lines were read, one at a time.
pub(crate) trait Translator: Send {
    /// The child runs.
    fn begin(&mut self, now: Instant, out: &mut Vec<Out>);

    /// A message of the client's side, in the client's era.
    fn client_says(&mut self, line: &str, now: Instant, out: &mut Vec<Out>);

    /// A message of the child, in the child's era.
    fn child_says(&mut self, line: &str, now: Instant, out: &mut Vec<Out>);

    /// Whether the child has begun to serve.
    fn is_ready(&self) -> bool {
        true
    }

    /// When [`Translator::tick`] has something to do.
    fn due(&self) -> Option<Instant>;

    /// Time has passed.
    fn tick(&mut self, now: Instant, out: &mut Vec<Out>);
}

#[cfg(test)]
mod tests;
