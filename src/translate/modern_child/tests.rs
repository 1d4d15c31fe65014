//! Golden dialogues, and what they cannot show.

use super::*;
use crate::translate::tests::play;

/// Plays a file with children that have not been spoken to.
fn played(file: &str) {
    play(file, |_| Box::new(ModernChild::new("demo")));
}

/// With children that offer this, initialized by a client that has declared that.
fn played_open(file: &str, offered: &str, declared: &str) {
    play(file, |now| {
        let mut child = ModernChild::new("demo");
        open(&mut child, offered, declared, now);
        Box::new(child)
    });
}

fn open(child: &mut ModernChild, offered: &str, declared: &str, now: Instant) {
    let mut out = Vec::new();
    let initialize = format!(
        r#"{{"jsonrpc":"2.0","id":"i","method":"initialize","params":{{"capabilities":{declared}}}}}"#
    );
    let discovered = format!(
        r#"{{"jsonrpc":"2.0","id":"mcp-broker/era/1","result":{{"supportedVersions":["2026-07-28"],"capabilities":{offered}}}}}"#
    );
    child.from_client(&initialize, now, &mut out);
    child.from_child(&discovered, now, &mut out);
    assert!(matches!(child.phase, Phase::Open), "{out:?}");
}

#[test]
fn opening() {
    played("modern_child_opening.txt");
}

#[test]
fn requests() {
    played_open("modern_child_requests.txt", "{}", "{}");
}

#[test]
fn logging() {
    played_open("modern_child_logging.txt", r#"{"logging":{}}"#, "{}");
}

#[test]
fn subscriptions() {
    let offered = r#"{"resources":{"subscribe":true,"listChanged":true},"tools":{"listChanged":true},"prompts":{"listChanged":false}}"#;
    played_open("modern_child_subscriptions.txt", offered, "{}");
}

#[test]
fn rounds() {
    let declared = r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}"#;
    played_open("modern_child_rounds.txt", "{}", declared);
}

#[test]
fn cancelling() {
    let declared = r#"{"elicitation":{},"sampling":{}}"#;
    played_open("modern_child_cancelling.txt", "{}", declared);
}
