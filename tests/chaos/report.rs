//! What a run came to, for people: one line a phase, and a table at the end. Judges nothing.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::ledger::Figures;
use crate::process::Holdings;

/// How many violations are listed in full.
const LISTED: usize = 25;

/// Says a line; nobody is left to tell when stdout is gone.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// What the broker held before and after.
pub(crate) struct Balance {
    pub(crate) before: Holdings,
    pub(crate) after: Holdings,
    /// The most that is tolerated.
    pub(crate) allowed: Holdings,
    pub(crate) files_before: usize,
    pub(crate) files_after: usize,
    pub(crate) orphans: usize,
    pub(crate) zombies: usize,
}

pub(crate) fn table(figures: &Figures, balance: Option<&Balance>) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<44} {value:>10}");
    };
    row("requests", figures.asked.to_string());
    row("  answered, and checked", figures.answered.to_string());
    for (status, count) in &figures.refused {
        row(
            &format!("  refused with {status}, as documented"),
            count.to_string(),
        );
    }
    for (why, count) in &figures.interrupted {
        row(
            &format!("  without answer: {}", why.name()),
            count.to_string(),
        );
    }
    row("events, checked", figures.events.to_string());
    for (what, count) in &figures.counts {
        row(what, count.to_string());
    }
    let mut kinds = std::collections::BTreeMap::new();
    for violation in &figures.violations {
        *kinds.entry(violation.kind).or_insert(0) += 1;
    }
    use crate::ledger::Kind;
    let count = |kind| kinds.get(&kind).copied().unwrap_or(0).to_string();
    row("answers to the wrong one", count(Kind::Wrong));
    row("losses without a reason", count(Kind::Lost));
    row("streams out of order", count(Kind::Stream));
    row("other than the contract", count(Kind::Status));
    if let Some(it) = balance {
        let change = |before: usize, after: usize, allowed: usize| {
            format!("{before} -> {after} (at most {allowed})")
        };
        let (before, after, allowed) = (&it.before, &it.after, &it.allowed);
        row(
            "orphans, zombies",
            format!("{}, {}", it.orphans, it.zombies),
        );
        row(
            "threads",
            change(before.threads, after.threads, allowed.threads),
        );
        let of = |holdings: &Holdings| holdings.descriptors;
        row("descriptors", change(of(before), of(after), of(allowed)));
        let of = |holdings: &Holdings| holdings.resident_kib;
        row(
            "resident memory, KiB",
            change(of(before), of(after), of(allowed)),
        );
        row(
            "files",
            format!("{} -> {}", it.files_before, it.files_after),
        );
    }
    text
}

/// The first violations, a line each.
pub(crate) fn violations(figures: &Figures) -> String {
    let mut text = format!("{} violations:\n", figures.violations.len());
    for violation in figures.violations.iter().take(LISTED) {
        let _ = writeln!(text, "{violation}");
    }
    text
}
