//! The two pipes that carry messages: lines to the child's stdin, lines from its stdout.

use std::mem::take;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use super::exit::Life;
use super::{Event, Waker};

const READ_SIZE_BYTES: usize = 8 * 1024;
/// Kept of both ends of a line that is too long.
const END_BYTES: usize = 1024;
/// A child that reads nothing for so long, while there is something to read, is ended: nobody's
/// request would ever be answered.
const STDIN_STALL: Duration = Duration::from_secs(60);
/// A child that has closed its stdout and does not end by itself can answer nothing any more.
const CLOSED_GRACE: Duration = Duration::from_secs(2);

/// Writes what `source` yields until it yields `None` or the child has
/// ended. Dropping `stdin` at the end is what tells the child to stop.
pub(super) fn write_lines(
    stdin: Arc<OwnedFd>,
    life: &Life,
    mut source: impl FnMut() -> Option<Vec<u8>>,
) {
    while let Some(line) = source() {
        if !write_all(&stdin, life, &line) {
            break;
        }
    }
    drop(stdin);
    // Whoever waits for an answer to a line that was not written gets one when the child's end
    // is reported; the lines themselves are of no use any more.
    while source().is_some() {}
}

/// Whether the whole line was written; false when the child has ended. One that has closed its
/// stdin can be asked nothing any more, so it is ended.
fn write_all(stdin: &OwnedFd, life: &Life, mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        match rustix::io::write(stdin, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [
                    PollFd::new(stdin, PollFlags::OUT),
                    PollFd::from_borrowed_fd(life.pidfd(), PollFlags::IN),
                ];
                wait(&mut fds, Some(STDIN_STALL));
                let [writable, ended] = fds.map(|fd| !fd.revents().is_empty());
                if !writable && !ended {
                    log::warn!("a child has not read its stdin for {STDIN_STALL:?}, killing it");
                    life.kill(Signal::KILL);
                }
                if !writable {
                    return false;
                }
            }
            Err(_) => {
                life.kill(Signal::KILL);
                return false;
            }
        }
    }
    true
}

/// Writes bytes if the pipe has room for all of them; false if none was written.
pub(super) fn write_now(stdin: &Weak<OwnedFd>, bytes: &[u8]) -> bool {
    // POSIX, write(): up to so many bytes go into a non-blocking pipe whole or not at all.
    let is_atomic = bytes.len() <= rustix::pipe::PIPE_BUF;
    is_atomic
        && stdin
            .upgrade()
            .is_some_and(|stdin| rustix::io::write(&stdin, bytes).is_ok())
}

/// Hands every line of `stdout` to `sink`, and [`Event::Exited`] at the end.
pub(super) fn read_lines(
    stdout: &OwnedFd,
    waker: &Waker,
    life: &Life,
    max_message: usize,
    mut sink: impl FnMut(Event<'_>),
) {
    let mut lines = Lines::new(max_message);
    let mut open = true;
    let mut closed_at = None;
    let mut killed = false;
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(life.pidfd(), PollFlags::IN),
            PollFd::from_borrowed_fd(waker.bell.as_fd(), PollFlags::IN),
            PollFd::new(stdout, PollFlags::IN),
        ];
        if open {
            wait(&mut fds, waker.patience());
        } else {
            // Without stdout, which would be ready for ever.
            let since = *closed_at.get_or_insert_with(Instant::now);
            let left = CLOSED_GRACE.saturating_sub(since.elapsed());
            if left.is_zero() && !killed {
                life.kill(Signal::KILL);
                killed = true;
            }
            // A process that cannot even be killed is waited for quietly.
            wait(&mut fds[..2], (!killed).then_some(left));
        }
        let [ended, woken, readable] = fds.map(|fd| !fd.revents().is_empty());
        if woken {
            waker.clear();
        }
        if woken || waker.rings() {
            sink(Event::Woken);
        }
        if open && readable {
            open = lines.read(stdout, &mut sink) != Got::End;
        }
        if ended {
            // All that the process wrote is in the pipe now. There is no waiting for its end: an
            // escaped grandchild may go on writing for ever.
            let mut left = rustix::io::ioctl_fionread(stdout).unwrap_or(0);
            while open && left > 0 {
                match lines.read(stdout, &mut sink) {
                    Got::Some(len) => left = left.saturating_sub(len as u64),
                    Got::Nothing | Got::End => break,
                }
            }
            sink(Event::Exited(&life.wait_reason()));
            return;
        }
    }
}

#[derive(PartialEq, Eq)]
enum Got {
    /// So many bytes.
    Some(usize),
    /// Nothing to read at the moment.
    Nothing,
    End,
}

