//! The service manager's side: sockets that it passes, and what it is told. A shell stands in for
//! it, which knows the process id that the variables must name.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::admin::get;
use crate::support::broker::PROGRAM;
use crate::support::{DEADLINE, Request, Session, TempDir, eventually, fake_mcp, process};

/// What the shell does: the sockets come as its stdin and stdout, and go on as 3 and 4.
const PASS_ON: &str = "exec 3<&0 4>&1 0</dev/null 1>&2; LISTEN_PID=${ANOTHER:-$$} exec \"$@\"";

/// The service manager: it holds the sockets, and hears what the broker says.
struct Manager {
    dir: TempDir,
    public: OwnedFd,
    admin: Option<OwnedFd>,
    heard: UnixDatagram,
    env: Vec<(String, String)>,
}

/// A broker that it has started.
struct Service(Child);

impl Manager {
    fn new(public: impl Into<OwnedFd>) -> Self {
        let dir = TempDir::new();
        let heard = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        heard.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Self {
            dir,
            public: public.into(),
            admin: None,
            heard,
            env: Vec::new(),
        }
    }

    /// With a TCP socket on a free port of the loopback address.
    fn tcp() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let addr = listener.local_addr().expect("its address");
        (Self::new(listener), addr)
    }

    fn admin(mut self, admin: impl Into<OwnedFd>) -> Self {
        self.admin = Some(admin.into());
        self
    }

    fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    fn start(&self) -> Service {
        let stdio = |fd: &OwnedFd| Stdio::from(fd.as_fd().try_clone_to_owned().expect("a copy"));
        let (names, stdout) = match &self.admin {
            Some(admin) => ("web:admin", stdio(admin)),
            None => ("web", Stdio::null()),
        };
        let log = self.dir.path().join("log");
        let log = File::options().create(true).append(true).open(log);
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                PASS_ON,
                "sh",
                PROGRAM,
                "serve",
                "--no-auth",
                "--log",
                "debug",
            ])
            .args(["--listen", "127.0.0.1:0", "--drain", "5s", "--state-dir"])
            .arg(self.dir.path().join("state"))
            .args(["--", &fake_mcp()])
            .env("NOTIFY_SOCKET", self.dir.path().join("notify"))
            .env("LISTEN_FDS", names.split(':').count().to_string())
            .env("LISTEN_FDNAMES", names)
            .envs(self.env.clone())
            .stdin(stdio(&self.public))
            .stdout(stdout)
            .stderr(log.expect("a file"));
        Service(command.spawn().expect("a shell"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until the broker says so.
    #[track_caller]
    fn hear(&self, word: &str) -> String {
        let mut bytes = [0; 1024];
        loop {
            let Ok(len) = self.heard.recv(&mut bytes) else {
                panic!("never heard: {word}; the log:\n{}", self.log());
            };
            let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
            if text.lines().any(|line| line == word) {
                return text;
            }
        }
    }

    /// Starts one, and waits until it is ready.
    #[track_caller]
    fn run(&self) -> Service {
        let service = self.start();
        self.hear("READY=1");
        service
    }
}

impl Service {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a pid")
    }

    fn terminate(&self) {
        process::signal(self.pid(), Signal::TERM);
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the broker ends", || {
            status = self.0.try_wait().expect("its status");
            status.is_some()
        });
        status.expect("its status")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A test that failed leaves it behind.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn serves_on_the_socket_that_was_passed_and_says_so() {
    let (manager, addr) = Manager::tcp();
    let mut service = manager.start();
    let ready = manager.hear("READY=1");
    assert!(
        ready.contains(&format!("STATUS=serving on http://{addr}")),
        "{ready}"
    );
    let log = manager.log();
    assert!(
        log.contains(&format!("listening on http://{addr}")),
        "{log}"
    );
    assert!(log.contains("used in place of the setting listen"), "{log}");
    let mut session = Session::open(addr);
    assert_eq!(session.call_text("echo", json!({})), "{}");
    service.terminate();
    manager.hear("STOPPING=1");
    assert_eq!(service.wait().code(), Some(0));
    // The manager has it still: the next client is not refused.
    assert!(TcpStream::connect(addr).is_ok());
}

#[test]
fn a_socket_named_admin_is_the_operators() {
    let dir = TempDir::new();
    let path = dir.path().join("admin.sock");
    let (manager, addr) = Manager::tcp();
    let manager = manager.admin(UnixListener::bind(&path).unwrap());
    let mut service = manager.run();
    assert_eq!(get(&path, "/metrics", "localhost").0, 200);
    assert_eq!(Request::new("GET", "/metrics").send(addr).status, 404);
    service.terminate();
    assert_eq!(service.wait().code(), Some(0));
    assert!(path.exists(), "it is the manager's");
}

#[test]
fn a_unix_socket_can_be_passed() {
    let dir = TempDir::new();
    let path = dir.path().join("web.sock");
    let manager = Manager::new(UnixListener::bind(&path).unwrap());
    let mut service = manager.run();
    assert_eq!(get(&path, "/healthz", "localhost").0, 200);
    service.terminate();
    assert_eq!(service.wait().code(), Some(0));
}

