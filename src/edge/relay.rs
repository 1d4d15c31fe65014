//! One request on its way to tiny_http and its response on the way back, with an eye on the
//! client all the time: its going is noticed when it happens, not when something is written. What
//! tiny_http writes is taken at once, whether the client takes it or not: it waits in a
//! [`Backlog`].

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::Socket;

use super::Timings;
use super::backlog::{Backlog, Memory, Wrote};
use super::body::Budget;
use super::response::{Request, Response};
use crate::metrics;

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
    /// Before the response was complete.
    ClientGone,
    /// It takes too little of the response.
    ClientTooSlow,
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
    to_inner: Unsent,
    /// Held until the request is written.
    budget: Option<Budget<'a>>,
    /// Held until the response begins.
    waiting: Option<Waiting<'a>>,
    to_client: Backlog<'a>,
    /// tiny_http has broken off: the client gets what there is, and no more.
    inner_failed: bool,
    read_size: usize,
}

/// What is left of a request.
struct Unsent {
    bytes: Vec<u8>,
    written: usize,
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.left() == 0
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes what the socket takes. If it takes nothing any more, the rest is dropped: tiny_http
    /// may have answered before it read everything, and the answer tells.
    fn write(&mut self, inner: &UnixStream) {
        while !self.is_empty() {
            match rustix::io::write(inner, &self.bytes[self.written..]) {
                Ok(len) => self.written += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => break,
            }
        }
        // The memory too: the response may be a stream that is silent for hours.
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
        waiting: Waiting<'a>,
        memory: &'a Memory,
    ) -> Self {
        Self {
            client,
            inner,
            response: Response::new(about),
            to_inner: Unsent {
                bytes: request.bytes,
                written: 0,
            },
            budget: Some(request.budget),
            waiting: Some(waiting),
            to_client: Backlog::new(memory, Instant::now()),
            inner_failed: false,
            read_size: READ_MIN_BYTES,
        }
    }

    /// Runs until the response is through, or the client is not worth waiting for.
    pub(super) fn run(mut self, timings: &Timings) -> Relayed {
        loop {
            self.to_inner.write(self.inner);
            if self.to_inner.is_empty() {
                self.budget = None;
            }
            let now = Instant::now();
            let before = self.to_client.len();
            let wrote = self.to_client.write(self.client, now);
            let sent = before - self.to_client.len();
            if sent > 0 {
                metrics::SENT_BYTES.add(sent as u64);
            }
            if wrote == Wrote::Failed {
                return Relayed::ClientGone;
            }
            if self.to_client.is_empty() && (self.response.is_end() || self.inner_failed) {
                return self.done();
            }
            let (inner, is_done) = (self.inner, self.is_inner_done());
            // It is blocked only if the socket is full, but any byte may be the one too many.
            let waits = || !is_done && rustix::io::ioctl_fionread(inner).is_ok_and(|len| len > 0);
            if self.to_client.is_hopeless(timings, now, waits) {
                return Relayed::ClientTooSlow;
            }
            let ready = self.wait(self.to_client.patience(timings, now));
            if ready.client_gone {
                return Relayed::ClientGone;
            }
            if ready.inner_readable && !self.is_inner_done() {
                self.inner_failed = !self.read_inner();
            }
        }
    }

    fn done(&self) -> Relayed {
        if !self.response.is_end() {
            return Relayed::InnerFailed {
                has_begun: self.response.has_begun(),
            };
        }
        Relayed::Done {
            keep_client: self.response.keeps_client(),
            keep_inner: self.response.keeps_inner() && self.to_inner.is_empty(),
        }
    }

    /// Nothing more can come from tiny_http.
    fn is_inner_done(&self) -> bool {
        self.response.is_end() || self.inner_failed
    }

    fn wait(&self, timeout: Option<Duration>) -> Ready {
        let flag = |flag, wanted| if wanted { flag } else { PollFlags::empty() };
        let takes = !self.is_inner_done() && self.to_client.has_room();
        let inner_events =
            flag(PollFlags::IN, takes) | flag(PollFlags::OUT, !self.to_inner.is_empty());
        let client_events = PollFlags::RDHUP | flag(PollFlags::OUT, !self.to_client.is_empty());
        let mut fds = [
            PollFd::new(self.inner, inner_events),
            PollFd::new(self.client, client_events),
        ];
        // A connection to tiny_http that hangs up while it is not being read would be reported
        // without end.
        let watched = if inner_events.is_empty() {
            &mut fds[1..]
        } else {
            &mut fds[..]
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
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
                let response = &mut self.response;
                let is_ok = self.to_client.add(|out| response.feed(&read, out)).is_ok();
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
pub(super) struct Waiting<'a> {
    count: &'a AtomicUsize,
    since: Instant,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
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
