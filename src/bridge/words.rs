//! What a child says that is no message: stray lines, and its last words on stderr.

use std::time::Instant;

use super::Options;
use crate::metrics;
use crate::rate::{Rate, Verdict};

/// How much of a line that is no message is logged, in characters.
pub(super) const LOGGED_CHARS: usize = 120;
/// Lines of stderr that an error message quotes.
const QUOTED_LINES: usize = 20;

/// Counts the lines that are no message, and logs as many as a log can bear.
pub(super) struct Garbage {
    rate: Rate,
}

impl Garbage {
    pub(super) fn new() -> Self {
        Self {
            rate: Rate::new(Instant::now()),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn note(&mut self, options: &Options, why: &str, text: &str) {
        metrics::CHILD_GARBAGE_LINES.add(1);
        let label = &options.label;
        match self.rate.take(Instant::now()) {
            Verdict::Log { suppressed: 0 } => {}
            Verdict::Log { suppressed } => {
                log::warn!("child {label} wrote {suppressed} more lines that are no message");
            }
            Verdict::Suppress => return,
        }
        let start = (options.redact)(text, LOGGED_CHARS);
        log::warn!("child {label} wrote a line that is no message ({why}): {start:?}");
    }
}

/// The end of a message about a child.
pub(super) fn last_words(options: &Options) -> String {
    let quoted = (options.stderr)(QUOTED_LINES);
    match quoted.is_empty() {
        true => "; it wrote nothing to stderr".to_owned(),
        false => format!("; its last lines on stderr:\n{}", quoted.join("\n")),
    }
}
