//! `check`: reads the configuration, starts each server once, and prints what it offers.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use serde_json::{Value, json};

use crate::auth::{Principal, TokenError, TokenStore};
use crate::config::{Config, Server};
use crate::isolation::{Home, Isolation, IsolationError};
use crate::launch;
use crate::mcp;
use crate::supervisor::{Child, Event, Launch, Limits, Nursery, Parent, StderrTail, Tether, Waker};

/// What a server may offer: the request that lists it, and the member that holds the list.
const LISTS: [(&str, &str); 4] = [
    ("tools", "tools"),
    ("resources", "resources"),
    ("resources/templates", "resourceTemplates"),
    ("prompts", "prompts"),
];

/// Lines of stderr that are quoted of a server that does not work.
const QUOTED_LINES: usize = 20;

/// Characters of what a server says of itself that are printed.
const PRINTED_CHARS: usize = 100;

/// What a server says of itself, cut, and without what would drive a terminal.
fn printable(text: Option<&str>) -> String {
    let text = text.unwrap_or("?").chars();
    text.filter(|c| !c.is_control())
        .take(PRINTED_CHARS)
        .collect()
}

/// Some server does not work.
#[derive(Debug)]
pub(crate) enum CheckError {
    Servers {
        failed: usize,
        of: usize,
    },
    Tokens(TokenError),
    Isolation(IsolationError),
    /// No thread is left.
    Start(io::Error),
    Output(io::Error),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Servers { failed, of } => write!(f, "{failed} of {of} servers do not work"),
            Self::Tokens(error) => error.fmt(f),
            Self::Isolation(error) => error.fmt(f),
            Self::Start(error) => write!(f, "cannot start: {error}"),
            Self::Output(error) => write!(f, "cannot write to stdout: {error}"),
        }
    }
}

/// Checks all servers of a configuration that is known to be well-formed.
///
/// # Errors
/// [`CheckError`] if any server does not answer as it should.
pub(crate) fn run(config: &Config, out: &mut impl Write) -> Result<(), CheckError> {
    let mut failed = 0;
    let users = match config.auth {
        true => TokenStore::users(&config.state_dir).map_err(CheckError::Tokens)?,
        false => Vec::new(),
    };
    let isolation = Isolation::for_trying(config).map_err(CheckError::Isolation)?;
    isolation.log();
    let parent = Parent::start().map_err(CheckError::Start)?;
    for server in &config.servers {
        let prepared = prepare(server, &users, &isolation);
        let checked = prepared.and_then(|it| check(config, &parent.nursery(), it));
        let line = match checked {
            Ok(offer) => format!("{}: {offer}", server.name),
            Err(why) => {
                failed += 1;
                format!("{}: FAILED: {why}", server.name)
            }
        };
        writeln!(out, "{line}").map_err(CheckError::Output)?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(CheckError::Servers {
            failed,
            of: config.servers.len(),
        }),
    }
}

/// A child to talk with, one question at a time.
struct Talk {
    child: Child,
    stderr: Arc<StderrTail>,
    lines: Option<Sender<Vec<u8>>>,
    heard: Receiver<Heard>,
    deadline: Instant,
}

enum Heard {
    Message(Value),
    Ended(String),
}

/// A child that can be started: for whom, or for nobody in particular.
struct Prepared {
    launch: Launch,
    home: Home,
    user: Option<String>,
}

fn check(config: &Config, nursery: &Nursery, prepared: Prepared) -> Result<String, String> {
    let Prepared { launch, home, user } = prepared;
    let mut talk = Talk::start(config, nursery, launch)?;
    let offer = talk.ask_all().map(|offer| match user {
        None => offer,
        Some(user) => format!("{offer} (as user {user})"),
    });
    talk.lines = None;
    talk.child.stop();
    drop(home);
    offer.map_err(|why| match talk.stderr.last(QUOTED_LINES) {
        lines if lines.is_empty() => why,
        lines => format!("{why}; its last lines on stderr:\n  {}", lines.join("\n  ")),
    })
}

