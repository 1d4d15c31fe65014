//! Replays the corpora of `tests/fuzz`, and mutations of them that are the same in each run.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::TARGETS;
use super::input::SplitMix;

/// Of each file of a corpus.
const MUTATIONS: usize = 400;
/// Bounds what the mutations of one target may take on a slow machine.
const TIME_OF_A_TARGET: Duration = Duration::from_millis(250);
/// Bytes that parsers care for.
const TELLING: &[u8] = b"\r\n :;,\"\\{}[]$-=*/?#.09aAfF\0\t\x7f\x80\xc3\xff";

/// The files of a target's corpus in the order of their names.
fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let entries = fs::read_dir(folder.join(target)).expect("a corpus");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has an empty corpus");
    files
}

/// One to four small changes.
fn mutate(data: &[u8], other: &[u8], random: &mut SplitMix) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() + 1);
        let telling = TELLING[random.below(TELLING.len())];
        match random.below(6) {
            0 => data.insert(at, telling),
            1 if at < data.len() => data[at] = telling,
            2 if at < data.len() => data[at] ^= 1 << random.below(8),
            3 if at < data.len() => drop(data.remove(at)),
            4 => {
                let end = (at + random.below(16)).min(data.len());
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece);
            }
            5 => {
                let from = random.below(other.len() + 1);
                let end = (from + random.below(32)).min(other.len());
                data.splice(at..at, other[from..end].iter().copied());
            }
            _ => data.truncate(at),
        }
    }
    data
}

/// The input that fails, as a literal of Rust.
fn replay(name: &str, target: fn(&[u8])) -> Result<(), String> {
    let files: Vec<Vec<u8>> = corpus(name)
        .iter()
        .map(|file| fs::read(file).expect("a file of a corpus"))
        .collect();
    let run = |data: &[u8]| {
        let result = catch_unwind(|| target(data));
        result.map_err(|_| format!("{name} fails: b\"{}\"", data.escape_ascii()))
    };
    let deadline = Instant::now() + TIME_OF_A_TARGET;
    let mut random = SplitMix(1);
    run(b"")?;
    files.iter().try_for_each(|data| run(data))?;
    for round in 0..MUTATIONS {
        for data in &files {
            let other = &files[round % files.len()];
            run(&mutate(data, other, &mut random))?;
        }
        if Instant::now() > deadline {
            break;
        }
    }
    Ok(())
}

#[test]
fn the_corpora_and_their_mutations_pass() {
    let results = TARGETS.iter().map(|(name, target)| replay(name, *target));
    let failures: Vec<String> = results.filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn each_target_is_built_and_has_a_corpus() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let manifest = fs::read_to_string(package.join("Cargo.toml")).expect("a manifest");
    let names = |folder: &str| {
        let entries = fs::read_dir(package.join(folder)).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.to_string_lossy().trim_end_matches(".rs").to_owned())
            .collect();
        names.sort();
        names
    };
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("targets"), targets);
    assert_eq!(names("corpus"), targets);
    for name in targets {
        assert!(
            manifest.contains(&format!("\"targets/{name}.rs\"")),
            "{name}"
        );
    }
}
