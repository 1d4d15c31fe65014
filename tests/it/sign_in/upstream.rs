//! The provider behind the broker: who is let in, and what of them reaches their child.

use std::fs;

use serde_json::{Value, json};

use crate::support::sign_in::browser::{assert_page, location};
use crate::support::sign_in::{Browser, Site, env, server_entry};

const NOT_ADMITTED: &str = "You may not use this server";

/// Who is let in by which list, by the name, the mail address, an organization or a team there.
#[test]
fn only_those_on_a_list_may_enter() {
    let all: &[(Value, &[&str])] = &[
        (json!({ "users": ["alice"] }), &["alice"]),
        (json!({ "groups": ["friends"] }), &["alice", "carol"]),
        (json!({ "groups": ["friends:owners"] }), &["alice"]),
        (json!({ "emails": ["bob@example.org"] }), &["bob"]),
        (
            json!({ "users": ["bob"], "groups": ["friends"] }),
            &["alice", "bob", "carol"],
        ),
        (json!({ "users": ["nobody"], "groups": ["friend"] }), &[]),
        (json!({ "anyone": true }), &["alice", "bob", "carol"]),
    ];
    for (allow, admitted) in all {
        let site = Site::setup()
            .forge(&["--user", "alice=friends,friends:owners", "--user", "bob"])
            .forge(&["--user", "carol=friends,friends:guests"])
            .provider("allow", allow.clone())
            .start();
        let app = site.app();
        for user in ["alice", "bob", "carol"] {
            let response = Browser::new().come_back(&site, &app.url(&site), user);
            match admitted.contains(&user) {
                true => drop(app.code(&site, &location(&response))),
                false => {
                    assert_page(&response, 403, NOT_ADMITTED);
                    assert!(response.text().contains(user), "{}", response.text());
                }
            }
        }
        // Nothing is kept of those who were sent away.
        let path = site.broker.dir().path().join("state/broker.db");
        let db = rusqlite::Connection::open(path).unwrap();
        let sql = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM grants)";
        let count = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        let known: (i64, i64) = count.unwrap();
        let expected = i64::try_from(admitted.len()).unwrap();
        assert_eq!(known, (expected, expected), "{allow}");
    }
}

/// R13, R14: a child hears what its client says, and has its user's token of the provider, but not
/// the tokens that the client has of us.
#[test]
fn the_clients_own_tokens_do_not_reach_the_child() {
    let script = "env > \"$HOME/env\"; tee \"$HOME/heard\" | \"$0\"";
    let mut entry = server_entry();
    entry["args"] = json!(["-c", script, entry["command"]]);
    entry["command"] = json!("sh");
    let site = Site::setup().server_entry("fake", entry).start();
    let (_, tokens) = site.sign_in("alice");
    let mut session = site.session(&tokens);
    let home = env(&mut session, "HOME");
    let read = |name: &str| fs::read_to_string(format!("{home}/{name}")).unwrap();
    let (environment, heard) = (read("env"), read("heard"));
    assert!(environment.contains(&env(&mut session, "TOKEN")));
    assert!(heard.contains("initialize"), "{heard}");
    for text in [environment, heard] {
        assert!(!text.contains(&tokens.access), "{text}");
        assert!(!text.contains(&tokens.refresh), "{text}");
    }
}

/// S19: what a child is told of its user, each of their own.
#[test]
fn each_child_has_its_own_user_in_its_environment() {
    let site = Site::start();
    let sessions = ["alice", "bob"].map(|user| {
        let (_, tokens) = site.sign_in(user);
        let mut session = site.session(&tokens);
        assert_eq!(env(&mut session, "NAME"), user);
        assert_eq!(env(&mut session, "MAIL"), format!("{user}@example.org"));
        session
    });
    let [mut alice, mut bob] = sessions;
    assert_eq!(
        (env(&mut alice, "SUB"), env(&mut bob, "SUB")),
        ("1".into(), "2".into())
    );
    // The provider knows whose each token is.
    for (session, user) in [(&mut alice, "alice"), (&mut bob, "bob")] {
        let token = env(session, "TOKEN");
        let request = crate::support::Request::new("GET", "/api/v1/user");
        let request = request.header("Authorization", &format!("Bearer {token}"));
        assert_eq!(request.send(site.forge.addr()).json()["login"], user);
    }
}

