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

use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use parking_lot::Mutex;

use crate::config::{Config, EraChoice, Server};
use crate::metrics::{self, EraVerdict};
use crate::supervisor::{Launch, Nursery};
use crate::talk::{Talk, Talks};
use memory::{Memory, Verdict};
pub(crate) use probe::{Outcome, probe};
use program::Program;

/// What is known of the eras of all servers.
pub(crate) struct Eras {
    memory: Memory,
    talks: Talks,
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
            running: Mutex::new(Some(running)),
            stopped,
        }
    }

    /// Whether `server` speaks 2026-07-28. May start a process to find out, by `start`, which gives
    /// what it takes and what it lives in; or wait for somebody else's. A program of which nothing
    /// can be found out counts as legacy, for now.
    pub(crate) fn speaks_modern<H: Send + 'static>(
        &self,
        server: &Server,
        start: impl Fn() -> Result<(Launch, H), String>,
    ) -> bool {
        let program = match self.known(server) {
            Ok(verdict) => return verdict.speaks_modern,
            Err(program) => program,
        };
        let find_out = || {
            let found = self.find_out(server, &start);
            metrics::ERA_PROBES.add(match found {
                Some(true) => EraVerdict::Modern,
                Some(false) => EraVerdict::Legacy,
                None => EraVerdict::Unknown,
            });
            found
        };
        let found = self.memory.ask(&program, SystemTime::now(), find_out);
        found.unwrap_or(false)
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
            self.memory.forget(&program);
        }
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
    ) -> Option<bool> {
        let limit = self.talks.start_timeout;
        let mut outcome = self.try_one(server, start, |talk| probe(talk, limit))?;
        if outcome == Outcome::Broken {
            // Because of the probe, or would it have done so anyway?
            outcome = self.try_one(server, start, |talk| probe::greet(talk, limit))?;
        }
        let name = &server.name;
        match outcome {
            Outcome::Modern => log::info!("server \"{name}\" speaks 2026-07-28"),
            Outcome::Legacy => log::info!("server \"{name}\" does not speak 2026-07-28"),
            Outcome::Broken => log::warn!("server \"{name}\" does not say which eras it speaks"),
            Outcome::Cancelled => {}
        }
        match outcome {
            Outcome::Modern => Some(true),
            Outcome::Legacy => Some(false),
            Outcome::Broken | Outcome::Cancelled => None,
        }
    }

    /// Starts a process, lets it be asked, and stops it.
    fn try_one<H: Send + 'static>(
        &self,
        server: &Server,
        start: &dyn Fn() -> Result<(Launch, H), String>,
        ask: impl FnOnce(&Talk) -> Outcome,
    ) -> Option<Outcome> {
        if self.stopped.try_recv() == Err(TryRecvError::Disconnected) {
            return None;
        }
        let started = start().and_then(|(launch, home)| self.talks.start(launch, home));
        let talk = started.inspect_err(|why| {
            log::warn!("server \"{}\" cannot be probed: {why}", server.name);
        });
        let talk = talk.ok()?;
        let outcome = ask(&talk);
        match outcome {
            Outcome::Cancelled => talk.kill(),
            _ => drop(talk.end()),
        }
        Some(outcome)
    }
}

/// What something can be learned of: not what the configuration has settled.
fn learnable(server: &Server) -> Option<Program> {
    Program::of(server).filter(|_| server.options.era == EraChoice::Auto)
}

#[cfg(test)]
mod tests;
