//! Plays golden dialogues: see `tests`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where a dialogue is played.
pub(in crate::bridge) trait Stage {
    fn new() -> Self;

    /// Does what one line says.
    fn perform(&mut self, line: &str);

    /// What has happened since.
    fn take_seen(&mut self) -> Vec<String>;
}

/// What becomes of a dialogue if the bridge has its way.
fn rehearse<S: Stage>(script: &str) -> String {
    let mut stage = S::new();
    let mut played = String::new();
    for line in script.lines().filter(|line| !line.starts_with('<')) {
        writeln!(played, "{line}").unwrap();
        if line.starts_with("==") {
            stage = S::new();
        } else if let Some(action) = line.strip_prefix("> ") {
            stage.perform(action);
            for seen in stage.take_seen() {
                writeln!(played, "< {seen}").unwrap();
            }
        } else {
            assert!(
                line.is_empty() || line.starts_with('#'),
                "what is {line:?}?"
            );
        }
    }
    played
}

/// Holds the bridge to `tests/data/transcripts/NAME.txt`.
pub(in crate::bridge) fn check<S: Stage>(name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/transcripts");
    let path: PathBuf = directory.join(name).with_extension("txt");
    let script = std::fs::read_to_string(&path).unwrap();
    let played = rehearse::<S>(&script);
    if std::env::var_os("BLESS").is_some() {
        return std::fs::write(&path, played).unwrap();
    }
    let mut title = "";
    for (at, (played, script)) in played.lines().zip(script.lines()).enumerate() {
        if script.starts_with("==") {
            title = script;
        }
        let line = at + 1;
        assert_eq!(
            played, script,
            "{name}.txt, line {line}, {title} (left: played)"
        );
    }
    assert_eq!(played.lines().count(), script.lines().count(), "{name}.txt");
}