/// B.2: a user has one record at the provider, and a new name is no new user.
#[test]
fn another_name_makes_nobody_another() {
    let site = Site::setup()
        .provider("allow", json!({ "anyone": true }))
        .start();
    let (app, tokens) = site.sign_in("alice");
    let session = site.session(&tokens);
    site.forge
        .control(&json!({ "do": "rename", "user": "alice", "to": "alicia" }));
    let next = app.sign_in(&site, &mut Browser::new(), "alicia");
    let session = session.with_token(&next.access);
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(session.post(&ping).status, 200);
    let mut new = site.session(&next);
    assert_eq!(env(&mut new, "NAME"), "alicia");
    assert_eq!(env(&mut new, "SUB"), "1");
    // Who has the old name now is somebody else.
    site.forge
        .control(&json!({ "do": "rename", "user": "bob", "to": "alice" }));
    let (_, other) = site.sign_in("alice");
    assert_eq!(session.with_token(&other.access).post(&ping).status, 403);
}

/// What goes wrong at the provider is a page, lets nobody in, and is over when it is over.
#[test]
fn trouble_at_the_provider_is_a_page() {
    let site = Site::start();
    let app = site.app();
    let down = "The provider does not answer";
    for (place, how, status, title) in [
        ("exchange", "500", 503, down),
        ("exchange", "close", 503, down),
        ("exchange", "garbage", 500, "Something went wrong here"),
        ("exchange", "lose", 503, down),
        ("userinfo", "503", 503, down),
        ("userinfo", "close", 503, down),
        ("userinfo", "garbage", 500, "Something went wrong here"),
        ("userinfo", "401", 403, "Not signed in"),
    ] {
        site.forge.fail(place, how, 1);
        let mut browser = Browser::new();
        let callback = browser.until_callback(&site, &app.url(&site), "alice");
        let response = browser.open(&site, &callback);
        assert_page(&response, status, title);
        site.forge.control(&json!({ "do": "mend" }));
    }
    app.sign_in(&site, &mut Browser::new(), "alice");
}

/// Who comes while the provider is away gets a page, and the provider its rest.
#[test]
fn a_provider_that_is_down_is_not_asked_by_everybody() {
    let site = Site::start();
    let app = site.app();
    site.forge.fail("discovery", "500", 100);
    let mut browser = Browser::new();
    let page = browser.open(&site, &app.url(&site));
    for _ in 0..5 {
        let response = browser.answer(&site, &page, "allow");
        assert_page(&response, 503, "The provider does not answer");
    }
    let events = site.forge.control(&json!({ "do": "events" }));
    assert_eq!(events.as_array().map(Vec::len), Some(1), "{events}");
}

/// R13, R14: the provider's token opens nothing here, and ours nothing there.
#[test]
fn no_token_is_good_at_the_other_side() {
    let site = Site::start();
    let (_, tokens) = site.sign_in("alice");
    let mut session = site.session(&tokens);
    let theirs = env(&mut session, "TOKEN");
    let client = site.broker.client().with_token(&theirs);
    assert_eq!(client.request("GET").send(site.addr()).status, 401);
    let events = site.forge.control(&json!({ "do": "events" })).to_string();
    for secret in [&tokens.access, &tokens.refresh] {
        assert!(!events.contains(secret.as_str()));
    }
}

/// A provider of another kind: any that speaks OpenID Connect. What the broker asks for is what it
/// says, and who may enter is by the same lists.
#[test]
fn a_provider_may_be_any_that_speaks_openid_connect() {
    let site = Site::setup()
        .kind("oidc")
        .provider("scopes", json!("openid profile email"))
        .start();
    let (app, tokens) = site.sign_in("alice");
    let mut session = site.session(&tokens);
    assert_eq!(env(&mut session, "NAME"), "alice");
    app.renewed(&site, &tokens);
    let carol = Site::setup()
        .kind("oidc")
        .provider("allow", json!({ "emails": ["bob@example.org"] }))
        .start();
    let response = Browser::new().come_back(&carol, &carol.app().url(&carol), "alice");
    assert_page(&response, 403, NOT_ADMITTED);
    carol.sign_in("bob");
}