/// Cuts what is read into lines of a bounded length.
struct Lines {
    buffer: Vec<u8>,
    max_message: usize,
    /// In the middle of a line that is too long.
    skipping: bool,
    /// Its beginning, and the end of what came of it.
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Lines {
    fn new(max_message: usize) -> Self {
        Self {
            buffer: Vec::new(),
            max_message,
            skipping: false,
            head: Vec::new(),
            tail: Vec::new(),
        }
    }

    fn read(&mut self, stdout: &OwnedFd, sink: &mut impl FnMut(Event<'_>)) -> Got {
        if self.buffer.capacity() - self.buffer.len() < READ_SIZE_BYTES {
            self.buffer.reserve(READ_SIZE_BYTES);
        }
        let before = self.buffer.len();
        match rustix::io::read(stdout, spare_capacity(&mut self.buffer)) {
            Ok(0) => Got::End,
            Ok(len) => {
                self.cut(before, sink);
                Got::Some(len)
            }
            Err(Errno::AGAIN | Errno::INTR) => Got::Nothing,
            Err(_) => Got::End,
        }
    }

    /// Delivers all complete lines; everything before `seen` is known to hold no line end.
    fn cut(&mut self, seen: usize, sink: &mut impl FnMut(Event<'_>)) {
        let (mut start, mut from) = (0, seen);
        while let Some(at) = self.buffer[from..].iter().position(|&byte| byte == b'\n') {
            let end = from + at;
            let line = &self.buffer[start..end];
            if self.skipping {
                self.skipping = false;
                let (head, mut tail) = (take(&mut self.head), take(&mut self.tail));
                append(&mut tail, line);
                sink(Event::Skipped {
                    head: &head,
                    tail: &tail,
                });
            } else if line.len() > self.max_message {
                sink(Event::TooLong);
                sink(Event::Skipped {
                    head: first(line),
                    tail: last(line),
                });
            } else if !line.is_empty() {
                sink(Event::Line(line));
            }
            (start, from) = (end + 1, end + 1);
        }
        self.buffer.drain(..start);
        if self.buffer.len() > self.max_message {
            if !self.skipping {
                sink(Event::TooLong);
                self.head = first(&self.buffer).to_vec();
            }
            self.skipping = true;
        }
        if self.skipping {
            append(&mut self.tail, &self.buffer);
            self.buffer.clear();
        }
        if self.buffer.is_empty() {
            self.buffer = Vec::new(); // the child may be silent for hours
        }
    }
}

fn first(line: &[u8]) -> &[u8] {
    &line[..line.len().min(END_BYTES)]
}

fn last(line: &[u8]) -> &[u8] {
    &line[line.len().saturating_sub(END_BYTES)..]
}

/// Adds what follows to the end of a line, of which so much is kept.
fn append(tail: &mut Vec<u8>, more: &[u8]) {
    tail.extend_from_slice(last(more));
    tail.drain(..tail.len().saturating_sub(END_BYTES));
}

/// Waits for any of the descriptors. An error other than EINTR cannot happen here (the
/// descriptors are open), and would only mean one more turn of the caller's loop.
pub(super) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let _ = poll(fds, timeout.as_ref());
}

/// What the lines in these reads are; `None` is one that is too long.
#[cfg(any(fuzzing, test))]
pub(super) fn cut<'a>(
    max_message: usize,
    reads: impl Iterator<Item = &'a [u8]>,
) -> Vec<Option<Vec<u8>>> {
    let mut lines = Lines::new(max_message);
    let mut found = Vec::new();
    for read in reads {
        let before = lines.buffer.len();
        lines.buffer.extend_from_slice(read);
        lines.cut(before, &mut |event| match event {
            Event::Line(line) => found.push(Some(line.to_vec())),
            Event::TooLong => found.push(None),
            Event::Skipped { .. } | Event::Woken | Event::Exited(_) => {}
        });
    }
    found
}

#[cfg(test)]
mod tests {
    fn cut(max_message: usize, reads: &[&str]) -> Vec<String> {
        let lines = super::cut(max_message, reads.iter().map(|read| read.as_bytes()));
        let text = |line| String::from_utf8_lossy(line).into_owned();
        let lines = lines.iter();
        lines
            .map(|line| line.as_deref().map_or("TOO LONG".to_owned(), text))
            .collect()
    }

    #[test]
    fn cuts_lines_wherever_reads_end() {
        assert_eq!(
            cut(10, &["a\nb\n", "c", "d\n", "\n", "e"]),
            ["a", "b", "cd"]
        );
        assert_eq!(cut(10, &["0123456789\n", "x\n"]), ["0123456789", "x"]);
    }

    #[test]
    fn skips_a_line_that_is_too_long_and_no_more() {
        assert_eq!(cut(4, &["12345\nab\n"]), ["TOO LONG", "ab"]);
        assert_eq!(
            cut(4, &["123", "45", "6789", "0\nab\n"]),
            ["TOO LONG", "ab"]
        );
        assert_eq!(
            cut(4, &["12345678", "\n12345678", "\nab\n"]),
            ["TOO LONG", "TOO LONG", "ab"]
        );
    }
}
