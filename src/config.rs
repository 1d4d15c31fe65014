//! What the broker is told, made one checked [`Config`]: flags win over the file's `broker` object,
//! which wins over the defaults below. It reads the file and the environment it is handed, and
//! changes nothing anywhere; what the values are for is known to `serve.rs`.
//!
//! ```text
//! {"mcpServers": {NAME: {"command": …, "args": […], "env": {…}}}, "broker": {"listen": …}}
//! ```
//!
//! `json` gives each value its line · `settings` is the table of flags and `broker` keys · `auth`
//! reads `broker.auth` · `servers` reads `mcpServers`, `server_options` what the broker may be told
//! about one of them · `template` is one `env` value · `address`, `run_as`, `units` and `nearest`
//! are pure helpers of those.

mod address;
mod auth;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod json;
mod nearest;
mod run_as;
mod server_options;
mod servers;
mod settings;
mod template;
#[cfg(test)]
mod tests;
pub(crate) mod units;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use address::{Listen, PublicUrl};
pub(crate) use auth::{AuthConfig, AuthKind, JwtConfig, UpstreamConfig, UpstreamKind};
pub(crate) use nearest::nearest;
pub(crate) use run_as::RunAs;
pub(crate) use server_options::{EraChoice, OnRefresh, ServerOptions};
pub(crate) use servers::{Server, ServerCommand};
pub(crate) use settings::{SETTINGS, Settings, Shape};
#[cfg(test)]
pub(crate) use template::Template;

use json::{Fault, Node};

/// What was typed after `serve` or `check`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServeArgs {
    /// `--config`. `None`: no file.
    pub(crate) config: Option<PathBuf>,
    /// Every other flag.
    pub(crate) settings: Settings,
    /// What came after `--`: a program and its arguments. Empty: nothing.
    pub(crate) command: Vec<String>,
}

/// What is used.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) listen: Listen,
    /// Where tokens are kept. Not yet created.
    pub(crate) state_dir: PathBuf,
    /// `false` only on a loopback address or a Unix socket.
    pub(crate) auth: bool,
    /// Who vouches for users besides the static tokens. `None`: nobody.
    pub(crate) auth_server: Option<AuthConfig>,
    /// 0: unlimited.
    pub(crate) max_sessions: usize,
    /// 0: unlimited.
    pub(crate) max_sessions_per_user: usize,
    /// How long a session may go without a request. `None`: for ever.
    pub(crate) idle_timeout: Option<Duration>,
    /// How long a session may last, whatever it does. `None`: for ever.
    pub(crate) max_session_age: Option<Duration>,
    /// How long a shutdown waits for requests in flight.
    pub(crate) drain: Duration,
    /// How long a child may take to answer `initialize`.
    pub(crate) start_timeout: Duration,
    /// How long a call that has asked its client something waits for the answer.
    pub(crate) input_timeout: Duration,
    /// From the end of a child's stdin to SIGTERM.
    pub(crate) stop_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub(crate) kill_grace: Duration,
    /// Bytes of a request's body.
    pub(crate) max_body: usize,
    /// Bytes of a line from a child.
    pub(crate) max_message: usize,
    /// Requests in flight in one session.
    pub(crate) max_in_flight: usize,
    /// Requests in flight in all sessions of one user. 0: unlimited.
    pub(crate) max_in_flight_per_user: usize,
    /// No session is opened while less memory is available, in bytes. 0: not looked at.
    pub(crate) min_free_memory: u64,
    pub(crate) max_connections: usize,
    /// 0: unlimited.
    pub(crate) max_connections_per_address: usize,
    /// The status of a session that is no more: 404, or 410 where wanted.
    pub(crate) gone_status: u16,
    pub(crate) public_url: Option<PublicUrl>,
    /// `scheme://host[:port]` each, in normal form, besides the loopback origins and that of
    /// `public_url`.
    pub(crate) allowed_origins: Vec<String>,
    /// Whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: Vec<IpAddr>,
    /// Where metrics are served: a loopback address or a Unix socket. `None`: nowhere.
    pub(crate) admin: Option<Listen>,
    /// Whose rights children run with. `None`: the broker's own, but never root's.
    pub(crate) run_as: Option<RunAs>,
    /// Whether a user's private `HOME` stays when their last session has ended.
    pub(crate) keep_homes: bool,
    /// A filter of env_logger, from the setting or from `RUST_LOG`. `None`: the default level.
    pub(crate) log: Option<String>,
    /// At least one.
    pub(crate) servers: Vec<Server>,
    /// What was ignored or looks wrong, to be logged at the start.
    pub(crate) warnings: Vec<String>,
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8787);
const DEFAULT_MAX_SESSIONS: usize = 100;
const DEFAULT_MAX_SESSIONS_PER_USER: usize = 16;
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_mins(30);
const DEFAULT_DRAIN: Duration = Duration::from_secs(10);
const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(120);
const DEFAULT_INPUT_TIMEOUT: Duration = Duration::from_mins(5);
const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(2);
const DEFAULT_KILL_GRACE: Duration = Duration::from_secs(3);
const DEFAULT_MAX_BODY_BYTES: usize = 4 << 20;
const DEFAULT_MAX_MESSAGE_BYTES: usize = 16 << 20;
const DEFAULT_MAX_IN_FLIGHT: usize = 64;
const DEFAULT_MAX_IN_FLIGHT_PER_USER: usize = 256;
const DEFAULT_MIN_FREE_MEMORY_BYTES: usize = 64 << 20;
const DEFAULT_MAX_CONNECTIONS: usize = 4096;
const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: usize = 256;
const DEFAULT_GONE_STATUS: u16 = 404;
const DEFAULT_TRUSTED_PROXIES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// The longest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why there is no configuration to run with.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    File { path: PathBuf, source: io::Error },
    /// Something in the file is wrong; lines count from 1.
    Line {
        path: PathBuf,
        line: usize,
        message: String,
    },
    /// A command line names a server, and so does the file.
    TwoSources { path: PathBuf },
    /// The file has `mcpServers`, but none of them is to be served.
    NoServer { path: PathBuf },
    /// `no_auth` on an address that others can reach.
    OpenDoor { listen: Listen },
    /// Nothing says where tokens are to be kept.
    NoStateDir,
}

