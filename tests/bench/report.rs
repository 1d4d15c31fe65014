//! [`Figures`] as a table for people, with the broker's aims below it.

use std::fmt::Write;

use super::figures::{Figures, Level, Target, TargetFigures};
use super::plan::{IDLE_SESSIONS, SESSIONS};

/// How far the rounds of one session may lie apart on a quiet machine, as a part of their middle.
const QUIET: f64 = 0.25;

/// The table; ends with a line's end.
pub(crate) fn table(figures: &Figures) -> String {
    let mut out = format!("{}\n\n{:32}", figures.machine, "");
    for of in &figures.of {
        out.push_str(&cell(of.target.name()));
    }
    out.push('\n');
    for sessions in SESSIONS {
        let noun = if sessions == 1 { "session" } else { "sessions" };
        let level = |of: &TargetFigures| {
            of.levels
                .iter()
                .position(|level| level.sessions == sessions)
        };
        let mut line = |name: &str, figure: fn(&Level) -> Option<f64>| {
            let value = |of: &TargetFigures| level(of).and_then(|at| figure(&of.levels[at]));
            row(
                &mut out,
                &format!("{sessions} {noun}, {name}"),
                figures,
                value,
            );
        };
        line("p50, us", |level| Some(level.p50_us()));
        line("p99, us", |level| Some(level.p99_us()));
        line("calls/s", |level| Some(level.calls_per_s()));
        line("own CPU a call, us", Level::cpu_us);
    }
    row(&mut out, "1 session, rounds apart, %", figures, |of| {
        of.levels.first().map(|level| level.spread() * 100.0)
    });
    let mib = |kib: f64| kib / 1024.0;
    row(&mut out, "idle, resident (RSS), MiB", figures, |of| {
        of.idle.map(|idle| mib(idle.rss_kib))
    });
    row(&mut out, "idle, its share (PSS), MiB", figures, |of| {
        of.idle.and_then(|idle| idle.pss_kib).map(mib)
    });
    row(
        &mut out,
        &format!("each of {IDLE_SESSIONS} streams, KiB"),
        figures,
        |of| of.session_kib,
    );
    row(&mut out, "initialize adds, ms", figures, |of| {
        of.initialize_ms
    });
    if let Some(floor) = figures.floor_us(1) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "\nfloor of a call, HTTP alone + pipe alone: {floor:.0} us"
        );
    }
    if figures.target(Target::McpProxy).is_some() {
        out.push_str(
            "mcp-proxy starts one child for everyone; the others start one for each session\n",
        );
    }
    aims(figures, &mut out);
    let spreads = figures
        .of
        .iter()
        .flat_map(|of| of.levels.first())
        .map(Level::spread);
    if spreads.fold(0.0, f64::max) > QUIET {
        out.push_str(
            "the rounds lie far apart: not a quiet machine, p50 of one session is a guess\n",
        );
    }
    out
}

fn row(
    out: &mut String,
    name: &str,
    figures: &Figures,
    value: impl Fn(&TargetFigures) -> Option<f64>,
) {
    if figures.of.iter().all(|of| value(of).is_none()) {
        return;
    }
    let _ = write!(out, "{name:32}");
    for of in &figures.of {
        out.push_str(&cell(&value(of).map(number).unwrap_or_default()));
    }
    out.push('\n');
}

fn cell(text: &str) -> String {
    format!("{text:>14}")
}

/// Three digits or so.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// What the broker wants to be, and whether it is.
fn aims(figures: &Figures, out: &mut String) {
    let Some(broker) = figures.target(Target::Broker) else {
        return;
    };
    let p50 = |target| figures.level(target, 1).map(Level::p50_us);
    let rate = |target| figures.level(target, 64).map(Level::calls_per_s);
    let ratio =
        |over: Option<f64>, under: Option<f64>| over.zip(under).map(|(over, under)| over / under);
    let (ours, theirs) = (p50(Target::Broker), p50(Target::Supergateway));
    let more = ratio(rate(Target::Broker), rate(Target::Supergateway));
    let mut aim = |what: &str, value: Option<f64>, met: fn(f64) -> bool| {
        if let Some(value) = value {
            let verdict = if met(value) { "met" } else { "MISSED" };
            let _ = writeln!(out, "  {what:64} {:>8}  {verdict}", number(value));
        }
    };
    aim(
        "p50 of one session, in floors: at most 1.6",
        ratio(ours, figures.floor_us(1)),
        |value| value <= 1.6,
    );
    aim(
        "p50 of one session, times faster than supergateway: at least 6",
        ratio(theirs, ours),
        |value| value >= 6.0,
    );
    aim(
        "calls/s of 64 sessions, times supergateway's: at least 8",
        more,
        |value| value >= 8.0,
    );
    aim(
        "idle, MiB: at most 6",
        broker.idle.map(|idle| idle.rss_kib / 1024.0),
        |value| value <= 6.0,
    );
    aim(
        "each idle session with its stream, KiB: at most 64",
        broker.session_kib,
        |value| value <= 64.0,
    );
}

#[cfg(test)]
mod tests {
    use super::super::figures::Memory;
    use super::super::load::Sample;
    use super::*;

    fn of(target: Target, p50_us: f64) -> TargetFigures {
        let rounds = vec![Sample {
            p50_us,
            p99_us: 2.0 * p50_us,
            calls_per_s: 1e6 / p50_us,
            cpu_us: None,
        }];
        let levels = vec![Level {
            sessions: 1,
            rounds,
        }];
        let idle = Some(Memory {
            rss_kib: 5120.0,
            pss_kib: None,
        });
        TargetFigures {
            levels,
            idle,
            ..TargetFigures::new(target)
        }
    }

    #[test]
    fn the_table_has_what_was_measured_and_judges_the_broker() {
        let targets = [
            (Target::HttpAlone, 50.0),
            (Target::PipeAlone, 50.0),
            (Target::Broker, 170.0),
        ];
        let of = targets.map(|(target, p50)| of(target, p50)).into();
        let table = table(&Figures {
            machine: "m".into(),
            of,
        });
        assert!(table.contains("1 session, p50, us"), "{table}");
        assert!(!table.contains("8 sessions"), "{table}");
        assert!(table.contains("    1.70  MISSED"), "{table}");
        assert!(table.contains("    5.00  met"), "{table}");
    }
}
