//! `serve`: the wiring and the order of shutting down; the only file that knows all others.

mod inner;
mod welcome;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, after, select, unbounded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::auth::{Authenticator, TokenError, TokenStore};
use crate::config::{Config, Listen, ServerOptions};
use crate::edge::{self, Edge, Listener};
use crate::http::{self, App, Policy};
use crate::isolation::{Isolation, IsolationError};
use crate::memory;
use crate::metrics;
use crate::private_file::FileError;
use crate::session::reaper::Reaper;
use crate::session::{self, Records, Registry, SpawnFn};
use crate::spawner::Spawner;
use crate::supervisor::{Nursery, Parent};
use crate::thread;
use inner::InnerSocket;

/// How often the drain looks whether everything is answered.
const DRAIN_TICK: Duration = Duration::from_millis(20);
/// What clients may leave untaken of their responses; three of the largest messages fit in.
const MIN_BACKLOG_BYTES: usize = 64 * 1024 * 1024;
/// How long clients may take to read the ends of their streams.
const CLIENT_GRACE: Duration = Duration::from_secs(1);

/// Why the broker cannot serve, or cannot go on.
#[derive(Debug)]
pub(crate) enum ServeError {
    Listen {
        listen: Listen,
        source: io::Error,
    },
    StateDir {
        path: PathBuf,
        source: io::Error,
    },
    Tokens(TokenError),
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
            Self::StateDir { path, source } => {
                write!(
                    f,
                    "cannot use the state directory {}: {source}",
                    path.display()
                )
            }
            Self::Tokens(error) => error.fmt(f),
            Self::Records(error) => write!(f, "cannot keep sessions: {error}"),
            Self::Isolation(error) => write!(f, "cannot isolate servers: {error}"),
            Self::Signals(why) => write!(f, "cannot handle signals: {why}"),
            Self::Start(source) => write!(f, "cannot start: {source}"),
            Self::Http(why) => write!(f, "the HTTP side has failed: {why}"),
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
    raise_descriptor_limit(open_files);
    fit_descriptors(&mut config);
    let (stop, stopped) = unbounded();
    handle_signals(stop.clone())?;
    let isolation = Isolation::for_serving(&config, open_files).map_err(ServeError::Isolation)?;
    let (authenticator, first_token) = authenticate(&config)?;
    let listener = listen(&config.listen)?;
    let (inner, inner_listener) =
        InnerSocket::bind(&config.state_dir).map_err(|source| ServeError::StateDir {
            path: config.state_dir.clone(),
            source,
        })?;
    let server = tiny_http::Server::from_listener(inner_listener, None)
        .map_err(|error| ServeError::Http(error.to_string()))?;
    let server = Arc::new(server);
    let url = welcome::url(&config, &listener);
    isolation.log();
    let parent = Parent::start().map_err(ServeError::Start)?;
    let registry = registry(&config, parent.nursery(), isolation)?;
    let app = Arc::new(app(&config, &registry, &authenticator));
    let reaper = reaper(&registry, &authenticator).map_err(ServeError::Start)?;
    let accept = {
        let (app, server, stop) = (Arc::clone(&app), Arc::clone(&server), stop.clone());
        thread::spawn("accept", move || {
            if let Err(error) = http::run(&app, &server) {
                report(&stop, &error.to_string());
            }
        })
        .map_err(ServeError::Start)?
    };
    let edge = start_edge(&config, &app, listener, &inner, stop).map_err(ServeError::Start)?;
    welcome::print(&config, &url, first_token.as_deref());

