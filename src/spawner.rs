//! How a session gets its child: the command of its server, a bridge, the process between them, and
//! a translator where the two speak different eras.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rand::TryRng;
use rand::rngs::SysRng;

use crate::auth::{CredentialError, Credentials, Lease, Principal};
use crate::bridge::{self, Bridge, EraNews, Inbound};
use crate::cgroup::{CgroupLimits, Cgroups};
use crate::config::{Config, EraChoice, Server};
use crate::eras::{Eras, NotFound};
use crate::isolation::{Home, Isolation};
use crate::launch;
use crate::metrics::{self, ChildEnd};
use crate::orphans::Run;
use crate::session::{Audience, Backend, OpenError, SpawnRequest};
use crate::supervisor::{Child, Event, ExitReason, Launch, Limits, Nursery, Tether, Waker};
use crate::translate::{LegacyChild, LegacyChildOptions, ModernChild, Sealer, Translator};

/// Starts the children of all servers.
pub(crate) struct Spawner {
    servers: Vec<Arc<Server>>,
    nursery: Nursery,
    isolation: Isolation,
    run: Arc<Run>,
    cgroups: Option<Cgroups>,
    credentials: Arc<dyn Credentials>,
    eras: Arc<Eras>,
    /// Seals what a client is to bring back; no other broker's seal is worth anything here.
    key: [u8; 32],
    /// Children so far that are dressed in the modern era.
    dressed: AtomicU64,
    input_timeout: Duration,
    limits: Limits,
    max_in_flight: usize,
    start_timeout: Duration,
}

impl Spawner {
    /// # Errors
    /// The operating system gives no random bytes.
    pub(crate) fn new(
        config: &Config,
        nursery: Nursery,
        isolation: Isolation,
        run: Arc<Run>,
        cgroups: Option<Cgroups>,
        credentials: Arc<dyn Credentials>,
        eras: Arc<Eras>,
    ) -> io::Result<Self> {
        let mut key = [0; 32];
        SysRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
        Ok(Self {
            servers: config.servers.iter().cloned().map(Arc::new).collect(),
            nursery,
            isolation,
            run,
            cgroups,
            credentials,
            eras,
            key,
            dressed: AtomicU64::new(0),
            input_timeout: config.input_timeout,
            limits: Limits {
                max_message: config.max_message,
                stop_grace: config.stop_grace,
                kill_grace: config.kill_grace,
            },
            max_in_flight: config.max_in_flight,
            start_timeout: config.start_timeout,
        })
    }

    /// Starts a child with its bridge.
    ///
    /// # Errors
    /// What `check` of the request says, or one line that says which server, and what is missing or
    /// what the operating system said.
    pub(crate) fn spawn(&self, request: SpawnRequest<'_>) -> Result<Backend, OpenError> {
        let server = self.server(request.server).map_err(OpenError::Spawn)?;
        let lease = self.lease(server, request.principal)?;
        let token = lease.as_ref().map(|lease| lease.token.reveal());
        let translator = self.translator(server, &request, token)?;
        // That may have taken a while.
        (request.check)()?;
        let started = self.start(server, request, translator, token);
        let backend = started.map_err(OpenError::Spawn)?;
        Ok(Backend {
            lease: lease.map(|lease| lease.state),
            ..backend
        })
    }

    /// The user's own token, if the server's children get one and the user has one. Without it,
    /// whoever fills it in says what is missing.
    fn lease(&self, server: &Server, principal: &Principal) -> Result<Option<Lease>, OpenError> {
        if !launch::needs_token(server) {
            return Ok(None);
        }
        match self.credentials.lease(principal, SystemTime::now()) {
            Ok(lease) => Ok(Some(lease)),
            Err(CredentialError::None) => Ok(None),
            Err(CredentialError::SignInAgain) => Err(OpenError::SignInAgain),
            Err(CredentialError::TryAgain(why)) => Err(OpenError::TryAgain(why)),
        }
    }

    fn start(
        &self,
        server: &Arc<Server>,
        request: SpawnRequest<'_>,
        translator: Option<Box<dyn Translator>>,
        token: Option<&str>,
    ) -> Result<Backend, String> {
        let SpawnRequest {
            principal,
            audience,
            session,
            label,
            quota,
            replay,
            host,
            ..
        } = request;
        let (launch, home) = self.prepare(server, principal, token, label)?;
        let waker = Waker::new().map_err(|error| format!("no descriptor is left: {error}"))?;
        let (redacting, quoting) = (Arc::clone(&launch.stderr), Arc::clone(&launch.stderr));
        let (waking, alarm, its_label) = (waker.clone(), waker.clone(), label.to_owned());
        let options = bridge::Options {
            server: server.name.clone(),
            session: session.to_owned(),
            label: label.to_owned(),
            max_in_flight: self.max_in_flight,
            quota,
            replay,
            start_timeout: self.start_timeout,
            era_news: self.era_news(server),
            wake: Box::new(move || waking.wake()),
            wake_at: Box::new(move |at| alarm.wake_at(at)),
            host,
            redact: Box::new(move |text, max_chars| redacting.redact(text, max_chars)),
            stderr: Box::new(move |count| quoting.last(count)),
        };
        let (bridge, mut outbound, mut inbound) = match audience {
            Audience::OneClient => Bridge::for_session(options, translator),
            Audience::AllOfPrincipal => Bridge::for_all(options, translator),
        };
        let child = Child::start(
            &self.nursery,
            launch,
            self.limits,
            waker,
            move || {
                outbound
                    .next()
                    .inspect(|_| metrics::CHILD_MESSAGES_SENT.add(1))
            },
            move |event| deliver(&mut *inbound, &its_label, event),
        )
        .map_err(|error| {
            metrics::SPAWN_FAILURES.add(1);
            format!("server \"{}\": {error}", server.name)
        })?;
        metrics::CHILDREN_SPAWNED.add(1);
        log::debug!(
            "child {label} started pid={} user={}",
            child.pid(),
            principal.name
        );
        connect(&bridge, &child);
        let killer = child.killer();
        Ok(Backend {
            bridge,
            stop: Box::new(move || {
                child.stop();
                drop(home);
            }),
            kill: Box::new(move || killer.kill()),
            lease: None,
        })
    }

