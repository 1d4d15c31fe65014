//! Refresh tokens: rotated (S14), with a short grace, and an alarm when an old one comes back.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::sign_in::app::refusal;
use crate::support::sign_in::{Browser, Site, Tokens};
use crate::support::within;

/// Within these, what was taken away has ended; a little more for a machine under load.
const ENDED: Duration = Duration::from_millis(2500);

fn ping() -> Value {
    json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" })
}

fn invalid_grant() -> (u16, String) {
    (400, "invalid_grant".to_owned())
}

/// S13, S14.
#[test]
fn each_refresh_gives_a_new_pair() {
    let site = Site::start();
    let (app, mut tokens) = site.sign_in("alice");
    let session = site.session(&tokens);
    for _ in 0..4 {
        let response = app.refresh(&site, &tokens);
        assert_eq!(response.json()["expires_in"], 3600);
        let next = Tokens::of(&response);
        assert_ne!((&next.access, &next.refresh), (&tokens.access, &tokens.refresh));
        tokens = next;
        let session = session.clone().with_token(&tokens.access);
        assert_eq!(session.post(&ping()).status, 200);
    }
    assert_eq!(site.broker.children().len(), 1);
    // Nothing of it was the provider's business.
    assert_eq!(site.forge.count("refreshes"), 0);
}

/// A.3: an answer may get lost.
#[test]
fn within_the_grace_an_old_token_gives_another_successor() {
    let site = Site::start();
    let (app, tokens) = site.sign_in("alice");
    let lost = app.renewed(&site, &tokens);
    let again = app.renewed(&site, &tokens);
    assert_ne!(lost, again);
    assert_eq!(site.knock(&again), 400);
    // Whichever is used first counts, and the other one is old from then on.
    app.renewed(&site, &again);
    assert_eq!(refusal(&app.refresh(&site, &lost)), invalid_grant());
}

/// S14: what came of the sign-in ends, within two seconds and with its child; nobody else notices.
#[test]
fn an_old_token_after_its_successor_was_used_ends_the_sign_in() {
    let site = Site::start();
    let (app, first) = site.sign_in("alice");
    let (other_app, other) = site.sign_in("alice");
    let (_, bob) = site.sign_in("bob");
    let [stolen, others, bobs] = [&first, &other, &bob].map(|it| site.session(it));
    let mut stream = stolen.listen();
    let mut kept = others.listen();
    let second = app.renewed(&site, &first);
    let third = app.renewed(&site, &second);
    assert_eq!(refusal(&app.refresh(&site, &first)), invalid_grant());
    for tokens in [&first, &second, &third] {
        assert_eq!(site.knock(tokens), 401);
        assert_eq!(refusal(&app.refresh(&site, tokens)), invalid_grant());
    }
    within(ENDED, "its child ends", || site.broker.children().len() == 2);
    assert_eq!(stream.rest(), Vec::<Value>::new());
    assert_eq!(stolen.with_token(&other.access).post(&ping()).status, 404);
    // A stream that goes on shows that nothing has ended.
    assert_eq!(others.post(&ping()).status, 200);
    assert_eq!(bobs.post(&ping()).status, 200);
    let renewed = other_app.renewed(&site, &other);
    let mut others = others.with_token(&renewed.access);
    let arguments = json!({ "method": "notifications/tools/list_changed" });
    others.call("notify_after", arguments);
    assert_eq!(kept.message()["method"], "notifications/tools/list_changed");
}

/// A token in the hands of another client is worth nothing, and does no harm.
#[test]
fn a_refresh_token_is_bound_to_its_client() {
    let site = Site::start();
    let (app, tokens) = site.sign_in("alice");
    let other = site.app();
    for _ in 0..3 {
        assert_eq!(refusal(&other.refresh(&site, &tokens)), invalid_grant());
    }
    app.renewed(&site, &tokens);
}

/// An access token is no refresh token, and none is the other.
#[test]
fn tokens_are_good_for_one_thing() {
    let site = Site::start();
    let (app, tokens) = site.sign_in("alice");
    let swapped = Tokens {
        access: tokens.refresh.clone(),
        refresh: tokens.access.clone(),
    };
    assert_eq!(site.knock(&swapped), 401);
    assert_eq!(refusal(&app.refresh(&site, &swapped)), invalid_grant());
    assert_eq!(refusal(&app.redeem(&site, &tokens.refresh)), invalid_grant());
    app.renewed(&site, &tokens);
}

/// What was acknowledged is on the disk: everything works after the worst end.
#[test]
fn killed_right_after_an_answer_the_broker_knows_what_it_gave() {
    let mut site = Site::setup().public_url("http://localhost:9").start();
    let app = site.app();
    let code = app.obtain_code(&site, &mut Browser::new(), "alice");
    site = site.restart(Signal::KILL);
    let mut tokens = Tokens::of(&app.redeem(&site, &code));
    for _ in 0..2 {
        site = site.restart(Signal::KILL);
        assert_eq!(site.knock(&tokens), 400);
        tokens = app.renewed(&site, &tokens);
    }
    site = site.restart(Signal::KILL);
    assert_eq!(refusal(&app.redeem(&site, &code)), invalid_grant());
    // That was a second use: so is what it gave gone, and stays so.
    site = site.restart(Signal::KILL);
    assert_eq!(refusal(&app.refresh(&site, &tokens)), invalid_grant());
}

/// In the middle of a sign-in, the browser and the client notice nothing.
#[test]
fn a_sign_in_survives_a_restart_at_each_step() {
    let mut site = Site::setup().public_url("http://localhost:9").start();
    let (app, mut browser) = (site.app(), Browser::new());
    let page = browser.open(&site, &app.url(&site));
    site = site.restart(Signal::KILL);
    let to = browser.approve(&site, &page);
    site = site.restart(Signal::KILL);
    let callback = browser.visit_forge(&site, &to, "alice");
    let back = browser.open(&site, &callback);
    site = site.restart(Signal::KILL);
    let code = app.code(&site, &crate::support::sign_in::browser::location(&back));
    let tokens = Tokens::of(&app.redeem(&site, &code));
    assert_eq!(site.knock(&tokens), 400);
}
