//! What stands in for tiny_http here: the same side of the same socket, answering by the path.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::thread::{self, Joined};

/// Listens until it is dropped, which must be after all edges that use it.
pub(super) struct Fake {
    path: PathBuf,
    /// Each request, when it has arrived.
    pub(super) arrived: Receiver<String>,
    /// Each request that was answered, when the whole answer was taken.
    pub(super) answered: Receiver<String>,
    /// Lets one `/gate` answer.
    pub(super) release: Sender<()>,
    /// A request whose connection was closed before it was answered.
    pub(super) abandoned: Receiver<String>,
    thread: Option<Joined<()>>,
}

/// One connection's share of the [`Fake`]'s channels.
#[derive(Clone)]
struct Side {
    arrived: Sender<String>,
    answered: Sender<String>,
    release: Receiver<()>,
    abandoned: Sender<String>,
}

struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn target(&self) -> (&str, &str) {
        let target = self.head.split(' ').nth(1).unwrap_or_default();
        target.split_once('?').unwrap_or((target, ""))
    }

    fn path(&self) -> &str {
        self.target().0
    }

    fn query(&self) -> &str {
        self.target().1
    }

    fn has(&self, line_start: &str) -> bool {
        self.head.contains(&format!("\r\n{line_start}"))
    }
}

impl Fake {
    pub(super) fn start() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let no = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcp-broker-edge-{}-{no}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let (arrived, answered) = (unbounded(), unbounded());
        let (release, abandoned) = (unbounded(), unbounded());
        let side = Side {
            arrived: arrived.0,
            answered: answered.0,
            release: release.1,
            abandoned: abandoned.0,
        };
        let thread = thread::spawn("fake", move || {
            let mut connections = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let Some(first) = Request::read(&mut reader) else {
                    continue; // poked
                };
                if first.path() == "/stop" {
                    return;
                }
                let side = side.clone();
                let serve = move || side.serve(reader, first);
                connections.push(thread::spawn("fake c", serve).unwrap());
            }
        });
        Self {
            path,
            arrived: arrived.1,
            answered: answered.1,
            release: release.0,
            abandoned: abandoned.1,
            thread: Some(thread.unwrap()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.release = unbounded().0; // whoever waits at the gate may go
        let stop = UnixStream::connect(&self.path);
        let _ = stop.and_then(|mut stream| stream.write_all(b"GET /stop HTTP/1.1\r\n\r\n"));
        drop(self.thread.take());
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Request {
    fn read(reader: &mut BufReader<UnixStream>) -> Option<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.split("\r\n").find_map(|line| {
            let length = line.strip_prefix("Content-Length: ")?;
            length.parse::<usize>().ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        Some(Self { head, body })
    }
}

impl Side {
    fn serve(self, mut reader: BufReader<UnixStream>, first: Request) {
        let mut next = Some(first);
        while let Some(request) = next {
            let is_proof = !request.has("Edge-Connection: ");
            if !is_proof {
                // The test that listened may have ended.
                let _ = self.arrived.send(request.head.clone());
            }
            let stream = reader.get_mut();
            let answered = match is_proof {
                true => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n"),
                false => self.answer(stream, &request),
            };
            if answered.is_err() {
                let _ = self.abandoned.send(request.head);
                return;
            }
            if !is_proof {
                let _ = self.answered.send(request.path().to_owned());
            }
            if request.has("Connection: close") {
                return;
            }
            next = Request::read(&mut reader);
        }
    }

    /// # Errors
    /// The connection was closed before the answer was taken, or shall be.
    fn answer(&self, stream: &mut UnixStream, request: &Request) -> io::Result<()> {
        let sized = |stream: &mut UnixStream, body: &[u8]| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), body].concat())
        };
        match request.path() {
            "/ok" => sized(stream, b"ok"),
            "/echo" => sized(stream, &[request.head.as_bytes(), &request.body].concat()),
            "/gate" => {
                // The test that would release it may have ended.
                let _ = self.release.recv();
                sized(stream, b"ok")
            }
            "/hold" => until_closed(stream),
            "/bytes" => sized(stream, &vec![b'x'; request.query().parse().unwrap_or(0)]),
            "/head" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            "/chunks" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                stream.write_all(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
            }
            "/stream" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                stream.write_all(b"3\r\none\r\n")?;
                until_closed(stream)
            }
            "/until-close" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall")?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            "/half" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            "/most" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")?;
                stream.write_all(&vec![b'x'; request.query().parse().unwrap_or(0)])?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

fn until_closed(stream: &mut UnixStream) -> io::Result<()> {
    let _ = stream.read(&mut [0]);
    Err(io::ErrorKind::ConnectionAborted.into())
}
