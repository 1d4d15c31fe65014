//! The golden dialogues of a legacy child, and what they cannot show.

use std::time::Duration;

use super::super::tests::play;
use super::*;

fn child() -> LegacyChild {
    LegacyChild::new(Options {
        server_name: "files".to_owned(),
        sealer: Sealer::new([7; 32], "alice files 1"),
        input_timeout: Duration::from_secs(60),
    })
}

fn golden(file: &str) {
    play(file, |_| Box::new(child()));
}

#[test]
fn begins() {
    golden("legacy_child_begin.txt");
}
