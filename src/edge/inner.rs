//! Connections to tiny_http, proved to be served before they are used.
//!
//! tiny_http's thread pool trusts a count of idle threads that may be promised already: of
//! connections that arrive together some wait until another one ends. So a connection counts as
//! open when a first request on it was answered: from then on a thread of tiny_http is its own.
//! Those that are left waiting are cured by connections that are closed at once: each makes the
//! pool look again.
//!
//! Under load each answer takes a while, because many threads want to run. So whoever opens a
//! connection opens those of all who wait with it ([`turn`]), and then the next in turn does.

mod turn;

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};
use turn::{Turn, Turnstile};

/// Asks the HTTP side for nothing but a 204; without our own fields it cannot come from a client.
const PROOF_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n";
/// How long nothing may come before the pool is poked; doubled each time that does not help.
const FIRST_POKE: Duration = Duration::from_millis(5);
const LONGEST_POKE: Duration = Duration::from_millis(320);
/// Pokes at a time: each costs a thread of tiny_http.
const POKES_MAX: usize = 8;
/// Between two tries to connect when the backlog is full.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);
/// For connections that are opened together: from one answer to the next, and in all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are opened together.
const TOGETHER_MAX: usize = 32;
/// Connections kept open between requests; each holds a thread of tiny_http.
const IDLE_MAX: usize = 16;

pub(super) struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
    turnstile: Turnstile,
}

impl Pool {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
            turnstile: Turnstile::default(),
        }
    }

    /// A connection that tiny_http waits on, non-blocking. None is opened once `stopping` is set.
    ///
    /// # Errors
    /// The OS error; `ConnectionRefused` means that tiny_http has stopped listening, `TimedOut`
    /// that nobody answers, `ResourceBusy` that too many wait for their turn, or for too long.
    pub(super) fn get(&self, stopping: &AtomicBool) -> io::Result<UnixStream> {
        let idle = self.idle.lock().pop();
        match idle {
            Some(stream) => Ok(stream),
            None => self.open(stopping),
        }
    }

    /// Takes back a connection whose last response was read to its end.
    pub(super) fn put_back(&self, stream: UnixStream) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(stream);
        }
    }

    /// Sends a request of our own on a new connection, and waits for its answer. Stands in no
    /// line: however many wait, one more must be served in time.
    ///
    /// # Errors
    /// As [`Pool::get`].
    pub(super) fn prove(&self, stopping: &AtomicBool) -> io::Result<()> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        self.open_together(1, deadline, stopping, |stream| self.put_back(stream))
    }

    fn open(&self, stopping: &AtomicBool) -> io::Result<UnixStream> {
        let lead = match self.turnstile.enter()? {
            Turn::Served(stream) => return Ok(stream),
            Turn::Lead(lead) => lead,
        };
        let mut own = None;
        let mut others = lead.followers(TOGETHER_MAX - 1).into_iter();
        // Whoever leads has waited for longest, but the others have nobody else.
        let (count, deadline) = (1 + others.len(), Instant::now() + OPEN_TIMEOUT);
        let opened = self.open_together(count, deadline, stopping, |stream| match others.next() {
            Some(other) => other.serve(Ok(stream)),
            None => own = Some(stream),
        });
        let error = opened.err().unwrap_or(io::ErrorKind::TimedOut.into());
        others.for_each(|other| other.serve(Err(copy_of(&error))));
        own.ok_or(error)
    }

    /// Opens so many connections, and hands over each as soon as it is served.
    ///
    /// # Errors
    /// Why there are no more than were handed over.
    fn open_together(
        &self,
        count: usize,
        deadline: Instant,
        stopping: &AtomicBool,
        mut ready: impl FnMut(UnixStream),
    ) -> io::Result<()> {
        let mut failure = None;
        let mut asked = Vec::with_capacity(count);
        for _ in 0..count {
            if stopping.load(Ordering::Acquire) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match self.connect(deadline).and_then(Asked::ask) {
                Ok(one) => asked.push(one),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let (mut patience, mut progress) = (FIRST_POKE, Instant::now());
        while !asked.is_empty() {
            if stopping.load(Ordering::Acquire) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let is_late = Instant::now() > deadline || progress.elapsed() > ANSWER_TIMEOUT;
            let waiting = asked.len();
            // What has come is taken, however late it is: the time may have gone into connecting.
            let time = if is_late { Duration::ZERO } else { patience };
            if wait_for_any(&asked, time)? {
                asked = asked
                    .into_iter()
                    .filter_map(|one| match one.look() {
                        Ok(Look::Served(stream)) => {
                            ready(stream);
                            None
                        }
                        Ok(Look::NotYet(one)) => Some(one),
                        Err(error) => {
                            failure = Some(error);
                            None
                        }
                    })
                    .collect();
            }
            if asked.len() < waiting {
                (patience, progress) = (FIRST_POKE, Instant::now());
                continue;
            }
            if is_late {
                return Err(io::ErrorKind::TimedOut.into());
            }
            log::debug!("poking tiny_http's thread pool, for {waiting}");
            for _ in 0..waiting.min(POKES_MAX) {
                drop(self.connect(deadline)?);
            }
            patience = (patience * 2).min(LONGEST_POKE);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Connects without waiting for a listener that takes no more connections.
    fn connect(&self, deadline: Instant) -> io::Result<UnixStream> {
        let address = SockAddr::unix(&self.path)?;
        loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&address) {
                Ok(()) => return Ok(OwnedFd::from(socket).into()),
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    std::thread::sleep(CONNECT_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A connection whose proof is awaited.
struct Asked {
    stream: UnixStream,
    answer: Vec<u8>,
}

enum Look {
    Served(UnixStream),
    NotYet(Asked),
}

impl Asked {
    fn ask(mut stream: UnixStream) -> io::Result<Self> {
        stream.write_all(PROOF_REQUEST)?; // the buffer of a new socket has room for it
        Ok(Self {
            stream,
            answer: Vec::new(),
        })
    }

    /// What has come of the answer.
    fn look(mut self) -> io::Result<Look> {
        let mut bytes = [0; 512];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.answer.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Look::NotYet(self));
                }
                Err(error) => return Err(error),
            }
            if self.answer.ends_with(b"\r\n\r\n") {
                return Ok(Look::Served(self.stream));
            }
        }
    }
}

/// False if nothing came on any of them in time.
fn wait_for_any(asked: &[Asked], timeout: Duration) -> io::Result<bool> {
    let fds = asked
        .iter()
        .map(|it| PollFd::new(&it.stream, PollFlags::IN));
    let mut fds: Vec<_> = fds.collect();
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The same error for somebody else.
fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}

#[cfg(test)]
mod tests;
