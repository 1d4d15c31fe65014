//! The broker itself, the real program: started, looked at, stopped.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Map, Value, json};

use super::process::{self, Process};
use super::user::{self, Programs};
use super::{DEADLINE, Session, TempDir, eventually, fake_mcp};

/// The program that is tested.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mcp-broker");

/// How a broker shall be started. Unless told otherwise: without authentication, over the fixture
/// child, with short times for what ends a child.
pub(crate) struct Setup {
    servers: Map<String, Value>,
    settings: Map<String, Value>,
    options: Vec<String>,
    env: Vec<(String, String)>,
    /// Who has a token, and the options it is made with. Nobody, and no `auth` among the settings:
    /// everybody is let in.
    users: Vec<(String, Vec<String>)>,
    /// What is run, and whether by an ordinary user. `None`: what was built, by whoever runs the
    /// tests, and so are its children.
    programs: Option<(Programs, bool)>,
}

impl Setup {
    /// Adds a server: the fixture child with these arguments.
    pub(crate) fn server(self, name: &str, args: &[&str]) -> Self {
        self.server_entry(name, json!({ "command": fake_mcp(), "args": args }))
    }

    /// Adds a server as it stands in a configuration file.
    pub(crate) fn server_entry(mut self, name: &str, entry: Value) -> Self {
        self.servers.insert(name.to_owned(), entry);
        self
    }

    /// Sets a key of the file's `broker` object.
    pub(crate) fn setting(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// Adds arguments to `serve`.
    pub(crate) fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(ToString::to_string));
        self
    }

    /// Sets a variable of the broker's own environment.
    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Makes a token for this user before the start, with these options of `token add`.
    pub(crate) fn user(mut self, name: &str, options: &[&str]) -> Self {
        let options = options.iter().map(ToString::to_string).collect();
        self.users.push((name.to_owned(), options));
        self
    }

    /// Runs these programs, with no `--run-as` but one that is asked for: as an ordinary user, or
    /// as whoever runs the tests.
    pub(crate) fn programs(mut self, programs: Programs, is_ordinary: bool) -> Self {
        self.programs = Some((programs, is_ordinary));
        self
    }

    /// Starts it, and waits for the line that says where it listens.
    #[track_caller]
    pub(crate) fn start(mut self) -> Broker {
        let dir = TempDir::new();
        if self
            .programs
            .as_ref()
            .is_some_and(|(_, is_ordinary)| *is_ordinary)
        {
            let state = dir.path().join("state");
            std::fs::create_dir(&state).expect("a new directory");
            user::give(&[&state]);
        }
        if self.servers.is_empty() {
            self = self.server("fake", &[]);
        }
        if self.users.is_empty() && !self.settings.contains_key("auth") {
            self.options.push("--no-auth".to_owned());
        }
        let make = |(name, options): &(String, Vec<String>)| {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            (name.clone(), make_token(&dir, name, &options))
        };
        let tokens = self.users.iter().map(make).collect();
        let config = json!({ "mcpServers": self.servers, "broker": self.settings });
        let config = dir.write("config.json", &config.to_string());
        let config = config.expect("a configuration file");
        let mut command = match &self.programs {
            None => {
                let own = user::as_ourselves().iter().map(ToString::to_string);
                self.options.extend(own);
                Command::new(PROGRAM)
            }
            Some((programs, is_ordinary)) => {
                if *is_ordinary {
                    user::give(&[dir.path(), &config]);
                }
                programs.broker(*is_ordinary)
            }
        };
        if !self.options.iter().any(|option| option == "--log") {
            self.options.extend(["--log", "debug"].map(str::to_owned));
        }
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--state-dir"])
            .arg(dir.path().join("state"))
            .arg("--config")
            .arg(config)
            .args(&self.options)
            .envs(self.env)
            .env_remove("RUST_LOG");
        let mut broker = Broker::launch(command, dir);
        broker.tokens = tokens;
        broker.programs = self.programs.map(|(programs, _)| programs);
        broker
    }
}

