//! The operator's commands: who signed in with what, and how they are taken away.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::broker::Run;
use crate::support::modern::Modern;
use crate::support::sign_in::app::refusal;
use crate::support::sign_in::browser::{hidden, location, parameter};
use crate::support::sign_in::{App, Browser, Site, Tokens, env};
use crate::support::{run, within};

/// Within these, what was taken away has ended; a little more for a machine under load.
const ENDED: Duration = Duration::from_millis(2500);

fn ping() -> Value {
    json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" })
}

/// `mcp-broker` over the state of the site.
fn command(site: &Site, args: &[&str]) -> Run {
    let state = site.broker.dir().path().join("state");
    run(&[args, &["--state-dir", state.to_str().unwrap()]].concat())
}

/// All of it ends, within two seconds, in a running broker; and nothing of anybody else.
#[test]
fn a_revoked_user_is_out() {
    let site = Site::start();
    let (app, first) = site.sign_in("alice");
    let (_, second) = site.sign_in("alice");
    let (bobs_app, bob) = site.sign_in("bob");
    let session = site.session(&first);
    let mut stream = session.listen();
    site.session(&second);
    let bobs = site.session(&bob);
    assert_eq!(site.broker.children().len(), 3);
    let run = command(&site, &["user", "revoke", "alice"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    within(ENDED, "the children end", || {
        site.broker.children().len() == 1
    });
    assert_eq!(stream.rest(), Vec::<Value>::new());
    assert_eq!((site.knock(&first), site.knock(&second)), (401, 401));
    assert_eq!(refusal(&app.refresh(&site, &first)).1, "invalid_grant");
    assert_eq!(bobs.post(&ping()).status, 200);
    bobs_app.renewed(&site, &bob);
    let list = command(&site, &["user", "list"]).stdout;
    assert!(!list.contains("alice") && list.contains("bob"), "{list}");
    // They may sign in again: who may is in the configuration.
    let tokens = app.sign_in(&site, &mut Browser::new(), "alice");
    assert_eq!(site.knock(&tokens), 400);
}

/// The client's sign-ins end, of all users; the users' other clients go on.
#[test]
fn a_revoked_client_is_out() {
    let site = Site::start();
    let app = site.app();
    let alice = app.sign_in(&site, &mut Browser::new(), "alice");
    let bob = app.sign_in(&site, &mut Browser::new(), "bob");
    let (_, other) = site.sign_in("alice");
    let sessions = [&alice, &bob, &other].map(|it| site.session(it));
    let run = command(&site, &["client", "revoke", &app.id]);
    assert_eq!(run.code, Some(0), "{run:?}");
    within(ENDED, "the children end", || {
        site.broker.children().len() == 1
    });
    let statuses = sessions.map(|it| it.post(&ping()).status);
    assert_eq!(statuses, [401, 401, 200]);
    let list = command(&site, &["client", "list"]).stdout;
    assert!(!list.contains(&app.id), "{list}");
    assert_eq!(refusal(&app.refresh(&site, &alice)).0, 401);
    let page = Browser::new().open(&site, &app.url(&site));
    assert_eq!(page.status, 400, "{page:?}");
}

#[test]
fn who_is_not_there_cannot_be_revoked() {
    let site = Site::start();
    site.sign_in("alice");
    for args in [["user", "revoke", "carol"], ["client", "revoke", "carol"]] {
        let run = command(&site, &args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        assert!(run.stderr.contains("carol"), "{run:?}");
    }
}

/// The modern era has no sessions that a client could end; what its requests share ends all the
/// same, for the sign-in that was taken away only.
#[test]
fn what_modern_requests_share_ends_with_the_sign_in() {
    let mut entry = crate::support::sign_in::server_entry();
    entry["args"] = json!(["--era", "dual"]);
    let site = Site::setup().server_entry("fake", entry).start();
    let (app, first) = site.sign_in("alice");
    let (_, second) = site.sign_in("alice");
    let client = |tokens: &Tokens| Modern::new(site.addr()).with_token(&tokens.access);
    let (mut one, mut two) = (client(&first), client(&second));
    for client in [&mut one, &mut two] {
        assert_eq!(client.call_text("env", json!({ "name": "NAME" })), "alice");
    }
    app.revoke(&site, &first.refresh);
    let message = one.message("tools/list", json!({}));
    assert_eq!(one.post(&message).status, 401);
    assert_eq!(two.call_text("env", json!({ "name": "NAME" })), "alice");
}

/// R17: whatever is logged, listed or stored in the clear, no secret is in it.
#[test]
fn no_secret_comes_out_anywhere() {
    let site = Site::setup()
        .with(|it| it.options(&["--log", "trace"]))
        .start();
    let app: App = site.app();
    let mut browser = Browser::new();
    let page = browser.open(&site, &app.url(&site));
    let to = browser.approve(&site, &page);
    let cookies: Vec<String> = browser.cookies.iter().map(|it| it.2.clone()).collect();
    let callback = browser.visit_forge(&site, &to, "alice");
    let code = app.code(&site, &location(&browser.open(&site, &callback)));
    let tokens = Tokens::of(&app.redeem(&site, &code));
    let next = app.renewed(&site, &tokens);
    let mut session = site.session(&next);
    let theirs = env(&mut session, "TOKEN");
    let parameter = |url: &str, name: &str| parameter(url, name).unwrap();
    let mut secrets = vec![
        ("access", tokens.access.clone()),
        ("refresh", tokens.refresh.clone()),
        ("code", code),
        ("the next access", next.access.clone()),
        ("the next refresh", next.refresh.clone()),
        ("the provider's access", theirs),
        ("the provider's code", parameter(&callback, "code")),
        ("state", parameter(&to, "state")),
        ("nonce", parameter(&to, "nonce")),
        ("verifier", app.verifier.clone()),
        ("what is sealed", hidden(&page, "request")),
        ("the broker's own secret", "broker-secret".to_owned()),
    ];
    secrets.extend(cookies.into_iter().map(|it| ("a cookie", it)));
    let mut seen = vec![
        ("the log", site.broker.log()),
        ("stdout", site.broker.stdout()),
        ("user list", command(&site, &["user", "list"]).stdout),
        ("client list", command(&site, &["client", "list"]).stdout),
    ];
    let state = site.broker.dir().path().join("state");
    for file in std::fs::read_dir(state).unwrap() {
        // What is no file is a socket.
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        seen.push(("the state", String::from_utf8_lossy(&bytes).into_owned()));
    }
    assert!(seen[0].1.contains(" TRACE "), "{}", seen[0].1);
    for (what, secret) in &secrets {
        for (place, text) in &seen {
            assert!(!text.contains(secret), "{what} is in {place}: {secret}");
        }
    }
}
