//! `serve`: the wiring and the order of shutting down; the only file that knows all others.

mod descriptors;
mod inner;
mod listeners;
mod shutdown;
mod sign_in;
mod watchdog;
mod welcome;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::process::{Resource, getrlimit};

use crate::auth::store::StoreError;
use crate::auth::{Authenticator, TokenError, TokenStore};
use crate::cgroup::Cgroups;
use crate::config::{Config, Listen, OnRefresh, ServerOptions};
use crate::edge::{self, Door, Edge, Listener};
use crate::eras::Eras;
use crate::exit::Exit;
use crate::http::{self, App, Policy, Protected};
use crate::isolation::{Isolation, IsolationError};
use crate::launch;
use crate::memory;
use crate::metrics;
use crate::orphans::Run;
use crate::private_file::FileError;
use crate::session::reaper::Reaper;
use crate::session::{self, Records, Registry, SpawnFn};
use crate::spawner::Spawner;
use crate::supervisor::Parent;
use crate::systemd;
use crate::thread::{self, Joined};
use inner::InnerSocket;
use sign_in::SigningIn;
use watchdog::{Turns, Watchdog};

/// What clients may leave untaken of their responses; three of the largest messages fit in.
const MIN_BACKLOG_BYTES: usize = 64 * 1024 * 1024;

/// Why the broker cannot serve, or cannot go on.
#[derive(Debug)]
pub(crate) enum ServeError {
    Listen {
        listen: Listen,
        source: io::Error,
    },
    /// A socket that the service manager has passed.
    Passed {
        name: String,
        source: io::Error,
    },
    /// A passed socket that other machines reach, without what should keep them out.
    OpenDoor {
        addr: SocketAddr,
        door: Door,
    },
    StateDir {
        path: PathBuf,
        source: io::Error,
    },
    Tokens(TokenError),
    /// What must be known of those who signed in.
    Store(StoreError),
    /// The provider is not as configured.
    SignIn(String),
    Records(FileError),
    Isolation(IsolationError),
    Signals(String),
    /// No thread or no descriptor is left.
    Start(io::Error),
    /// tiny_http has lost its listener.
    Http(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { listen, source } => write!(f, "cannot listen on {listen}: {source}"),
            Self::Passed { name, source } => {
                write!(f, "cannot use the passed socket {name:?}: {source}")
            }
            Self::OpenDoor { addr, door } => {
                let setting = match door {
                    Door::Public => "no_auth",
                    Door::Admin => "the admin listener",
                };
                write!(
                    f,
                    "{setting} is refused on the passed socket {addr}, which other machines can \
                     reach: pass a loopback address or a Unix socket"
                )
            }
            Self::StateDir { path, source } => {
                write!(
                    f,
                    "cannot use the state directory {}: {source}",
                    path.display()
                )
            }
            Self::Tokens(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::SignIn(why) => write!(f, "sign-in: {why}"),
            Self::Records(error) => write!(f, "cannot keep sessions: {error}"),
            Self::Isolation(error) => write!(f, "cannot isolate servers: {error}"),
            Self::Signals(why) => write!(f, "cannot handle signals: {why}"),
            Self::Start(source) => write!(f, "cannot start: {source}"),
            Self::Http(why) => write!(f, "the HTTP side has failed: {why}"),
        }
    }
}

impl ServeError {
    /// What a script is told. Trying again does not help against a wrong configuration.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::OpenDoor { .. } => Exit::Config,
            _ => Exit::Failure,
        }
    }
}

impl From<TokenError> for ServeError {
    fn from(error: TokenError) -> Self {
        Self::Tokens(error)
    }
}

/// What ends a running broker.
enum Stop {
    Signal,
    Failed(String),
}

