//! The client's socket: everything that arrives from outside arrives here first.
//!
//! tiny_http 0.12 can be killed, starved and tricked by a single client, so it never meets one:
//! it listens on a private Unix socket, and the edge passes it complete, bounded, unambiguous
//! requests, one at a time per connection. The edge knows HTTP/1.1 and nothing of MCP; what it
//! refuses, it answers by itself. One thread accepts (`edge`), one serves each connection
//! (`c:1042`), and it notices at once when a client goes. Nobody behind it waits for a client:
//! requests come whole, and responses are taken as fast as they are written.

mod backlog;
mod body;
mod chunked;
mod connection;
mod head;
mod inner;
mod refuse;
mod relay;
mod response;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use socket2::{SockRef, Socket, TcpKeepalive};

use crate::thread::{self, Joined};
use backlog::Memory;
use body::UploadBudget;
pub(crate) use head::{CONNECTION_FIELD, PEER_FIELD};
use inner::Pool;
use refuse::Refusal;

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

/// Pending connections the kernel keeps while the edge is busy.
const BACKLOG: i32 = 4096;
/// A peer that acknowledges nothing for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// Connections taken in a row before those that have ended are joined.
const ACCEPTS_MAX: usize = 64;
/// How long the last responses may take when the edge ends, and how often it looks.
const LAST_RESPONSE: Duration = Duration::from_secs(1);
const END_TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Clients that were turned away and may still be reading why; the oldest goes first.
const TURNED_AWAY_MAX: usize = 16;
const TURNED_AWAY_LINGER: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// A listening socket for clients.
pub(crate) struct Listener {
    socket: Socket,
}

impl Listener {
    /// # Errors
    /// The OS error, for instance `AddrInUse`.
    pub(crate) fn tcp(addr: SocketAddr) -> io::Result<Self> {
        let domain = socket2::Domain::for_address(addr);
        let socket = Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        Self::listening(socket)
    }

    /// # Errors
    /// The OS error, for instance `AddrInUse` if something exists at `path`.
    pub(crate) fn unix(path: &std::path::Path) -> io::Result<Self> {
        let socket = Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        Self::listening(socket)
    }

    fn listening(socket: Socket) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// The address that was really bound; `None` for a Unix socket.
    pub(crate) fn tcp_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }
}

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
    /// Wakes the accepting thread.
    wake: OwnedFd,
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
    /// Starts to serve; `inner` is where tiny_http listens.
    ///
    /// # Errors
    /// The OS error if no descriptor or no thread is left.
    pub(crate) fn start(options: Options, listener: Listener, inner: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            upload_budget: UploadBudget::new(options.max_body),
            memory: Memory::new(options.max_backlog),
            waiting: AtomicUsize::new(0),
            options,
            pool: Pool::new(inner),
            stopping: AtomicBool::new(false),
            cutting: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let acceptor = Acceptor::new(Arc::clone(&shared), listener);
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
        self.stop();
    }

    fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stop();
        drop(self.thread.take());
    }
}

struct Served {
    socket: Arc<Socket>,
    /// A response is on its way.
    relaying: Arc<AtomicBool>,
    address: Option<IpAddr>,
    thread: Joined<()>,
}

/// The accepting thread: owns all connections, and joins their threads.
struct Acceptor {
    shared: Arc<Shared>,
    listener: Listener,
    served: HashMap<u64, Served>,
    by_address: HashMap<IpAddr, usize>,
    last_no: u64,
    ended: (Sender<u64>, Receiver<u64>),
    turned_away: VecDeque<Arc<Socket>>,
}

impl Acceptor {
    fn new(shared: Arc<Shared>, listener: Listener) -> Self {
        Self {
            shared,
            listener,
            served: HashMap::new(),
            by_address: HashMap::new(),
            last_no: 0,
            ended: unbounded(),
            turned_away: VecDeque::new(),
        }
    }

    fn run(mut self) {
        while !self.shared.stopping.load(Ordering::Acquire) {
            let mut fds = [
                PollFd::new(&self.listener.socket, PollFlags::IN),
                PollFd::new(&self.shared.wake, PollFlags::IN),
            ];
            let linger = (!self.turned_away.is_empty()).then_some(&TURNED_AWAY_LINGER);
            if let Ok(0) = poll(&mut fds, linger) {
                self.turned_away.clear();
            }
            // EINTR is one more turn of the loop.
            let [incoming, woken] = fds.map(|fd| !fd.revents().is_empty());
            if woken {
                // EAGAIN: somebody else's wake-up was counted in.
                let _ = rustix::io::read(&self.shared.wake, &mut [0u8; 8]);
                self.join_ended();
            }
            if incoming {
                self.accept();
            }
        }
        self.end();
    }