/// Prepares a child for nobody in particular, or for the first user who has what it needs.
fn prepare(
    server: &Server,
    users: &[Principal],
    isolation: &Isolation,
) -> Result<Prepared, String> {
    let prepare = |user: &Principal, name: Option<String>| {
        let (launch, home) =
            launch::prepare(server, user, &server.name, isolation, Tether::default())?;
        Ok(Prepared {
            launch,
            home,
            user: name,
        })
    };
    prepare(&Principal::anonymous(), None).or_else(|why: String| {
        let for_user = |user: &Principal| prepare(user, Some(user.name.to_string())).ok();
        users.iter().find_map(for_user).ok_or(why)
    })
}

impl Talk {
    fn start(config: &Config, nursery: &Nursery, launch: Launch) -> Result<Self, String> {
        let limits = Limits {
            max_message: config.max_message,
            stop_grace: config.stop_grace,
            kill_grace: config.kill_grace,
        };
        let stderr = Arc::clone(&launch.stderr);
        let waker = Waker::new().map_err(|error| error.to_string())?;
        let (lines, source) = bounded::<Vec<u8>>(1);
        let (sink, heard) = unbounded();
        let child = Child::start(
            nursery,
            launch,
            limits,
            waker,
            move || source.recv().ok(),
            move |event| {
                let heard = match event {
                    Event::Line(line) => serde_json::from_slice(line).ok().map(Heard::Message),
                    Event::Exited(reason) => Some(Heard::Ended(reason.to_string())),
                    Event::TooLong | Event::Skipped { .. } | Event::Woken => None,
                };
                if let Some(heard) = heard {
                    // Nobody listens any more once the check is through.
                    let _ = sink.send(heard);
                }
            },
        )
        .map_err(|error| error.to_string())?;
        let deadline = Instant::now() + config.start_timeout;
        Ok(Self {
            child,
            stderr,
            lines: Some(lines),
            heard,
            deadline,
        })
    }

    fn ask_all(&mut self) -> Result<String, String> {
        let [.., newest] = mcp::LEGACY_VERSIONS;
        let client = json!({ "name": "mcp-broker check", "version": env!("CARGO_PKG_VERSION") });
        let hello = self.ask(
            "initialize",
            json!({ "protocolVersion": newest, "capabilities": {}, "clientInfo": client }),
        )?;
        self.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        let text = |path: &str| printable(hello.pointer(path).and_then(Value::as_str));
        let mut offer = vec![format!(
            "{} {}, protocol {}",
            text("/serverInfo/name"),
            text("/serverInfo/version"),
            text("/protocolVersion")
        )];
        for (what, member) in LISTS {
            let capability = what.split('/').next().unwrap_or(what);
            if hello
                .pointer(&format!("/capabilities/{capability}"))
                .is_none()
            {
                continue;
            }
            // A list that was not promised in so many words may be missing.
            if let Ok(result) = self.ask(&format!("{what}/list"), json!({})) {
                let count = result
                    .get(member)
                    .and_then(Value::as_array)
                    .map_or(0, Vec::len);
                offer.push(format!(
                    "{count} {}",
                    what.replace("resources/", "resource ")
                ));
            }
        }
        Ok(offer.join(", "))
    }

    fn say(&self, message: &Value) {
        if let Some(lines) = &self.lines {
            // A child that has ended is heard of below.
            let _ = lines.send(format!("{message}\n").into_bytes());
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.say(&json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params }));
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left.max(Duration::from_millis(1))) {
                Ok(Heard::Message(mut answer)) if answer["id"] == method => {
                    return match answer.get("error") {
                        Some(error) => Err(format!("{method} was refused: {error}")),
                        None => Ok(answer["result"].take()),
                    };
                }
                Ok(Heard::Message(_)) => {}
                Ok(Heard::Ended(reason)) => {
                    return Err(format!("it ended before it answered {method}: {reason}"));
                }
                Err(_) => return Err(format!("no answer to {method} in time")),
            }
        }
    }
}
