//! A client of a fake child, which remembers what it is told, a place for what is kept of it, and
//! ways to wait.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use parking_lot::Mutex;

use crate::bridge::modern::{self, Mirrored};
use crate::bridge::{EventWriter, Exchange, Reply};
use crate::session::Session;
use crate::{jsonrpc, mcp, thread};

/// For whatever must happen; nothing here takes a noticeable time.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// What the fake children answer to `initialize`.
pub(super) const RESULT: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#;
pub(super) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

pub(super) fn request(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"{method}","params":{params}}}"#)
}

type Look = Box<dyn Fn() -> usize + Send>;

/// A client that remembers what it is told.
#[derive(Clone, Default)]
pub(super) struct Client {
    told: Arc<Mutex<Vec<String>>>,
    /// What it looks at when it is told something, and what it saw.
    look: Arc<Mutex<(Option<Look>, Vec<usize>)>>,
}

impl Client {
    /// The connection of all its requests.
    pub(super) const CONNECTION: u64 = 7;

    fn exchange(&self, connection: u64, body: &str) -> Box<dyn Exchange> {
        Box::new(Asked {
            client: self.clone(),
            connection,
            mirrored: mirrored(body),
            body: body.as_bytes().to_vec(),
            is_answered: false,
        })
    }

    pub(super) fn post(&self, session: &Session, body: &str) {
        self.post_from(Self::CONNECTION, session, body);
    }

    pub(super) fn post_from(&self, connection: u64, session: &Session, body: &str) {
        session.post(self.exchange(connection, body));
    }

    /// From now on it looks there whenever it is told something.
    pub(super) fn watch(&self, look: impl Fn() -> usize + Send + 'static) {
        self.look.lock().0 = Some(Box::new(look));
    }

    pub(super) fn seen(&self) -> Vec<usize> {
        self.look.lock().1.clone()
    }

    pub(super) fn listen(&self, session: &Session) {
        session.listen(self.exchange(Self::CONNECTION, ""), None);
    }

    /// What it was told since it was asked last.
    pub(super) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock())
    }

    /// Whether it was told anything since it was last asked what.
    pub(super) fn is_told(&self) -> bool {
        !self.told.lock().is_empty()
    }

    fn note(&self, what: String) {
        let mut look = self.look.lock();
        let seen = look.0.as_ref().map(|look| look());
        look.1.extend(seen);
        drop(look);
        self.told.lock().push(what);
    }
}

struct Asked {
    client: Client,
    connection: u64,
    mirrored: Option<Mirrored>,
    body: Vec<u8>,
    is_answered: bool,
}

/// The head that goes with a modern request.
fn mirrored(body: &str) -> Option<Mirrored> {
    let message = jsonrpc::parse(body).ok().filter(modern::is_modern)?;
    Some(Mirrored {
        version: Some(mcp::MODERN_VERSION.to_owned()),
        method: Some(message.method.into_owned()),
        ..Mirrored::default()
    })
}

impl Exchange for Asked {
    fn body_len(&self) -> usize {
        self.body.len()
    }

    fn body(&mut self) -> io::Result<Vec<u8>> {
        Ok(std::mem::take(&mut self.body))
    }

    fn connection(&self) -> u64 {
        self.connection
    }

    fn mirrored(&self) -> Option<&Mirrored> {
        self.mirrored.as_ref()
    }

    fn reply(mut self: Box<Self>, reply: Reply<'_>) {
        self.is_answered = true;
        self.client.note(match reply {
            Reply::Message { json, session } => {
                let json = String::from_utf8_lossy(json);
                format!("json {} {json}", session.unwrap_or("-"))
            }
            Reply::Accepted => "accepted".to_owned(),
            Reply::Answer { json, .. } | Reply::Fault { json, .. } => {
                format!("answered {}", String::from_utf8_lossy(json))
            }
            Reply::Refused { id, why } => format!("refused {id} {why:?}"),
        });
    }

    fn stream(mut self: Box<Self>, _: Option<&str>) -> io::Result<Box<dyn EventWriter>> {
        self.is_answered = true;
        self.client.note("stream".to_owned());
        Ok(Box::new(Listening(self.client.clone())))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_answered {
            self.client.note("dropped".to_owned());
        }
    }
}

struct Listening(Client);

impl EventWriter for Listening {
    fn send(&mut self, events: &[u8]) -> io::Result<()> {
        let text = str::from_utf8(events).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.for_each(|data| self.0.note(format!("event {data}")));
        Ok(())
    }

    fn finish(self: Box<Self>) {
        self.0.note("end".to_owned());
    }
}

/// A request that nobody reads the answer of.
pub(super) struct Ping;

impl Exchange for Ping {
    fn body_len(&self) -> usize {
        0
    }

    fn body(&mut self) -> io::Result<Vec<u8>> {
        Ok(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_vec())
    }

    fn connection(&self) -> u64 {
        1
    }

    fn mirrored(&self) -> Option<&Mirrored> {
        None
    }

    fn reply(self: Box<Self>, _: Reply<'_>) {}

    fn stream(self: Box<Self>, _: Option<&str>) -> io::Result<Box<dyn EventWriter>> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

/// A directory of one test, removed at its end.
pub(in crate::session) struct TempDir(PathBuf);

impl TempDir {
    pub(in crate::session) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "mcp-broker-sessions-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, SeqCst)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Self(path)
    }

    pub(in crate::session) fn path(&self) -> &Path {
        &self.0
    }

    /// The names of the records in it.
    pub(in crate::session) fn records(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.0.join("sessions")) else {
            return Vec::new();
        };
        files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what is left there hurts nobody
    }
}

/// Runs `f` on a thread of its own; one that hangs fails the test instead of hanging it.
pub(super) fn within_deadline(what: &str, f: impl FnOnce() + Send + 'static) {
    let (done, is_done) = bounded(1);
    let thread = thread::spawn(what, move || {
        f();
        let _ = done.send(()); // nobody waits any more after the deadline
    });
    let thread = thread.unwrap();
    if is_done.recv_timeout(DEADLINE).is_err() {
        std::mem::forget(thread); // joining it would hang, too
        panic!("{what} does not come back");
    }
}

/// Waits for something another thread will do, and that nobody tells about.
pub(super) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::yield_now();
    }
}
