//! What a run of the bench found, and its file format: JSON, read again by `--compare`. Filled by
//! [`super::plan`].

use serde_json::{Value, json};

use super::eras::{Change, PairFigures};
use super::failure::{Failure, Outcome};
use super::load::{Sample, median};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    HttpAlone,
    PipeAlone,
    Broker,
    Supergateway,
    McpProxy,
}

impl Target {
    pub(crate) const ALL: [Self; 5] = [
        Self::HttpAlone,
        Self::PipeAlone,
        Self::Broker,
        Self::Supergateway,
        Self::McpProxy,
    ];

    /// Those that stand between HTTP and children.
    pub(crate) const GATEWAYS: [Self; 3] = [Self::Broker, Self::Supergateway, Self::McpProxy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HttpAlone => "HTTP alone",
            Self::PipeAlone => "pipe alone",
            Self::Broker => "mcp-broker",
            Self::Supergateway => "supergateway",
            Self::McpProxy => "mcp-proxy",
        }
    }
}

/// One run.
#[derive(Debug, PartialEq)]
pub(crate) struct Figures {
    /// Processor and kernel.
    pub(crate) machine: String,
    pub(crate) of: Vec<TargetFigures>,
    pub(crate) eras: Vec<PairFigures>,
    /// Since the broker that `--before` names; not in files.
    pub(crate) changes: Vec<Change>,
}

/// One target in one run. What was not measured is empty.
#[derive(Debug, PartialEq)]
pub(crate) struct TargetFigures {
    pub(crate) target: Target,
    pub(crate) levels: Vec<Level>,
    /// Memory of the process before its first session.
    pub(crate) idle: Option<Memory>,
    /// What a session with an open stream adds to the process, in KiB.
    pub(crate) session_kib: Option<f64>,
    /// What `initialize` takes beyond the child's own start and answer, in milliseconds.
    pub(crate) initialize_ms: Option<f64>,
}

/// Memory of one process, without its children.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    /// Resident, shared pages counted in full, in KiB.
    pub(crate) rss_kib: f64,
    /// Resident, shared pages divided among their users, in KiB; where the kernel tells.
    pub(crate) pss_kib: Option<f64>,
}

/// Calls at one number of sessions.
#[derive(Debug, PartialEq)]
pub(crate) struct Level {
    pub(crate) sessions: usize,
    pub(crate) rounds: Vec<Sample>,
}

impl Level {
    pub(crate) fn p50_us(&self) -> f64 {
        self.middle(|round| round.p50_us)
    }

    pub(crate) fn p99_us(&self) -> f64 {
        self.middle(|round| round.p99_us)
    }

    pub(crate) fn calls_per_s(&self) -> f64 {
        self.middle(|round| round.calls_per_s)
    }

    pub(crate) fn cpu_us(&self) -> Option<f64> {
        let rounds: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|round| round.cpu_us)
            .collect();
        (!rounds.is_empty()).then(|| median(&rounds))
    }

    /// How far the rounds' p50 lie apart, from quartile to quartile, as a part of their middle: one
    /// disturbed round says nothing, many say that the machine was not quiet.
    pub(crate) fn spread(&self) -> f64 {
        let mut rounds: Vec<f64> = self.rounds.iter().map(|round| round.p50_us).collect();
        rounds.sort_by(f64::total_cmp);
        let quarter = rounds.len() / 4;
        let inner = rounds
            .get(quarter..rounds.len() - quarter)
            .unwrap_or_default();
        let apart = inner
            .first()
            .zip(inner.last())
            .map_or(0.0, |(low, high)| high - low);
        apart / median(&rounds).max(f64::EPSILON)
    }

    fn middle(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(&self.rounds.iter().map(figure).collect::<Vec<f64>>())
    }
}

impl Figures {
    pub(crate) fn target(&self, target: Target) -> Option<&TargetFigures> {
        self.of.iter().find(|of| of.target == target)
    }

    pub(crate) fn level(&self, target: Target, sessions: usize) -> Option<&Level> {
        self.target(target)?
            .levels
            .iter()
            .find(|level| level.sessions == sessions)
    }

    /// The least a call can take at so many sessions, in microseconds: HTTP alone and the pipe
    /// alone.
    pub(crate) fn floor_us(&self, sessions: usize) -> Option<f64> {
        let p50 = |target| self.level(target, sessions).map(Level::p50_us);
        Some(p50(Target::HttpAlone)? + p50(Target::PipeAlone)?)
    }

    pub(crate) fn to_json(&self) -> String {
        let targets: Vec<Value> = self.of.iter().map(TargetFigures::to_json).collect();
        let eras: Vec<Value> = self.eras.iter().map(PairFigures::to_json).collect();
        format!(
            "{:#}\n",
            json!({ "machine": self.machine, "targets": targets, "eras": eras })
        )
    }