/// Serves until a signal comes.
///
/// # Errors
/// [`ServeError`] if it cannot start or cannot go on.
pub(crate) fn run(mut config: Config) -> Result<(), ServeError> {
    let open_files = getrlimit(Resource::Nofile);
    descriptors::raise_limit(open_files);
    let (stop, stopped) = unbounded();
    handle_signals(stop.clone())?;
    let run = Arc::new(begin_run(&config)?);
    let isolation = Isolation::for_serving(&config, open_files).map_err(ServeError::Isolation)?;
    let listeners = listeners::open(&config)?;
    // Only now: a token that is made is shown once.
    let (authenticator, first_token) = authenticate(&config)?;
    let urls = listeners::urls(&listeners, Door::Public);
    let (authenticator, signing_in) = sign_in::open(&config, authenticator, &urls)?;
    let authenticator = Arc::new(authenticator);
    let admin_urls = listeners::urls(&listeners, Door::Admin);
    descriptors::fit(&mut config, !admin_urls.is_empty());
    let (inner, inner_listener) =
        InnerSocket::bind(&config.state_dir).map_err(|source| ServeError::StateDir {
            path: config.state_dir.clone(),
            source,
        })?;
    let server = tiny_http::Server::from_listener(inner_listener, None)
        .map_err(|error| ServeError::Http(error.to_string()))?;
    let server = Arc::new(server);
    isolation.log();
    let cgroups = cgroups(&run);
    let parent = Parent::start().map_err(ServeError::Start)?;
    let eras = Arc::new(Eras::open(&config, parent.nursery()));
    let SigningIn {
        protected,
        credentials,
        upkeep,
    } = signing_in;
    let spawner = Spawner::new(
        &config,
        parent.nursery(),
        isolation,
        Arc::clone(&run),
        cgroups,
        credentials,
        Arc::clone(&eras),
    )
    .map_err(ServeError::Start)?;
    let registry = registry(&config, spawner)?;
    let app = app(&config, &listeners, &registry, &authenticator, protected);
    let turns = Turns::default();
    let reaper =
        reaper(&registry, &authenticator, &run, &eras, &turns).map_err(ServeError::Start)?;
    let accept = accept(&app, &server, stop.clone()).map_err(ServeError::Start)?;
    let edge = start_edge(&config, &app, listeners, &inner, stop).map_err(ServeError::Start)?;
    let watchdog = watch(&edge, turns).map_err(ServeError::Start)?;
    welcome::print(&config, &urls, &admin_urls, first_token.as_deref());
    systemd::ready(&format!("serving on {}", urls.join(", ")));

    let failed = wait(&stopped);
    systemd::stopping("letting what is in flight finish");
    edge.leave_passed();
    eras.stop();
    shutdown::shut_down(&registry, &edge, &stopped, config.drain);
    drop(watchdog);
    drop(reaper);
    drop(upkeep);
    // What comes now is told to come again; later, nobody would answer.
    edge.stop();
    app.stop(&server);
    drop(edge);
    drop(accept);
    drop(parent);
    eras.tick();
    run.end();
    say_what_was_lost();
    log::info!("stopped");
    failed.map_or(Ok(()), |why| Err(ServeError::Http(why)))
}

fn say_what_was_lost() {
    let (garbage, dropped) = (
        metrics::CHILD_GARBAGE_LINES.get(),
        metrics::DROPPED_MESSAGES.get(),
    );
    if garbage + dropped > 0 {
        log::warn!(
            "of what children wrote, {garbage} lines were no message and {dropped} messages were \
             fetched by nobody"
        );
    }
}

/// Waits for the first reason to stop; gives the failure if it is one.
fn wait(stopped: &Receiver<Stop>) -> Option<String> {
    match stopped.recv() {
        Ok(Stop::Signal) | Err(_) => None,
        Ok(Stop::Failed(why)) => {
            log::error!("{why}");
            Some(why)
        }
    }
}

fn handle_signals(stop: Sender<Stop>) -> Result<(), ServeError> {
    ctrlc::set_handler(move || {
        // Nobody listens once everything has stopped.
        let _ = stop.send(Stop::Signal);
    })
    .map_err(|error| ServeError::Signals(error.to_string()))
}

fn report(stop: &Sender<Stop>, why: &str) {
    // Nobody listens once everything has stopped.
    let _ = stop.send(Stop::Failed(why.to_owned()));
}

/// The tokens, and one made just now if there was none.
fn authenticate(config: &Config) -> Result<(Authenticator, Option<String>), ServeError> {
    if !config.auth {
        return Ok((Authenticator::new(None)?, None));
    }
    let store = TokenStore::open(&config.state_dir)?;
    let mut first = None;
    if config.auth_server.is_none() && store.list()?.is_empty() {
        first = Some(store.add(
            welcome::FIRST_USER,
            Default::default(),
            None,
            SystemTime::now(),
        )?);
    }
    Ok((Authenticator::new(Some(store))?, first))
}

fn app(
    config: &Config,
    listeners: &[Listener],
    registry: &Arc<Registry>,
    authenticator: &Arc<Authenticator>,
    protected: Option<Protected>,
) -> Arc<App> {
    let mut policy = listened_on(listeners, Door::Public);
    if let Some(url) = &config.public_url {
        policy.hosts.push(url.host.clone());
        policy.origins.push(url.origin());
    }
    policy
        .origins
        .extend(config.allowed_origins.iter().cloned());
    let servers = config
        .servers
        .iter()
        .map(|server| server.name.as_str().into())
        .collect();
    let (registry, authenticator) = (Arc::clone(registry), Arc::clone(authenticator));
    let options = http::Options {
        policy,
        admin_policy: listened_on(listeners, Door::Admin),
        servers,
        gone_status: config.gone_status,
        protected,
    };
    App::new(registry, authenticator, options)
}

