//! Which eras of the protocol a server's program speaks: told by the configuration, or found out
//! and remembered.
//!
//! A session's child is never asked: there are servers that end when they are probed, and others
//! that take no `initialize` any more (README, "Eras of a server"). So a process is started for it,
//! asked, and stopped.
//!
//! - `probe`: what to say to such a process, and what its answers mean
//! - `program`: what has to stay the same for a verdict to hold
//! - `memory`: the verdicts, and that there is one probe at a time of each program

mod memory;
mod probe;
mod program;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use parking_lot::Mutex;

use crate::config::{Config, EraChoice, Server};
use crate::metrics::{self, EraVerdict};
use crate::supervisor::{Launch, Nursery};
use crate::talk::{Talk, Talks};
use crate::thread;
use memory::{Memory, Patience, Verdict};
use probe::POLL;
pub(crate) use probe::{Outcome, probe};
use program::Program;

/// Callers that may find something out at a time, or wait for others who do: they take the threads
/// that all sessions are opened on.
const INSIDE_MAX: usize = 8;

/// Why it was not found out what a server speaks. Nothing is to be started then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// Nobody wants to know any more.
    Unwanted,
    /// Too many want to know something, or somebody else needs too long to find it out.
    Busy,
    /// No process could be started to be asked.
    Failed(String),
}

/// What is known of the eras of all servers.
pub(crate) struct Eras {
    memory: Memory,
    talks: Talks,
    /// See [`INSIDE_MAX`].
    inside: AtomicUsize,
    /// Gone once nothing is to be found out any more.
    running: Mutex<Option<Sender<()>>>,
    stopped: Receiver<()>,
}

impl Eras {
    /// Remembers what is written down in the state directory.
    pub(crate) fn open(config: &Config, nursery: Nursery) -> Self {
        let (running, stopped) = bounded(0);
        Self {
            memory: Memory::open(&config.state_dir, SystemTime::now()),
            talks: Talks::new(config, nursery).until(stopped.clone()),
            inside: AtomicUsize::new(0),
            running: Mutex::new(Some(running)),
            stopped,
        }
    }

    /// Whether `server` speaks 2026-07-28. May start a process to find out, by `start`, which gives
    /// what it takes and what it lives in; or wait for somebody else's. Either ends soon once it
    /// `is_wanted` no more. A program of which nothing can be found out counts as legacy, for a
    /// while.
    ///
    /// # Errors
    /// [`NotFound`].
    pub(crate) fn speaks_modern<H: Send + 'static>(
        &self,
        server: &Server,
        start: impl Fn() -> Result<(Launch, H), String>,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<bool, NotFound> {
        let program = match self.known(server) {
            Ok(verdict) => return Ok(verdict.speaks_modern),
            Err(program) => program,
        };
        let is_wanted = &|| !self.is_stopped() && is_wanted();
        let _inside = Inside::enter(&self.inside).ok_or(NotFound::Busy)?;
        let find_out = || {
            let found = self.find_out(server, &start, is_wanted);
            metrics::ERA_PROBES.add(match found {
                Ok(Some(true)) => EraVerdict::Modern,
                Ok(Some(false)) => EraVerdict::Legacy,
                Ok(None) | Err(_) => EraVerdict::Unknown,
            });
            found
        };
        let patience = Patience {
            deadline: Instant::now() + self.talks.start_timeout,
            is_wanted,
        };
        let now = SystemTime::now();
        let found = self.memory.ask(&program, now, patience, find_out)?;
        Ok(found.unwrap_or(false))
    }

    /// Whether `server` is known to refuse `initialize`.
    pub(crate) fn is_modern_only(&self, server: &Server) -> bool {
        self.known(server).is_ok_and(|it| it.refuses_legacy)
    }

    /// A child of `server` has refused `initialize` as only a modern one does.
    pub(crate) fn learned_modern_only(&self, server: &Server) {
        let verdict = Verdict {
            speaks_modern: true,
            refuses_legacy: true,
        };
        if let Some(program) = learnable(server) {
            log::info!("server \"{}\" speaks 2026-07-28 only", server.name);
            self.memory.learn(&program, verdict, SystemTime::now());
        }
    }

    /// A child of `server` did not speak as is known of it: it is to be found out again.
    pub(crate) fn disproved(&self, server: &Server) {
        if let Some(program) = learnable(server) {
            self.memory.forget(&program, SystemTime::now());
        }
    }

