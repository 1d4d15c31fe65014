//! [`Figures`] as a table for people, with the broker's aims below it.

use std::fmt::Write;

use super::eras::{CONNECTIONS, Change, PairFigures, ratio};
use super::figures::{Figures, Level, Target, TargetFigures};
use super::plan::{IDLE_SESSIONS, SESSIONS};

/// How far the rounds of one session may lie apart on a quiet machine, as a part of their middle.
const QUIET: f64 = 0.25;

/// All that was measured; ends with a line's end.
pub(crate) fn all(figures: &Figures) -> String {
    let mut parts = Vec::new();
    if !figures.of.is_empty() {
        parts.push(table(figures));
    }
    if !figures.eras.is_empty() {
        parts.push(eras(&figures.eras));
    }
    parts.extend(figures.changes.iter().map(change));
    parts.join("\n")
}

/// A call in both eras, beside what it takes where nothing is translated.
fn eras(pairs: &[PairFigures]) -> String {
    let mut out = String::new();
    for connections in CONNECTIONS {
        let noun = if connections == 1 { "" } else { "s" };
        let _ = write!(
            out,
            "{:40}",
            format!("Both eras, {connections} client{noun}")
        );
        for title in ["p50, us", "p99, us", "times twin", "calls/s", "own CPU, us"] {
            out.push_str(&cell(title));
        }
        out.push('\n');
        for of in pairs {
            let Some(level) = of.level(connections) else {
                continue;
            };
            let twin = of.pair.twin();
            let twin = twin.and_then(|twin| pairs.iter().find(|it| it.pair == twin));
            let twin = twin.and_then(|twin| twin.level(connections));
            let _ = write!(out, "{:40}", of.pair.name());
            for value in [
                Some(level.p50_us()),
                Some(level.p99_us()),
                twin.map(|twin| ratio(level, twin, |it| Some(it.p50_us))),
                Some(level.calls_per_s()),
                level.cpu_us(),
            ] {
                out.push_str(&cell(&value.map(number).unwrap_or_default()));
            }
            out.push('\n');
        }
        out.push('\n');
    }
    out.push_str(
        "a translated call is to take at most 1.5 times its twin: the same client over the\n\
         same program, untranslated; for the modern client over the demo server, a legacy client.\n\
         Clients of the legacy era have a child each: p50 of 8 is that of the luckier ones,\n\
         calls/s is of all\n",
    );
    out
}

/// What `--before` found.
fn change(change: &Change) -> String {
    let (before, now) = (&change.before, &change.now);
    let percent = |part: f64| part * 100.0;
    let [cpu_before, cpu_now] = [before, now].map(|it| it.cpu_us().unwrap_or_default());
    format!(
        "untranslated, {} at a time: p50 {} us before, {} us now ({:+.1} % in the middle round); \
         own CPU {} us before, {} us now ({:+.1} %)\n",
        now.sessions,
        number(before.p50_us()),
        number(now.p50_us()),
        percent(change.part(|it| Some(it.p50_us))),
        number(cpu_before),
        number(cpu_now),
        percent(change.part(|it| it.cpu_us)),
    )
}

/// The table; ends with a line's end.
fn table(figures: &Figures) -> String {
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
    use super::super::echo::Era;
    use super::super::eras::{Child, Pair};
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
            eras: Vec::new(),
            changes: Vec::new(),
        });
        assert!(table.contains("1 session, p50, us"), "{table}");
        assert!(!table.contains("8 sessions"), "{table}");
        assert!(table.contains("    1.70  MISSED"), "{table}");
        assert!(table.contains("    5.00  met"), "{table}");
    }

    #[test]
    fn what_is_translated_stands_beside_its_twin() {
        let pairs = [(Era::Legacy, 100.0), (Era::Modern, 125.0)];
        let pairs = pairs.map(|(client, p50)| PairFigures {
            pair: Pair {
                client,
                child: Child::Demo,
            },
            levels: of(Target::Broker, p50).levels,
        });
        let table = eras(&pairs);
        assert_eq!(table.matches("1.25").count(), 1, "{table}");
    }
}
