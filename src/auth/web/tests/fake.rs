//! A small server on the loopback interface that answers as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::thread::{self, Joined};

/// A request as it came.
pub(in crate::auth) struct Asked {
    /// Method and path with query.
    pub(in crate::auth) line: String,
    /// Header lines, names in lower case.
    pub(in crate::auth) head: String,
    pub(in crate::auth) body: String,
}

/// A running server; dropping it waits for the end of what it is doing.
pub(in crate::auth) struct Fake {
    pub(in crate::auth) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    listening: Option<Joined<()>>,
}

impl Fake {
    /// Answers each request with what `answer` returns: a whole response.
    pub(in crate::auth) fn http(answer: impl Fn(&Asked) -> String + Send + Sync + 'static) -> Self {
        Self::tcp(move |mut stream| {
            if let Some(asked) = read(&stream) {
                let _ = stream.write_all(answer(&asked).as_bytes());
            }
        })
    }

    /// Hands each connection to `serve`, on a thread of its own.
    pub(in crate::auth) fn tcp(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (count, over, serve) = (accepted.clone(), is_over.clone(), Arc::new(serve));
        let listening = thread::spawn("fake", move || {
            let mut running = Vec::new();
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let (stream, serve) = (stream.unwrap(), serve.clone());
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                running.push(thread::spawn("fake answer", move || serve(stream)).unwrap());
            }
        });
        Self {
            address,
            accepted,
            is_over,
            listening: Some(listening.unwrap()),
        }
    }

    pub(in crate::auth) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections there were.
    pub(in crate::auth) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        drop(self.listening.take());
    }
}

/// Reads one request; `None` if it breaks off.
pub(in crate::auth) fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        let Some((name, value)) = field.trim_end().split_once(':') else {
            break;
        };
        let name = name.to_ascii_lowercase();
        if name == "content-length" {
            length = value.trim().parse().ok()?;
        }
        head += &format!("{name}:{value}\n");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        line: line.trim_end_matches(" HTTP/1.1\r\n").to_owned(),
        head,
        body: String::from_utf8(body).ok()?,
    })
}

/// A whole response.
pub(in crate::auth) fn reply(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

pub(in crate::auth) fn json(status: &str, body: &str) -> String {
    reply(status, "Content-Type: application/json\r\n", body)
}

/// Answers with a good head and then a byte at a time, for as long as somebody listens.
pub(in crate::auth) fn drip(mut stream: TcpStream) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n";
    let (never, pause) = std::sync::mpsc::channel::<()>();
    if read(&stream).is_none() || stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    while stream.write_all(b" ").is_ok() {
        let _ = pause.recv_timeout(Duration::from_millis(20));
    }
    drop(never);
}