    fn prepare(
        &self,
        server: &Server,
        principal: &Principal,
        token: Option<&str>,
        label: &str,
    ) -> Result<(Launch, Home), String> {
        let isolation = &self.isolation;
        self.tether(server, label)
            .and_then(|tether| launch::prepare(server, principal, token, label, isolation, tether))
            .map_err(|why| format!("server \"{}\": {why}", server.name))
    }

    /// What stands between a front of one era and a child of the other. May start a process to
    /// find out what the child is.
    fn translator(
        &self,
        server: &Server,
        request: &SpawnRequest<'_>,
        token: Option<&str>,
    ) -> Result<Option<Box<dyn Translator>>, OpenError> {
        let SpawnRequest {
            principal, label, ..
        } = *request;
        match request.audience {
            Audience::OneClient if self.eras.is_modern_only(server) => {
                Ok(Some(Box::new(ModernChild::new(&server.name))))
            }
            Audience::OneClient => Ok(None),
            Audience::AllOfPrincipal => {
                let start = || self.prepare(server, principal, token, &format!("probe:{label}"));
                let is_wanted = || (request.check)().is_ok();
                let speaks_modern = self.eras.speaks_modern(server, start, &is_wanted);
                let speaks_modern = speaks_modern.map_err(|why| match why {
                    NotFound::Failed(why) => OpenError::Spawn(why),
                    NotFound::Busy => OpenError::Busy,
                    // Either it says why, or the broker stops.
                    NotFound::Unwanted => (request.check)().err().unwrap_or(OpenError::Draining),
                })?;
                if speaks_modern {
                    return Ok(None);
                }
                let no = self.dressed.fetch_add(1, Ordering::Relaxed);
                let Principal {
                    issuer, subject, ..
                } = principal;
                let context = format!("{issuer}\n{subject}\n{}\n{no}", server.name);
                Ok(Some(Box::new(LegacyChild::new(LegacyChildOptions {
                    server_name: server.name.clone(),
                    sealer: Sealer::new(self.key, &context),
                    input_timeout: self.input_timeout,
                }))))
            }
        }
    }

    /// What is to be done when a child is not of the era that it was taken for.
    fn era_news(&self, server: &Arc<Server>) -> Option<Box<dyn Fn(EraNews) + Send + Sync>> {
        if server.options.era != EraChoice::Auto {
            return None;
        }
        let (eras, server) = (Arc::clone(&self.eras), Arc::clone(server));
        Some(Box::new(move |news| match news {
            EraNews::ModernOnly => eras.learned_modern_only(&server),
            EraNews::NotAsKnown => eras.disproved(&server),
        }))
    }

    fn tether(&self, server: &Server, label: &str) -> Result<Tether, String> {
        let kin = self.run.kin(label);
        let limits = CgroupLimits {
            memory_max: server.options.limits.memory_max,
            pids_max: server.options.limits.pids_max,
        };
        let cgroup = self.cgroups.as_ref();
        let cgroup = cgroup.map(|it| it.child(&kin.name(), limits)).transpose();
        Ok(Tether {
            cgroup: cgroup.map_err(|error| format!("no cgroup: {error}"))?,
            kin: Some(kin),
        })
    }

    fn server(&self, name: &str) -> Result<&Arc<Server>, String> {
        let found = self.servers.iter().find(|server| server.name == name);
        found.ok_or_else(|| format!("no server \"{name}\""))
    }
}

fn connect(bridge: &Bridge, child: &Child) {
    let write_now = child.write_now();
    bridge.connect(Box::new(move |line| {
        let is_written = write_now(line);
        metrics::CHILD_MESSAGES_SENT.add(u64::from(is_written));
        is_written
    }));
}

fn deliver(inbound: &mut dyn Inbound, label: &str, event: Event<'_>) {
    let now = Instant::now();
    match event {
        Event::Line(line) => {
            metrics::CHILD_MESSAGES_RECEIVED.add(1);
            inbound.line(line, now);
        }
        Event::TooLong => inbound.line_too_long(),
        Event::Skipped { head, tail } => inbound.line_skipped(head, tail, now),
        Event::Woken => inbound.service(now),
        Event::Exited(reason) => {
            log::info!("child {label} ended: {reason}");
            metrics::CHILDREN_ENDED.add(kind(reason));
            inbound.exited(&reason.to_string(), now);
        }
    }
}

fn kind(reason: &ExitReason) -> ChildEnd {
    match reason {
        ExitReason::Code(0) => ChildEnd::Success,
        ExitReason::Code(_) => ChildEnd::Code,
        ExitReason::Signal(_) | ExitReason::OutOfMemory => ChildEnd::Signal,
        ExitReason::Unknown => ChildEnd::Unknown,
    }
}
