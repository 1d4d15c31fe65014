//! What was acknowledged is there after kill -9 at any moment.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use super::*;

const DIRECTORY: &str = "MCP_BROKER_TEST_STORE";
const ACKNOWLEDGED: &str = "ACK ";

/// Not a test by itself: the process that [`nothing_acknowledged_is_lost`] kills.
#[test]
fn rotates_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let store = open(Path::new(&dir));
    let mut stdout = std::io::stdout();
    for no in first(&store).. {
        let (old, new) = (no.to_string(), (no + 1).to_string());
        assert_eq!(rotate(&store, &old, &new, at(no)), "issued");
        write!(stdout, "\n{ACKNOWLEDGED}{new}\n").unwrap();
        stdout.flush().unwrap();
    }
}

/// The refresh token to begin with: the newest.
fn first(store: &Store) -> u64 {
    let newest = store.read(|db| {
        db.query_row("SELECT hash FROM refresh ORDER BY id DESC", [], |row| {
            row.get::<_, Hash>(0)
        })
    });
    let newest = newest.unwrap();
    (0..)
        .find(|no| hash(&format!("refresh-{no}")) == newest)
        .unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test has no supervisor")]
fn nothing_acknowledged_is_lost() {
    let dir = TempDir::new("store-crash");
    let store = open(dir.path());
    sign_in(&store, "1", "0");
    drop(store);
    let (_, path) = module_path!().split_once("::").unwrap();
    let test = format!("{path}::rotates_until_it_is_killed");
    for rotations in [1, 2, 3, 5, 8, 13, 40, 90, 7, 150] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (mut seen, mut text) = (0, String::new());
        while seen < rotations {
            let start = text.len();
            assert!(output.read_line(&mut text).unwrap() > 0, "{text}");
            seen += usize::from(text[start..].starts_with(ACKNOWLEDGED));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        output.read_to_string(&mut text).unwrap();
        check(dir.path(), &text);
    }
}

fn check(dir: &Path, output: &str) {
    let whole = output.rsplit_once('\n').unwrap().0;
    let numbers = whole
        .lines()
        .filter_map(|line| line.strip_prefix(ACKNOWLEDGED));
    let acknowledged: Vec<u64> = numbers.map(|no| no.parse().unwrap()).collect();
    let last = *acknowledged.last().unwrap();
    let store = open(dir);
    let newest = first(&store);
    assert!(
        newest == last || newest == last + 1,
        "{newest} after {last}"
    );
    for no in last.saturating_sub(90)..=last {
        let sql = "SELECT replaced_ms IS NOT NULL FROM refresh WHERE hash = ?1";
        let hash = hash(&format!("refresh-{no}"));
        let used: bool = store
            .read(|db| db.query_row(sql, [hash], |row| row.get(0)))
            .unwrap();
        assert_eq!(used, no < newest, "{no} of {newest}");
    }
    let tag = last.to_string();
    assert_eq!(live(&store, &[&tag], at(last)), [&tag]);
}
