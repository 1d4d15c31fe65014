//! How a session gets its child: the command of its server, a bridge, and the process between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bridge::{self, Bridge, Inbound};
use crate::cgroup::{CgroupLimits, Cgroups};
use crate::config::{Config, Server};
use crate::isolation::Isolation;
use crate::launch;
use crate::metrics::{self, ChildEnd};
use crate::orphans::Run;
use crate::session::{Backend, SpawnRequest};
use crate::supervisor::{Child, Event, ExitReason, Limits, Nursery, Tether, Waker};

/// Starts the children of all servers.
pub(crate) struct Spawner {
    servers: Vec<Server>,
    nursery: Nursery,
    isolation: Isolation,
    run: Arc<Run>,
    cgroups: Option<Cgroups>,
    limits: Limits,
    max_in_flight: usize,
    start_timeout: Duration,
}

impl Spawner {
    pub(crate) fn new(
        config: &Config,
        nursery: Nursery,
        isolation: Isolation,
        run: Arc<Run>,
        cgroups: Option<Cgroups>,
    ) -> Self {
        Self {
            servers: config.servers.clone(),
            nursery,
            isolation,
            run,
            cgroups,
            limits: Limits {
                max_message: config.max_message,
                stop_grace: config.stop_grace,
                kill_grace: config.kill_grace,
            },
            max_in_flight: config.max_in_flight,
            start_timeout: config.start_timeout,
        }
    }

    /// Starts a child with its bridge.
    ///
    /// # Errors
    /// One line that says which server, and what is missing or what the operating system said.
    pub(crate) fn spawn(&self, request: SpawnRequest<'_>) -> Result<Backend, String> {
        let SpawnRequest {
            server,
            principal,
            session,
            label,
            quota,
            replay,
            host,
        } = request;
        let server = self.server(server)?;
        let (launch, home) = self
            .tether(server, label)
            .and_then(|tether| launch::prepare(server, principal, label, &self.isolation, tether))
            .map_err(|why| format!("server \"{}\": {why}", server.name))?;
        let waker = Waker::new().map_err(|error| format!("no descriptor is left: {error}"))?;
        let (redacting, quoting) = (Arc::clone(&launch.stderr), Arc::clone(&launch.stderr));
        let (waking, its_label) = (waker.clone(), label.to_owned());
        let (bridge, mut outbound, inbound) = Bridge::new(bridge::Options {
            server: server.name.clone(),
            session: session.to_owned(),
            label: label.to_owned(),
            max_in_flight: self.max_in_flight,
            quota,
            replay,
            start_timeout: self.start_timeout,
            wake: Box::new(move || waking.wake()),
            host,
            redact: Box::new(move |text, max_chars| redacting.redact(text, max_chars)),
            stderr: Box::new(move |count| quoting.last(count)),
        });
        // What the reader thread has on its stack it has in memory, for as long as it waits.
        let mut inbound = Box::new(inbound);
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
            move |event| deliver(&mut inbound, &its_label, event),
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
        })
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

    fn server(&self, name: &str) -> Result<&Server, String> {
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

fn deliver(inbound: &mut Inbound, label: &str, event: Event<'_>) {
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
