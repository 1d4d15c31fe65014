//! Both eras of the protocol: what a call costs where client and child speak the same, and where
//! the broker translates. Calls of `echo` again, all in turn; clients of 2026-07-28 share one
//! child.

use std::path::Path;

use serde_json::{Value, json};

use super::client::{Modern, Session};
use super::echo::Era;
use super::failure::{Failure, Outcome};
use super::figures::Level;
use super::load::{Sample, median};
use super::plan::{self, Plan};
use super::server::Server;

/// Numbers of connections that call at the same time.
pub(crate) const CONNECTIONS: [usize; 2] = [1, 8];

/// The child behind the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Child {
    /// `mcp-broker demo-server`, of up to 2025-11-25.
    Demo,
    /// `fake_mcp`, which can speak either.
    Fake(Era),
}

/// A client of one era over a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) client: Era,
    pub(crate) child: Child,
}

/// What is measured, those that are compared side by side.
const PAIRS: [Pair; 6] = [
    Pair::new(Era::Legacy, Child::Demo),
    Pair::new(Era::Modern, Child::Demo),
    Pair::new(Era::Legacy, Child::Fake(Era::Legacy)),
    Pair::new(Era::Legacy, Child::Fake(Era::Modern)),
    Pair::new(Era::Modern, Child::Fake(Era::Modern)),
    Pair::new(Era::Modern, Child::Fake(Era::Legacy)),
];

impl Pair {
    const fn new(client: Era, child: Child) -> Self {
        Self { client, child }
    }

    pub(crate) fn name(self) -> String {
        format!("{} client, {}", self.client.name(), self.child.name())
    }

    /// What it costs without translation: the same program behind the broker, and the same client
    /// if the program speaks its era. `None` for a pair that is not translated.
    pub(crate) fn twin(self) -> Option<Self> {
        match self.child {
            Child::Demo if self.client == Era::Modern => Some(Self::new(Era::Legacy, self.child)),
            Child::Fake(era) if era != self.client => {
                Some(Self::new(self.client, Child::Fake(self.client)))
            }
            Child::Demo | Child::Fake(_) => None,
        }
    }
}

impl Child {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo-server (legacy)",
            Self::Fake(Era::Legacy) => "fake_mcp, legacy",
            Self::Fake(Era::Modern) => "fake_mcp, modern",
        }
    }
}

/// One pair in one run.
#[derive(Debug, PartialEq)]
pub(crate) struct PairFigures {
    pub(crate) pair: Pair,
    pub(crate) levels: Vec<Level>,
}

/// What `--before` is for: legacy clients over the demo server, through two brokers in turn.
#[derive(Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) before: Level,
    pub(crate) now: Level,
}

impl Change {
    pub(crate) fn part(&self, figure: impl Fn(&Sample) -> Option<f64>) -> f64 {
        ratio(&self.now, &self.before, figure) - 1.0
    }
}

/// The middle of what each round gave: the turns of a round are the nearest in time, so that the
/// machine's moods meet both.
pub(crate) fn ratio(over: &Level, under: &Level, figure: impl Fn(&Sample) -> Option<f64>) -> f64 {
    let rounds = over.rounds.iter().zip(&under.rounds);
    let ratios = rounds.filter_map(|(over, under)| Some(figure(over)? / figure(under)?));
    median(&ratios.collect::<Vec<f64>>())
}

/// Measures all pairs.
pub(crate) fn measure(plan: &Plan) -> Outcome<Vec<PairFigures>> {
    let start = |child| Server::start_broker(&plan.programs.broker, child, &plan.programs);
    let [demo, legacy, modern] = [
        start(Child::Demo)?,
        start(Child::Fake(Era::Legacy))?,
        start(Child::Fake(Era::Modern))?,
    ];
    let turns = PAIRS.map(|pair| {
        let server = match pair.child {
            Child::Demo => &demo,
            Child::Fake(Era::Legacy) => &legacy,
            Child::Fake(Era::Modern) => &modern,
        };
        (pair.client, server)
    });
    let mut of: Vec<PairFigures> = PAIRS
        .iter()
        .map(|pair| PairFigures {
            pair: *pair,
            levels: Vec::new(),
        })
        .collect();
    for connections in CONNECTIONS {
        let levels = take_turns(plan, "both eras", connections, &turns)?;
        for (figures, level) in of.iter_mut().zip(levels) {
            figures.levels.push(level);
        }
    }
    Ok(of)
}

