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

const KEPT_LINES: usize = 100;
/// Collected of one line; more is dropped.
const LINE_MAX_BYTES: usize = 4096;
/// Kept of one line. Less than is collected, so that a secret is found before it is cut in two.
const KEPT_CHARS: usize = 1024;
const LOGGED_LINES_PER_SECOND: u32 = 50;
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

    /// Strikes secrets out, keeps the line, and returns what may be logged.
    fn push(&self, line: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(line).into_owned();
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***");
            }
        }
        let visible = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = text.chars().take(KEPT_CHARS).map(visible).collect();
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
        self.line.clear();
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

enum Verdict {
    Log { suppressed: u32 },
    Suppress,
}

/// Lines a second that may be logged.
struct Rate {
    since: Instant,
    logged: u32,
    suppressed: u32,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            logged: 0,
            suppressed: 0,
        }
    }

    fn take(&mut self, now: Instant) -> Verdict {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            let suppressed = self.suppressed;
            *self = Self {
                since: now,
                logged: 1,
                suppressed: 0,
            };
            return Verdict::Log { suppressed };
        }
        if self.logged < LOGGED_LINES_PER_SECOND {
            self.logged += 1;
            return Verdict::Log { suppressed: 0 };
        }
        self.suppressed = self.suppressed.saturating_add(1);
        Verdict::Suppress
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

    #[test]
    fn logs_a_bounded_number_of_lines_a_second() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let logged = |rate: &mut Rate, at| matches!(rate.take(at), Verdict::Log { .. });
        let count = (0..1000).filter(|_| logged(&mut rate, start)).count();
        assert_eq!(count, 50);
        let later = start + Duration::from_secs(1);
        assert!(matches!(rate.take(later), Verdict::Log { suppressed: 950 }));
    }
}
