//! The settings of the broker itself: one table, from which both the flags of the command line and
//! the keys of the file's `broker` object are read, so that each can only mean one thing. Neither
//! defaults nor what one setting says about another is known here; `config.rs` decides that.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::address::{self, Listen, PublicUrl};
use super::json::{Entry, Fault, Node};
use super::run_as::RunAs;
use super::units;

/// What was said. `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) listen: Option<Listen>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) no_auth: Option<bool>,
    pub(crate) max_sessions: Option<usize>,
    pub(crate) max_sessions_per_user: Option<usize>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_session_age: Option<Duration>,
    pub(crate) drain: Option<Duration>,
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) input_timeout: Option<Duration>,
    pub(crate) stop_grace: Option<Duration>,
    pub(crate) kill_grace: Option<Duration>,
    pub(crate) max_body: Option<usize>,
    pub(crate) max_message: Option<usize>,
    pub(crate) max_in_flight: Option<usize>,
    pub(crate) max_in_flight_per_user: Option<usize>,
    pub(crate) min_free_memory: Option<usize>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_connections_per_address: Option<usize>,
    pub(crate) gone_status: Option<u16>,
    pub(crate) public_url: Option<PublicUrl>,
    pub(crate) allowed_origins: Option<Vec<String>>,
    pub(crate) trusted_proxies: Option<Vec<IpAddr>>,
    pub(crate) admin: Option<Listen>,
    pub(crate) run_as: Option<RunAs>,
    pub(crate) keep_homes: Option<bool>,
    pub(crate) log: Option<String>,
}

/// One setting: what it is called and how its text becomes a value.
pub(crate) struct Setting {
    /// The key in the file's `broker` object.
    pub(crate) key: &'static str,
    /// The flag of `serve` and `check`; `None`: in the file only.
    pub(crate) flag: Option<&'static str>,
    pub(crate) shape: Shape,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

/// How a setting is written.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// A flag without a value; `true` or `false` in the file.
    Switch,
    /// A flag that is given once, with a value; a string or a number in the file.
    One,
    /// A flag that may be given again and again; a list in the file. The function makes it an empty
    /// list, which is not the same as nothing said.
    Many(fn(&mut Settings)),
}

const SESSIONS: RangeInclusive<usize> = 0..=100_000;
const CONNECTIONS: RangeInclusive<usize> = 1..=100_000;
const CONNECTIONS_PER_ADDRESS: RangeInclusive<usize> = 0..=100_000;
const IN_FLIGHT: RangeInclusive<usize> = 1..=10_000;
const IN_FLIGHT_PER_USER: RangeInclusive<usize> = 0..=100_000;
const FREE_MEMORY_BYTES: RangeInclusive<usize> = 0..=1 << 40;
const BODY_BYTES: RangeInclusive<usize> = 1 << 10..=64 << 20;
const MESSAGE_BYTES: RangeInclusive<usize> = 1 << 10..=256 << 20;
const IDLE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(365 * 24);
const AGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(365 * 24);
const START: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);
const INPUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(5);

