//! The token file, on disk in a directory of its own per test.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::super::tests::TempDir;
use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn names(store: &TokenStore) -> Vec<String> {
    store
        .list()
        .unwrap()
        .into_iter()
        .map(|record| record.name)
        .collect()
}

#[test]
fn a_token_is_made_kept_and_taken_away() {
    let dir = TempDir::new("token-life");
    let store = TokenStore::open(&dir.path().join("a/b")).unwrap();
    assert!(names(&store).is_empty());
    let env = BTreeMap::from([("KEY".to_owned(), "s3cret".to_owned())]);
    let alice = store
        .add(
            "alice",
            env.clone(),
            Some(Duration::from_secs(60)),
            at(1000),
        )
        .unwrap();
    let bob = store
        .add("bob@example.org", BTreeMap::new(), None, at(2000))
        .unwrap();
    assert_eq!((alice.len(), &alice[..5]), (5 + 64, "mcpb_"));
    assert!(
        alice[5..]
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
    );
    assert_ne!(alice, bob);

    let records = store.list().unwrap();
    let [first, second] = records.as_slice() else {
        panic!("{} records", records.len())
    };
    assert_eq!(
        (first.name.as_str(), first.created, first.expires),
        ("alice", at(1000), Some(at(1060)))
    );
    assert_eq!((&first.env, first.hash), (&env, hash(&alice)));
    assert_eq!(
        (second.name.as_str(), second.expires),
        ("bob@example.org", None)
    );

    store.revoke("alice").unwrap();
    assert_eq!(names(&store), ["bob@example.org"]);
    assert_eq!(
        store.revoke("alice").unwrap_err().to_string(),
        "there is no token \"alice\": see mcp-broker token list"
    );
}

#[test]
fn files_are_for_their_owner_and_hold_no_token() {
    let dir = TempDir::new("token-modes");
    let state = dir.path().join("a/b");
    let token = TokenStore::open(&state)
        .unwrap()
        .add("alice", BTreeMap::new(), None, at(0))
        .unwrap();
    assert_eq!((mode(&dir.path().join("a")), mode(&state)), (0o700, 0o700));
    assert_eq!(
        (mode(&state.join(FILE)), mode(&state.join(LOCK))),
        (0o600, 0o600)
    );
    let text = fs::read_to_string(state.join(FILE)).unwrap();
    assert!(
        text.contains(&hex::encode(hash(&token))) && !text.contains(&token[5..]),
        "{text}"
    );
    let mut left: Vec<_> = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, [FILE, LOCK]);
}

#[test]
fn what_others_could_read_or_write_is_an_error() {
    let dir = TempDir::new("token-exposed");
    let file = dir.path().join(FILE);
    let store = TokenStore::open(dir.path()).unwrap();
    store.add("alice", BTreeMap::new(), None, at(0)).unwrap();
    for exposed in [0o640, 0o604, 0o660, 0o644] {
        fs::set_permissions(&file, Permissions::from_mode(exposed)).unwrap();
        let error = store
            .list()
            .err()
            .expect("an exposed file was read")
            .to_string();
        let shown = file.display();
        assert_eq!(
            error,
            format!("{shown}: others may read it (mode {exposed:04o}): chmod 600 {shown}")
        );
    }
    fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    assert_eq!(names(&store), ["alice"]);

    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    TokenStore::open(dir.path()).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).unwrap();
    let error = TokenStore::open(dir.path()).unwrap_err().to_string();
    let shown = dir.path().display();
    assert_eq!(
        error,
        format!("{shown}: others may write to it (mode 0770): chmod 700 {shown}")
    );
}

#[test]
fn links_are_not_followed() {
    let dir = TempDir::new("token-links");
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, "untouched").unwrap();
    for name in [LOCK, FILE, "tokens.json.new"] {
        std::os::unix::fs::symlink(&elsewhere, dir.path().join(name)).unwrap();
    }
    let store = TokenStore::open(dir.path()).unwrap();
    let add = || {
        store
            .add("alice", BTreeMap::new(), None, at(0))
            .map_err(|error| error.to_string())
    };
    let refused = |name: &str| {
        let path = dir.path().join(name);
        Err(format!(
            "{}: Too many levels of symbolic links (os error 40)",
            path.display()
        ))
    };
    assert_eq!(add(), refused(LOCK));
    fs::remove_file(dir.path().join(LOCK)).unwrap();
    assert_eq!(add(), refused(FILE));
    fs::remove_file(dir.path().join(FILE)).unwrap();
    add().unwrap();
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "untouched");
}

#[test]
fn what_a_crash_left_behind_is_no_obstacle() {
    let dir = TempDir::new("token-crash");
    fs::write(dir.path().join("tokens.json.new"), "half of a fi").unwrap();
    let store = TokenStore::open(dir.path()).unwrap();
    store.add("alice", BTreeMap::new(), None, at(0)).unwrap();
    assert_eq!(names(&store), ["alice"]);
    assert_eq!(mode(&dir.path().join(FILE)), 0o600);
}

