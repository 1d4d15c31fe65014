//! Golden dialogues, and what they cannot show.

use super::*;
use crate::translate::tests::play;

fn played(file: &str) {
    play(file, |_| Box::new(ModernChild::new("demo")));
}

#[test]
fn opening() {
    played("modern_child_opening.txt");
}
