//! stderr of a child and the watch for its end: thread `e:`.
//!
//! stderr is drained whatever happens, or a chatty child would stop at a full pipe. The last
//! lines are kept for error messages; each line is logged, up to a rate, so that a flood costs
//! neither the disk nor the broker.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::exit::Life;
use super::pipes::wait;
use crate::rate::{Rate, Verdict};

const KEPT_LINES: usize = 100;
/// Kept of one line.
const KEPT_CHARS: usize = 1024;
/// Collected of one line: enough for any secret that begins in what is kept (values of an
/// environment are at most 32 KiB), so that none is cut in two before it is found.
const LINE_MAX_BYTES: usize = KEPT_CHARS * 4 + 32 * 1024;
/// Shorter values stand in ordinary text by chance.
const SECRET_MIN_BYTES: usize = 4;

/// The last lines a child wrote to stderr, with its secrets struck out.
pub(crate) struct StderrTail {
    label: String,
    secrets: Vec<String>,
    lines: Mutex<VecDeque<String>>,
}

impl StderrTail {
    /// For the child of this label; `secrets` are struck out of whatever it writes.
    pub(crate) fn new(label: String, secrets: &[String]) -> Self {
        // Of a secret of many lines, a key for one, each line is found by itself.
        let mut secrets: Vec<String> = secrets
            .iter()
            .flat_map(|secret| secret.lines())
            .filter(|line| line.len() >= SECRET_MIN_BYTES)
            .map(str::to_owned)
            .collect();
        // The longest first, so that no part of a secret that contains another stays.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self {
            label,
            secrets,
            lines: Mutex::default(),
        }
    }

    /// The last `count` lines, oldest first.
    pub(crate) fn last(&self, count: usize) -> Vec<String> {
        let lines = self.lines.lock();
        lines
            .iter()
            .skip(lines.len().saturating_sub(count))
            .cloned()
            .collect()
    }

    /// So many first characters of a text, with secrets struck out and on one line. A secret that
    /// begins before the cut is struck out whole.
    pub(crate) fn redact(&self, text: &str, max_chars: usize) -> String {
        let mut out = String::new();
        let (mut rest, mut taken) = (text, 0);
        while taken < max_chars
            && let Some(next) = rest.chars().next()
        {
            let secret = self
                .secrets
                .iter()
                .find(|secret| rest.starts_with(secret.as_str()));
            let len = match secret {
                Some(secret) => {
                    out.push_str("***");
                    secret.len()
                }
                None => {
                    out.push(if next.is_control() { ' ' } else { next });
                    next.len_utf8()
                }
            };
            taken += rest[..len].chars().count();
            rest = &rest[len..];
        }
        out
    }

    /// What is kept when the child writes this and closes its stderr.
    #[cfg(any(fuzzing, test))]
    pub(super) fn collect<'a>(&self, reads: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        self.lines.lock().clear();
        let mut lines = StderrLines {
            tail: self,
            line: Vec::new(),
            rate: Rate::new(Instant::now()),
        };
        reads.for_each(|read| lines.take(read));
        lines.end_line();
        self.last(KEPT_LINES)
    }

    /// Keeps the line, and returns what may be logged.
    fn push(&self, line: &[u8]) -> String {
        let text = self.redact(&String::from_utf8_lossy(line), KEPT_CHARS);
        let mut lines = self.lines.lock();
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(text.clone());
        text
    }
}

/// Drains stderr until the process has ended, ends its group, and reaps it.
pub(super) fn drain(stderr: &OwnedFd, tail: &StderrTail, life: &Life) {
    let mut lines = StderrLines {
        tail,
        line: Vec::new(),
        rate: Rate::new(Instant::now()),
    };
    let mut open = true;
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(life.pidfd(), PollFlags::IN),
            PollFd::new(stderr, PollFlags::IN),
        ];
        wait(if open { &mut fds } else { &mut fds[..1] }, None);
        let [ended, readable] = fds.map(|fd| !fd.revents().is_empty());
        if open && readable {
            open = lines.read(stderr) != Read::End;
        }
        if ended {
            // Bounded, because an escaped grandchild may go on writing for ever.
            let deadline = Instant::now() + Duration::from_millis(200);
            while open && Instant::now() < deadline && lines.read(stderr) == Read::Some {}
            lines.end_line();
            life.reap();
            return;
        }
    }
}

#[derive(PartialEq, Eq)]
enum Read {
    Some,
    Nothing,
    End,
}

struct StderrLines<'a> {
    tail: &'a StderrTail,
    line: Vec<u8>,
    rate: Rate,
}

impl StderrLines<'_> {
    fn read(&mut self, stderr: &OwnedFd) -> Read {
        let mut buffer = [0; 1024];
        match rustix::io::read(stderr, &mut buffer) {
            Ok(0) => Read::End,
            Ok(len) => {
                self.take(&buffer[..len]);
                Read::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            Err(_) => Read::End,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() < LINE_MAX_BYTES {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        if self.line.is_empty() {
            return;
        }
        let text = self.tail.push(&self.line);
        self.line = Vec::new(); // usually short, but a long one is not kept for the next
        let label = &self.tail.label;
        match self.rate.take(Instant::now()) {
            Verdict::Log { suppressed: 0 } => {}
            Verdict::Log { suppressed } => {
                log::warn!("child {label} wrote {suppressed} more lines to stderr");
            }
            Verdict::Suppress => return,
        }
        log::info!("child {label} stderr: {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_without_secrets() {
        let secrets = ["hunter2", "hunter2-long", "abc"].map(str::to_owned);
        let tail = StderrTail::new("test".to_owned(), &secrets);
        tail.push(b"token hunter2-long, hunter2, abc\x1b[0m");
        assert_eq!(tail.last(5), ["token ***, ***, abc [0m"]);
        for n in 0..150 {
            tail.push(format!("line {n}").as_bytes());
        }
        assert_eq!(tail.last(2), ["line 148", "line 149"]);
        assert_eq!(tail.last(1000).len(), KEPT_LINES);
    }
}
