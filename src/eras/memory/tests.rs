//! One at a time, for as long as it holds, and across a restart.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::bounded;

use super::super::tests::TempDir;
use super::*;
use crate::thread;

const MODERN_ONLY: Verdict = Verdict {
    speaks_modern: true,
    refuses_legacy: true,
};
const LEGACY: Verdict = Verdict {
    speaks_modern: false,
    refuses_legacy: false,
};

fn program(no: usize) -> Program {
    Program::parse(&format!("{no:064x}")).unwrap()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn must_not() -> Option<bool> {
    panic!("it is known")
}

/// For whatever must happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// With all the patience there is.
fn ask(
    memory: &Memory,
    program: &Program,
    now: SystemTime,
    find_out: impl FnOnce() -> Option<bool>,
) -> Option<bool> {
    let patience = Patience {
        deadline: Instant::now() + DEADLINE,
        is_wanted: &|| true,
    };
    let found = memory.ask(program, now, patience, || Ok(find_out()));
    found.unwrap()
}

#[test]
fn what_was_found_out_is_not_found_out_again() {
    let dir = TempDir::new("memory");
    let memory = Memory::open(dir.path(), now());
    assert_eq!(memory.get(&program(1), now()), None);
    for (no, found) in [(1, true), (2, false)] {
        let asked = ask(&memory, &program(no), now(), || Some(found));
        assert_eq!(asked, Some(found));
        assert_eq!(ask(&memory, &program(no), now(), must_not), Some(found));
    }
    memory.learn(&program(2), MODERN_ONLY, now());
    assert_eq!(memory.get(&program(2), now()), Some(MODERN_ONLY));
    memory.forget(&program(2), now());
    assert_eq!(
        ask(&memory, &program(2), now(), || Some(false)),
        Some(false)
    );
}

#[test]
fn what_could_not_be_found_out_is_not_known() {
    let dir = TempDir::new("unknown");
    let memory = Memory::open(dir.path(), now());
    assert_eq!(ask(&memory, &program(1), now(), || None), None);
    memory.flush();
    assert!(!dir.path().join(FILE).exists());
    // Not at once again.
    let soon = now() + RETRY_INTERVAL - Duration::from_secs(1);
    assert_eq!(ask(&memory, &program(1), soon, must_not), None);
    let later = now() + RETRY_INTERVAL;
    assert_eq!(ask(&memory, &program(1), later, || None), None);
    // Unless it is seen.
    memory.learn(&program(1), LEGACY, later);
    assert_eq!(ask(&memory, &program(1), later, must_not), Some(false));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        ask(&memory, &program(2), now(), || panic!("a fault"))
    }));
    assert!(panicked.is_err());
    assert_eq!(ask(&memory, &program(2), now(), || Some(true)), Some(true));
}

#[test]
fn what_was_wrong_is_forgotten_once_in_a_while() {
    let dir = TempDir::new("wrong");
    let memory = Memory::open(dir.path(), now());
    let later = now() + RETRY_INTERVAL;
    for (at, is_forgotten) in [(now(), true), (now(), false), (later, true)] {
        memory.learn(&program(1), LEGACY, at);
        memory.forget(&program(1), at);
        assert_eq!(memory.get(&program(1), at).is_none(), is_forgotten);
    }
}

#[test]
fn who_waits_for_others_waits_neither_for_ever_nor_in_vain() {
    let dir = TempDir::new("patience");
    let memory = Arc::new(Memory::open(dir.path(), now()));
    let (begun, has_begun) = bounded::<()>(0);
    let (release, gate) = bounded::<()>(0);
    let first = {
        let memory = Arc::clone(&memory);
        let find_out = move || {
            begun.send(()).unwrap();
            let _ = gate.recv(); // until the other end is gone
            Err(NotFound::Unwanted)
        };
        let work = move || {
            let patience = Patience {
                deadline: Instant::now(),
                is_wanted: &|| true,
            };
            memory.ask(&program(1), now(), patience, find_out)
        };
        thread::spawn("first", work).unwrap()
    };
    has_begun.recv_timeout(DEADLINE).unwrap();
    let wait = |deadline: Instant, is_wanted: bool| {
        let patience = Patience {
            deadline,
            is_wanted: &|| is_wanted,
        };
        memory.ask(&program(1), now(), patience, || panic!("not its turn"))
    };
    let soon = Instant::now() + Duration::from_millis(50);
    assert_eq!(wait(soon, true), Err(NotFound::Busy));
    assert!(Instant::now() >= soon);
    let never = Instant::now() + DEADLINE;
    assert_eq!(wait(never, false), Err(NotFound::Unwanted));
    assert!(Instant::now() < never);
    // That the first was called off is its own affair: the next has a turn.
    let next = {
        let memory = Arc::clone(&memory);
        let work = move || ask(&memory, &program(1), now(), || Some(true));
        thread::spawn("next", work).unwrap()
    };
    while waiting(&memory) == 0 {
        std::thread::yield_now();
    }
    drop(release);
    assert_eq!(first.join(), Some(Err(NotFound::Unwanted)));
    assert_eq!(next.join(), Some(Some(true)));
}