/// Every setting, in the order of the help.
pub(crate) static SETTINGS: [Setting; 27] = [
    one("listen", Some("--listen"), |s, text| {
        put(&mut s.listen, Listen::parse(text))
    }),
    one("state_dir", Some("--state-dir"), |s, text| {
        put(&mut s.state_dir, directory(text))
    }),
    Setting {
        key: "no_auth",
        flag: Some("--no-auth"),
        shape: Shape::Switch,
        set: |s, text| put(&mut s.no_auth, Ok(text == "true")),
    },
    one("max_sessions", Some("--max-sessions"), |s, text| {
        put(&mut s.max_sessions, units::count(text, SESSIONS))
    }),
    one(
        "max_sessions_per_user",
        Some("--max-sessions-per-user"),
        |s, text| put(&mut s.max_sessions_per_user, units::count(text, SESSIONS)),
    ),
    one("idle_timeout", Some("--idle-timeout"), |s, text| {
        put(&mut s.idle_timeout, units::duration(text, IDLE))
    }),
    one("drain", Some("--drain"), |s, text| {
        put(&mut s.drain, units::duration(text, DRAIN))
    }),
    one("max_body", Some("--max-body"), |s, text| {
        put(&mut s.max_body, units::size(text, BODY_BYTES))
    }),
    one("max_message", Some("--max-message"), |s, text| {
        put(&mut s.max_message, units::size(text, MESSAGE_BYTES))
    }),
    one("gone_status", Some("--gone-status"), |s, text| {
        put(&mut s.gone_status, gone_status(text))
    }),
    one("public_url", Some("--public-url"), |s, text| {
        put(&mut s.public_url, PublicUrl::parse(text))
    }),
    many(
        "allowed_origins",
        Some("--allow-origin"),
        |s| s.allowed_origins = Some(Vec::new()),
        |s, text| add(&mut s.allowed_origins, address::origin(text)),
    ),
    one("admin", Some("--admin"), |s, text| {
        put(&mut s.admin, Listen::parse_local(text))
    }),
    one("run_as", Some("--run-as"), |s, text| {
        put(&mut s.run_as, RunAs::parse(text))
    }),
    one("log", Some("--log"), |s, text| {
        put(&mut s.log, log_filter(text))
    }),
    Setting {
        key: "keep_homes",
        flag: None,
        shape: Shape::Switch,
        set: |s, text| put(&mut s.keep_homes, Ok(text == "true")),
    },
    one("max_session_age", None, |s, text| {
        put(&mut s.max_session_age, units::duration(text, AGE))
    }),
    one("start_timeout", None, |s, text| {
        put(&mut s.start_timeout, units::duration(text, START))
    }),
    one("input_timeout", None, |s, text| {
        put(&mut s.input_timeout, units::duration(text, INPUT))
    }),
    one("stop_grace", None, |s, text| {
        put(&mut s.stop_grace, units::duration(text, GRACE))
    }),
    one("kill_grace", None, |s, text| {
        put(&mut s.kill_grace, units::duration(text, GRACE))
    }),
    one("max_in_flight", None, |s, text| {
        put(&mut s.max_in_flight, units::count(text, IN_FLIGHT))
    }),
    one("max_in_flight_per_user", None, |s, text| {
        put(
            &mut s.max_in_flight_per_user,
            units::count(text, IN_FLIGHT_PER_USER),
        )
    }),
    one("min_free_memory", None, |s, text| {
        put(&mut s.min_free_memory, units::size(text, FREE_MEMORY_BYTES))
    }),
    one("max_connections", None, |s, text| {
        put(&mut s.max_connections, units::count(text, CONNECTIONS))
    }),
    one("max_connections_per_address", None, |s, text| {
        put(
            &mut s.max_connections_per_address,
            units::count(text, CONNECTIONS_PER_ADDRESS),
        )
    }),
    many(
        "trusted_proxies",
        None,
        |s| s.trusted_proxies = Some(Vec::new()),
        |s, text| add(&mut s.trusted_proxies, address::ip(text)),
    ),
];

const fn one(
    key: &'static str,
    flag: Option<&'static str>,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> Setting {
    Setting {
        key,
        flag,
        shape: Shape::One,
        set,
    }
}

