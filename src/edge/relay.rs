//! One request on its way to tiny_http and its response on the way back, with an eye on the
//! client all the time: its going is noticed when it happens, not when something is written.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::Socket;

use super::body::Budget;
use super::response::{Request, Response};

const READ_MIN_BYTES: usize = 4 * 1024;
const READ_MAX_BYTES: usize = 64 * 1024;

/// A call on a fast child is over by then.
const AWAKE: Duration = Duration::from_micros(200);
const NO_TIME: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// What became of a request.
pub(super) enum Relayed {
    Done {
        keep_client: bool,
        keep_inner: bool,
    },
    /// Before the response was complete, or it stopped reading.
    ClientGone,
    /// tiny_http broke off; whether the client has seen the head of a response.
    InnerFailed {
        has_begun: bool,
    },
}

/// A whole request for tiny_http, and what its body takes of the budget.
pub(super) struct Outgoing<'a> {
    pub(super) bytes: Vec<u8>,
    pub(super) budget: Budget<'a>,
}

pub(super) struct Relay<'a> {
    client: &'a Socket,
    inner: &'a UnixStream,
    response: Response,
    to_inner: Buffer,
    /// Held until the request is written.
    budget: Option<Budget<'a>>,
    /// Held until the response begins.
    waiting: Option<Waiting<'a>>,
    to_client: Buffer,
    read_size: usize,
    /// When the client last took something it was given.
    progress: Instant,
}

/// Bytes that wait to be written.
struct Buffer {
    bytes: Vec<u8>,
    written: usize,
}

enum Wrote {
    All,
    Later,
    Failed,
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    fn write(&mut self, fd: impl std::os::fd::AsFd) -> Wrote {
        while !self.is_empty() {
            match rustix::io::write(&fd, &self.bytes[self.written..]) {
                Ok(len) => self.written += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Wrote::Later,
                Err(_) => return Wrote::Failed,
            }
        }
        self.give_up();
        Wrote::All
    }

    /// Gives the memory back too: a stream may be silent for hours.
    fn give_up(&mut self) {
        *self = Self {
            bytes: Vec::new(),
            written: 0,
        };
    }
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        client: &'a Socket,
        inner: &'a UnixStream,
        about: Request,
        request: Outgoing<'a>,
        waiting: &'a AtomicUsize,
    ) -> Self {
        Self {
            client,
            inner,
            response: Response::new(about),
            to_inner: Buffer {
                bytes: request.bytes,
                written: 0,
            },
            budget: Some(request.budget),
            waiting: Some(Waiting::new(waiting)),
            to_client: Buffer {
                bytes: Vec::new(),
                written: 0,
            },
            read_size: READ_MIN_BYTES,
            progress: Instant::now(),
        }
    }

    /// Runs until the response is through. A client that takes nothing for `stall` counts as
    /// gone.
    pub(super) fn run(mut self, stall: Duration) -> Relayed {
        loop {
            match self.to_inner.write(self.inner) {
                Wrote::All => self.budget = None,
                Wrote::Later => {}
                // It may have answered before it read everything; the answer tells.
                Wrote::Failed => self.to_inner.give_up(),
            }
            let before = self.to_client.written;
            match self.to_client.write(self.client) {
                Wrote::All => self.progress = Instant::now(),
                Wrote::Later if self.to_client.written > before => self.progress = Instant::now(),
                Wrote::Later if self.progress.elapsed() >= stall => return Relayed::ClientGone,
                Wrote::Later => {}
                Wrote::Failed => return Relayed::ClientGone,
            }
            if self.to_client.is_empty() && self.response.is_end() {
                return Relayed::Done {
                    keep_client: self.response.keeps_client(),
                    keep_inner: self.response.keeps_inner() && self.to_inner.is_empty(),
                };
            }
            let ready = self.wait(stall);
            if ready.client_gone {
                return Relayed::ClientGone;
            }
            if ready.inner_readable && !self.read_inner() {
                return Relayed::InnerFailed {
                    has_begun: self.response.has_begun(),
                };
            }
        }
    }

    fn wait(&self, stall: Duration) -> Ready {
        let flag = |flag, wanted| if wanted { flag } else { PollFlags::empty() };
        let flushed = self.to_client.is_empty();
        // Nothing more is taken from tiny_http than the client takes from us.
        let inner_events = flag(PollFlags::IN, flushed && !self.response.is_end())
            | flag(PollFlags::OUT, !self.to_inner.is_empty());
        let client_events = PollFlags::RDHUP | flag(PollFlags::OUT, !flushed);
        let mut fds = [
            PollFd::new(self.inner, inner_events),
            PollFd::new(self.client, client_events),
        ];
        // Without bytes for the client there is nothing it could be late with. A connection to
        // tiny_http that hangs up while it is not being read would be reported without end.
        let watched = if inner_events.is_empty() {
            &mut fds[1..]
        } else {
            &mut fds[..]
        };
        let timeout = Timespec::try_from(stall).ok().filter(|_| !flushed);
        if !self
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.awake(watched))
        {
            // EINTR is one more turn of the loop.
            let _ = poll(watched, timeout.as_ref());
        }
        let [inner, client] = fds.map(|fd| fd.revents());
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        Ready {
            client_gone: client.intersects(gone),
            inner_readable: inner.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
        }
    }

    /// False if the response cannot be completed any more.
    fn read_inner(&mut self) -> bool {
        let mut read = Vec::with_capacity(self.read_size);
        match rustix::io::read(self.inner, spare_capacity(&mut read)) {
            Ok(0) => self.response.close(),
            Ok(len) => {
                if len >= self.read_size {
                    self.read_size = (self.read_size * 2).min(READ_MAX_BYTES);
                }
                let is_ok = self.response.feed(&read, &mut self.to_client.bytes).is_ok();
                if self.response.has_begun() {
                    self.waiting = None;
                }
                is_ok
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            Err(_) => false,
        }
    }
}

/// One of the requests without a response yet.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self {
            count,
            since: Instant::now(),
        }
    }

    /// Waits for a moment without sleeping, if this is the only request: when all threads sleep,
    /// so does the processor, and to wake it takes longer than the whole call. True if something
    /// has happened.
    fn awake(&self, fds: &mut [PollFd<'_>]) -> bool {
        while self.count.load(Ordering::Relaxed) == 1 && self.since.elapsed() < AWAKE {
            if poll(fds, Some(&NO_TIME)).is_ok_and(|ready| ready > 0) {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Ready {
    client_gone: bool,
    inner_readable: bool,
}