#[test]
fn however_many_ask_it_is_found_out_once() {
    for found in [Some(true), Some(false), None] {
        let dir = TempDir::new("crowd");
        let memory = Arc::new(Memory::open(dir.path(), now()));
        let begun = Arc::new(AtomicUsize::new(0));
        let (release, gate) = bounded::<()>(0);
        let start = |no: usize| {
            let (memory, begun, gate) = (Arc::clone(&memory), Arc::clone(&begun), gate.clone());
            let find_out = move || {
                begun.fetch_add(1, Ordering::SeqCst);
                // Until the other end is gone.
                let _ = gate.recv();
                found
            };
            let work = move || ask(&memory, &program(1), now(), find_out);
            thread::spawn(format!("ask {no}"), work).unwrap()
        };
        let first = start(0);
        while begun.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // Another program does not wait for this one.
        assert_eq!(ask(&memory, &program(2), now(), || Some(true)), Some(true));
        let others: Vec<_> = (1..16).map(start).collect();
        while waiting(&memory) < others.len() {
            std::thread::yield_now();
        }
        drop(release);
        for thread in others.into_iter().chain([first]) {
            assert_eq!(thread.join(), Some(found));
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }
}

/// How many have come to wait.
fn waiting(memory: &Memory) -> usize {
    let state = memory.state.lock();
    state
        .asking
        .get(&program(1))
        .map_or(0, |it| Arc::strong_count(it) - 1)
}

#[test]
fn it_is_known_after_a_restart() {
    let dir = TempDir::new("restart");
    let memory = Memory::open(dir.path(), now());
    ask(&memory, &program(1), now(), || Some(true));
    memory.learn(&program(2), MODERN_ONLY, now());
    ask(&memory, &program(3), now(), || Some(false));
    memory.forget(&program(3), now());
    memory.flush();
    let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions();
    assert_eq!(mode.mode() & 0o7777, 0o600);

    let memory = Memory::open(dir.path(), now());
    assert_eq!(ask(&memory, &program(1), now(), must_not), Some(true));
    assert_eq!(memory.get(&program(2), now()), Some(MODERN_ONLY));
    assert_eq!(memory.get(&program(3), now()), None);
}

#[test]
fn it_is_known_for_a_week() {
    let dir = TempDir::new("week");
    let memory = Memory::open(dir.path(), now());
    memory.learn(&program(1), LEGACY, now());
    memory.flush();
    let later = now() + MAX_AGE + Duration::from_secs(1);
    for memory in [memory, Memory::open(dir.path(), now())] {
        assert_eq!(memory.get(&program(1), now() + MAX_AGE), Some(LEGACY));
        assert_eq!(memory.get(&program(1), later), None);
        let before = now() - Duration::from_secs(1);
        assert_eq!(memory.get(&program(1), before), Some(LEGACY));
        assert_eq!(memory.get(&program(1), before - MAX_AGE), None);
    }
    let memory = Memory::open(dir.path(), later);
    assert_eq!(ask(&memory, &program(1), later, || Some(true)), Some(true));
    let clock = later - Duration::from_millis(1);
    assert_eq!(ask(&memory, &program(1), clock, must_not), Some(true));
}

#[test]
fn the_oldest_gives_way() {
    let dir = TempDir::new("many");
    let memory = Memory::open(dir.path(), now());
    for no in 0..=MAX_PROGRAMS {
        let learned = now() + Duration::from_secs(no as u64);
        memory.put(&program(no), LEGACY, learned);
    }
    memory.save();
    let last = now() + Duration::from_secs(MAX_PROGRAMS as u64);
    for memory in [memory, Memory::open(dir.path(), last)] {
        assert_eq!(memory.get(&program(0), last), None);
        for no in 1..=MAX_PROGRAMS {
            assert_eq!(memory.get(&program(no), last), Some(LEGACY), "{no}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_used_is_replaced() {
    let known = |program: &str| {
        json!({ "version": 1, "programs": [{
            "program": program, "speaks_modern": true, "refuses_legacy": false,
            "learned": 1_800_000_000u64,
        }] })
        .to_string()
    };
    let good = known(program(1).as_str());
    let check = |text: &[u8], mode: u32, expected: Option<bool>| {
        let dir = TempDir::new("damaged");
        let path = dir.path().join(FILE);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let what = String::from_utf8_lossy(text);
        let memory = Memory::open(dir.path(), now());
        let found = memory.get(&program(1), now()).map(|it| it.speaks_modern);
        assert_eq!(found, expected, "{what} {mode:o}");
        memory.learn(&program(2), LEGACY, now());
        memory.flush();
        let memory = Memory::open(dir.path(), now());
        assert_eq!(memory.get(&program(2), now()), Some(LEGACY), "{what}");
    };
    check(good.as_bytes(), 0o600, Some(true));
    check(good.as_bytes(), 0o644, None);
    check(known("cat").as_bytes(), 0o600, None);
    let newer = good.replace("\"version\":1", "\"version\":2");
    check(newer.as_bytes(), 0o600, None);
    check(good.replace("true", "1").as_bytes(), 0o600, None);
    check(&good.as_bytes()[..good.len() - 2], 0o600, None);
    check(b"", 0o600, None);
    check(b"[]", 0o600, None);
    check(b"{\"version\":1}", 0o600, None);
    check(b"\xff\xfe", 0o600, None);
}

#[test]
fn without_a_directory_it_is_known_until_the_end() {
    let dir = TempDir::new("no-dir");
    dir.write("file", "");
    let memory = Memory::open(&dir.path().join("file"), now());
    memory.learn(&program(1), MODERN_ONLY, now());
    assert_eq!(memory.get(&program(1), now()), Some(MODERN_ONLY));
}
