//! Connections to tiny_http, opened one by one and proved to be served before they are used.
//!
//! tiny_http's thread pool trusts a count of idle threads that may be promised already: of
//! connections that arrive together some wait until another one ends. So only one is opened at a
//! time, and it counts as open when a first request on it was answered: from then on a thread of
//! tiny_http is its own. Should it be left waiting all the same, a connection that is closed at
//! once makes the pool look again.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Domain, SockAddr, Socket, Type};

/// Asks the HTTP side for nothing but a 204; without our own fields it cannot come from a client.
const PROOF_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n";
/// How long to wait for the proof before poking the pool.
const PROOF_WAIT: Duration = Duration::from_millis(50);
/// Between two tries to connect when the backlog is full.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections kept open between requests; each holds a thread of tiny_http.
const IDLE_MAX: usize = 16;

pub(super) struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
    /// Held while one connection is opened: that is its purpose.
    turnstile: Mutex<()>,
}

impl Pool {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
            turnstile: Mutex::default(),
        }
    }

    /// A connection that tiny_http waits on, non-blocking. None is opened once `stopping` is set.
    ///
    /// # Errors
    /// The OS error; `ConnectionRefused` means that tiny_http has stopped listening.
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

    /// Sends a request of our own on a new connection, and waits for its answer.
    ///
    /// # Errors
    /// As [`Pool::get`]; `TimedOut` if nobody answers.
    pub(super) fn prove(&self, stopping: &AtomicBool) -> io::Result<()> {
        let stream = self.open(stopping)?;
        self.put_back(stream);
        Ok(())
    }

    fn open(&self, stopping: &AtomicBool) -> io::Result<UnixStream> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let _turn = self.turnstile.lock();
        if stopping.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut stream = self.connect(deadline)?;
        stream.set_read_timeout(Some(PROOF_WAIT))?;
        stream.write_all(PROOF_REQUEST)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut bytes = [0; 512];
            match stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => answer.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() > deadline || stopping.load(Ordering::Acquire) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    log::debug!("poking tiny_http's thread pool");
                    drop(self.connect(deadline)?);
                }
                Err(error) => return Err(error),
            }
        }
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Connects without waiting for a listener that takes no more connections.
    fn connect(&self, deadline: Instant) -> io::Result<UnixStream> {
        let address = SockAddr::unix(&self.path)?;
        loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&address) {
                Ok(()) => {
                    socket.set_nonblocking(false)?;
                    return Ok(OwnedFd::from(socket).into());
                }
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