/// Puts together what is used. `env` reads the broker's environment, by name.
pub(crate) fn load(
    args: &ServeArgs,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let file = match &args.config {
        Some(path) => read_file(path, env)?,
        None => FromFile::default(),
    };
    let (servers, mut warnings) = (choose_servers(args, file.servers)?, file.warnings);
    let settings = args.settings.clone().or(file.settings);
    let listen = settings.listen.clone();
    let listen = listen.unwrap_or(Listen::Tcp(DEFAULT_LISTEN));
    let auth = !settings.no_auth.unwrap_or(false);
    if let Some(from_file) = &file.auth {
        warnings.extend(check_auth(args, from_file, &settings, &listen)?);
    }
    if !auth && !listen.is_local() {
        return Err(ConfigError::OpenDoor { listen });
    }
    if let (false, Some(url)) = (auth, &settings.public_url) {
        warnings.push(format!(
            "no_auth: whoever reaches {url} is let in without a token"
        ));
    }
    Ok(Config {
        listen,
        state_dir: state_dir(settings.state_dir, env)?,
        auth,
        auth_server: file.auth.map(|(_, server)| server),
        max_sessions: settings.max_sessions.unwrap_or(DEFAULT_MAX_SESSIONS),
        max_sessions_per_user: settings
            .max_sessions_per_user
            .unwrap_or(DEFAULT_MAX_SESSIONS_PER_USER),
        idle_timeout: Some(settings.idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT))
            .filter(|time| !time.is_zero()),
        max_session_age: settings.max_session_age.filter(|time| !time.is_zero()),
        drain: settings.drain.unwrap_or(DEFAULT_DRAIN),
        start_timeout: settings.start_timeout.unwrap_or(DEFAULT_START_TIMEOUT),
        input_timeout: settings.input_timeout.unwrap_or(DEFAULT_INPUT_TIMEOUT),
        stop_grace: settings.stop_grace.unwrap_or(DEFAULT_STOP_GRACE),
        kill_grace: settings.kill_grace.unwrap_or(DEFAULT_KILL_GRACE),
        max_body: settings.max_body.unwrap_or(DEFAULT_MAX_BODY_BYTES),
        max_message: settings.max_message.unwrap_or(DEFAULT_MAX_MESSAGE_BYTES),
        max_in_flight: settings.max_in_flight.unwrap_or(DEFAULT_MAX_IN_FLIGHT),
        max_in_flight_per_user: settings
            .max_in_flight_per_user
            .unwrap_or(DEFAULT_MAX_IN_FLIGHT_PER_USER),
        min_free_memory: settings
            .min_free_memory
            .unwrap_or(DEFAULT_MIN_FREE_MEMORY_BYTES) as u64,
        max_connections: settings.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS),
        max_connections_per_address: settings
            .max_connections_per_address
            .unwrap_or(DEFAULT_MAX_CONNECTIONS_PER_ADDRESS),
        gone_status: settings.gone_status.unwrap_or(DEFAULT_GONE_STATUS),
        public_url: settings.public_url,
        allowed_origins: settings.allowed_origins.unwrap_or_default(),
        trusted_proxies: settings
            .trusted_proxies
            .unwrap_or(DEFAULT_TRUSTED_PROXIES.to_vec()),
        admin: settings.admin,
        run_as: settings.run_as,
        keep_homes: settings.keep_homes.unwrap_or(false),
        log: settings
            .log
            .or_else(|| env("RUST_LOG"))
            .filter(|filter| !filter.is_empty()),
        servers,
        warnings,
    })
}