    pub(crate) fn from_json(text: &str) -> Outcome<Self> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Failure::new(format!("not JSON: {error}")))?;
        let targets = value["targets"]
            .as_array()
            .ok_or_else(|| Failure::new("no targets"))?;
        Ok(Self {
            machine: value["machine"].as_str().unwrap_or_default().to_owned(),
            of: targets
                .iter()
                .map(TargetFigures::from_json)
                .collect::<Outcome<_>>()?,
            // Older files have none.
            eras: value["eras"]
                .as_array()
                .into_iter()
                .flatten()
                .map(PairFigures::from_json)
                .collect::<Outcome<_>>()?,
            changes: Vec::new(),
        })
    }
}

impl TargetFigures {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            levels: Vec::new(),
            idle: None,
            session_kib: None,
            initialize_ms: None,
        }
    }

    fn to_json(&self) -> Value {
        let levels: Vec<Value> = self.levels.iter().map(Level::to_json).collect();
        json!({
            "name": self.target.name(),
            "levels": levels,
            "idle_rss_kib": self.idle.map(|idle| idle.rss_kib),
            "idle_pss_kib": self.idle.and_then(|idle| idle.pss_kib),
            "session_kib": self.session_kib,
            "initialize_ms": self.initialize_ms,
        })
    }

    fn from_json(value: &Value) -> Outcome<Self> {
        let name = value["name"].as_str().unwrap_or_default();
        let target = Target::ALL.into_iter().find(|target| target.name() == name);
        let levels = value["levels"]
            .as_array()
            .ok_or_else(|| Failure::new("no levels"))?;
        Ok(Self {
            target: target.ok_or_else(|| Failure::new(format!("no such target: {name}")))?,
            levels: levels
                .iter()
                .map(Level::from_json)
                .collect::<Outcome<_>>()?,
            idle: value["idle_rss_kib"].as_f64().map(|rss_kib| Memory {
                rss_kib,
                pss_kib: value["idle_pss_kib"].as_f64(),
            }),
            session_kib: value["session_kib"].as_f64(),
            initialize_ms: value["initialize_ms"].as_f64(),
        })
    }
}

impl Level {
    pub(crate) fn to_json(&self) -> Value {
        let round = |round: &Sample| {
            json!({
                "p50_us": round.p50_us,
                "p99_us": round.p99_us,
                "calls_per_s": round.calls_per_s,
                "cpu_us": round.cpu_us,
            })
        };
        let rounds: Vec<Value> = self.rounds.iter().map(round).collect();
        json!({
            "sessions": self.sessions,
            "p50_us": self.p50_us(),
            "p99_us": self.p99_us(),
            "calls_per_s": self.calls_per_s(),
            "cpu_us": self.cpu_us(),
            "rounds": rounds,
        })
    }

    pub(crate) fn from_json(value: &Value) -> Outcome<Self> {
        let round = |round: &Value| {
            Some(Sample {
                p50_us: round["p50_us"].as_f64()?,
                p99_us: round["p99_us"].as_f64()?,
                calls_per_s: round["calls_per_s"].as_f64()?,
                cpu_us: round["cpu_us"].as_f64(),
            })
        };
        let level = || {
            Some(Self {
                sessions: usize::try_from(value["sessions"].as_u64()?).ok()?,
                rounds: value["rounds"]
                    .as_array()?
                    .iter()
                    .map(round)
                    .collect::<Option<_>>()?,
            })
        };
        level().ok_or_else(|| Failure::new(format!("not a level: {value}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::echo::Era;
    use super::super::eras::{Child, Pair};
    use super::*;

    #[test]
    fn figures_survive_their_file() {
        let round = Sample {
            p50_us: 1.5,
            p99_us: 2.0,
            calls_per_s: 3.0,
            cpu_us: Some(4.0),
        };
        let mut of = TargetFigures::new(Target::Broker);
        of.levels.push(Level {
            sessions: 8,
            rounds: vec![round; 2],
        });
        of.idle = Some(Memory {
            rss_kib: 5.0,
            pss_kib: None,
        });
        let eras = vec![PairFigures {
            pair: Pair {
                client: Era::Modern,
                child: Child::Demo,
            },
            levels: vec![Level {
                sessions: 1,
                rounds: vec![round],
            }],
        }];
        let figures = Figures {
            machine: "m".into(),
            of: vec![of, TargetFigures::new(Target::HttpAlone)],
            eras,
            changes: Vec::new(),
        };
        assert_eq!(Figures::from_json(&figures.to_json()).unwrap(), figures);
        assert!(Figures::from_json(r#"{"targets":[{"name":"x","levels":[]}]}"#).is_err());
    }
}