const fn many(
    key: &'static str,
    flag: Option<&'static str>,
    empty: fn(&mut Settings),
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> Setting {
    Setting {
        key,
        flag,
        shape: Shape::Many(empty),
        set,
    }
}

fn put<T>(slot: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    *slot = Some(value?);
    Ok(())
}

fn add<T: PartialEq>(list: &mut Option<Vec<T>>, value: Result<T, String>) -> Result<(), String> {
    let value = value?;
    let list = list.get_or_insert_default();
    if !list.contains(&value) {
        list.push(value);
    }
    Ok(())
}

impl Settings {
    /// Takes one setting from its text; the error says what is wrong with it.
    pub(crate) fn set(&mut self, setting: &Setting, text: &str) -> Result<(), String> {
        (setting.set)(self, text)
    }

    /// Reads the members of a `broker` object, except for those in `others`.
    pub(super) fn read(members: &[Entry<'_>], others: &[&'static str]) -> Result<Self, Fault> {
        let mut settings = Self::default();
        for entry in members {
            if others.contains(&entry.key.as_str()) {
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == entry.key) else {
                let known = SETTINGS.iter().map(|setting| setting.key);
                return Err(entry.unknown(known.chain(others.iter().copied())));
            };
            match setting.shape {
                Shape::Switch => {
                    settings.take(setting, &entry.value, &entry.value.boolean()?.to_string())?
                }
                Shape::One => settings.take(setting, &entry.value, &entry.value.scalar()?)?,
                Shape::Many(empty) => {
                    empty(&mut settings);
                    for item in entry.value.items()? {
                        settings.take(setting, &item, &item.string()?)?;
                    }
                }
            }
        }
        Ok(settings)
    }

    fn take(&mut self, setting: &Setting, node: &Node<'_>, text: &str) -> Result<(), Fault> {
        self.set(setting, text)
            .map_err(|why| node.fault(format!("{}: {why}", setting.key)))
    }

    /// What `self` says, and where it says nothing, what `other` says. A list is one value: it
    /// replaces the other's.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            state_dir: self.state_dir.or(other.state_dir),
            no_auth: self.no_auth.or(other.no_auth),
            max_sessions: self.max_sessions.or(other.max_sessions),
            max_sessions_per_user: self.max_sessions_per_user.or(other.max_sessions_per_user),
            idle_timeout: self.idle_timeout.or(other.idle_timeout),
            max_session_age: self.max_session_age.or(other.max_session_age),
            drain: self.drain.or(other.drain),
            start_timeout: self.start_timeout.or(other.start_timeout),
            input_timeout: self.input_timeout.or(other.input_timeout),
            stop_grace: self.stop_grace.or(other.stop_grace),
            kill_grace: self.kill_grace.or(other.kill_grace),
            max_body: self.max_body.or(other.max_body),
            max_message: self.max_message.or(other.max_message),
            max_in_flight: self.max_in_flight.or(other.max_in_flight),
            max_in_flight_per_user: self.max_in_flight_per_user.or(other.max_in_flight_per_user),
            min_free_memory: self.min_free_memory.or(other.min_free_memory),
            max_connections: self.max_connections.or(other.max_connections),
            max_connections_per_address: self
                .max_connections_per_address
                .or(other.max_connections_per_address),
            gone_status: self.gone_status.or(other.gone_status),
            public_url: self.public_url.or(other.public_url),
            allowed_origins: self.allowed_origins.or(other.allowed_origins),
            trusted_proxies: self.trusted_proxies.or(other.trusted_proxies),
            admin: self.admin.or(other.admin),
            run_as: self.run_as.or(other.run_as),
            keep_homes: self.keep_homes.or(other.keep_homes),
            log: self.log.or(other.log),
        }
    }
}

fn directory(text: &str) -> Result<PathBuf, String> {
    match text.is_empty() || text.contains('\0') {
        true => Err(format!("{text:?} is not a directory")),
        false => Ok(PathBuf::from(text)),
    }
}

fn gone_status(text: &str) -> Result<u16, String> {
    match text {
        "404" => Ok(404),
        "410" => Ok(410),
        _ => Err(format!("{text} is neither 404 nor 410")),
    }
}

/// A filter of env_logger: a level, or `module=level` pairs. It takes any other word for the name
/// of a module and then logs nothing at all, so a level with a slip in it must be found here.
fn log_filter(text: &str) -> Result<String, String> {
    for directive in text.split(',') {
        let (target, level) = directive.split_once('=').unwrap_or(("*", directive));
        if target.trim().is_empty() || level.trim().parse::<LevelFilter>().is_err() {
            return Err(format!(
                "{directive:?} is not a level: \
                 write off, error, warn, info, debug or trace, or MODULE=LEVEL,…"
            ));
        }
    }
    Ok(text.to_owned())
}
