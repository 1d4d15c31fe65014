//! mcp-broker: offers stdio MCP servers to many users over one URL, one child process a session.
//!
//! The modules, from the outside in; each uses only those below its line (`tests/it/tidy.rs`
//! holds this):
//!
//! - `serve`, `check`: wiring; the only ones that know all others
//! - `spawner`: how a session gets its child
//! - `eras`: which eras of the protocol a server's program speaks; `talk`: a process that is asked
//!   a few things, and is no session's child
//! - `cli`, `config`, `isolation`, `launch`: what the operator wants
//! - `http`: tiny_http's accept loop, routes, statuses, event streams; the endpoints and pages of
//!   signing in
//! - `session`: which session id belongs to whom and to which child
//! - `bridge`: who waits for which message of one child
//! - `translate`: a child of one era of the protocol in the dress of the other
//! - `edge`: the client's socket; `supervisor`: the child's process; `auth`: who asks, and how they
//!   sign in: the rules of OAuth, the database, the provider; `demo`: a server to try it with
//! - `launcher`: what a child's process does before it becomes the child
//! - `orphans`, `cgroup`: that no process is left of a child
//! - `fuzz`: none of the program; lists what reads bytes from outside, for tests
//! - `mcp`, `jsonrpc`, `thread`, `clock`, `rate`, `memory`, `private_file`, `metrics`, `systemd`,
//!   `exit`: words that all of them share

mod auth;
mod bridge;
mod cgroup;
mod check;
mod cli;
mod clock;
mod config;
mod demo;
mod edge;
mod eras;
mod exit;
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(all(test, not(fuzzing)))]
mod fuzz;
mod http;
mod isolation;
mod jsonrpc;
mod launch;
mod launcher;
mod mcp;
mod memory;
mod metrics;
mod orphans;
mod private_file;
mod rate;
mod serve;
mod session;
mod spawner;
mod supervisor;
mod systemd;
mod talk;
mod thread;
mod translate;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use cli::Command;
use config::{Config, ServeArgs};
use exit::Exit;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|it| it == launcher::COMMAND).is_some() {
        return launcher::run(args);
    }
    match run(args) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            // Nobody is left to be told if stderr is closed.
            let _ = writeln!(io::stderr(), "mcp-broker: {}", failure.message);
            failure.exit.into()
        }
    }
}

/// What the operator is told, in one line, and what a script is told.
struct Failure {
    message: String,
    exit: Exit,
}

impl Failure {
    fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            exit,
        }
    }
}

fn run(args: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let command = cli::parse(args).map_err(|error| Failure::new(Exit::Usage, error))?;
    let failed = |error: &dyn fmt::Display| Failure::new(Exit::Failure, error);
    match command {
        Command::Help(text) => print(text),
        Command::Version => print(concat!("mcp-broker ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::DemoServer => demo::run().map_err(|error| failed(&error)),
        Command::Serve(args) => {
            let config = configure(&args, "info")?;
            serve::run(config).map_err(|error| Failure::new(error.exit(), error))
        }
        Command::Check { overrides } => {
            // What a server says on stderr is quoted where it matters.
            let config = configure(&overrides, "warn")?;
            check::run(&config, &mut io::stdout()).map_err(|error| failed(&error))
        }
        Command::Token { state_dir, action } => {
            let state_dir = config::state_dir(state_dir, &env)
                .map_err(|error| Failure::new(Exit::Config, error))?;
            let (now, mut out) = (SystemTime::now(), io::stdout());
            auth::run_token_command(action, &state_dir, &env, now, &mut out)
                .map_err(|error| failed(&error))
        }
        Command::People {
            who,
            state_dir,
            action,
        } => {
            let state_dir = config::state_dir(state_dir, &env)
                .map_err(|error| Failure::new(Exit::Config, error))?;
            let (now, mut out) = (SystemTime::now(), io::stdout());
            let credentials_dir = env("CREDENTIALS_DIRECTORY");
            let credentials_dir = credentials_dir.as_deref().map(Path::new);
            auth::run_people_command(who, action, &state_dir, credentials_dir, now, &mut out)
                .map_err(|error| failed(&error))
        }
    }
}

/// Reads the configuration, and begins to log as it says.
fn configure(args: &ServeArgs, level: &str) -> Result<Config, Failure> {
    let config = config::load(args, &env).map_err(|error| Failure::new(Exit::Config, error))?;
    let mut logger = env_logger::Builder::new();
    match (&config.log, env("RUST_LOG")) {
        (Some(filter), _) => logger.parse_filters(filter),
        (None, Some(filter)) => logger.parse_filters(&filter),
        (None, None) => logger.parse_filters(level),
    };
    if env("JOURNAL_STREAM").is_none() {
        // The journal has its own clock.
        logger.format(|out, record| {
            let now = clock::rfc3339(SystemTime::now());
            writeln!(out, "{now} {:<5} {}", record.level(), record.args())
        });
    }
    logger.init();
    thread::install_panic_hook();
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    Ok(config)
}

fn env(key: &str) -> Option<String> {
    std::env::var(key).ok()
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot write to stdout: {error}")))
}