    /// Closes idle connections at once, and the others when their response is through, or cuts
    /// them if that takes too long.
    fn end(&mut self) {
        let deadline = Instant::now() + LAST_RESPONSE;
        loop {
            self.join_ended();
            let is_late = Instant::now() >= deadline;
            let cut = is_late || self.shared.cutting.load(Ordering::Acquire);
            for served in self.served.values() {
                if cut || !served.relaying.load(Ordering::Acquire) {
                    // ENOTCONN: it is closed already.
                    let _ = served.socket.shutdown(Shutdown::Both);
                }
            }
            if cut || self.served.is_empty() {
                return;
            }
            let mut wake = [PollFd::new(&self.shared.wake, PollFlags::IN)];
            let _ = poll(&mut wake, Some(&END_TICK));
            let _ = rustix::io::read(&self.shared.wake, &mut [0u8; 8]);
        }
    }

    /// Takes connections; one is never left waiting on purpose.
    fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            match self.listener.socket.accept() {
                Ok((socket, address)) => {
                    let address = address.as_socket().map(|addr| addr.ip().to_canonical());
                    self.take(Arc::new(socket), address);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    log::error!("cannot accept a connection: {error}");
                    let mut wake = [PollFd::new(&self.shared.wake, PollFlags::IN)];
                    self.turned_away.clear();
                    // A connection that ends cuts the pause short: it frees what was missing.
                    let _ = poll(&mut wake, Some(&ACCEPT_PAUSE));
                    return;
                }
            }
        }
    }

    fn take(&mut self, socket: Arc<Socket>, address: Option<IpAddr>) {
        let options = &self.shared.options;
        let per_address = options.max_connections_per_address;
        let counted = address.filter(|ip| !options.trusted_proxies.contains(ip));
        if self.served.len() >= options.max_connections {
            return self.turn_away(socket, "too many connections");
        }
        let others = counted
            .and_then(|ip| self.by_address.get(&ip))
            .copied()
            .unwrap_or(0);
        if per_address > 0 && others >= per_address {
            return self.turn_away(socket, "too many connections from your address");
        }
        if let Err(error) = prepare(&socket, address.is_some()) {
            log::debug!("connection lost before it began: {error}");
            return;
        }
        self.last_no += 1;
        let (no, shared, own, ended) = (
            self.last_no,
            Arc::clone(&self.shared),
            Arc::clone(&socket),
            self.ended.0.clone(),
        );
        let relaying: Arc<AtomicBool> = Arc::default();
        let is_relaying = Arc::clone(&relaying);
        let thread = thread::spawn(format!("c:{no}"), move || {
            // Reports the end also when the thread panics.
            let _report = Report {
                no,
                ended,
                shared: Arc::clone(&shared),
            };
            connection::serve(&shared, no, &own, address, &is_relaying);
        });
        match thread {
            Ok(thread) => {
                if let Some(ip) = counted {
                    *self.by_address.entry(ip).or_default() += 1;
                }
                self.served.insert(
                    no,
                    Served {
                        socket,
                        relaying,
                        address: counted,
                        thread,
                    },
                );
            }
            Err(error) => {
                log::error!("cannot start a thread for a connection: {error}");
                self.turn_away(socket, "no thread to serve this connection");
            }
        }
    }

    /// Says why, without waiting for the client. A socket that is closed while its client is
    /// sending resets it, and the answer with it; so it stays open for a while.
    fn turn_away(&mut self, socket: Arc<Socket>, why: &'static str) {
        let _ = socket.set_nonblocking(true);
        let _ = rustix::io::write(&*socket, &Refusal::Busy(why).response());
        let _ = socket.shutdown(Shutdown::Write);
        if self.turned_away.len() == TURNED_AWAY_MAX
            && let Some(oldest) = self.turned_away.pop_front()
        {
            // What has come meanwhile must not be unread when it closes.
            let _ = rustix::io::read(&*oldest, &mut [0u8; 4096]);
        }
        self.turned_away.push_back(socket);
    }

    fn join_ended(&mut self) {
        while let Ok(no) = self.ended.1.try_recv() {
            let Some(Served {
                address, thread, ..
            }) = self.served.remove(&no)
            else {
                continue;
            };
            thread.join();
            if let Some(ip) = address
                && let Some(count) = self.by_address.get_mut(&ip)
            {
                *count -= 1;
                if *count == 0 {
                    self.by_address.remove(&ip);
                }
            }
        }
    }
}

struct Report {
    no: u64,
    ended: Sender<u64>,
    shared: Arc<Shared>,
}

impl Drop for Report {
    fn drop(&mut self) {
        // The acceptor is gone only when nothing is left to report to.
        let _ = self.ended.send(self.no);
        self.shared.wake();
    }
}

fn prepare(socket: &Socket, is_tcp: bool) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    if !is_tcp {
        return Ok(());
    }
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )
}

#[cfg(test)]
mod tests;