    let failed = wait(&stopped);
    shut_down(&registry, &edge, &stopped, config.drain);
    drop(reaper);
    app.stop(&server);
    drop(edge);
    drop(accept);
    drop(parent);
    if let Listen::Unix(path) = &config.listen {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(path);
    }
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
    log::info!("stopped");
    failed.map_or(Ok(()), |why| Err(ServeError::Http(why)))
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

/// Lets what is in flight finish, then ends all sessions. Another signal ends them at once.
fn shut_down(registry: &Arc<Registry>, edge: &Edge, stopped: &Receiver<Stop>, drain: Duration) {
    registry.drain();
    log::info!("shutting down sessions={}", registry.active());
    let is_drained = wait_drained(registry, stopped, drain);
    if !is_drained {
        registry.kill_all();
        edge.cut();
    }
    let stopping = Arc::clone(registry);
    let (done, is_done) = unbounded::<()>();
    let thread = thread::spawn("stop", move || {
        stopping.stop();
        drop(done);
    });
    if thread.is_err() {
        // Without a thread to watch for signals meanwhile.
        edge.cut();
        return registry.stop();
    }
    let patience = after(CLIENT_GRACE);
    loop {
        select! {
            recv(is_done) -> _ => return,
            // A client that does not read would hold the end up.
            recv(patience) -> _ => edge.cut(),
            recv(stopped) -> _ => {
                registry.kill_all();
                edge.cut();
            }
        }
    }
}

/// False if another signal came meanwhile.
fn wait_drained(registry: &Registry, stopped: &Receiver<Stop>, drain: Duration) -> bool {
    let deadline = Instant::now() + drain;
    let mut quiet = 0;
    // A request that is just being handed over is seen the second time.
    while quiet < 2 && Instant::now() < deadline {
        quiet = if registry.has_clients() { 0 } else { quiet + 1 };
        if let Ok(Stop::Signal) = stopped.recv_timeout(DRAIN_TICK) {
            log::warn!("second signal: stopping at once");
            return false;
        }
    }
    true
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

/// A connection takes four descriptors and a session takes four; the usual soft limit of 1,024
/// would end the broker at some 200 users.
fn raise_descriptor_limit(Rlimit { maximum, .. }: Rlimit) {
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        log::warn!("cannot raise the limit of open files: {error}");
    }
}

/// The tokens, and one made just now if there was none.
fn authenticate(config: &Config) -> Result<(Arc<Authenticator>, Option<String>), ServeError> {
    if !config.auth {
        return Ok((Arc::new(Authenticator::new(None)?), None));
    }
    let store = TokenStore::open(&config.state_dir)?;
    let mut first = None;
    if store.list()?.is_empty() {
        first = Some(store.add(
            welcome::FIRST_USER,
            Default::default(),
            None,
            SystemTime::now(),
        )?);
    }
    Ok((Arc::new(Authenticator::new(Some(store))?), first))
}

fn listen(listen: &Listen) -> Result<Listener, ServeError> {
    let listener = match listen {
        Listen::Tcp(addr) => Listener::tcp(*addr),
        Listen::Unix(path) => inner::remove_if_stale(path).and_then(|()| Listener::unix(path)),
    };
    listener.map_err(|source| ServeError::Listen {
        listen: listen.clone(),
        source,
    })
}

fn app(config: &Config, registry: &Arc<Registry>, authenticator: &Arc<Authenticator>) -> App {
    let mut policy = Policy::default();
    if let Listen::Tcp(addr) = &config.listen
        && !addr.ip().is_unspecified()
    {
        // A page can rebind a name to this address, but not write the address itself as Host.
        let host = addr.to_string();
        policy
            .hosts
            .extend(host.rsplit_once(':').map(|(host, _)| host.to_owned()));
    }
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
    App::new(registry, authenticator, policy, servers, config.gone_status)
}

fn reaper(registry: &Arc<Registry>, authenticator: &Arc<Authenticator>) -> io::Result<Reaper> {
    let authenticator = Arc::clone(authenticator);
    Reaper::start(Arc::clone(registry), move || {
        authenticator
            .refresh(SystemTime::now())
            .unwrap_or_else(|error| {
                log::error!("the tokens read last stay in force: {error}");
                Vec::new()
            })
    })
}

fn start_edge(
    config: &Config,
    app: &Arc<App>,
    listener: Listener,
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
    Edge::start(options, listener, inner.path().to_owned())
}

/// As many sessions and connections as configured, and no more than there can be descriptors
/// for: tiny_http ends for good when it finds none.
fn fit_descriptors(config: &mut Config) {
    const RESERVED: usize = 64 + session::ENDING_MIN * 6;
    const PER_CONNECTION: usize = 4;
    /// One that runs, and one that is being stopped.
    const PER_SESSION: usize = 2 * 6;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let available = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(RESERVED);
    let sessions = (available / 2 / PER_SESSION).max(1);
    if config.max_sessions == 0 {
        config.max_sessions = sessions;
    } else if config.max_sessions > sessions {
        log::warn!("max_sessions is {sessions}: the limit of open files is {limit}");
        config.max_sessions = sessions;
    }
    let left = available.saturating_sub(config.max_sessions.saturating_mul(PER_SESSION));
    let connections = (left / PER_CONNECTION).max(1);
    if config.max_connections > connections {
        log::warn!("max_connections is {connections}: the limit of open files is {limit}");
        config.max_connections = connections;
    }
}

fn registry(
    config: &Config,
    nursery: Nursery,
    isolation: Isolation,
) -> Result<Arc<Registry>, ServeError> {
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
        let ServerOptions { revive, park, .. } = server.options;
        (
            server.name.as_str().into(),
            session::Policy { revive, park },
        )
    });
    let revives = config.servers.iter().any(|it| it.options.revive.is_some());
    let records = revives
        .then(|| Records::load(&config.state_dir))
        .transpose()
        .map_err(ServeError::Records)?;
    let spawner = Spawner::new(config, nursery, isolation);
    let spawn: SpawnFn = Box::new(move |request| spawner.spawn(request));
    Ok(Registry::new(options, policies.collect(), records, spawn))
}
