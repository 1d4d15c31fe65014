//! `check`: reads the configuration, starts each server, and prints what it offers in which eras.

use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use serde_json::{Value, json};

use crate::auth::{Principal, TokenError, TokenStore};
use crate::config::{Config, EraChoice, Server, ServerCommand};
use crate::eras::{self, Outcome};
use crate::isolation::{Home, Isolation, IsolationError};
use crate::launch;
use crate::mcp::{self, meta, method};
use crate::supervisor::{Launch, Parent, Tether};
use crate::talk::{Silence, Talk, Talks, Trouble, initialize_params, modern_params};

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
    let trial = Trial {
        talks: Talks::new(config, parent.nursery()),
        users,
        isolation,
    };
    for server in &config.servers {
        let result = match config.auth_server.is_some() && launch::needs_token(server) {
            true => Ok("not tried: it starts with the token of who signed in".to_owned()),
            false => trial.check(server).map(|offer| offer.to_string()),
        };
        failed += usize::from(result.is_err());
        let line = match result {
            Ok(said) => format!("{}: {said}", server.name),
            Err(why) => format!("{}: FAILED: {why}", server.name),
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

/// What it takes to try servers.
struct Trial {
    talks: Talks,
    users: Vec<Principal>,
    isolation: Isolation,
}

/// A process that can be started: for whom, or for nobody in particular.
struct Prepared {
    launch: Launch,
    home: Home,
    user: Option<String>,
}

/// What a server says of itself.
struct Offer {
    /// Its name, version and protocol.
    identity: String,
    /// How many of what.
    lists: Vec<String>,
    user: Option<String>,
}

/// Why a server does not work in one era.
struct Failed {
    why: String,
    /// It may be for the era.
    may_be_the_era: bool,
}

impl Trial {
    /// Starts a server as often as it takes, and says what it offers in which eras.
    fn check(&self, server: &Server) -> Result<String, String> {
        let only = |failed: Failed| failed.why;
        let is_built_in = server.command == ServerCommand::DemoServer;
        match server.options.era {
            EraChoice::Modern => {
                let offer = self.talk(server, ask_modern).map_err(only)?;
                Ok(offer.line("era modern"))
            }
            EraChoice::Auto if !is_built_in => self.find_out(server),
            EraChoice::Auto | EraChoice::Legacy => {
                let offer = self.talk(server, ask_legacy).map_err(only)?;
                Ok(offer.line("era legacy"))
            }
        }
    }

    /// Legacy first: a server that works so works, whatever it makes of a probe.
    fn find_out(&self, server: &Server) -> Result<String, String> {
        match self.talk(server, ask_legacy) {
            Ok(offer) if self.speaks_modern(server) => Ok(offer.line("eras legacy and modern")),
            Ok(offer) => Ok(offer.line("era legacy")),
            Err(failed) if failed.may_be_the_era && self.speaks_modern(server) => {
                let offer = self.talk(server, ask_modern);
                let offer = offer.map_err(|failed| failed.why)?;
                Ok(offer.line("era modern"))
            }
            Err(failed) => Err(failed.why),
        }
    }

    fn speaks_modern(&self, server: &Server) -> bool {
        let prepared = self.prepare(server);
        let talk = prepared.and_then(|it| self.talks.start(it.launch, it.home));
        talk.is_ok_and(|talk| {
            let deadline = Instant::now() + self.talks.start_timeout;
            let outcome = eras::probe(&talk, deadline, &|| true);
            talk.end();
            outcome == Outcome::Modern
        })
    }

    /// Has a process of its own asked, and stops it.
    fn talk(
        &self,
        server: &Server,
        ask: fn(&Talk, Instant) -> Result<Offer, Trouble>,
    ) -> Result<Offer, Failed> {
        let no_process = |why: String| Failed {
            why,
            may_be_the_era: false,
        };
        let Prepared { launch, home, user } = self.prepare(server).map_err(no_process)?;
        let talk = self.talks.start(launch, home).map_err(no_process)?;
        let offer = ask(&talk, Instant::now() + self.talks.start_timeout);
        let stderr = talk.end();
        match offer {
            Ok(offer) => Ok(Offer { user, ..offer }),
            Err(trouble) => Err(Failed {
                why: match stderr.last(QUOTED_LINES) {
                    lines if lines.is_empty() => trouble.to_string(),
                    lines => {
                        let lines = lines.join("\n  ");
                        format!("{trouble}; its last lines on stderr:\n  {lines}")
                    }
                },
                may_be_the_era: trouble.may_be_the_era(),
            }),
        }
    }

    /// Prepares a process for nobody in particular, or for the first user who has what it needs.
    fn prepare(&self, server: &Server) -> Result<Prepared, String> {
        let prepare = |user: &Principal, name: Option<String>| {
            let tether = Tether::default();
            let (launch, home) =
                launch::prepare(server, user, None, &server.name, &self.isolation, tether)?;
            Ok(Prepared {
                launch,
                home,
                user: name,
            })
        };
        prepare(&Principal::anonymous(), None).or_else(|why: String| {
            let for_user = |user: &Principal| prepare(user, Some(user.name.to_string())).ok();
            self.users.iter().find_map(for_user).ok_or(why)
        })
    }
}

impl Offer {
    fn line(&self, eras: &str) -> String {
        let first = [self.identity.as_str(), eras].into_iter();
        let parts: Vec<&str> = first.chain(self.lists.iter().map(String::as_str)).collect();
        let line = parts.join(", ");
        match &self.user {
            None => line,
            Some(user) => format!("{line} (as user {user})"),
        }
    }
}

/// As a client of up to 2025-11-25.
fn ask_legacy(talk: &Talk, deadline: Instant) -> Result<Offer, Trouble> {
    let hello = talk.ask(method::INITIALIZE, &initialize_params(), deadline)?;
    talk.notify(method::INITIALIZED);
    let protocol = printable(hello["protocolVersion"].as_str());
    Ok(Offer {
        identity: identity(&hello["serverInfo"], &protocol),
        lists: ask_lists(talk, &hello["capabilities"], &json!({}), deadline),
        user: None,
    })
}

/// As a client of 2026-07-28.
fn ask_modern(talk: &Talk, deadline: Instant) -> Result<Offer, Trouble> {
    let params = modern_params();
    let hello = talk.ask(method::DISCOVER, &params, deadline)?;
    let versions = hello["supportedVersions"].as_array();
    if versions.is_none_or(|it| it.iter().all(|version| version != mcp::MODERN_VERSION)) {
        return Err(Trouble::Refused {
            method: method::DISCOVER.to_owned(),
            error: json!({ "supportedVersions": hello["supportedVersions"] }),
        });
    }
    Ok(Offer {
        identity: identity(&hello["_meta"][meta::SERVER_INFO], mcp::MODERN_VERSION),
        lists: ask_lists(talk, &hello["capabilities"], &params, deadline),
        user: None,
    })
}

fn identity(info: &Value, protocol: &str) -> String {
    let text = |key: &str| printable(info[key].as_str());
    format!("{} {}, protocol {protocol}", text("name"), text("version"))
}

fn ask_lists(talk: &Talk, capabilities: &Value, params: &Value, deadline: Instant) -> Vec<String> {
    let mut found = Vec::new();
    for (what, member) in LISTS {
        let capability = what.split('/').next().unwrap_or(what);
        if capabilities.get(capability).is_none() {
            continue;
        }
        // A list that was not promised in so many words may be missing.
        if let Ok(result) = talk.ask(&format!("{what}/list"), params, deadline) {
            let count = result[member].as_array().map_or(0, Vec::len);
            let name = what.replace("resources/", "resource ");
            found.push(format!("{count} {name}"));
        }
    }
    found
}

impl Trouble {
    /// Whether a server of the other era would have behaved so: it refuses, or ends.
    fn may_be_the_era(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Silent { silence, .. } => matches!(silence, Silence::Ended(_)),
        }
    }
}