/// Measures an earlier broker beside this one.
pub(crate) fn change(plan: &Plan, before: &Path) -> Outcome<Vec<Change>> {
    let start = |program| Server::start_broker(program, Child::Demo, &plan.programs);
    let servers = [start(before)?, start(&plan.programs.broker)?];
    let turns: Vec<(Era, &Server)> = servers.iter().map(|it| (Era::Legacy, it)).collect();
    let change = |connections| {
        let mut levels = take_turns(plan, "before and now", connections, &turns)?.into_iter();
        let both = levels.next().zip(levels.next());
        both.map(|(before, now)| Change { before, now })
            .ok_or_else(|| Failure::new("nothing was measured"))
    };
    CONNECTIONS.into_iter().map(change).collect()
}

/// All rounds at one number of connections. Every other round goes the other way, so that nobody
/// always comes after the same one.
fn take_turns(
    plan: &Plan,
    what: &str,
    connections: usize,
    turns: &[(Era, &Server)],
) -> Outcome<Vec<Level>> {
    let (rounds, time) = plan.rounds(connections);
    let mut samples = vec![Vec::new(); turns.len()];
    for round in 1..=rounds {
        plan::progress(&format!(
            "{what}, {connections} at a time, round {round} of {rounds}"
        ))?;
        for turn in 0..turns.len() {
            plan::still_wanted()?;
            let at = match round % 2 {
                0 => turns.len() - 1 - turn,
                _ => turn,
            };
            let (client, server) = turns[at];
            let (address, cpu) = (server.address(), || server.cpu());
            let dose = plan::dose(connections, time);
            samples[at].push(match client {
                Era::Legacy => plan::calls(connections, dose, cpu, |number| {
                    Session::open(address, number)
                })?,
                Era::Modern => plan::calls(connections, dose, cpu, |number| {
                    Modern::open(address, number)
                })?,
            });
        }
    }
    Ok(samples
        .into_iter()
        .map(|rounds| Level {
            sessions: connections,
            rounds,
        })
        .collect())
}

impl PairFigures {
    pub(crate) fn level(&self, connections: usize) -> Option<&Level> {
        self.levels.iter().find(|it| it.sessions == connections)
    }

    pub(crate) fn to_json(&self) -> Value {
        let levels: Vec<Value> = self.levels.iter().map(Level::to_json).collect();
        json!({ "name": self.pair.name(), "levels": levels })
    }

    pub(crate) fn from_json(value: &Value) -> Outcome<Self> {
        let name = value["name"].as_str().unwrap_or_default();
        let pair = PAIRS.into_iter().find(|pair| pair.name() == name);
        let levels = value["levels"].as_array().into_iter().flatten();
        Ok(Self {
            pair: pair.ok_or_else(|| Failure::new(format!("no such pair: {name}")))?,
            levels: levels.map(Level::from_json).collect::<Outcome<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_translated_has_its_twin_among_what_is_measured() {
        let translated = PAIRS.into_iter().filter(|pair| pair.twin().is_some());
        assert_eq!(translated.count(), 3);
        for twin in PAIRS.into_iter().filter_map(Pair::twin) {
            assert!(PAIRS.contains(&twin), "{twin:?}");
            assert_eq!(twin.twin(), None);
        }
    }

    #[test]
    fn a_change_is_that_of_each_round() {
        let level = |rounds: [f64; 3]| Level {
            sessions: 1,
            rounds: rounds
                .map(|p50_us| Sample {
                    p50_us,
                    p99_us: 0.0,
                    calls_per_s: 0.0,
                    cpu_us: None,
                })
                .to_vec(),
        };
        let change = Change {
            before: level([100.0, 200.0, 400.0]),
            now: level([110.0, 220.0, 400.0]),
        };
        assert!((change.part(|it| Some(it.p50_us)) - 0.1).abs() < 1e-9);
    }
}
