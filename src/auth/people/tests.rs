//! The commands over a real store, in a directory of each test's own.

use std::sync::Arc;
use std::time::Duration;

use super::super::tests::TempDir;
use super::*;
use crate::auth::oauth::{self, Client, ClientAuth, Resource};
use crate::auth::store::{Key, NewGrant, NewTokens, User};
use crate::auth::upstream::UpstreamTokens;

const ISSUER: &str = "https://git.example.org";
const CLAUDE: &str = "https://claude.ai/oauth/mcp-oauth-client-metadata";
const DOCUMENT: &str = "https://app.example/client.json";

/// 2026-11-25T09:46:40Z and so many seconds.
fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_600_000 + second)
}

fn store(dir: &Path) -> Store {
    let key = Key::load_or_create(dir, None).unwrap();
    Store::open(dir, Arc::new(key)).unwrap()
}

/// Lets a user in with a client.
fn enter(store: &Store, subject: &str, name: &str, client: (&str, &str)) {
    let user = User {
        issuer: ISSUER.to_owned(),
        subject: subject.to_owned(),
        name: name.to_owned(),
        email: (subject == "1").then(|| "alice@example.org".to_owned()),
    };
    let tokens = UpstreamTokens {
        access: "upstream-s3cret".to_owned(),
        refresh: None,
        expires: None,
        lifetime: None,
        scope: None,
    };
    store.save_user(&user, &tokens, at(0)).unwrap();
    let id = format!("{subject} {}", client.0);
    let grant = NewGrant {
        grant: id.clone(),
        issuer: user.issuer,
        subject: user.subject,
        client_id: client.0.to_owned(),
        client_name: client.1.to_owned(),
        resource: Resource {
            uri: "https://mcp.example.org/mcp".to_owned(),
            server: "forge".into(),
        },
        scope: "mcp".to_owned(),
        redirect_uri: "https://app.example/back".to_owned(),
        challenge: "challenge".to_owned(),
        expires: at(3600),
    };
    let code = oauth::hash(&id);
    store.add_code(&code, &grant, at(1)).unwrap();
    let new = NewTokens {
        access: oauth::hash(&format!("access {id}")),
        access_expires: at(3600),
        refresh: oauth::hash(&format!("refresh {id}")),
    };
    store.redeem_code(&code, &|_| Ok(()), &new, at(60)).unwrap();
}

fn filled(dir: &Path) {
    let store = store(dir);
    let client = Client {
        id: "client-1".to_owned(),
        name: "An editor".to_owned(),
        redirect_uris: vec!["http://127.0.0.1/".to_owned()],
        auth: ClientAuth::Secret(oauth::hash("client-s3cret")),
        kind: ClientKind::Registered,
    };
    store.add_client(&client, at(0)).unwrap();
    let unused = Client {
        id: "client-2".to_owned(),
        name: "Unused\u{1b}[2J".to_owned(),
        ..client
    };
    store.add_client(&unused, at(0)).unwrap();
    enter(&store, "1", "alice", (CLAUDE, "Claude"));
    enter(&store, "1", "alice", ("client-1", "An editor"));
    enter(&store, "22", "bob", (DOCUMENT, "App"));
}

fn run(who: People, action: PeopleAction, dir: &Path) -> Result<String, String> {
    let mut out = Vec::new();
    let done = run_people_command(who, action, dir, None, at(61), &mut out);
    done.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

fn list(who: People, dir: &Path) -> String {
    run(who, PeopleAction::List, dir).unwrap()
}

fn revoke(who: People, name: &str, dir: &Path) -> Result<String, String> {
    let name = name.to_owned();
    run(who, PeopleAction::Revoke { name }, dir)
}

#[test]
fn the_lists_name_everybody_and_no_secret() {
    let dir = TempDir::new("people-list");
    filled(dir.path());
    assert_eq!(
        list(People::Users, dir.path()),
        "\
NAME   EMAIL              CREATED               SEEN                  SIGN-INS  ID
alice  alice@example.org  2026-11-25T09:46:40Z  2026-11-25T09:47:40Z  2         \
         https://git.example.org#1
bob    -                  2026-11-25T09:46:40Z  2026-11-25T09:47:40Z  1         \
         https://git.example.org#22
"
    );
    assert_eq!(
        list(People::Clients, dir.path()),
        "\
NAME        KIND        USED                  SIGN-INS  ID
An editor   registered  2026-11-25T09:47:40Z  1         client-1
App         document    2026-11-25T09:47:40Z  1         https://app.example/client.json
Claude      well-known  2026-11-25T09:47:40Z  1         \
         https://claude.ai/oauth/mcp-oauth-client-metadata
Unused?[2J  registered  never                 0         client-2
"
    );
}

/// Issue 5, 7.
#[test]
fn whoever_is_revoked_is_no_longer_there() {
    let dir = TempDir::new("people-revoke");
    filled(dir.path());
    let sign_ins = |who: People, name: &str| {
        let list = list(who, dir.path());
        let line = list.lines().find(|line| line.starts_with(name));
        let word = line.and_then(|line| line.split_whitespace().rev().nth(1));
        word.map(str::to_owned)
    };
    assert_eq!(
        revoke(People::Clients, CLAUDE, dir.path()),
        Ok(String::new())
    );
    assert_eq!(sign_ins(People::Users, "alice").as_deref(), Some("1"));
    assert_eq!(sign_ins(People::Clients, "Claude"), None);
    let id = format!("{ISSUER}#1");
    assert_eq!(revoke(People::Users, &id, dir.path()), Ok(String::new()));
    assert_eq!(sign_ins(People::Users, "alice"), None);
    assert_eq!(sign_ins(People::Users, "bob").as_deref(), Some("1"));
    assert_eq!(sign_ins(People::Clients, "An editor").as_deref(), Some("0"));
    let unknown = "there is no user \"alice\": see mcp-broker user list";
    let again = revoke(People::Users, "alice", dir.path());
    assert_eq!(again, Err(unknown.to_owned()));
    assert_eq!(revoke(People::Users, "bob", dir.path()), Ok(String::new()));
}

#[test]
fn where_nobody_signed_in_nothing_is_made() {
    let dir = TempDir::new("people-nobody");
    let missing = dir.path().join("missing");
    for state in [dir.path(), &*missing] {
        for who in [People::Users, People::Clients] {
            assert_eq!(list(who, state).lines().count(), 1, "the heads");
            let none = format!("{}: nobody has signed in here yet", state.display());
            assert_eq!(revoke(who, "alice", state), Err(none));
        }
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn a_key_that_is_missing_is_said_and_not_replaced() {
    let dir = TempDir::new("people-key");
    filled(dir.path());
    let key = dir.path().join("seal.key");
    let credentials = dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::rename(&key, credentials.join("mcp-broker.key")).unwrap();
    let error = run(People::Users, PeopleAction::List, dir.path()).unwrap_err();
    assert!(error.contains("CREDENTIALS_DIRECTORY"), "{error}");
    assert!(!key.exists());
    let (action, mut out) = (PeopleAction::List, Vec::new());
    let directory = Some(&*credentials);
    run_people_command(
        People::Users,
        action,
        dir.path(),
        directory,
        at(61),
        &mut out,
    )
    .unwrap();
    assert!(String::from_utf8(out).unwrap().contains("alice"));
}