/// The addresses of a door may be named as `Host`.
fn listened_on(listeners: &[Listener], door: Door) -> Policy {
    let of_door = listeners.iter().filter(|it| it.door() == door);
    let addrs = of_door.filter_map(Listener::tcp_addr);
    // A page can rebind a name to this address, but not write the address itself as Host.
    let hosts = addrs
        .filter(|addr| !addr.ip().is_unspecified())
        .filter_map(|addr| Some(addr.to_string().rsplit_once(':')?.0.to_owned()));
    Policy {
        hosts: hosts.collect(),
        origins: Vec::new(),
    }
}

fn reaper(
    registry: &Arc<Registry>,
    authenticator: &Arc<Authenticator>,
    run: &Arc<Run>,
    eras: &Arc<Eras>,
    turns: &Turns,
) -> io::Result<Reaper> {
    let (authenticator, turns) = (Arc::clone(authenticator), Arc::clone(turns));
    let revoked = move || {
        turns.fetch_add(1, Ordering::Relaxed);
        authenticator.refresh(SystemTime::now())
    };
    let (run, eras) = (Arc::clone(run), Arc::clone(eras));
    Reaper::start(Arc::clone(registry), revoked, move |now| {
        run.tick(now);
        eras.tick();
    })
}

/// Ends what a killed broker has left.
fn begin_run(config: &Config) -> Result<Run, ServeError> {
    Run::begin(&config.state_dir).map_err(|source| ServeError::StateDir {
        path: config.state_dir.clone(),
        source,
    })
}

/// The protections are said at the start: this one, or why it is not there.
fn cgroups(run: &Run) -> Option<Cgroups> {
    match Cgroups::begin(run.id(), run.dead()) {
        Ok(cgroups) => {
            log::info!("protection cgroup=on {cgroups}");
            Some(cgroups)
        }
        Err(refusal) => {
            log::warn!(
                "protection cgroup=off (memory_max and pids_max are not in force): {refusal}"
            );
            None
        }
    }
}

fn accept(
    app: &Arc<App>,
    server: &Arc<tiny_http::Server>,
    stop: Sender<Stop>,
) -> io::Result<Joined<()>> {
    let (app, server) = (Arc::clone(app), Arc::clone(server));
    thread::spawn("accept", move || {
        if let Err(error) = http::run(&app, &server) {
            report(&stop, &error.to_string());
        }
    })
}

fn start_edge(
    config: &Config,
    app: &Arc<App>,
    listeners: Vec<Listener>,
    inner: &InnerSocket,
    stop: Sender<Stop>,
) -> io::Result<Edge> {
    let app = Arc::clone(app);
    let options = edge::Options {
        timings: edge::Timings::default(),
        max_body: config.max_body,
        max_backlog: MIN_BACKLOG_BYTES.max(config.max_message.saturating_mul(4)),
        max_connections: config.max_connections,
        max_connections_per_address: config.max_connections_per_address,
        trusted_proxies: config.trusted_proxies.clone(),
        gone: Box::new(move |connection| app.gone(connection)),
        failed: Box::new(move || report(&stop, "tiny_http has stopped listening")),
    };
    Edge::start(options, listeners, inner.path().to_owned())
}

/// Pings the service manager if it wants to be.
fn watch(edge: &Edge, turns: Turns) -> io::Result<Option<Watchdog>> {
    let Some(interval) = systemd::watchdog_interval() else {
        return Ok(None);
    };
    let pulse = edge.pulse();
    let is_felt = move |timeout| pulse.is_felt(timeout);
    Watchdog::start(interval, turns, is_felt, systemd::alive).map(Some)
}

fn registry(config: &Config, spawner: Spawner) -> Result<Arc<Registry>, ServeError> {
    let options = session::Options {
        max_sessions: config.max_sessions,
        max_sessions_per_user: config.max_sessions_per_user,
        max_in_flight_per_user: config.max_in_flight_per_user,
        idle_timeout: config.idle_timeout,
        max_age: config.max_session_age,
        min_free_memory: config.min_free_memory,
        free_memory: memory::available,
    };
    let policies = config.servers.iter().map(|server| {
        let ServerOptions {
            revive,
            park,
            on_refresh,
            ..
        } = server.options;
        let policy = session::Policy {
            revive,
            park,
            keeps_old_token: on_refresh == OnRefresh::Keep || !launch::needs_token(server),
        };
        (server.name.as_str().into(), policy)
    });
    let revives = config.servers.iter().any(|it| it.options.revive.is_some());
    let records = revives
        .then(|| Records::load(&config.state_dir))
        .transpose()
        .map_err(ServeError::Records)?;
    let spawn: SpawnFn = Box::new(move |request| spawner.spawn(request));
    Ok(Registry::new(options, policies.collect(), records, spawn))
}