#[test]
fn names_and_environments_are_checked() {
    let dir = TempDir::new("token-checks");
    let store = TokenStore::open(dir.path()).unwrap();
    let check = |name: &str, key: &str, value: &str, expected: Option<&str>| {
        let env = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let found = store
            .add(name, env, None, at(0))
            .err()
            .map(|error| error.to_string());
        assert_eq!(found.as_deref(), expected, "{name} {key}");
    };
    check("a.b_c@d-1", "PATH", "/bin", None);
    check("b", "LD_PRELOAD", "/x.so", None);
    check("c", "_a.b-c", "", None);
    check(
        "c",
        "KEY",
        "v",
        Some("there is a token \"c\" already: revoke it first"),
    );
    let name = |name: &str| {
        format!("{name:?} is not a name: use 1 to 64 letters, digits, \".\", \"_\", \"@\" or \"-\"")
    };
    for bad in ["", "a b", "a/b", "ä", "a\nb", &"x".repeat(65)] {
        check(bad, "KEY", "v", Some(&name(bad)));
    }
    for bad in ["", "1A", "A=B", "A B", "Ä", "-A"] {
        check(
            "d",
            bad,
            "v",
            Some(&format!(
                "env {bad} is not the name of an environment variable"
            )),
        );
    }
    check(
        "d",
        "KEY",
        "s3c\0ret",
        Some("env KEY has a NUL character in its value"),
    );
    check(
        "d",
        "KEY",
        &"x".repeat(40_000),
        Some("env KEY has a value of more than 32 KiB"),
    );
    let many: BTreeMap<String, String> =
        (0..65).map(|i| (format!("K{i}"), String::new())).collect();
    assert_eq!(
        store.add("d", many, None, at(0)).unwrap_err().to_string(),
        "env * has more than 64 keys"
    );
}

#[test]
fn files_that_are_no_list_of_tokens_are_refused() {
    let hash = "ab".repeat(32);
    let token = |rest: &str| {
        format!(r#"{{"version":1,"tokens":[{{"name":"a","created":0,"env":{{}}{rest}}}]}}"#)
    };
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(parse(text).err().as_deref(), expected, "{text}");
    };
    check(r#"{"version":1,"tokens":[]}"#, None);
    check(&token(&format!(r#","sha256":"{hash}""#)), None);
    check(&token(&format!(r#","sha256":"{hash}","expires":5"#)), None);
    check(
        "",
        Some("not JSON: EOF while parsing a value at line 1 column 0"),
    );
    check("[]", Some("not an object"));
    check("{}", Some("not version 1 of the token file"));
    check(
        r#"{"version":2,"tokens":[]}"#,
        Some("not version 1 of the token file"),
    );
    check(r#"{"version":1}"#, Some("no list of \"tokens\""));
    check(
        r#"{"version":1,"tokens":[],"x":1}"#,
        Some("unknown key \"x\""),
    );
    check(
        r#"{"version":1,"tokens":[1]}"#,
        Some("token 1: not an object"),
    );
    check(&token(""), Some("token 1: no \"sha256\""));
    check(
        &token(r#","sha256":"ab""#),
        Some("token 1: \"sha256\" is not 64 hex digits"),
    );
    check(
        &token(&format!(r#","sha256":"{hash}","scope":"x""#)),
        Some("token 1: unknown key \"scope\""),
    );
    check(
        &token(&format!(r#","sha256":"{hash}","expires":"x""#)),
        Some("token 1: \"expires\" is not a time"),
    );
    check(
        &token(&format!(r#","sha256":"{hash}","expires":null"#)),
        Some("token 1: \"expires\" is not a time"),
    );
    check(
        &format!(
            r#"{{"version":1,"tokens":[{{"name":"a","created":0,"sha256":"{hash}","env":[]}}]}}"#
        ),
        Some("token 1: no \"env\""),
    );
    let one = |name: &str, hash: &str| {
        format!(r#"{{"name":"{name}","created":0,"env":{{}},"sha256":"{hash}"}}"#)
    };
    let two = |a: String, b: String| format!(r#"{{"version":1,"tokens":[{a},{b}]}}"#);
    check(&two(one("a", &hash), one("b", &"cd".repeat(32))), None);
    check(
        &two(one("a", &hash), one("a", &"cd".repeat(32))),
        Some("token 2: \"a\" is there twice"),
    );
    check(
        &two(one("a", &hash), one("b", &hash)),
        Some("token 2: \"b\" is there twice"),
    );
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let dir = TempDir::new("token-race");
    // Each has its own store, as processes have: the lock is on the file, not in the store.
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                let store = TokenStore::open(dir.path()).unwrap();
                for i in 0..5 {
                    store
                        .add(&format!("w{writer}.{i}"), BTreeMap::new(), None, at(0))
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(names(&TokenStore::open(dir.path()).unwrap()).len(), 20);
}
