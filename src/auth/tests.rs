//! The authenticator over a real token file, with the time passed in.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// A directory of one test's own, removed with it.
pub(super) struct TempDir(PathBuf);

impl TempDir {
    /// `label` is unique among the tests of this process.
    pub(super) fn new(label: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mcp-broker-{label}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path); // what an earlier process of the same id left, if any
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // a test that failed matters more
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn open(dir: &TempDir) -> (TokenStore, Authenticator) {
    let store = || TokenStore::open(dir.path()).unwrap();
    (store(), Authenticator::new(Some(store())).unwrap())
}

fn add(store: &TokenStore, name: &str) -> String {
    store.add(name, BTreeMap::new(), None, at(0)).unwrap()
}

fn check(auth: &Authenticator, token: &str, now: SystemTime) -> Result<String, AuthError> {
    auth.check(Some(&format!("Bearer {token}")), "any", now)
        .map(|principal| principal.name.to_string())
}

/// What the reaper has done for static tokens; it has the errors logged.
fn refresh(auth: &Authenticator, now: SystemTime) -> Result<Vec<Principal>, TokenError> {
    match &auth.door {
        Door::Open(_) => Ok(Vec::new()),
        Door::Guarded(guards) => guards.tokens.refresh(now),
    }
}

fn gone(auth: &Authenticator, now: SystemTime) -> Vec<String> {
    let mut names: Vec<String> = refresh(auth, now)
        .unwrap()
        .iter()
        .map(|gone| gone.name.to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn headers() {
    let check = |header: Option<&str>, expected: Result<&str, AuthError>| {
        assert_eq!(bearer(header), expected, "{header:?}")
    };
    check(None, Err(AuthError::Missing));
    check(Some("Bearer abc"), Ok("abc"));
    check(Some("bearer abc"), Ok("abc"));
    check(Some("BEARER   abc "), Ok("abc"));
    check(Some("Bearer a-._~+/9=="), Ok("a-._~+/9=="));
    for header in ["", "abc", "Basic abc", "Bearer\tabc"] {
        check(Some(header), Err(AuthError::Missing));
    }
    for header in [
        "Bearer",
        "Bearer ",
        "Bearer =",
        "Bearer a b",
        "Bearer a,b",
        "Bearer a=b",
        "Bearer ä",
    ] {
        check(Some(header), Err(AuthError::Invalid));
    }
    let long = format!("Bearer {}", "x".repeat(8193));
    check(Some(&long), Err(AuthError::Invalid));
    check(Some(&long[..long.len() - 1]), Ok(&long[7..long.len() - 1]));
}

#[test]
fn a_token_is_its_principal() {
    let dir = TempDir::new("auth-check");
    let store = TokenStore::open(dir.path()).unwrap();
    let env = BTreeMap::from([("KEY".to_owned(), "s3cret".to_owned())]);
    let token = store.add("alice", env.clone(), None, at(0)).unwrap();
    let auth = Authenticator::new(Some(store)).unwrap();
    let alice = auth
        .check(Some(&format!("Bearer {token}")), "any", at(1))
        .unwrap();
    let hash = hex::encode(tokens::hash(&token));
    assert_eq!(
        (&*alice.issuer, &*alice.subject, &*alice.name),
        ("token", &hash[..16], "alice")
    );
    assert_eq!(*alice.env, env);
    assert_eq!(auth.check(None, "any", at(1)), Err(AuthError::Missing));
    assert_eq!(
        auth.check(Some(&token), "any", at(1)),
        Err(AuthError::Missing)
    );
    assert_eq!(check(&auth, &hash, at(1)), Err(AuthError::Invalid));
    assert_eq!(
        check(&auth, &token.to_uppercase(), at(1)),
        Err(AuthError::Invalid)
    );
    assert_eq!(check(&auth, &token[..68], at(1)), Err(AuthError::Invalid));
}

#[test]
fn without_authentication_everybody_is_anonymous() {
    let auth = Authenticator::new(None).unwrap();
    for header in [None, Some("Bearer x"), Some("Basic x")] {
        assert_eq!(
            auth.check(header, "any", at(0)).unwrap(),
            Principal::anonymous()
        );
    }
    assert!(refresh(&auth, at(0)).unwrap().is_empty());
}

#[test]
fn additions_and_revocations_are_taken_over() {
    let dir = TempDir::new("auth-refresh");
    let (store, auth) = open(&dir);
    let alice = add(&store, "alice");
    assert_eq!(
        check(&auth, &alice, at(1)),
        Err(AuthError::Invalid),
        "nothing is read without a refresh"
    );
    assert!(gone(&auth, at(1)).is_empty());
    assert_eq!(check(&auth, &alice, at(1)).as_deref(), Ok("alice"));
    let bob = add(&store, "bob");
    store.revoke("alice").unwrap();
    assert_eq!(gone(&auth, at(2)), ["alice"]);
    assert!(gone(&auth, at(3)).is_empty(), "each is named once");
    assert_eq!(check(&auth, &alice, at(3)), Err(AuthError::Invalid));
    assert_eq!(check(&auth, &bob, at(3)).as_deref(), Ok("bob"));
}

#[test]
fn a_name_given_again_is_somebody_else() {
    let dir = TempDir::new("auth-replace");
    let (store, auth) = open(&dir);
    let first = add(&store, "alice");
    refresh(&auth, at(1)).unwrap();
    let before = auth
        .check(Some(&format!("Bearer {first}")), "any", at(1))
        .unwrap();
    store.revoke("alice").unwrap();
    let second = add(&store, "alice");
    assert_eq!(
        refresh(&auth, at(2)).unwrap(),
        std::slice::from_ref(&before)
    );
    let after = auth
        .check(Some(&format!("Bearer {second}")), "any", at(2))
        .unwrap();
    assert_eq!(before.name, after.name);
    assert_ne!(before, after);
    assert_eq!(check(&auth, &first, at(2)), Err(AuthError::Invalid));
}

#[test]
fn a_token_expires_on_time() {
    let dir = TempDir::new("auth-expiry");
    let store = TokenStore::open(dir.path()).unwrap();
    let token = store
        .add(
            "alice",
            BTreeMap::new(),
            Some(Duration::from_secs(60)),
            at(1000),
        )
        .unwrap();
    let auth = Authenticator::new(Some(store)).unwrap();
    assert_eq!(check(&auth, &token, at(1059)).as_deref(), Ok("alice"));
    assert!(gone(&auth, at(1059)).is_empty());
    assert_eq!(check(&auth, &token, at(1060)), Err(AuthError::Invalid));
    assert_eq!(gone(&auth, at(1060)), ["alice"]);
    assert!(gone(&auth, at(1061)).is_empty());
}

#[test]
fn another_environment_ends_what_was_started_with_the_old_one() {
    let dir = TempDir::new("auth-env");
    let (store, auth) = open(&dir);
    let token = add(&store, "alice");
    refresh(&auth, at(1)).unwrap();
    let file = dir.path().join("tokens.json");
    let edited = fs::read_to_string(&file)
        .unwrap()
        .replace("\"env\": {}", "\"env\": {\"KEY\": \"v\"}");
    fs::write(&file, edited).unwrap();
    assert_eq!(gone(&auth, at(2)), ["alice"]);
    let alice = auth
        .check(Some(&format!("Bearer {token}")), "any", at(2))
        .unwrap();
    assert_eq!(alice.env.get("KEY").map(String::as_str), Some("v"));
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing_and_is_reported_once() {
    let dir = TempDir::new("auth-broken");
    let (store, auth) = open(&dir);
    let token = store
        .add(
            "alice",
            BTreeMap::new(),
            Some(Duration::from_secs(60)),
            at(0),
        )
        .unwrap();
    refresh(&auth, at(1)).unwrap();
    let file = dir.path().join("tokens.json");
    let good = fs::read_to_string(&file).unwrap();

    fs::write(&file, "{").unwrap();
    let error = refresh(&auth, at(2)).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{}: not JSON: EOF while parsing an object at line 1 column 1",
            file.display()
        )
    );
    assert!(gone(&auth, at(3)).is_empty());
    assert_eq!(check(&auth, &token, at(3)).as_deref(), Ok("alice"));

    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert!(
        refresh(&auth, at(4))
            .unwrap_err()
            .to_string()
            .contains("others may read it"),
        "another reason is news"
    );
    assert!(gone(&auth, at(5)).is_empty());
    assert_eq!(gone(&auth, at(60)), ["alice"], "time goes on");

    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert!(refresh(&auth, at(6)).is_err());
    fs::write(&file, good).unwrap();
    assert!(gone(&auth, at(7)).is_empty());
    assert_eq!(check(&auth, &token, at(7)).as_deref(), Ok("alice"));
    fs::write(&file, "{").unwrap();
    assert!(
        refresh(&auth, at(8)).is_err(),
        "trouble that comes back is news again"
    );
}

#[test]
fn taking_the_file_away_shuts_the_door() {
    let dir = TempDir::new("auth-removed");
    let (store, auth) = open(&dir);
    let token = add(&store, "alice");
    refresh(&auth, at(1)).unwrap();
    fs::remove_file(dir.path().join("tokens.json")).unwrap();
    assert_eq!(gone(&auth, at(2)), ["alice"]);
    assert_eq!(check(&auth, &token, at(2)), Err(AuthError::Invalid));
}

#[test]
fn debug_shows_keys_and_no_value() {
    let env = BTreeMap::from([("KEY".to_owned(), "s3cret".to_owned())]);
    let principal = Principal {
        email: None,
        env: Arc::new(env),
        grant: None,
        ..Principal::anonymous()
    };
    let shown = format!("{principal:?}");
    assert!(
        shown.contains("KEY") && !shown.contains("s3cret"),
        "{shown}"
    );
}

#[test]
fn the_token_command_shows_a_token_once() {
    let dir = TempDir::new("auth-command");
    let run = |action: TokenAction| {
        let mut out = Vec::new();
        let variable = |key: &str| (key == "SET").then(|| "s3cret of the environment".to_owned());
        let done = run_token_command(action, dir.path(), &variable, at(1_735_689_600), &mut out);
        done.map(|()| String::from_utf8(out).unwrap())
            .map_err(|error| error.to_string())
    };
    let add = |name: &str, env: &[(&str, Option<&str>)], expires: Option<Duration>| {
        let env = env
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
            .collect();
        run(TokenAction::Add {
            name: name.to_owned(),
            env,
            expires,
        })
    };
    let token = add(
        "alice",
        &[("B", Some("s3cret")), ("A", Some("hunter2"))],
        Some(Duration::from_hours(24)),
    )
    .unwrap();
    assert!(
        token.starts_with("mcpb_") && token.len() == 70 && token.ends_with('\n'),
        "{token:?}"
    );
    add("bob@example.org", &[], None).unwrap();
    assert_eq!(
        add("eve", &[("A", Some("1")), ("A", Some("2"))], None),
        Err("env A is given twice".to_owned())
    );
    add("fay", &[("SET", None)], None).unwrap();
    let file = std::fs::read_to_string(dir.path().join("tokens.json")).unwrap();
    assert!(file.contains("s3cret of the environment"), "{file}");
    // It may be a value whose name was forgotten.
    let why = add("gil", &[("hunter2", None)], None).unwrap_err();
    assert!(
        why.contains("KEY=VALUE") && !why.contains("hunter2"),
        "{why}"
    );
    run(TokenAction::Revoke {
        name: "fay".to_owned(),
    })
    .unwrap();
    assert_eq!(
        run(TokenAction::List).unwrap(),
        "NAME             CREATED               EXPIRES               ENV\n\
         alice            2025-01-01T00:00:00Z  2025-01-02T00:00:00Z  A,B\n\
         bob@example.org  2025-01-01T00:00:00Z  never                 -\n"
    );
    assert_eq!(
        run(TokenAction::Revoke {
            name: "alice".to_owned()
        }),
        Ok(String::new())
    );
    assert!(!run(TokenAction::List).unwrap().contains("alice"));
}
