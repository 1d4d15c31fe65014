//! The store, on disk in a directory of its own per test, with the time passed in.

mod crash;
mod files;
mod people;
mod tokens;

use std::path::Path;

use super::super::tests::TempDir;
use super::*;
use crate::auth::oauth::authorize::Request;
use crate::auth::oauth::token::TokenError;
use crate::auth::oauth::{Client, ClientAuth, ClientKind, Hash, Resource, hash};
use crate::auth::upstream::UpstreamTokens;

const ISSUER: &str = "https://git.example.org";
/// When the tests begin: 2026-11-25.
const START: u64 = 1_795_600_000;
const DAY: u64 = 24 * 3600;
/// How long the grants of these tests last, in seconds.
const GRANT: u64 = 30 * DAY;

/// So many seconds after the start.
fn at(second: u64) -> SystemTime {
    at_ms(second * 1000)
}

fn at_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(START) + Duration::from_millis(ms)
}

/// An authorization request with nothing remarkable about it.
fn request(client_id: &str, state: Option<&str>) -> Request {
    Request {
        client_id: client_id.to_owned(),
        client_name: "A client".to_owned(),
        redirect_uri: "https://client.example/callback".to_owned(),
        state: state.map(str::to_owned),
        challenge: "challenge".to_owned(),
        resource: Resource {
            uri: "https://mcp.example/mcp".to_owned(),
            server: "server".into(),
        },
        scope: "mcp".to_owned(),
        is_loopback_only: false,
    }
}

fn key(dir: &Path) -> Key {
    Key::load_or_create(dir, None).unwrap()
}

fn open(dir: &Path) -> Store {
    Store::open(dir, Arc::new(key(dir))).unwrap()
}

fn user(subject: &str, name: &str) -> User {
    User {
        issuer: ISSUER.to_owned(),
        subject: subject.to_owned(),
        name: name.to_owned(),
        email: Some(format!("{name}@example.org")),
    }
}

fn upstream(tag: &str) -> UpstreamTokens {
    UpstreamTokens {
        access: format!("upstream-access-{tag}"),
        refresh: Some(format!("upstream-refresh-{tag}")),
        expires: Some(at(3600)),
        lifetime: Some(Duration::from_secs(3600)),
        scope: Some("openid".to_owned()),
    }
}

fn new_grant(grant: &str, subject: &str) -> NewGrant {
    NewGrant {
        grant: grant.to_owned(),
        issuer: ISSUER.to_owned(),
        subject: subject.to_owned(),
        client_id: "client-one".to_owned(),
        client_name: "One".to_owned(),
        resource: Resource {
            uri: "https://mcp.example.org/mcp/forge".to_owned(),
            server: "forge".into(),
        },
        scope: "mcp".to_owned(),
        redirect_uri: "http://127.0.0.1/callback".to_owned(),
        challenge: "challenge".to_owned(),
        expires: at(GRANT),
    }
}

fn new_tokens(tag: &str, now: SystemTime) -> NewTokens {
    NewTokens {
        access: hash(&format!("access-{tag}")),
        access_expires: now + Duration::from_secs(3600),
        refresh: hash(&format!("refresh-{tag}")),
    }
}

fn fits<T>(_: &T) -> Result<(), TokenError> {
    Ok(())
}

fn does_not_fit<T>(_: &T) -> Result<(), TokenError> {
    Err(TokenError {
        code: "invalid_target",
        description: "another".to_owned(),
    })
}

/// A user with one grant, whose tokens are `access-TAG` and `refresh-TAG`; TAG is the grant's id.
fn sign_in(store: &Store, subject: &str, grant: &str) {
    store
        .save_user(&user(subject, subject), &upstream(subject), at(0))
        .unwrap();
    let code = hash(&format!("code-{grant}"));
    store
        .add_code(&code, &new_grant(grant, subject), at(0))
        .unwrap();
    let new = new_tokens(grant, at(0));
    store.redeem_code(&code, &fits, &new, at(0)).unwrap();
}

/// What came of a request for tokens, in a word.
fn outcome(result: &Result<Issued, RedeemError>) -> &'static str {
    match result {
        Ok(_) => "issued",
        Err(RedeemError::Refused(error)) => error.code,
        Err(RedeemError::Replayed { .. }) => "replayed",
        Err(RedeemError::Store(_)) => "store",
    }
}

fn rotate(store: &Store, old: &str, new: &str, now: SystemTime) -> &'static str {
    let old = hash(&format!("refresh-{old}"));
    outcome(&store.rotate(&old, &fits, &new_tokens(new, now), now))
}

/// The access tokens in force, among those of these tags.
fn live<'a>(store: &Store, tags: &[&'a str], now: SystemTime) -> Vec<&'a str> {
    let live: Vec<Hash> = store
        .live_access(now)
        .unwrap()
        .iter()
        .map(|it| it.hash)
        .collect();
    let is_live = |tag: &&&str| live.contains(&hash(&format!("access-{tag}")));
    tags.iter().filter(is_live).copied().collect()
}

/// The `PRAGMA` or statement as an operator's tool would run it, beside the store.
fn beside(dir: &Path, sql: &str) -> Connection {
    let connection = Connection::open(dir.join("broker.db")).unwrap();
    connection.execute_batch(sql).unwrap();
    connection
}

fn rows(store: &Store, table: &str) -> usize {
    let sql = format!("SELECT count(*) FROM {table}");
    store.read(|db| count(db, &sql)).unwrap()
}

/// From now on it cannot be read who is in force, or can again; nothing happens to the database.
pub(in crate::auth) fn blind(store: &Store, is_blind: bool) {
    let sql = match is_blind {
        true => "CREATE TEMP TABLE users (of_no_use)",
        false => "DROP TABLE temp.users",
    };
    store.read(|db| db.execute_batch(sql)).unwrap();
}