/// Whether the `auth` object goes with all else that was said, and what there is to warn of.
fn check_auth(
    args: &ServeArgs,
    (line, server): &(usize, AuthConfig),
    settings: &Settings,
    listen: &Listen,
) -> Result<Option<String>, ConfigError> {
    let (path, no_auth) = (args.config.clone().unwrap_or_default(), settings.no_auth);
    let warning = server.warning();
    let warning = warning.map(|it| format!("{}:{line}: {it}", path.display()));
    match server.fits(no_auth == Some(true), settings.public_url.as_ref(), listen) {
        Ok(()) => Ok(warning),
        Err(message) => Err(ConfigError::Line {
            path,
            line: *line,
            message,
        }),
    }
}

/// Where tokens are kept: as typed, else as systemd says, else in the user's state directory (XDG
/// Base Directory Specification; a relative path there is to be ignored).
pub(crate) fn state_dir(
    typed: Option<PathBuf>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<PathBuf, ConfigError> {
    if let Some(path) = typed {
        return Ok(path);
    }
    // systemd lists all of a unit's state directories, with colons between them.
    let listed = env("STATE_DIRECTORY").unwrap_or_default();
    if let Some(first) = listed.split(':').next().filter(|first| !first.is_empty()) {
        return Ok(PathBuf::from(first));
    }
    let absolute = |key: &str| {
        env(key)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("mcp-broker"))
        .ok_or(ConfigError::NoStateDir)
}

/// What a file says. Without one, nothing.
#[derive(Default)]
struct FromFile {
    /// `None`: no `mcpServers`.
    servers: Option<Vec<Server>>,
    settings: Settings,
    /// With its line.
    auth: Option<(usize, AuthConfig)>,
    warnings: Vec<String>,
}

fn read_file(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<FromFile, ConfigError> {
    let text = read_text(path).map_err(|source| ConfigError::File {
        path: path.to_owned(),
        source,
    })?;
    let mut remarks = Vec::new();
    match read_document(&text, env, &mut remarks) {
        Ok(file) => {
            let warnings = remarks
                .iter()
                .map(|Fault { line, message }| format!("{}:{line}: {message}", path.display()));
            Ok(FromFile {
                warnings: warnings.collect(),
                ..file
            })
        }
        Err(Fault { line, message }) => Err(ConfigError::Line {
            path: path.to_owned(),
            line,
            message,
        }),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    match length as u64 > MAX_FILE_BYTES {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "longer than 1 MiB",
        )),
        false => Ok(text),
    }
}

fn read_document(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    remarks: &mut Vec<Fault>,
) -> Result<FromFile, Fault> {
    let mut file = FromFile::default();
    for entry in Node::parse(text)?.entries()? {
        match entry.key.as_str() {
            "mcpServers" => file.servers = Some(servers::read(&entry.value, env, remarks)?),
            "broker" => {
                let members = entry.value.entries()?;
                file.settings = Settings::read(&members, &["auth"])?;
                if let Some(auth) = members.iter().find(|member| member.key == "auth") {
                    file.auth = Some((auth.at.line(), AuthConfig::read(auth, env)?));
                }
            }
            // Written for editors.
            "$schema" => {}
            _ => return Err(entry.unknown(["mcpServers", "broker"])),
        }
    }
    Ok(file)
}

fn choose_servers(
    args: &ServeArgs,
    from_file: Option<Vec<Server>>,
) -> Result<Vec<Server>, ConfigError> {
    let path = || args.config.clone().unwrap_or_default();
    match (args.command.split_first(), from_file) {
        (Some(_), Some(_)) => Err(ConfigError::TwoSources { path: path() }),
        (Some((command, args)), None) => Ok(vec![servers::from_command_line(command, args)]),
        (None, Some(servers)) if servers.is_empty() => Err(ConfigError::NoServer { path: path() }),
        (None, Some(servers)) => Ok(servers),
        (None, None) => Ok(vec![servers::demo()]),
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(
                f,
                "cannot read the configuration file {}: {source}",
                path.display()
            ),
            Self::Line {
                path,
                line,
                message,
            } => write!(f, "{}:{line}: {message}", path.display()),
            Self::TwoSources { path } => {
                write!(
                    f,
                    "a command after -- and \"mcpServers\" in {}: leave one of them out",
                    path.display()
                )
            }
            Self::NoServer { path } => write!(
                f,
                "{}: \"mcpServers\" has no server that is not disabled",
                path.display()
            ),
            Self::OpenDoor { listen } => {
                write!(
                    f,
                    "no_auth is refused on {listen}, which other machines can reach: \
                     listen on 127.0.0.1, [::1] or unix:/PATH"
                )
            }
            Self::NoStateDir => {
                f.write_str("no directory for tokens: give --state-dir, or set HOME")
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            _ => None,
        }
    }
}
