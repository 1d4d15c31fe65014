//! The files of the store: who may read them, what stands in them, and what happens when they are
//! not as they should be.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::super::key::NotSealed;
use super::*;
use crate::private_file::FileError;

const FILES: [&str; 4] = ["seal.key", "broker.db", "broker.db-wal", "broker.db-shm"];

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn open_error(dir: &Path) -> StoreError {
    let key = match Key::load_or_create(dir, None) {
        Ok(key) => key,
        Err(error) => return error,
    };
    match Store::open(dir, Arc::new(key)) {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

/// One line that names the file and says what to do.
#[track_caller]
fn assert_says(error: &StoreError, file: &Path, words: &str) {
    let text = error.to_string();
    assert!(text.contains(&*file.to_string_lossy()), "{text}");
    assert!(text.contains(words), "{text}");
    assert!(!text.contains('\n') && text.len() < 400, "{text}");
}

#[test]
fn all_files_are_their_owners_alone() {
    let dir = TempDir::new("store-modes");
    let path = dir.path().join("state");
    let store = open(&path);
    sign_in(&store, "1", "0");
    assert_eq!(mode(&path), 0o700);
    for name in FILES {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
    drop(store);
    for (name, mode) in [
        ("broker.db", 0o640),
        ("broker.db", 0o604),
        ("seal.key", 0o644),
    ] {
        let file = path.join(name);
        chmod(&file, mode);
        let error = open_error(&path);
        assert!(
            matches!(error, StoreError::File(FileError::Exposed { .. })),
            "{error:?}"
        );
        assert_says(&error, &file, "chmod 600");
        chmod(&file, 0o600);
    }
    assert_eq!(live(&open(&path), &["0"], at(1)), ["0"]);
}

#[test]
fn a_link_is_not_followed() {
    let dir = TempDir::new("store-link");
    let target = dir.path().join("target");
    fs::write(&target, "").unwrap();
    chmod(&target, 0o600);
    for name in ["broker.db", "seal.key"] {
        let state = dir.path().join(name.replace('.', "-"));
        fs::create_dir(&state).unwrap();
        chmod(&state, 0o700);
        if name == "broker.db" {
            key(&state);
        }
        std::os::unix::fs::symlink(&target, state.join(name)).unwrap();
        let error = open_error(&state);
        assert!(matches!(error, StoreError::File(_)), "{error:?}");
        assert_eq!(fs::read(&target).unwrap(), b"");
    }
}

#[test]
fn nothing_secret_is_on_the_disk() {
    let dir = TempDir::new("store-dump");
    let store = open(dir.path());
    sign_in(&store, "1", "0");
    assert_eq!(rotate(&store, "0", "1", at(1)), "issued");
    store.save_tokens(ISSUER, "1", &upstream("new")).unwrap();
    let login = Login {
        request: super::request("secret-request", None),
        browser: hash("cookie"),
        verifier: "secret-verifier".to_owned(),
        nonce: "secret-nonce".to_owned(),
    };
    store
        .add_login(&hash("login-state"), &login, at(2))
        .unwrap();
    let secrets = [
        "code-0",
        "access-0",
        "refresh-0",
        "access-1",
        "refresh-1",
        "upstream-access",
        "upstream-refresh",
        "secret-",
        "login-state",
    ];
    let dump = |expected: &[&str]| {
        for name in expected {
            let bytes = fs::read(dir.path().join(name)).unwrap();
            for secret in secrets {
                let is_there = bytes
                    .windows(secret.len())
                    .any(|it| it == secret.as_bytes());
                assert!(!is_there, "{secret} in {name}");
            }
        }
        let all: Vec<u8> = expected
            .iter()
            .flat_map(|name| fs::read(dir.path().join(name)).unwrap())
            .collect();
        assert!(
            all.windows(10).any(|it| it == b"client-one"),
            "the dump can find text"
        );
    };
    dump(&FILES);
    drop(store);
    dump(&FILES[..2]);
}

#[test]
fn nothing_secret_is_printed() {
    let dir = TempDir::new("store-debug");
    let key = key(dir.path());
    let hex = fs::read_to_string(dir.path().join("seal.key")).unwrap();
    let texts = [format!("{:?}", upstream("x")), format!("{key:?}")];
    for text in texts {
        assert!(
            !text.contains("upstream-") && !text.contains(&hex[..8]),
            "{text}"
        );
    }
}

#[test]
fn what_is_sealed_opens_in_its_place_only() {
    let dir = TempDir::new("store-seal");
    let one = key(dir.path());
    let again = key(dir.path());
    let other = key(&dir.path().join("other"));
    for plain in [&b""[..], b"x", &[7; 5000]] {
        let sealed = one.seal(b"place", plain).unwrap();
        assert_ne!(sealed, one.seal(b"place", plain).unwrap(), "nonces differ");
        assert_eq!(again.open(b"place", &sealed).unwrap(), plain);
        assert!(matches!(one.open(b"elsewhere", &sealed), Err(NotSealed)));
        assert!(other.open(b"place", &sealed).is_err());
        for index in (0..sealed.len()).step_by(1 + sealed.len() / 64) {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(one.open(b"place", &changed).is_err(), "{index}");
            assert!(one.open(b"place", &sealed[..index]).is_err(), "{index}");
        }
    }
    assert_ne!(aad("a", &[b"bc"]), aad("ab", &[b"c"]));
    assert_ne!(aad("t", &[b"a", b"bc"]), aad("t", &[b"ab", b"c"]));
}

/// R17: a row's sealed value is of no use in another row.
#[test]
fn a_sealed_value_cannot_stand_in_another_row() {
    let dir = TempDir::new("store-moved");
    let store = open(dir.path());
    sign_in(&store, "1", "a");
    sign_in(&store, "2", "b");
    let moved = "UPDATE users SET tokens = (SELECT tokens FROM users WHERE subject = '1')";
    drop(beside(dir.path(), moved));
    assert!(store.user(ISSUER, "1").unwrap().is_some());
    let error = store.user(ISSUER, "2").unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[test]
fn the_key_must_be_a_key_and_the_one_of_the_database() {
    let dir = TempDir::new("store-keys");
    let (file, database) = (dir.path().join("seal.key"), dir.path().join("broker.db"));
    sign_in(&open(dir.path()), "1", "0");
    let right = fs::read_to_string(&file).unwrap();
    assert_eq!(right.trim().len(), 64);
    for text in [
        "",
        "xyz",
        &right[..62],
        &format!("{right}00"),
        &"g".repeat(64),
    ] {
        fs::write(&file, text).unwrap();
        let error = open_error(dir.path());
        assert!(matches!(error, StoreError::Key { .. }), "{error:?}");
        assert_says(&error, &file, "64 hexadecimal digits");
        let text = text.trim();
        assert!(text.len() < 8 || !error.to_string().contains(&text[..8]));
    }
    fs::write(&file, "00".repeat(32)).unwrap();
    let error = open_error(dir.path());
    assert!(matches!(error, StoreError::WrongKey { .. }), "{error:?}");
    assert_says(&error, &database, "restore seal.key");
    fs::remove_file(&file).unwrap();
    let error = open_error(dir.path());
    assert!(matches!(error, StoreError::KeyMissing { .. }), "{error:?}");
    assert_says(&error, &file, "restore it");
    assert!(!file.exists(), "no new key was made");
    fs::write(&file, right).unwrap();
    chmod(&file, 0o600);
    assert_eq!(live(&open(dir.path()), &["0"], at(1)), ["0"]);
}

#[test]
fn a_credential_goes_before_the_file() {
    let dir = TempDir::new("store-credential");
    let (state, credentials) = (dir.path().join("state"), dir.path().join("credentials"));
    fs::create_dir(&credentials).unwrap();
    let load = || Key::load_or_create(&state, Some(&credentials));
    let sealed = load().unwrap().seal(b"", b"x").unwrap();
    assert!(
        key(&state).open(b"", &sealed).is_ok(),
        "without one, the file"
    );
    let file = credentials.join("mcp-broker.key");
    fs::write(&file, "ab".repeat(32)).unwrap();
    for (mode, is_fine) in [(0o400, true), (0o440, true), (0o444, false), (0o420, false)] {
        chmod(&file, mode);
        assert_eq!(load().is_ok(), is_fine, "{mode:o}");
    }
    chmod(&file, 0o400);
    assert!(load().unwrap().open(b"", &sealed).is_err(), "another key");
}

/// Issue 5, 8: a damaged database is an error, not an open door.
#[test]
fn a_damaged_database_is_found_out_when_it_is_opened() {
    type Damage = fn(&mut Vec<u8>);
    let cases: &[(&str, Damage)] = &[
        ("no database", |bytes| *bytes = vec![b'x'; 5000]),
        ("head", |bytes| bytes[..32].fill(0xff)),
        ("pages", |bytes| bytes[4096..].fill(0xff)),
        ("last page", |bytes| {
            let end = bytes.len();
            bytes[end - 4096..].fill(0x5a);
        }),
        ("cut off", |bytes| bytes.truncate(bytes.len() / 8192 * 4096)),
        ("an index says something else than its table", |bytes| {
            let at = bytes
                .windows(10)
                .position(|it| it == b"client-one")
                .unwrap();
            bytes[at + 9] = b'f';
        }),
    ];
    for (name, damage) in cases {
        let dir = TempDir::new("store-damaged");
        let file = dir.path().join("broker.db");
        sign_in(&open(dir.path()), "1", "0");
        let mut bytes = fs::read(&file).unwrap();
        damage(&mut bytes);
        fs::write(&file, bytes).unwrap();
        let error = open_error(dir.path());
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{name}: {error:?}"
        );
        assert_says(&error, &file, "restore it from a backup");
    }
}

#[test]
fn a_newer_database_is_left_alone() {
    let dir = TempDir::new("store-newer");
    sign_in(&open(dir.path()), "1", "0");
    drop(beside(dir.path(), "PRAGMA user_version = 99"));
    let error = open_error(dir.path());
    assert!(
        matches!(error, StoreError::Newer { version: 99, .. }),
        "{error:?}"
    );
    assert_says(&error, &dir.path().join("broker.db"), "version 99");
    drop(beside(dir.path(), "PRAGMA user_version = 1"));
    assert_eq!(live(&open(dir.path()), &["0"], at(1)), ["0"]);
}

#[test]
fn a_locked_database_is_an_error_after_a_while() {
    let dir = TempDir::new("store-locked");
    let file = dir.path().join("broker.db");
    let store = open(dir.path());
    sign_in(&store, "1", "0");
    let other = beside(dir.path(), "BEGIN EXCLUSIVE");
    let result = store.rotate(&hash("refresh-0"), &fits, &new_tokens("1", at(1)), at(1));
    let Err(RedeemError::Store(error)) = result else {
        panic!("{}", outcome(&result));
    };
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    assert_says(&error, &file, "another process");
    assert_eq!(live(&store, &["0"], at(1)), ["0"], "reading goes on");
    drop(other);
    assert_eq!(rotate(&store, "0", "1", at(1)), "issued");
    drop(store);
    let other = beside(
        dir.path(),
        "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE",
    );
    let error = open_error(dir.path());
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    drop(other);
    open(dir.path());
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let dir = TempDir::new("store-full");
    let store = open(dir.path());
    sign_in(&store, "1", "0");
    let limit = |pages: u32| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        let set = store.read(|db| db.query_row(&sql, [], |row| row.get::<_, u32>(0)));
        set.unwrap();
    };
    limit(1); // SQLite makes it as many as there are
    let mut last = 0;
    let error = loop {
        let (old, new) = (last.to_string(), (last + 1).to_string());
        let token = hash(&format!("refresh-{old}"));
        match store.rotate(&token, &fits, &new_tokens(&new, at(last)), at(last)) {
            Ok(_) => last += 1,
            Err(RedeemError::Store(error)) => break error,
            Err(error) => panic!("{error}"),
        }
        assert!(last < 1000, "it never got full");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_says(&error, &dir.path().join("broker.db"), "make room");
    let (tag, next) = (last.to_string(), (last + 1).to_string());
    assert_eq!(live(&store, &[&tag, &next], at(last)), [&tag]);
    limit(100_000);
    assert_eq!(rotate(&store, &tag, &next, at(last)), "issued");
}

/// A database that was deleted under a log of its own is a new one, and a log without it is none.
#[test]
fn a_database_that_is_gone_lets_nobody_in() {
    let dir = TempDir::new("store-gone");
    let store = open(dir.path());
    sign_in(&store, "1", "0");
    let log = fs::read(dir.path().join("broker.db-wal")).unwrap();
    drop(store);
    fs::remove_file(dir.path().join("broker.db")).unwrap();
    let file = dir.path().join("broker.db-wal");
    fs::write(&file, log).unwrap();
    chmod(&file, 0o600);
    let store = open(dir.path());
    assert!(store.live_access(at(0)).unwrap().is_empty());
    assert_eq!(rotate(&store, "0", "1", at(0)), "invalid_grant");
}

#[test]
fn the_database_is_durable_before_it_is_fast() {
    let dir = TempDir::new("store-settings");
    let store = open(dir.path());
    for (pragma, expected) in [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("foreign_keys", "1"),
        ("secure_delete", "1"),
        ("mmap_size", "0"),
        ("cache_size", "-256"),
        ("user_version", "1"),
    ] {
        let value = store.read(|db| {
            db.pragma_query_value(None, pragma, |row| row.get::<_, rusqlite::types::Value>(0))
        });
        let value = match value.unwrap() {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(value, expected, "{pragma}");
    }
    let big = OpenOptions::new()
        .append(true)
        .open(dir.path().join("seal.key"));
    big.unwrap().set_len(1 << 20).unwrap();
    assert!(Key::load_or_create(dir.path(), None).is_err());
}
