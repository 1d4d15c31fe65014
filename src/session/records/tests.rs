//! What is written down of sessions: what is found again, what is not, and who may read it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Barrier};

use super::*;
use crate::session::tests::client::TempDir;
use crate::thread;

const ROUNDS: usize = 200;

fn principal(name: &str) -> Principal {
    let mut principal = Principal::anonymous();
    principal.subject = name.into();
    principal
}

fn record(user: &str, server: &str) -> Record {
    Record {
        owner: Owner::new(&principal(user), server),
        opened: at(0),
        handshake: Handshake {
            initialize: r#"{"clientInfo":{"name":"\u00fc"}}"#.into(),
            result: r#"{"protocolVersion":"2025-11-25"}"#.into(),
            log_level: Some(r#"{"level":"debug"}"#.into()),
            subscriptions: vec![r#"{"uri":"x:1"}"#.into(), r#"{"uri":"x:2"}"#.into()],
            is_overfull: false,
            children: 3,
        },
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn open(dir: &TempDir) -> Records {
    Records::load(dir.path()).unwrap()
}

fn path(dir: &TempDir, id: &str) -> std::path::PathBuf {
    let name = format!("{}{SUFFIX}", key(id));
    dir.path().join(DIRECTORY).join(name)
}

#[test]
fn what_was_saved_is_found_by_the_next_broker() {
    let dir = TempDir::new();
    let record = record("ann", "a");
    open(&dir).save("id", &record, at(7), true).unwrap();
    let next = open(&dir);
    assert_eq!(next.find("id"), Some((record.owner.clone(), at(7))));
    assert_eq!(next.read("id").unwrap(), Some(record));
    assert_eq!(next.find("another"), None);
    assert_eq!(next.resting(), 1);
    next.note("id", at(9));
    next.note("another", at(9));
    assert_eq!(open(&dir).find("id").unwrap().1, at(9));
}

#[test]
fn a_session_without_level_and_subscriptions_is_kept_too() {
    let dir = TempDir::new();
    let mut record = record("ann", "a");
    (record.handshake.log_level, record.handshake.subscriptions) = (None, Vec::new());
    open(&dir).save("id", &record, at(0), true).unwrap();
    assert_eq!(open(&dir).read("id").unwrap(), Some(record));
}

#[test]
fn files_are_for_nobody_else_and_do_not_tell_the_id() {
    let dir = TempDir::new();
    let id = "5e55".repeat(12);
    open(&dir)
        .save(&id, &record("ann", "a"), at(0), true)
        .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&dir.path().join(DIRECTORY)), 0o700);
    assert_eq!(dir.records().len(), 1);
    let path = path(&dir, &id);
    assert_eq!(mode(&path), 0o600);
    let text = fs::read_to_string(&path).unwrap();
    for told in [text.as_str(), path.to_str().unwrap()] {
        assert!(!told.contains(&id) && !told.contains(&id[..8]), "{told}");
    }
}

#[test]
fn what_is_forgotten_is_gone() {
    let dir = TempDir::new();
    let records = open(&dir);
    records
        .save("id", &record("ann", "a"), at(0), true)
        .unwrap();
    records.forget("id");
    records.forget("id");
    assert_eq!((records.find("id"), dir.records().len()), (None, 0));
    assert_eq!(records.read("id").unwrap(), None);
    // A child that still has something to say about it brings nothing back.
    records
        .save("id", &record("ann", "a"), at(1), false)
        .unwrap();
    records.rest("id", at(1));
    records.wake("id");
    assert_eq!((records.find("id"), dir.records().len()), (None, 0));
}

#[test]
fn what_cannot_be_used_is_removed_and_what_is_not_ours_is_left_alone() {
    let dir = TempDir::new();
    let sessions = dir.path().join(DIRECTORY);
    let records = open(&dir);
    for id in [
        "good",
        "cut",
        "no JSON",
        "newer",
        "open",
        "linked",
        "directory",
    ] {
        records.save(id, &record("ann", "a"), at(0), true).unwrap();
    }
    let text = fs::read_to_string(path(&dir, "good")).unwrap();
    fs::write(path(&dir, "cut"), &text[..text.len() / 2]).unwrap();
    fs::write(path(&dir, "no JSON"), "no JSON").unwrap();
    fs::write(
        path(&dir, "newer"),
        text.replace("\"version\":1", "\"version\":2"),
    )
    .unwrap();
    let exposed = fs::Permissions::from_mode(0o644);
    fs::set_permissions(path(&dir, "open"), exposed).unwrap();
    let mut unfinished = path(&dir, "good").into_os_string();
    unfinished.push(".new");
    fs::write(&unfinished, "half").unwrap();
    fs::remove_file(path(&dir, "linked")).unwrap();
    symlink(path(&dir, "good"), path(&dir, "linked")).unwrap();
    fs::remove_file(path(&dir, "directory")).unwrap();
    fs::create_dir(path(&dir, "directory")).unwrap();
    fs::write(sessions.join("README"), "not ours").unwrap();
    fs::write(sessions.join("ü".repeat(40)), "not ours").unwrap();
    let records = open(&dir);
    assert_eq!(records.resting(), 1);
    assert!(records.find("good").is_some());
    let mut left = dir.records();
    left.sort();
    let mut expected = vec!["README".to_owned(), "ü".repeat(40)];
    let name = |id: &str| format!("{}{SUFFIX}", key(id));
    // What cannot be read may be readable another time.
    expected.extend(["good", "linked", "directory"].map(name));
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn a_file_damaged_later_is_no_record() {
    let dir = TempDir::new();
    let records = open(&dir);
    records
        .save("id", &record("ann", "a"), at(0), true)
        .unwrap();
    for damage in [&b"{"[..], &[0xff; 100]] {
        fs::write(path(&dir, "id"), damage).unwrap();
        assert_eq!(records.read("id").unwrap(), None);
    }
    open(&dir);
    assert_eq!(dir.records().len(), 0);
    fs::write(path(&dir, "id"), "{").unwrap();
    fs::remove_file(path(&dir, "id")).unwrap();
    assert_eq!(records.read("id").unwrap(), None);
}

#[test]
fn of_a_user_so_many_are_kept_and_the_stalest_goes_first() {
    let dir = TempDir::new();
    let records = open(&dir);
    let id = |n: usize| format!("ann {n}");
    records
        .save("bob", &record("bob", "a"), at(0), true)
        .unwrap();
    records.rest("bob", at(0));
    for n in 0..MAX_PER_PRINCIPAL {
        records
            .save(&id(n), &record("ann", "a"), at(0), true)
            .unwrap();
        records.rest(&id(n), at(100 + n as u64));
    }
    records.rest(&id(0), at(1000));
    records.wake(&id(1)); // the stalest has a child
    records
        .save("next", &record("ann", "b"), at(2000), true)
        .unwrap();
    let gone: Vec<_> = (0..MAX_PER_PRINCIPAL)
        .filter(|n| records.find(&id(*n)).is_none())
        .collect();
    assert_eq!(gone, [2]);
    assert!(records.find("bob").is_some());
    assert_eq!(dir.records().len(), MAX_PER_PRINCIPAL + 1);
}

#[test]
fn what_nobody_came_back_to_expires() {
    let dir = TempDir::new();
    let records = open(&dir);
    for (id, server) in [
        ("short", "a"),
        ("long", "b"),
        ("none", "c"),
        ("running", "a"),
    ] {
        records
            .save(id, &record("ann", server), at(0), true)
            .unwrap();
        if id != "running" {
            records.rest(id, at(0));
        }
    }
    let revive = |server: &str| match server {
        "a" => Some(Duration::from_secs(10)),
        "b" => Some(Duration::from_secs(100)),
        _ => None,
    };
    let left = |now| {
        records.expire(revive, at(now));
        let ids = ["short", "long", "none", "running"].into_iter();
        ids.filter(|id| records.find(id).is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(left(9), ["short", "long", "running"]);
    assert_eq!(left(10), ["long", "running"]);
    assert_eq!(left(200), ["running"]);
    assert_eq!(dir.records().len(), 1);
}

#[test]
fn the_revoked_are_forgotten_and_nobody_else_is() {
    let dir = TempDir::new();
    let records = open(&dir);
    for user in ["ann", "bob", "eve"] {
        records.save(user, &record(user, "a"), at(0), true).unwrap();
    }
    records.forget_principals(&[principal("ann"), principal("eve")]);
    assert!(records.find("bob").is_some());
    assert_eq!(dir.records().len(), 1);
}

#[test]
fn what_is_too_much_is_refused_and_the_old_stays() {
    let dir = TempDir::new();
    let records = open(&dir);
    records
        .save("id", &record("ann", "a"), at(0), true)
        .unwrap();
    let mut large = record("ann", "a");
    large.handshake.initialize = "x".repeat(MAX_RECORD_BYTES).into();
    let why = records.save("id", &large, at(1), false).unwrap_err();
    assert!(matches!(why, RecordError::TooLarge(_)), "{why}");
    let mut overfull = record("ann", "a");
    overfull.handshake.is_overfull = true;
    let why = records.save("id", &overfull, at(1), false).unwrap_err();
    assert!(matches!(why, RecordError::Overfull), "{why}");
    assert_eq!(records.read("id").unwrap(), Some(record("ann", "a")));
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_and_blocks_nobody() {
    let dir = TempDir::new();
    let records = open(&dir);
    fs::remove_dir(dir.path().join(DIRECTORY)).unwrap();
    for _ in 0..2 {
        let why = records
            .save("id", &record("ann", "a"), at(0), true)
            .unwrap_err();
        assert!(matches!(why, RecordError::File(_)), "{why}");
    }
    records.forget("id");
    assert_eq!(records.find("id"), None);
}

/// Runs both at once.
fn at_once(one: impl FnOnce() + Send + 'static, other: impl FnOnce() + Send + 'static) {
    let barrier = Arc::new(Barrier::new(2));
    let its_barrier = Arc::clone(&barrier);
    let one = thread::spawn("one", move || {
        its_barrier.wait();
        one();
    });
    let other = thread::spawn("other", move || {
        barrier.wait();
        other();
    });
    one.unwrap().join().expect("no panic");
    other.unwrap().join().expect("no panic");
}

#[test]
fn what_is_forgotten_while_it_is_saved_is_gone() {
    let dir = TempDir::new();
    let records = Arc::new(open(&dir));
    for n in 0..ROUNDS {
        let id = n.to_string();
        records.save(&id, &record("ann", "a"), at(0), true).unwrap();
        let (saves, forgets) = (Arc::clone(&records), Arc::clone(&records));
        let (saved, forgotten) = (id.clone(), id.clone());
        at_once(
            move || {
                for _ in 0..3 {
                    saves
                        .save(&saved, &record("ann", "a"), at(1), false)
                        .unwrap();
                }
            },
            move || {
                std::thread::sleep(Duration::from_micros(n as u64 * 20));
                forgets.forget(&forgotten);
                assert_eq!(forgets.find(&forgotten), None);
            },
        );
        assert_eq!(records.find(&id), None, "round {n}");
        assert_eq!(dir.records(), [""; 0], "round {n}");
    }
}

#[test]
fn two_who_save_the_same_session_do_not_spoil_it() {
    let dir = TempDir::new();
    let records = Arc::new(open(&dir));
    records
        .save("id", &record("ann", "a"), at(0), true)
        .unwrap();
    for n in 0..ROUNDS {
        let saves = |level: &str| {
            let records = Arc::clone(&records);
            let mut record = record("ann", "a");
            record.handshake.log_level = Some(level.repeat(1 + n).into());
            move || records.save("id", &record, at(1), false).unwrap()
        };
        at_once(saves("a"), saves("b"));
        let read = records.read("id").unwrap().expect("a whole record");
        let level = read.handshake.log_level.expect("a level");
        assert!([("a").repeat(1 + n), "b".repeat(1 + n)].contains(&level.to_string()));
    }
}

#[test]
fn ages_stay_when_the_clock_is_set() {
    let dir = TempDir::new();
    let records = Records::load(dir.path()).unwrap();
    records
        .save("a", &record("ann", "a"), at(10), true)
        .unwrap();
    records.move_all(|noted| noted + Duration::from_secs(5000));
    assert_eq!(records.find("a").unwrap().1, at(5010));
    drop(records);
    let records = Records::load(dir.path()).unwrap();
    assert_eq!(records.find("a").unwrap().1, at(5010));
}
