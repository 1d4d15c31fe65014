//! The client's socket: everything that arrives from outside arrives here first.
//!
//! tiny_http 0.12 can be killed, starved and tricked by a single client, so it never meets one:
//! it listens on a private Unix socket, and the edge passes it complete, bounded, unambiguous
//! requests, one at a time per connection. The edge knows HTTP/1.1 and nothing of MCP; what it
//! refuses, it answers by itself. One thread accepts (`edge`), one serves each connection
//! (`c:1042`), and it notices at once when a client goes. Nobody behind it waits for a client:
//! requests come whole, and responses are taken as fast as they are written.

mod acceptor;
mod backlog;
mod body;
mod chunked;
mod connection;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod head;
mod inner;
mod listener;
mod pulse;
mod refuse;
mod relay;
mod response;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, eventfd};

use crate::thread::{self, Joined};
use acceptor::Acceptor;
use backlog::Memory;
use body::UploadBudget;
pub(crate) use head::{ADMIN_DOOR, CONNECTION_FIELD, DOOR_FIELD, PEER_FIELD};
use inner::Pool;
pub(crate) use listener::{Door, Listener};
pub(crate) use pulse::Pulse;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timings {
    /// For a request's head, and for a body's first bytes.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// For taking anything worth mentioning of what it is given.
    pub(crate) stall: Duration,
    /// For making room, when what it has not taken is more than there is memory for.
    pub(crate) catch_up: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            stall: Duration::from_secs(30),
            catch_up: Duration::from_secs(1),
        }
    }
}

/// The bounds of the edge, and what it calls.
pub(crate) struct Options {
    pub(crate) timings: Timings,
    /// Largest request body, in bytes.
    pub(crate) max_body: usize,
    /// What clients may leave untaken of their responses, in bytes, all of them together. One of
    /// them may leave no more than is free.
    pub(crate) max_backlog: usize,
    pub(crate) max_connections: usize,
    /// 0 means unlimited. Does not count trusted proxies.
    pub(crate) max_connections_per_address: usize,
    /// Hops whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: Vec<IpAddr>,
    /// The connection of this number has ended, with or without a request in flight.
    pub(crate) gone: Box<dyn Fn(u64) + Send + Sync>,
    /// tiny_http has stopped listening: no request can be served any more.
    pub(crate) failed: Box<dyn Fn() + Send + Sync>,
}

/// Connections through the admin listener; they are not counted with the others, so that no
/// number of clients can keep the operator out.
pub(crate) const ADMIN_CONNECTIONS_MAX: usize = 16;
/// How long the last responses may take when the edge ends, and how often it looks.
const LAST_RESPONSE: Duration = Duration::from_secs(1);
const STOP_TICK: Duration = Duration::from_millis(2);

/// What all connections share.
struct Shared {
    options: Options,
    pool: Pool,
    upload_budget: UploadBudget,
    memory: Memory,
    /// Requests whose response has not begun.
    waiting: AtomicUsize,
    stopping: AtomicBool,
    /// Responses are not waited for any more.
    cutting: AtomicBool,
    /// Passed sockets are left to the next broker.
    leaving_passed: AtomicBool,
    /// Wakes the accepting thread.
    wake: OwnedFd,
    /// It says so when it has been woken.
    awake: (Sender<()>, Receiver<()>),
}

impl Shared {
    fn wake(&self) {
        // EAGAIN means that it has been woken often enough.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// The running edge; dropping it lets the responses on their way through, closes all connections
/// and joins their threads.
pub(crate) struct Edge {
    shared: Arc<Shared>,
    thread: Option<Joined<()>>,
}

impl Edge {
    /// Starts to serve all of these; `inner` is where tiny_http listens.
    ///
    /// # Errors
    /// The OS error if no descriptor or no thread is left.
    pub(crate) fn start(
        options: Options,
        listeners: Vec<Listener>,
        inner: PathBuf,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            upload_budget: UploadBudget::new(options.max_body),
            memory: Memory::new(options.max_backlog),
            waiting: AtomicUsize::new(0),
            options,
            pool: Pool::new(inner),
            stopping: AtomicBool::new(false),
            cutting: AtomicBool::new(false),
            leaving_passed: AtomicBool::new(false),
            awake: bounded(1),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let acceptor = Acceptor::new(Arc::clone(&shared), listeners);
        let thread = thread::spawn("edge", move || acceptor.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Edge {
    /// Takes no more connections, and cuts those that there are. Returns at once.
    pub(crate) fn cut(&self) {
        self.shared.cutting.store(true, Ordering::Release);
        self.begin_to_stop();
    }

    /// Takes no more connections of passed sockets: they wait in the kernel's queue until the
    /// next broker takes them. Returns at once.
    pub(crate) fn leave_passed(&self) {
        self.shared.leaving_passed.store(true, Ordering::Release);
        self.shared.wake();
    }

    /// A handle that tells whether the edge gets on with its work.
    pub(crate) fn pulse(&self) -> Pulse {
        Pulse::of(&self.shared)
    }

    /// Passes no more requests on, and ends. Returns when those that are on their way have met
    /// an answer, or at least had time to.
    pub(crate) fn stop(&self) {
        self.begin_to_stop();
        let deadline = Instant::now() + LAST_RESPONSE;
        while self.shared.waiting.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(STOP_TICK);
        }
    }

    fn begin_to_stop(&self) {
        // Whoever has not seen this is counted as waiting by now.
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake();
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.begin_to_stop();
        drop(self.thread.take());
    }
}

#[cfg(test)]
mod tests;