/// A running broker. At the end of a test it is stopped, and must then leave with exit code 0 and
/// without any child.
pub(crate) struct Broker {
    child: Child,
    addr: SocketAddr,
    dir: Arc<TempDir>,
    /// How it was started.
    command: Command,
    tokens: HashMap<String, String>,
    /// Copies that go with it.
    programs: Option<Programs>,
    stdout: Lines,
    stderr: Lines,
}

impl Broker {
    /// A broker over the fixture child, without authentication.
    #[track_caller]
    pub(crate) fn start(child_args: &[&str]) -> Self {
        Self::setup().server("fake", child_args).start()
    }

    pub(crate) fn setup() -> Setup {
        let setup = Setup {
            servers: Map::new(),
            settings: Map::new(),
            options: Vec::new(),
            env: Vec::new(),
            users: Vec::new(),
            programs: None,
        };
        setup
            .setting("stop_grace", "300ms")
            .setting("kill_grace", "300ms")
            .setting("drain", "300ms")
    }

    /// Starts `command`, which must be a `serve` that listens on port 0 of a loopback address.
    #[track_caller]
    pub(crate) fn launch(mut command: Command, dir: impl Into<Arc<TempDir>>) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let stdout = Lines::collect(child.stdout.take().expect("a pipe"));
        let stderr = Lines::collect(child.stderr.take().expect("a pipe"));
        let deadline = Instant::now() + DEADLINE;
        let addr = loop {
            let address = stdout.first().map(|line| {
                let addr = line.strip_prefix("listening on http://");
                addr.and_then(|addr| addr.parse().ok()).unwrap_or_else(|| {
                    panic!("first line on stdout: {line:?}");
                })
            });
            if let Some(addr) = address {
                break addr;
            }
            if child.try_wait().expect("its status").is_some() || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the broker did not start:\n{}", stderr.into_text());
            }
            std::thread::sleep(super::POLL);
        };
        Self {
            child,
            addr,
            dir: dir.into(),
            command,
            tokens: HashMap::new(),
            programs: None,
            stdout,
            stderr,
        }
    }

    /// Starts another one over the same state, with the same configuration.
    #[track_caller]
    pub(crate) fn again(&self) -> Self {
        let mut command = Command::new(PROGRAM);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "debug"])
            .arg("--no-auth")
            .arg("--state-dir")
            .arg(self.dir.path().join("state"))
            .arg("--config")
            .arg(self.dir.path().join("config.json"))
            .env_remove("RUST_LOG");
        Self::launch(command, Arc::clone(&self.dir))
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// The configuration file is in it as `config.json`, the broker's state under `state`.
    pub(crate) fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// The children that run.
    pub(crate) fn children(&self) -> Vec<Process> {
        process::children(self.pid())
    }

    /// A session at `/mcp`, ready to be used.
    #[track_caller]
    pub(crate) fn session(&self) -> Session {
        Session::open(self.addr)
    }

    /// A session that is not yet initialized.
    pub(crate) fn client(&self) -> Session {
        Session::new(self.addr)
    }

    /// The token of a user of [`Setup::user`].
    #[track_caller]
    pub(crate) fn token(&self, user: &str) -> &str {
        let token = self.tokens.get(user);
        token.unwrap_or_else(|| panic!("no token of {user}"))
    }

    /// A client with the token of a user of [`Setup::user`], not yet initialized.
    #[track_caller]
    pub(crate) fn user(&self, user: &str) -> Session {
        self.client().with_token(self.token(user))
    }

    /// Runs `mcp-broker token …` over this broker's state.
    #[track_caller]
    pub(crate) fn token_command(&self, args: &[&str]) -> Run {
        token_command(self.dir(), args)
    }

    /// Makes a token while the broker runs, which may need a second to honour it.
    #[track_caller]
    pub(crate) fn add_token(&self, name: &str, options: &[&str]) -> String {
        make_token(self.dir(), name, options)
    }

    /// What it has written to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.text()
    }

    /// What it has written to stdout so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits until the log has this text.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        eventually(text, || self.log().contains(text));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Ends it with this signal, and starts it again over the same state: at another address.
    #[track_caller]
    pub(crate) fn restart(mut self, signal: Signal) -> Self {
        let children = self.children();
        self.signal(signal);
        self.wait();
        for child in children {
            eventually("its children end", || {
                process::group(child.group).is_empty()
            });
        }
        let command = std::mem::replace(&mut self.command, Command::new(PROGRAM));
        let mut next = Self::launch(command, Arc::clone(&self.dir));
        next.tokens = std::mem::take(&mut self.tokens);
        next.programs = self.programs.take();
        next
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the broker ends", || {
            status = self.child.try_wait().expect("its status");
            status.is_some()
        });
        status.expect("its status")
    }

    /// The exit status, if it has ended.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its status")
    }

    /// Whether it still does what it is for: a new session opens and answers a call.
    #[track_caller]
    pub(crate) fn assert_well(&self) {
        let mut session = self.session();
        assert_eq!(session.call_text("echo", json!({})), "{}");
        session.delete();
    }

    fn end(&mut self) -> Option<ExitStatus> {
        if let Some(status) = self.exited() {
            return Some(status);
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            std::thread::sleep(super::POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let was_running = self.exited().is_none();
        let children = self.children();
        let status = self.end();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the broker's log:\n{}", self.log());
            return;
        }
        let log = self.log();
        if was_running {
            let code = status.map(|status| status.code());
            assert_eq!(code, Some(Some(0)), "the broker's end; its log:\n{log}");
        }
        for child in children {
            // One that is just being started is not yet in the group that it is to lead.
            let left = process::group(child.pid);
            assert_eq!(left, [], "left behind; the log:\n{log}");
        }
        assert!(!log.contains("panicked"), "a panic:\n{log}");
    }
}

