//! The broker that is tortured: started, struck, started again on the same port and state, and
//! ended together with everything that came from it. The only file here that starts processes.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::plan::{self, Features};
use crate::process;

/// Times that the contract gives, with room for a machine under load.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// The programs of a run, and where it keeps its files.
pub(crate) struct Place {
    pub(crate) broker: PathBuf,
    pub(crate) fixture: PathBuf,
    /// Only for this run; removed at its end, unless it is to be kept.
    pub(crate) directory: PathBuf,
    keep: bool,
    /// What marks the processes of this run.
    pub(crate) run: String,
    pub(crate) address: SocketAddr,
}

/// A running broker. Dropping it ends it, and all that was started below it.
pub(crate) struct Broker<'p> {
    place: &'p Place,
    process: Option<Child>,
}

impl Place {
    /// Makes the directory and the configuration of a run.
    pub(crate) fn make(
        broker: PathBuf,
        fixture: PathBuf,
        keep: Option<PathBuf>,
        features: Features,
    ) -> Result<Self, String> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.map_err(|error| error.to_string())?;
        let run = format!("{}-{}", std::process::id(), since.as_millis());
        let own = || std::env::temp_dir().join(format!("mcp-broker-chaos-{run}"));
        let place = Self {
            broker,
            fixture,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            keep: keep.is_some(),
            directory: keep.unwrap_or_else(own),
            run,
        };
        let config = plan::config(&place.fixture, &place.run, features).to_string();
        let at = |error: std::io::Error| format!("{}: {error}", place.directory.display());
        fs::create_dir(&place.directory).map_err(at)?;
        // Children may run under other uids, and this is on the way to their files.
        fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o711)).map_err(at)?;
        fs::create_dir(place.temporary()).map_err(at)?;
        fs::write(place.directory.join("config.json"), config).map_err(at)?;
        Ok(place)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Where the broker and its children make temporary files.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Runs `mcp-broker token ...`; its output.
    fn token(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.broker)
            .arg("token")
            .args(arguments)
            .arg("--state-dir")
            .arg(self.state())
            .output()
            .map_err(|error| format!("{}: {error}", self.broker.display()))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("token {arguments:?}: {}", why.trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub(crate) fn add_token(&self, name: &str) -> Result<String, String> {
        self.token(&["add", name])
    }

    pub(crate) fn revoke_token(&self, name: &str) -> Result<(), String> {
        self.token(&["revoke", name]).map(drop)
    }
}

/// A port below those from which the kernel takes a client's own: a client that tries to connect
/// while the broker is down could be given the very port, and connect to itself.
fn free_port() -> Result<u16, String> {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or_default();
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut ports = first..32_000;
    ports.find(is_free).ok_or("no port is free".to_owned())
}

impl<'p> Broker<'p> {
    pub(crate) fn start(place: &'p Place) -> Result<Self, String> {
        let mut broker = Self {
            place,
            process: None,
        };
        broker.start_again()?;
        Ok(broker)
    }

    /// Starts it; returns when it listens.
    pub(crate) fn start_again(&mut self) -> Result<(), String> {
        let place = self.place;
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(place.log());
        let log: File = log.map_err(|error| format!("{}: {error}", place.log().display()))?;
        let mut command = Command::new(&place.broker);
        command
            .args(["serve", "--log", if place.keep { "info" } else { "warn" }])
            .arg("--config")
            .arg(place.directory.join("config.json"))
            .args(["--listen", &place.address.to_string(), "--state-dir"])
            .arg(place.state())
            .env("TMPDIR", place.temporary())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        #[expect(clippy::disallowed_methods, reason = "a test has no supervisor")]
        let mut process = command
            .spawn()
            .map_err(|error| format!("{}: {error}", place.broker.display()))?;
        let output = process.stdout.take().ok_or("no output")?;
        self.process = Some(process);
        let timeout = Timespec::try_from(START_LIMIT).map_err(|error| error.to_string())?;
        let ready = poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout));
        let mut line = String::new();
        if ready.is_ok_and(|ready| ready > 0) {
            let mut output = BufReader::new(output);
            output
                .read_line(&mut line)
                .map_err(|error| error.to_string())?;
            if let Some(process) = &mut self.process {
                process.stdout = Some(output.into_inner());
            }
        }
        match line.starts_with("listening on http://") {
            true => Ok(()),
            false => Err(format!(
                "it does not listen; its log ends:\n{}",
                self.last_words()
            )),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        let id = self.process.as_ref().map_or(0, Child::id);
        i32::try_from(id).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// The status with which it has ended, without being told to.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.try_wait().ok()?
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.has_ended() {
                self.process = None;
                return Ok(status);
            }
            if Instant::now() > deadline {
                let threads = process::threads(self.pid()).join(" ");
                self.signal(Signal::KILL);
                if let Some(mut process) = self.process.take() {
                    let _ = process.wait();
                }
                return Err(format!(
                    "still there after {STOP_LIMIT:?}, threads {threads}"
                ));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read(self.place.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Broker<'_> {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        process::end_all(&plan::mark(&self.place.run));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep {
            // What is in the way is only a matter of disk space.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
