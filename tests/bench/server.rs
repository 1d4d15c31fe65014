//! The processes that are measured over HTTP: how each is started, where it listens, what memory it
//! holds, and that it ends. Ports are taken on loopback; supergateway listens on every interface,
//! so it only lives while it is measured.

use std::env;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::json;

use super::echo::Era;
use super::eras;
use super::failure::{Context, Failure, Outcome};
use super::figures::{Memory, Target};

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a server may take to end on SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long memory may take to come to rest.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often something is looked at again.
const TICK: Duration = Duration::from_millis(20);

/// What a tick of the processor times in `/proc` is worth: 1/100 s on every Linux there is.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// Where the programs are.
pub(crate) struct Programs {
    pub(crate) broker: PathBuf,
    /// A `node_modules` with supergateway and mcp-proxy.
    pub(crate) modules: PathBuf,
    pub(crate) bench: PathBuf,
    /// The child that speaks either era.
    pub(crate) fake: PathBuf,
}

impl Programs {
    /// The child that everyone gets: program first.
    pub(crate) fn child(&self) -> [String; 2] {
        [self.broker.display().to_string(), "demo-server".into()]
    }
}

/// A running server. Ends when dropped, with all that it started.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
    /// That it has read.
    config: Option<PathBuf>,
}

impl Server {
    /// Starts what `target` names and waits until it accepts connections.
    pub(crate) fn start(target: Target, programs: &Programs) -> Outcome<Self> {
        // Held until the very moment it is needed, and then hopefully still free.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let address = port.at(&"a free port")?;
        let (program, arguments) = command(target, programs, address.port())?;
        let tells_address = matches!(target, Target::HttpAlone | Target::Broker);
        Self::launch(target.name(), &program, arguments, address, tells_address)
    }

    /// Starts `program`, a broker, over a child of either era.
    pub(crate) fn start_broker(
        program: &Path,
        child: eras::Child,
        programs: &Programs,
    ) -> Outcome<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut arguments = broker_arguments();
        let era = match child {
            eras::Child::Demo => {
                arguments.push("--".into());
                arguments.extend(programs.child());
                return Self::launch("broker", program, arguments, address, true);
            }
            eras::Child::Fake(era) => era,
        };
        let config = write_config(&programs.fake, era)?;
        arguments.extend(["--config".into(), config.display().to_string()]);
        let mut server = Self::launch("broker", program, arguments, address, true)
            .inspect_err(|_| _ = fs::remove_file(&config))?;
        server.config = Some(config);
        Ok(server)
    }

    fn launch(
        name: &str,
        program: &Path,
        arguments: Vec<String>,
        address: SocketAddr,
        tells_address: bool,
    ) -> Outcome<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let (pid, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let log = env::temp_dir().join(format!("bench-{name}-{pid}-{number}.log"));
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        // Held open: supergateway ends when its stdin does, so it ends with the bench, however that
        // ends.
        command.stdin(Stdio::piped());
        command.stderr(File::create(&log).at(&log.display())?);
        command.stdout(if tells_address {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        #[expect(clippy::disallowed_methods, reason = "a bench has no supervisor")]
        let process = command.spawn().at(&program.display())?;
        let mut server = Self {
            process,
            address,
            log,
            config: None,
        };
        let ready = if tells_address {
            server.read_address()
        } else {
            server.await_port()
        };
        ready.map_err(|failure| server.blame(name, &failure))?;
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the address from the first line of its output.
    fn read_address(&mut self) -> Outcome<()> {
        let output = self
            .process
            .stdout
            .take()
            .ok_or_else(|| Failure::new("no output"))?;
        let timeout = Timespec::try_from(START_TIMEOUT).at(&"timeout")?;
        let ready =
            poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)).at(&"output")?;
        if ready == 0 {
            return Err(Failure::new("does not say where it listens"));
        }
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line).at(&"output")?;
        let address = line.trim_end().strip_prefix("listening on http://");
        let address = address.ok_or_else(|| Failure::new(format!("no address: {line:?}")))?;
        self.address = address.parse().at(&line.trim_end())?;
        // Kept open: nobody likes to write to a closed pipe.
        self.process.stdout = Some(output.into_inner());
        Ok(())
    }

    fn await_port(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.process.try_wait().at(&"wait")? {
                return Err(Failure::new(format!("ended while starting: {status}")));
            }
            if Instant::now() > deadline {
                return Err(Failure::new("does not listen"));
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn blame(&self, name: &str, failure: &dyn Display) -> Failure {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(10).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Failure::new(format!("{name}: {failure}\n{}", last.join("\n")))
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.process.id()).ok()?)
    }

    /// Memory, once it has come to rest.
    pub(crate) fn settled_memory(&self) -> Outcome<Memory> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let mut last = self.memory()?;
        let mut still = 0;
        while still < 25 && Instant::now() < deadline {
            thread::sleep(TICK);
            let now = self.memory()?;
            still = if (now.rss_kib - last.rss_kib).abs() < 0.01 * last.rss_kib {
                still + 1
            } else {
                0
            };
            if still == 0 {
                last = now;
            }
        }
        self.memory()
    }

    /// Processor time that the process has spent so far, in user and in kernel mode.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).ok()?;
        // Fields 14 and 15; the name, the second, may have spaces in it.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let (user, system): (u32, u32) =
            (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(CLOCK_TICK * (user + system))
    }

    fn memory(&self) -> Outcome<Memory> {
        let directory = Path::new("/proc").join(self.process.id().to_string());
        let kib = |file: &str, field: &str| {
            let text = fs::read_to_string(directory.join(file)).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(field))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let rss_kib =
            kib("status", "VmRSS:").ok_or_else(|| Failure::new("no VmRSS of a server"))?;
        Ok(Memory {
            rss_kib,
            pss_kib: kib("smaps_rollup", "Pss:"),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it is gone already, which is all that is wanted.
        let Some(pid) = self.pid() else { return };
        let _ = kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(TICK);
        }
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.log);
        if let Some(config) = &self.config {
            let _ = fs::remove_file(config);
        }
    }
}

