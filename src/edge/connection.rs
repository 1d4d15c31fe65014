//! One client connection: thread `c:`. Reads a request whole, passes it to tiny_http, relays the
//! response, and only then looks at what the client sent next.

use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;
use socket2::Socket;

use super::Shared;
use super::body::{self, Budget};
use super::head::{self, Framing, Head, Scan, Sender};
use super::listener::Door;
use super::refuse::Refusal;
use super::relay::{Outgoing, Relay, Relayed, Waiting};
use super::response::Request;
use crate::metrics;

const READ_SIZE_BYTES: usize = 4 * 1024;
/// A connection that was just used keeps its buffer and its way to tiny_http for so long.
const WARM: Duration = Duration::from_secs(1);
/// How long a refused client may take to read why before the connection is cut.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_MAX_BYTES: usize = 1024 * 1024;

/// What a request is told that came too late.
const STOPPING: Refusal = Refusal::Busy("the broker is shutting down");

/// Why a connection ends.
enum End {
    /// Nothing more to say: the client has gone, or was idle for too long.
    Quiet,
    /// The client gets an answer, and time to read it.
    Refused(Refusal),
    /// The last response was sent.
    Done,
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Who is served.
pub(super) struct Client<'a> {
    pub(super) no: u64,
    /// Non-blocking.
    pub(super) socket: &'a Socket,
    pub(super) door: Door,
    /// The address it comes from; `None` for a Unix socket.
    pub(super) hop: Option<IpAddr>,
}

struct Connection<'a> {
    shared: &'a Shared,
    no: u64,
    socket: &'a Socket,
    door: Door,
    hop: Option<IpAddr>,
    /// What has been read and not used yet.
    buffer: Vec<u8>,
    inner: Option<UnixStream>,
    owing: &'a AtomicBool,
    served: bool,
}

/// Serves a client until one side is done with it. `owing` tells whether a response is due to it,
/// or on its way.
pub(super) fn serve(shared: &Shared, client: Client<'_>, owing: &AtomicBool) {
    let Client {
        no,
        socket,
        door,
        hop,
    } = client;
    let mut connection = Connection {
        shared,
        no,
        socket,
        door,
        hop,
        buffer: Vec::new(),
        inner: None,
        owing,
        served: false,
    };
    let end = loop {
        if let Err(end) = connection.serve_one() {
            break end;
        }
    };
    if let Some(inner) = connection.inner.take() {
        shared.pool.put_back(inner);
    }
    if connection.served {
        (shared.options.gone)(no);
    }
    match end {
        End::Quiet => {}
        End::Done => connection.linger(),
        End::Refused(refusal) => {
            log::debug!("connection {no} refused: {refusal}");
            metrics::EDGE_REFUSALS.add(1);
            owing.store(true, Ordering::SeqCst);
            // A client that does not take these few bytes at once does not get them.
            let _ = rustix::io::write(socket, &refusal.response());
            owing.store(false, Ordering::SeqCst);
            connection.linger();
        }
    }
}

impl<'a> Connection<'a> {
    fn serve_one(&mut self) -> Result<(), End> {
        let mut head = self.read_head()?;
        let request = self.read_body(&mut head)?;
        self.relay(&head, request)
    }

    /// Waits for a request, reads its head, and takes it from the buffer.
    fn read_head(&mut self) -> Result<Head, End> {
        let timings = &self.shared.options.timings;
        if self.buffer.is_empty() {
            let is_warm = self.served && self.wait_readable(WARM)?;
            if !is_warm {
                self.cool_down();
                let idle = match self.served {
                    true => timings.idle,
                    false => timings.head,
                };
                if !self.wait_readable(idle)? {
                    return Err(End::Quiet);
                }
            }
        }
        let deadline = Instant::now() + timings.head;
        let mut seen = 0;
        loop {
            head::skip_empty_lines(&mut self.buffer);
            match head::scan(&self.buffer, seen)? {
                Scan::Complete(len) => {
                    let head = head::parse(&self.buffer[..len], self.shared.options.max_body)?;
                    self.buffer.drain(..len);
                    return Ok(head);
                }
                Scan::Incomplete => seen = self.buffer.len(),
            }
            self.read_before(deadline)?;
        }
    }

