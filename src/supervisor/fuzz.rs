//! Fuzz targets: what a child writes to its stdout and its stderr.

use super::pipes;
use super::stderr::StderrTail;
use crate::fuzz::input::{Input, reads};

/// The first byte is the bound of a line, the second says where reads end, the rest is stdout.
pub(crate) fn lines(data: &[u8]) {
    let mut input = Input::new(data);
    let (max_message, seed) = (usize::from(input.byte()), input.byte());
    let bytes = input.rest();
    let found = pipes::cut(max_message, reads(bytes, seed));
    let mut expected = Vec::new();
    let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let is_whole = lines.peek().is_some();
        if line.len() > max_message {
            expected.push(None);
        } else if is_whole && !line.is_empty() {
            expected.push(Some(line.to_vec()));
        }
    }
    assert_eq!(found, expected);
}

/// The first byte is how many fields are secrets, the next how much of the text is wanted, the rest
/// is the text.
pub(crate) fn redact(data: &[u8]) {
    let mut input = Input::new(data);
    let (count, max_chars, seed) = (input.byte() % 4, usize::from(input.byte()), input.byte());
    let secrets: Vec<String> = (0..count).map(|_| input.text().to_owned()).collect();
    let rest = input.rest();
    let tail = StderrTail::new("fuzz".to_owned(), &secrets);
    let text = String::from_utf8_lossy(rest);
    check(&tail.redact(&text, max_chars), &secrets);
    let whole = tail.collect(std::iter::once(rest));
    assert_eq!(whole, tail.collect(reads(rest, seed)));
    whole.iter().for_each(|line| check(line, &secrets));
    // What is cut is the end: a longer piece begins with what a shorter one shows.
    let (short, long) = (
        tail.redact(&text, max_chars),
        tail.redact(&text, usize::MAX),
    );
    assert!(long.starts_with(&short), "{short:?} of {long:?}");
}

#[track_caller]
fn check(shown: &str, secrets: &[String]) {
    assert!(!shown.contains(|c: char| c.is_control()), "{shown:?}");
    let lines = secrets.iter().flat_map(|secret| secret.lines());
    for secret in lines.filter(|line| line.len() >= 4) {
        // These can arise from what stands in for something else.
        let can_arise = secret.contains(['*', ' ', '\u{fffd}']);
        assert!(
            can_arise || !shown.contains(secret),
            "{secret:?} in {shown:?}"
        );
    }
}