    /// Writes down what sessions have shown since the last time.
    pub(crate) fn tick(&self) {
        self.memory.flush();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Nothing is found out any more; processes that were started for it are killed.
    pub(crate) fn stop(&self) {
        drop(self.running.lock().take());
    }

    /// What the configuration says, or was learned; else what to learn it of.
    fn known(&self, server: &Server) -> Result<Verdict, Program> {
        let verdict = |speaks_modern: bool| Verdict {
            speaks_modern,
            refuses_legacy: speaks_modern,
        };
        match (server.options.era, Program::of(server)) {
            (EraChoice::Modern, _) => Ok(verdict(true)),
            (EraChoice::Legacy, _) | (EraChoice::Auto, None) => Ok(verdict(false)),
            (EraChoice::Auto, Some(program)) => {
                let known = self.memory.get(&program, SystemTime::now());
                known.ok_or(program)
            }
        }
    }

    /// `None`: it cannot be said.
    fn find_out<H: Send + 'static>(
        &self,
        server: &Server,
        start: &dyn Fn() -> Result<(Launch, H), String>,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Option<bool>, NotFound> {
        let (now, limit) = (Instant::now(), self.talks.start_timeout);
        // One that the probe silences is given the rest.
        let (probed, greeted) = (now + limit * 2 / 3, now + limit);
        let ask = |talk: &Talk| probe(talk, probed, is_wanted);
        let mut outcome = self.try_one(server, start, ask, is_wanted)?;
        if outcome == Outcome::Broken {
            // Because of the probe, or would it have done so anyway?
            let ask = |talk: &Talk| probe::greet(talk, greeted, is_wanted);
            outcome = self.try_one(server, start, ask, is_wanted)?;
        }
        let name = &server.name;
        match outcome {
            Outcome::Modern => {
                log::info!("server \"{name}\" speaks 2026-07-28");
                Ok(Some(true))
            }
            Outcome::Legacy => {
                log::info!("server \"{name}\" does not speak 2026-07-28");
                Ok(Some(false))
            }
            Outcome::Broken => {
                log::warn!("server \"{name}\" does not say which eras it speaks");
                Ok(None)
            }
            Outcome::Cancelled => Err(NotFound::Unwanted),
        }
    }

    /// Starts a process, lets it be asked, and stops it.
    fn try_one<H: Send + 'static>(
        &self,
        server: &Server,
        start: &dyn Fn() -> Result<(Launch, H), String>,
        ask: impl FnOnce(&Talk) -> Outcome,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Outcome, NotFound> {
        if !is_wanted() {
            return Err(NotFound::Unwanted);
        }
        let started = start().and_then(|(launch, home)| self.talks.start(launch, home));
        let talk = started.map_err(|why| {
            log::warn!("server \"{}\" cannot be probed: {why}", server.name);
            NotFound::Failed(why)
        })?;
        let outcome = ask(&talk);
        self.end(talk, is_wanted);
        Ok(outcome)
    }

    /// Stops a process, the polite way as long as that `is_wanted`.
    fn end(&self, talk: Talk, is_wanted: &dyn Fn() -> bool) {
        let killer = talk.killer();
        let (ending, ended) = bounded::<()>(0);
        let ladder = thread::spawn_brief("eras", move || {
            drop(talk.end());
            drop(ending);
        });
        let ladder = match ladder {
            Ok(ladder) => ladder,
            // With it, the process was let go of, which has killed it.
            Err(error) => return log::error!("cannot start a thread to stop a probe: {error}"),
        };
        // At once, if that is why it is ended.
        let mut is_killed = !is_wanted();
        if is_killed {
            killer.kill();
        }
        while ended.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
            if !is_killed && !is_wanted() {
                killer.kill();
                is_killed = true;
            }
        }
        ladder.join();
    }
}

/// One of those who may be inside; over also if they panic.
struct Inside<'a>(&'a AtomicUsize);

impl<'a> Inside<'a> {
    fn enter(inside: &'a AtomicUsize) -> Option<Self> {
        let enter = |count: usize| (count < INSIDE_MAX).then_some(count + 1);
        let entered = inside.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter);
        entered.is_ok().then(|| Self(inside))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What something can be learned of: not what the configuration has settled.
fn learnable(server: &Server) -> Option<Program> {
    Program::of(server).filter(|_| server.options.era == EraChoice::Auto)
}

#[cfg(test)]
mod tests;
