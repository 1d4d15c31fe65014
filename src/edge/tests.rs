//! The edge between real sockets: a client's on one side, and on the other a stand-in for
//! tiny_http that shows what reaches it. Times are short where they are what is tested.

mod fake;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Weak;
use std::time::Instant;

use crossbeam_channel::unbounded;
use socket2::{SockRef, Socket};

use super::*;
use fake::Fake;

/// What happens at once happens well within this time.
const DEADLINE: Duration = Duration::from_secs(10);
/// A time that is short, and still long for everything that takes none.
const SHORT: Duration = Duration::from_millis(400);
/// Nothing has happened for so long: it is not going to.
const QUIET: Duration = Duration::from_millis(50);

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An edge before the [`Fake`], which outlives it.
struct Fixture {
    edge: Option<Edge>,
    addr: SocketAddr,
    gone: Receiver<u64>,
    failed: Receiver<()>,
    fake: Fake,
}

impl Fixture {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with_timings(timings: Timings) -> Self {
        Self::with(|options| options.timings = timings)
    }

    fn with(change: impl FnOnce(&mut Options)) -> Self {
        let fake = Fake::start();
        let inner = fake.path().to_owned();
        Self::before(fake, inner, change)
    }

    /// With something else than the fake behind the edge.
    fn before(fake: Fake, inner: PathBuf, change: impl FnOnce(&mut Options)) -> Self {
        let (gone, failed) = (unbounded(), unbounded());
        let mut options = Options {
            timings: Timings::default(),
            max_body: 1000,
            max_backlog: 64 * 1024 * 1024,
            max_connections: 1000,
            max_connections_per_address: 0,
            trusted_proxies: Vec::new(),
            gone: Box::new(move |no| gone.0.send(no).unwrap_or_default()),
            failed: Box::new(move || failed.0.send(()).unwrap_or_default()),
        };
        change(&mut options);
        let listener = Listener::tcp((LOCALHOST, 0).into(), Door::Public).unwrap();
        let addr = listener.tcp_addr().unwrap();
        Self {
            edge: Some(Edge::start(options, vec![listener], inner).unwrap()),
            addr,
            gone: gone.1,
            failed: failed.1,
            fake,
        }
    }

    fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.addr).unwrap())
    }

    /// A connection on which this was sent.
    fn send(&self, bytes: impl AsRef<[u8]>) -> Client {
        let mut client = self.connect();
        client.send(bytes);
        client
    }

    /// Waits until a request has arrived behind the edge; gives its path.
    fn arrived(&self) -> String {
        let head = self.fake.arrived.recv_timeout(DEADLINE).unwrap();
        head.split(' ').nth(1).unwrap().to_owned()
    }

    /// Waits until the edge has no connection any more: no thread, no socket.
    fn wait_until_empty(&self) {
        let shared = &self.edge.as_ref().unwrap().shared;
        let deadline = Instant::now() + DEADLINE;
        // One is held by the edge, one by its accepting thread, and one by each connection's.
        while Arc::strong_count(shared) > 2 {
            assert!(Instant::now() < deadline, "a connection is left");
            std::thread::yield_now();
        }
    }

    /// What clients have not taken yet.
    fn memory_taken(&self) -> usize {
        self.edge.as_ref().unwrap().shared.memory.taken()
    }

    /// Drops the edge, which must not take long, and gives what should be gone then.
    fn stop(&mut self) -> Weak<Shared> {
        let edge = self.edge.take().unwrap();
        let shared = Arc::downgrade(&edge.shared);
        let start = Instant::now();
        drop(edge);
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
        shared
    }
}

struct Client(TcpStream);

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads so many bytes.
    fn take(&mut self, len: usize) -> String {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Reads up to this text.
    fn until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            text.push_str(&self.take(1));
        }
        text
    }

    /// Reads a response with a length: its status and its body.
    fn response(&mut self) -> (u16, String) {
        let head = self.until("\r\n\r\n");
        let len = head
            .split("\r\n")
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let body = self.take(len.unwrap().parse().unwrap());
        (status(&head), body)
    }

    /// All there is until the edge closes, in order, not by a reset.
    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).unwrap();
        text
    }

    /// The edge has closed, in whatever way, without a word.
    fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(len) => len == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Nothing comes for a while.
    fn is_quiet(&mut self) -> bool {
        self.0.set_read_timeout(Some(QUIET)).unwrap();
        let read = self.0.read(&mut [0]);
        self.0.set_read_timeout(Some(DEADLINE)).unwrap();
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Closes with a reset in place of an orderly end.
    fn reset(self) {
        SockRef::from(&self.0)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

fn status(head: &str) -> u16 {
    head.strip_prefix("HTTP/1.1 ").unwrap()[..3]
        .parse()
        .unwrap()
}

fn request(method: &str, target: &str, rest: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{rest}")
}

fn post(target: &str, rest: &str) -> String {
    request("POST", target, rest)
}

fn short(change: impl FnOnce(&mut Timings)) -> Timings {
    let mut timings = Timings::default();
    change(&mut timings);
    timings
}

mod client;
mod doors;
mod limits;
mod messages;
