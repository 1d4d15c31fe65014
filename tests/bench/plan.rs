//! What is measured, in which order. Targets take turns, a second or less each, and rounds are
//! many: whatever else the machine does meanwhile meets all of them.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::client::Session;
use super::eras;
use super::failure::{Context, Failure, Outcome};
use super::figures::{Figures, Level, Target, TargetFigures};
use super::load::{self, Caller, Dose, Sample, median};
use super::pipe::Pipe;
use super::server::{Programs, Server};

/// Numbers of sessions that call at the same time.
pub(crate) const SESSIONS: [usize; 3] = [1, 8, 64];

/// Sessions with an open stream whose memory is measured.
pub(crate) const IDLE_SESSIONS: u16 = 100;

/// Set by SIGINT and SIGTERM. The measuring ends before its next turn, so that every server is
/// stopped.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What to measure, and how well.
pub(crate) struct Plan {
    pub(crate) targets: Vec<Target>,
    /// Both eras, too.
    pub(crate) eras: bool,
    /// An earlier broker, to be measured beside this one.
    pub(crate) before: Option<PathBuf>,
    pub(crate) quick: bool,
    /// More rounds than there would be, or fewer.
    pub(crate) rounds: Option<usize>,
    pub(crate) programs: Programs,
}

impl Plan {
    /// Rounds and the length of a turn for so many sessions.
    pub(crate) fn rounds(&self, sessions: usize) -> (usize, Duration) {
        let (rounds, millis) = match (self.quick, sessions) {
            (true, 1) => (5, 250),
            (true, _) => (1, 500),
            (false, 1) => (15, 500),
            (false, _) => (5, 1000),
        };
        let rounds = self.rounds.unwrap_or(rounds);
        (rounds, Duration::from_millis(millis))
    }

    /// How often `initialize` is timed.
    fn initializations(&self) -> usize {
        if self.quick { 5 } else { 20 }
    }
}

/// Does it all.
pub(crate) fn measure(plan: &Plan) -> Outcome<Figures> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).at(&"signals")?;
    let of = match plan.targets.is_empty() {
        true => Vec::new(),
        false => measure_targets(plan)?,
    };
    let eras = match plan.eras {
        true => eras::measure(plan)?,
        false => Vec::new(),
    };
    let changes = match &plan.before {
        Some(before) => eras::change(plan, before)?,
        None => Vec::new(),
    };
    Ok(Figures {
        machine: machine(),
        of,
        eras,
        changes,
    })
}

fn measure_targets(plan: &Plan) -> Outcome<Vec<TargetFigures>> {
    let mut of = Vec::new();
    for target in &plan.targets {
        let mut figures = TargetFigures::new(*target);
        if Target::GATEWAYS.contains(target) {
            progress(&format!("{}: memory", target.name()))?;
            measure_memory(plan, &mut figures)?;
        }
        of.push(figures);
    }
    let servers: Vec<Option<Server>> = plan
        .targets
        .iter()
        .map(|target| start(plan, *target))
        .collect::<Outcome<_>>()?;
    progress("initialize")?;
    measure_initialize(plan, &servers, &mut of)?;
    for sessions in SESSIONS {
        let (rounds, time) = plan.rounds(sessions);
        let mut samples = vec![Vec::new(); of.len()];
        for round in 1..=rounds {
            progress(&format!(
                "calls of {sessions} at a time, round {round} of {rounds}"
            ))?;
            for (server, samples) in servers.iter().zip(&mut samples) {
                still_wanted()?;
                let dose = dose(sessions, time);
                let cpu = || server.as_ref().and_then(Server::cpu);
                samples.push(match server {
                    Some(server) => calls(sessions, dose, cpu, |number| {
                        Session::open(server.address(), number)
                    })?,
                    None => calls(sessions, dose, cpu, |number| {
                        Pipe::open(&plan.programs.child(), number)
                    })?,
                });
            }
        }
        for (figures, rounds) in of.iter_mut().zip(samples) {
            figures.levels.push(Level { sessions, rounds });
        }
    }
    Ok(of)
}

/// The server of a target; none for the pipe.
fn start(plan: &Plan, target: Target) -> Outcome<Option<Server>> {
    match target {
        Target::PipeAlone => Ok(None),
        server => Server::start(server, &plan.programs).map(Some),
    }
}

/// How much to measure in one turn. The calls before are enough for a just-in-time compiler to have
/// seen the way.
pub(crate) fn dose(sessions: usize, time: Duration) -> Dose {
    Dose {
        warm_up: (200 / sessions).max(10),
        time,
        calls: 200_000,
    }
}

pub(crate) fn calls<C: Caller>(
    sessions: usize,
    dose: Dose,
    cpu: impl Fn() -> Option<Duration>,
    open: impl Fn(usize) -> Outcome<C>,
) -> Outcome<Sample> {
    let mut callers = (0..sessions).map(open).collect::<Outcome<Vec<C>>>()?;
    let sample = load::run(&mut callers, dose, cpu)?;
    callers.into_iter().try_for_each(C::close)?;
    Ok(sample)
}

/// Memory of a server of its own, before the first session and with many that do nothing.
fn measure_memory(plan: &Plan, figures: &mut TargetFigures) -> Outcome<()> {
    let server = Server::start(figures.target, &plan.programs)?;
    let idle = server.settled_memory()?;
    let mut streams = Vec::new();
    for number in 0..IDLE_SESSIONS {
        still_wanted()?;
        let session = Session::open(server.address(), usize::from(number))?;
        streams.push(session.listen()?); // the session's other connection is closed here
    }
    let full = server.settled_memory()?;
    drop(streams);
    figures.idle = Some(idle);
    figures.session_kib = Some((full.rss_kib - idle.rss_kib) / f64::from(IDLE_SESSIONS));
    Ok(())
}

/// How long `initialize` takes over each server, less what a child alone takes to start and answer
/// it.
fn measure_initialize(
    plan: &Plan,
    servers: &[Option<Server>],
    of: &mut [TargetFigures],
) -> Outcome<()> {
    let mut alone = Vec::new();
    let mut through = vec![Vec::new(); servers.len()];
    for number in 0..plan.initializations() {
        still_wanted()?;
        alone.push(
            Pipe::open(&plan.programs.child(), number)?
                .opening()
                .as_secs_f64(),
        );
        for (server, times) in servers.iter().zip(&mut through) {
            if let Some(server) = server {
                let session = Session::open(server.address(), number)?;
                times.push(session.opening().as_secs_f64());
                session.close()?;
            }
        }
    }
    for (figures, times) in of.iter_mut().zip(through) {
        if Target::GATEWAYS.contains(&figures.target) {
            figures.initialize_ms = Some((median(&times) - median(&alone)) * 1e3);
        }
    }
    Ok(())
}

pub(crate) fn still_wanted() -> Outcome<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(Failure::new("interrupted"));
    }
    Ok(())
}

pub(crate) fn progress(what: &str) -> Outcome<()> {
    still_wanted()?;
    writeln!(io::stderr(), "bench: {what}").at(&"standard error")
}

/// Processor, how many of it, and kernel.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{count} x {}, Linux {}",
        model.map_or("processor", |(_, model)| model),
        kernel.trim_end()
    )
}
