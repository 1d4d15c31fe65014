//! [`Figures`] as a chart for the README: a few bars a panel, in SVG written by hand, readable on
//! light and on dark.

use std::fmt::Write;

use super::figures::{Figures, Level, Target, TargetFigures};
use super::report::number;

const WIDTH: f64 = 720.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 120.0;
const LONGEST: f64 = 500.0;
const BAR: f64 = 18.0;
const ROW: f64 = 26.0;
const TITLE: f64 = 34.0;
const MARGIN: f64 = 12.0;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600}.n{text-anchor:end}\
.bar{fill:#9aa4af}.own{fill:#2563c9}.low{fill:#d5dae0}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bar{fill:#6b7681}.own{fill:#5b9bff}\
.low{fill:#3a424b}}";

/// One panel: what its bars show.
struct Panel {
    title: &'static str,
    unit: &'static str,
    value: fn(&Figures, &TargetFigures) -> Option<f64>,
    /// Where the least that is possible shows as a bar of its own.
    floor: fn(&Figures) -> Option<f64>,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "Time of a call, one session (median; less is better)",
        unit: "µs",
        value: |figures, of| figures.level(of.target, 1).map(Level::p50_us),
        floor: |figures| figures.floor_us(1),
    },
    Panel {
        title: "Calls per second, 64 sessions (more is better)",
        unit: "",
        value: |figures, of| figures.level(of.target, 64).map(Level::calls_per_s),
        floor: |_| None,
    },
    Panel {
        title: "Memory when idle (less is better)",
        unit: "MiB",
        value: |_, of| of.idle.map(|idle| idle.rss_kib / 1024.0),
        floor: |_| None,
    },
    Panel {
        title: "Memory of each idle session with an open stream (less is better)",
        unit: "KiB",
        value: |_, of| of.session_kib,
        floor: |_| None,
    },
];

/// The chart: an SVG document.
pub(crate) fn svg(figures: &Figures) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    for panel in &PANELS {
        y = draw(panel, figures, y, &mut body);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"mcp-broker compared with other gateways\">\n\
         <style>{STYLE}</style>\n{body}</svg>\n",
        height = y + MARGIN,
    )
}

/// Draws one panel from `y` down; gives where the next may begin.
fn draw(panel: &Panel, figures: &Figures, mut y: f64, out: &mut String) -> f64 {
    let gateways = Target::GATEWAYS
        .into_iter()
        .filter_map(|target| figures.target(target));
    let mut bars: Vec<(&str, &str, f64)> = (panel.floor)(figures)
        .map(|floor| ("the floor", "low", floor))
        .into_iter()
        .collect();
    for of in gateways {
        let class = if of.target == Target::Broker {
            "own"
        } else {
            "bar"
        };
        bars.extend((panel.value)(figures, of).map(|value| (of.target.name(), class, value)));
    }
    let longest = bars.iter().map(|(.., value)| *value).fold(0.0, f64::max);
    if longest <= 0.0 {
        return y;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<text class=\"t\" x=\"{MARGIN}\" y=\"{}\">{}</text>",
        y + 18.0,
        panel.title
    );
    y += TITLE - 4.0;
    for (name, class, value) in bars {
        let (length, text) = ((value / longest * LONGEST).max(1.0), y + 14.0);
        let _ = writeln!(
            out,
            "<text class=\"n\" x=\"{}\" y=\"{text}\">{name}</text>",
            LEFT - 8.0
        );
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>"
        );
        let label = format!("{} {}", number(value), panel.unit);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{text}\">{}</text>",
            LEFT + length + 6.0,
            label.trim_end()
        );
        y += ROW;
    }
    y + MARGIN
}

#[cfg(test)]
mod tests {
    use super::super::figures::Memory;
    use super::*;

    #[test]
    fn a_panel_without_figures_is_left_out() {
        let idle = Some(Memory {
            rss_kib: 2048.0,
            pss_kib: None,
        });
        let of = vec![TargetFigures {
            idle,
            ..TargetFigures::new(Target::Broker)
        }];
        let drawn = svg(&Figures {
            machine: String::new(),
            of,
            eras: Vec::new(),
            changes: Vec::new(),
        });
        assert!(drawn.contains("2.00 MiB"), "{drawn}");
        assert_eq!(drawn.matches("<rect").count(), 1, "{drawn}");
    }
}