#[track_caller]
fn token_command(dir: &TempDir, args: &[&str]) -> Run {
    let state = dir.path().join("state");
    let state = state.to_str().expect("a path in UTF-8");
    run(&[&["token"], args, &["--state-dir", state]].concat())
}

#[track_caller]
fn make_token(dir: &TempDir, name: &str, options: &[&str]) -> String {
    let made = token_command(dir, &[&["add", name], options].concat());
    assert_eq!(made.code, Some(0), "{made:?}");
    made.stdout.trim().to_owned()
}

/// Lines of a pipe, collected by a thread.
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    /// Flooding tests write more than anybody wants to read.
    const KEPT: usize = 20_000;

    fn collect(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&lines);
        let thread = std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let mut lines = collected.lock().expect("no panic under this lock");
                if lines.len() < Self::KEPT {
                    lines.push(String::from_utf8_lossy(&line).into_owned());
                }
            }
        });
        Self {
            lines,
            thread: Some(thread),
        }
    }

    fn first(&self) -> Option<String> {
        let lines = self.lines.lock().expect("no panic under this lock");
        lines.first().cloned()
    }

    fn text(&self) -> String {
        let lines = self.lines.lock().expect("no panic under this lock");
        lines.join("\n")
    }

    /// All there was; the other end must be closed.
    fn into_text(mut self) -> String {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.text()
    }
}

/// What a command that ends by itself came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program to its end.
#[track_caller]
pub(crate) fn run(args: &[&str]) -> Run {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_remove("RUST_LOG");
    run_command(command)
}

/// Runs any command to its end.
#[track_caller]
pub(crate) fn run_command(mut command: Command) -> Run {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = Lines::collect(child.stdout.take().expect("a pipe"));
    let stderr = Lines::collect(child.stderr.take().expect("a pipe"));
    let deadline = Instant::now() + DEADLINE;
    let code = loop {
        if let Some(status) = child.try_wait().expect("its status") {
            break status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not end:\n{}", stderr.text());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Run {
        code,
        stdout: stdout.into_text(),
        stderr: stderr.into_text(),
    }
}