/// The broker does not start, and says why.
#[track_caller]
fn check_refused(manager: &Manager, code: i32, why: &str) {
    assert_eq!(
        manager.start().wait().code(),
        Some(code),
        "{}",
        manager.log()
    );
    assert!(manager.log().contains(why), "{}", manager.log());
}

#[test]
fn what_others_can_reach_is_not_served_without_a_lock() {
    let open = || TcpListener::bind("0.0.0.0:0").unwrap();
    check_refused(
        &Manager::new(open()),
        78,
        "no_auth is refused on the passed socket 0.0.0.0:",
    );
    let (manager, _) = Manager::tcp();
    let why = "the admin listener is refused on the passed socket 0.0.0.0:";
    check_refused(&manager.admin(open()), 78, why);
}

#[test]
fn what_cannot_be_listened_on_is_refused() {
    let datagram = UnixDatagram::unbound().unwrap();
    check_refused(
        &Manager::new(datagram),
        1,
        "not a stream socket that listens",
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    check_refused(&Manager::new(client), 1, "not a stream socket that listens");
    let (manager, _) = Manager::tcp();
    let manager = manager.env("LISTEN_FDNAMES", "a:b:c");
    check_refused(&manager, 1, "invalid LISTEN_FDNAMES");
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let (manager, addr) = Manager::tcp();
    let manager = manager.env("ANOTHER", "1");
    let _service = manager.run();
    let log = manager.log();
    assert!(log.contains("listening on http://127.0.0.1:"), "{log}");
    assert!(
        !log.contains(&format!("listening on http://{addr}")),
        "{log}"
    );
}

#[test]
fn the_watchdog_is_pinged_also_while_draining() {
    let (manager, addr) = Manager::tcp();
    // A ping each half second: as long as nobody hears them, few of them find room.
    let manager = manager.env("WATCHDOG_USEC", "1000000");
    let mut service = manager.run();
    for _ in 0..3 {
        manager.hear("WATCHDOG=1");
    }
    let mut session = Session::open(addr);
    let call = session.call_aside("sleep", json!({ "ms": 3000 }));
    eventually("the call is on its way", || {
        manager.log().contains("stream opened")
    });
    service.terminate();
    manager.hear("STOPPING=1");
    manager.hear("WATCHDOG=1");
    assert_eq!(call.join().unwrap().status, 200);
    assert_eq!(service.wait().code(), Some(0));
    assert!(!manager.log().contains("hangs"), "{}", manager.log());
}

#[test]
fn the_watchdog_of_another_process_is_not_pinged() {
    let (manager, _) = Manager::tcp();
    let manager = manager
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1");
    let mut service = manager.run();
    service.terminate();
    assert_eq!(service.wait().code(), Some(0));
    manager.heard.set_nonblocking(true).unwrap();
    let mut bytes = [0; 1024];
    while let Ok(len) = manager.heard.recv(&mut bytes) {
        assert!(!bytes[..len].starts_with(b"WATCHDOG"));
    }
}

#[test]
fn children_know_nothing_of_the_service_manager() {
    let (manager, addr) = Manager::tcp();
    let manager = manager.env("WATCHDOG_USEC", "60000000");
    let _service = manager.run();
    let mut session = Session::open(addr);
    for name in [
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
    ] {
        let answer = session.call_text("env", json!({ "name": name }));
        assert_eq!(answer, format!("{name} is not set"));
    }
    let (pid, _) = session.child();
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut targets = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let is_socket = |target: std::path::PathBuf| target.to_string_lossy().starts_with("socket:");
    assert!(!targets.any(is_socket));
}

/// Asks once on a connection of its own. Only a whole answer will do.
fn ask(addr: SocketAddr) -> Result<u16, std::io::Error> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let request = Request::new("GET", "/healthz").header("Connection", "close");
    stream.write_all(&request.bytes(addr))?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let status = response.get(9..12).and_then(|status| status.parse().ok());
    status.ok_or(ErrorKind::UnexpectedEof.into())
}

#[test]
fn a_restart_refuses_no_connection() {
    const RESTARTS: usize = 4;
    const CLIENTS: usize = 4;
    let (manager, addr) = Manager::tcp();
    let mut service = manager.run();
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                let mut answers = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    answers.push(ask(addr));
                    std::thread::sleep(Duration::from_millis(1));
                }
                answers
            })
        })
        .collect();
    for _ in 0..RESTARTS {
        let mut session = Session::open(addr);
        assert_eq!(session.call_text("echo", json!({})), "{}");
        service.terminate();
        assert_eq!(service.wait().code(), Some(0));
        service = manager.run();
    }
    done.store(true, Ordering::Relaxed);
    let mut served = 0;
    for answer in clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
    {
        match answer {
            Ok(200) => served += 1,
            // It was let in before, and comes again.
            Ok(503) => {}
            other => panic!("{other:?}; the log:\n{}", manager.log()),
        }
    }
    assert!(served > RESTARTS * CLIENTS, "{served}");
    service.terminate();
    assert_eq!(service.wait().code(), Some(0));
}
