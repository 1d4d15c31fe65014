//! What outlives a session or the broker: sessions that wake again, and children that wait for
//! the next session. Neither outlives the sign-in.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::sign_in::{Site, env, server_entry};
use crate::support::{eventually, within};

/// Within these, what was taken away has ended; a little more for a machine under load.
const ENDED: Duration = Duration::from_millis(2500);

fn ping() -> Value {
    json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" })
}

fn site(option: &str, value: Value) -> Site {
    let mut entry = server_entry();
    entry["broker"] = json!({ option: value });
    Site::setup()
        .public_url("http://localhost:9")
        .server_entry("fake", entry)
        .start()
}

/// R20, R22: a session that wakes after a restart is its user's, and has the user's token.
#[test]
fn a_session_wakes_for_its_user_only() {
    let mut site = site("revive", json!(true));
    let (app, tokens) = site.sign_in("alice");
    let (_, bob) = site.sign_in("bob");
    let session = site.session(&tokens);
    site = site.restart(Signal::KILL);
    let mut session = session.moved_to(site.addr());
    let with = |token: &str| session.clone().with_token(token);
    assert_eq!(with(&bob.access).post(&ping()).status, 403);
    assert_eq!(with("mcpa_x").post(&ping()).status, 401);
    assert!(site.broker.children().is_empty());
    // With a new token it is the same user.
    session.token = Some(app.renewed(&site, &tokens).access);
    assert_eq!(env(&mut session, "NAME"), "alice");
    assert!(!env(&mut session, "TOKEN").is_empty());
}

/// Who was taken away while the broker was down wakes nothing.
#[test]
fn a_session_does_not_outlive_the_sign_in() {
    let mut site = site("revive", json!(true));
    let (app, tokens) = site.sign_in("alice");
    let session = site.session(&tokens);
    let state = site.broker.dir().path().join("state");
    let revoke = ["user", "revoke", "alice", "--state-dir"];
    site.broker.signal(Signal::KILL);
    site.broker.wait();
    let run = crate::support::run(&[&revoke[..], &[state.to_str().unwrap()]].concat());
    assert_eq!(run.code, Some(0), "{run:?}");
    site = site.restart(Signal::KILL);
    let session = session.moved_to(site.addr());
    assert_eq!(session.post(&ping()).status, 401);
    assert_eq!(app.refresh(&site, &tokens).status, 400);
    assert!(site.broker.children().is_empty());
}

/// A child that waits is for its user's next session, and has the user's token in it.
#[test]
fn a_waiting_child_is_for_its_user_only() {
    let site = site("park", json!("10m"));
    let (app, tokens) = site.sign_in("alice");
    let (_, bob) = site.sign_in("bob");
    let mut session = site.session(&tokens);
    let child = session.child();
    session.delete();
    let mut bobs = site.session(&bob);
    assert_ne!(bobs.child(), child);
    assert_eq!(env(&mut bobs, "NAME"), "bob");
    let next = app.renewed(&site, &tokens);
    let mut session = site.session(&next);
    assert_eq!(session.child(), child);
    assert_eq!(env(&mut session, "NAME"), "alice");
}

/// And it ends with the user, or when it has an old token.
#[test]
fn a_waiting_child_does_not_outlive_the_sign_in() {
    let site = site("park", json!("10m"));
    let (app, tokens) = site.sign_in("alice");
    site.session(&tokens).delete();
    eventually("it waits", || site.broker.children().len() == 1);
    assert_eq!(app.revoke(&site, &tokens.refresh).status, 200);
    within(ENDED, "the child ends", || {
        site.broker.children().is_empty()
    });
    let (_, tokens) = site.sign_in("alice");
    site.session(&tokens).delete();
    eventually("it waits", || site.broker.children().len() == 1);
    // A new sign-in is a new token at the provider.
    let (_, tokens) = site.sign_in("alice");
    within(ENDED, "the child ends", || {
        site.broker.children().is_empty()
    });
    assert_eq!(site.session(&tokens).post(&ping()).status, 200);
}