/// Program and arguments that serve the child of [`Programs::child`].
fn command(target: Target, programs: &Programs, port: u16) -> Outcome<(PathBuf, Vec<String>)> {
    let child = programs.child();
    let port = port.to_string();
    let (program, mut arguments) = match target {
        Target::PipeAlone => return Err(Failure::new("a pipe is no server")),
        Target::HttpAlone => return Ok((programs.bench.clone(), words("http-floor"))),
        Target::Broker => {
            let mut arguments = broker_arguments();
            arguments.push("--".into());
            (programs.broker.clone(), arguments)
        }
        Target::Supergateway => {
            let quoted = child
                .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
                .join(" ");
            let mut arguments = vec!["--stdio".into(), quoted];
            arguments.extend(words(
                "--outputTransport streamableHttp --stateful --logLevel none --port",
            ));
            arguments.push(port);
            return Ok((programs.modules.join(".bin/supergateway"), arguments));
        }
        Target::McpProxy => {
            let arguments = words(&format!(
                "--host 127.0.0.1 --port {port} --server stream --"
            ));
            (programs.modules.join(".bin/mcp-proxy"), arguments)
        }
    };
    arguments.extend(child);
    Ok((program, arguments))
}

/// What every broker is told, but for its child.
fn broker_arguments() -> Vec<String> {
    let mut arguments = words("serve --listen 127.0.0.1:0 --no-auth --max-sessions 0");
    if rustix::process::geteuid().is_root() {
        // The child's program may be out of reach for anybody else.
        arguments.extend(words("--run-as root"));
    }
    arguments.extend(words("--max-sessions-per-user 0"));
    arguments
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A file for a broker over `fake`, which need not be probed.
fn write_config(fake: &Path, era: Era) -> Outcome<PathBuf> {
    let name = era.name();
    let server = json!({
        "command": fake.display().to_string(),
        "args": ["--era", name],
        "broker": { "era": name },
    });
    let config = json!({ "mcpServers": { "echo": server } }).to_string();
    let file = env::temp_dir().join(format!("bench-{}-{name}.json", std::process::id()));
    // Created anew: what is there already may be somebody else's.
    let _ = fs::remove_file(&file);
    fs::write(&file, config).at(&file.display())?;
    Ok(file)
}