    /// Reads the body, and puts it behind the head for tiny_http.
    fn read_body(&mut self, head: &mut Head) -> Result<Outgoing<'a>, End> {
        let sender = Sender {
            connection: self.no,
            door: self.door,
            peer: head.peer(self.hop, &self.shared.options.trusted_proxies),
        };
        let mut budget = Budget::new(&self.shared.upload_budget);
        if head.expects_continue && self.buffer.is_empty() && head.framing != Framing::Length(0) {
            // RFC 9110 section 10.1.1; the socket's buffer is empty, so this is written whole.
            let _ = rustix::io::write(self.socket, b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let mut pace = body::Pace::new(Instant::now(), &self.shared.options.timings);
        let bytes = match head.framing {
            Framing::Length(len) => {
                let mut bytes = head.complete(len, &sender);
                let start = bytes.len();
                let end = start + len;
                loop {
                    let take = self.buffer.len().min(end - bytes.len());
                    // What was announced costs nothing until it comes.
                    budget.take(bytes.len() + take - start)?;
                    bytes.extend_from_slice(&self.buffer[..take]);
                    self.buffer.drain(..take);
                    if bytes.len() == end {
                        break bytes;
                    }
                    let got = self.read_before(pace.deadline())?;
                    pace.add(got);
                }
            }
            Framing::Chunked => {
                let mut body = body::Chunked::new(self.shared.options.max_body);
                loop {
                    let used = body.feed(&self.buffer)?;
                    self.buffer.drain(..used);
                    budget.take(body.len())?;
                    if body.is_end() {
                        break;
                    }
                    let got = self.read_before(pace.deadline())?;
                    pace.add(got);
                }
                let mut bytes = head.complete(body.len(), &sender);
                bytes.extend_from_slice(body.bytes());
                bytes
            }
        };
        Ok(Outgoing { bytes, budget })
    }

    fn relay(&mut self, head: &Head, request: Outgoing<'a>) -> Result<(), End> {
        // In this order: whoever stops the edge waits for those that wait, and cuts nobody off to
        // whom an answer is due.
        self.owing.store(true, Ordering::SeqCst);
        let waiting = Waiting::new(&self.shared.waiting);
        if self.shared.stopping.load(Ordering::SeqCst) {
            return Err(STOPPING.into());
        }
        let inner = match self.inner.take() {
            Some(inner) => inner,
            None => self
                .shared
                .pool
                .get(&self.shared.stopping)
                .map_err(|error| self.no_inner(&error))?,
        };
        let about = Request {
            is_head: head.is_head,
            is_http_10: head.is_http_10,
            keep_alive: head.keep_alive,
        };
        if self.buffer.is_empty() {
            self.buffer = Vec::new(); // the response may be a stream that is silent for hours
        }
        self.served = true;
        let memory = &self.shared.memory;
        let relay = Relay::new(self.socket, &inner, about, request, waiting, memory);
        let relayed = relay.run(&self.shared.options.timings);
        self.owing.store(false, Ordering::SeqCst);
        match relayed {
            Relayed::Done {
                keep_client,
                keep_inner,
            } => {
                if keep_inner && !head.is_get {
                    self.inner = Some(inner);
                }
                let is_last = !keep_client || self.shared.stopping.load(Ordering::Acquire);
                if is_last { Err(End::Done) } else { Ok(()) }
            }
            Relayed::ClientGone => Err(End::Quiet),
            Relayed::ClientTooSlow => {
                log::info!("connection {} cut: its client takes too little", self.no);
                Err(End::Quiet)
            }
            Relayed::InnerFailed { has_begun: false } => Err(Refusal::BadGateway.into()),
            Relayed::InnerFailed { has_begun: true } => Err(End::Quiet),
        }
    }

    fn no_inner(&self, error: &io::Error) -> End {
        if self.shared.stopping.load(Ordering::Acquire) {
            return STOPPING.into();
        }
        if error.kind() == io::ErrorKind::ResourceBusy {
            log::warn!(
                "connection {} refused: too many requests wait for their turn",
                self.no
            );
            return Refusal::Busy("too many requests wait for their turn").into();
        }
        log::error!("tiny_http takes no connection: {error}");
        if error.kind() == io::ErrorKind::ConnectionRefused {
            (self.shared.options.failed)();
        }
        Refusal::Busy("no connection to serve this request").into()
    }

    /// Gives back what an idle connection does not need.
    fn cool_down(&mut self) {
        self.buffer = Vec::new();
        if let Some(inner) = self.inner.take() {
            self.shared.pool.put_back(inner);
        }
    }

    fn read_before(&mut self, deadline: Instant) -> Result<usize, End> {
        self.buffer.reserve(READ_SIZE_BYTES);
        loop {
            match rustix::io::read(self.socket, spare_capacity(&mut self.buffer)) {
                Ok(0) => return Err(End::Quiet),
                Ok(len) => {
                    metrics::RECEIVED_BYTES.add(len as u64);
                    return Ok(len);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || !self.wait_readable(left)? {
                        return Err(Refusal::Timeout.into());
                    }
                }
                Err(_) => return Err(End::Quiet),
            }
        }
    }

    /// False if nothing came in time.
    fn wait_readable(&self, timeout: Duration) -> Result<bool, End> {
        let mut fds = [rustix::event::PollFd::new(self.socket, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).map_err(|_| End::Quiet)?;
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => Ok(false),
            Ok(_) | Err(Errno::INTR) => Ok(true),
            Err(_) => Err(End::Quiet),
        }
    }

    /// Closes so that the client can still read the last response: a socket that is closed with
    /// unread bytes in it resets the connection, and the response with it.
    fn linger(&mut self) {
        if self.socket.shutdown(std::net::Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + LINGER;
        let mut taken = 0;
        while taken < LINGER_MAX_BYTES {
            self.buffer.clear();
            match self.read_before(deadline) {
                Ok(len) => taken += len,
                Err(_) => return,
            }
        }
    }
}
