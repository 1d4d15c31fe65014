//! The users' own tokens at the provider: fresh for each new child, replaced under the running
//! ones, and taken away when the provider takes them away (B.2, S19).

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::sign_in::app::refusal;
use crate::support::sign_in::{Browser, Site, env, server_entry};
use crate::support::{eventually, within};

/// Within these, what was taken away has ended; a little more for a machine under load.
const ENDED: Duration = Duration::from_millis(2500);

fn ping() -> Value {
    json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" })
}

/// A forge whose access tokens live for so many seconds.
fn short_lived(seconds: &str) -> Site {
    Site::setup().forge(&["--access-lifetime", seconds]).start()
}

/// Waits until a token has this age: time is what makes it old.
fn age(issued: Instant, age: Duration) {
    eventually("the token is old", || issued.elapsed() >= age);
}

/// Before a child is started with it, a token that would not last is replaced.
#[test]
fn a_new_child_gets_a_token_that_lasts() {
    let site = short_lived("3");
    let (_, tokens) = site.sign_in("alice");
    let issued = Instant::now();
    site.forge.set_lifetime(3600);
    age(issued, Duration::from_secs(1));
    assert_eq!(site.forge.count("refreshes"), 0);
    let mut session = site.session(&tokens);
    assert_eq!(site.forge.count("refreshes"), 1);
    let token = env(&mut session, "TOKEN");
    let mut other = site.session(&tokens);
    assert_eq!(env(&mut other, "TOKEN"), token);
    assert_eq!(site.forge.count("refreshes"), 1);
}

/// One refresh, however many want it.
#[test]
fn many_at_once_make_one_refresh() {
    let site = Site::setup()
        .forge(&["--access-lifetime", "3"])
        .with(|it| it.setting("max_sessions_per_user", 16))
        .start();
    let (app, tokens) = site.sign_in("alice");
    let issued = Instant::now();
    site.forge.set_lifetime(3600);
    age(issued, Duration::from_secs(1));
    site.forge.fail("refresh", "late", 1);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let one = |_| {
            let mut client = site.client(&tokens);
            scope.spawn(move || client.initialize().status)
        };
        let all: Vec<_> = (0..16).map(one).collect();
        all.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(site.forge.refreshes_asked(), 1);
    assert!(statuses.iter().all(|it| *it == 200), "{statuses:?}");
    // Nor does a client's refresh need another one.
    app.renewed(&site, &tokens);
    assert_eq!(site.forge.refreshes_asked(), 1);
}

/// The child is replaced under the session, which goes on with its id and its stream; where the
/// operator wants it so, it is kept.
#[test]
fn a_running_session_gets_a_child_with_a_new_token() {
    let keep = {
        let mut entry = server_entry();
        entry["broker"] = json!({ "on_refresh": "keep" });
        entry
    };
    let site = Site::setup()
        .server("respawn")
        .server_entry("keep", keep)
        .forge(&["--access-lifetime", "4"])
        .start();
    let sign_in = |server: &str| {
        let app = site.app().at(&format!("{}/mcp/{server}", site.issuer));
        let tokens = app.sign_in(&site, &mut Browser::new(), "alice");
        site.client(&tokens).at(&format!("/mcp/{server}"))
    };
    // Only then: a sign-in is a new token too.
    let clients = (sign_in("respawn"), sign_in("keep"));
    let (mut respawn, mut keep) = (clients.0.ready(), clients.1.ready());
    site.forge.set_lifetime(3600);
    let mut stream = respawn.listen();
    let (before, pid) = (env(&mut respawn, "TOKEN"), respawn.child());
    let kept = (env(&mut keep, "TOKEN"), keep.child());
    within(Duration::from_secs(10), "it has a new token", || {
        env(&mut respawn, "TOKEN") != before
    });
    assert_ne!(respawn.child(), pid);
    let arguments = json!({ "method": "notifications/tools/list_changed" });
    respawn.call("notify_after", arguments);
    assert_eq!(
        stream.message()["method"],
        "notifications/tools/list_changed"
    );
    assert_eq!(env(&mut respawn, "NAME"), "alice");
    assert_eq!((env(&mut keep, "TOKEN"), keep.child()), kept);
    eventually("the old one ends", || site.broker.children().len() == 2);
    assert_eq!(site.forge.count("refreshes_refused"), 0);
}

/// B.2: at Forgejo, a second sign-in kills the refresh token of the first one. There is one record
/// of a user, so nobody notices.
#[test]
fn a_second_sign_in_of_a_user_does_no_harm_to_the_first() {
    let site = short_lived("3");
    let (first, tokens) = site.sign_in("alice");
    let mut session = site.session(&tokens);
    let (_, others) = site.sign_in("alice");
    let issued = Instant::now();
    site.forge.set_lifetime(3600);
    age(issued, Duration::from_secs(1));
    // Both go on with the one that is left.
    let next = first.renewed(&site, &tokens);
    site.session(&others);
    assert_eq!(site.forge.count("refreshes_refused"), 0);
    session.token = Some(next.access);
    let newest = env(&mut site.session(&others), "TOKEN");
    within(Duration::from_secs(10), "the first one has it too", || {
        env(&mut session, "TOKEN") == newest
    });
}

/// What runs goes on while the provider is away; what is new has to wait.
#[test]
fn while_the_provider_is_down_running_sessions_go_on() {
    std::thread::scope(|scope| {
        for how in ["500", "close", "hang", "garbage"] {
            scope.spawn(move || go_on_without_a_provider(how));
        }
    });
}

fn go_on_without_a_provider(how: &str) {
    let site = short_lived("2");
    let (app, tokens) = site.sign_in("alice");
    let mut session = site.session(&tokens);
    let mut stream = session.listen();
    site.forge.fail("refresh", how, 1000);
    // What the child has is not younger, should it have been refreshed for it.
    let issued = Instant::now();
    let asked = site.forge.refreshes_asked();
    eventually("it is tried", || site.forge.refreshes_asked() > asked);
    age(issued, Duration::from_secs(3));
    assert_eq!(session.post(&ping()).status, 200, "{how}");
    let mut new = site.client(&tokens);
    let response = new.initialize();
    assert_eq!(response.status, 503, "{how}: {response:?}");
    assert!(response.header("Retry-After").is_some(), "{how}");
    let refused = app.refresh(&site, &tokens);
    let unavailable = (503, "temporarily_unavailable".to_owned());
    assert_eq!(refusal(&refused), unavailable, "{how}");
    // That cost the client nothing: the same refresh token works when it is over.
    site.forge.control(&json!({ "do": "mend" }));
    site.forge.set_lifetime(3600);
    assert_eq!(new.initialize().status, 200, "{how}");
    app.renewed(&site, &tokens);
    let arguments = json!({ "method": "notifications/tools/list_changed" });
    session.call("notify_after", arguments);
    assert_eq!(
        stream.message()["method"],
        "notifications/tools/list_changed"
    );
}

/// S19: the provider takes back what it gave; that user is nobody from then on, in all clients, and
/// the others go on.
#[test]
fn a_user_who_is_taken_away_at_the_provider_is_taken_away_here() {
    for order in ["revoke", "expire_refresh"] {
        let site = short_lived("2");
        let (app, first) = site.sign_in("alice");
        let (other_app, second) = site.sign_in("alice");
        let sessions = [site.session(&first), site.session(&second)];
        let mut stream = sessions[0].listen();
        site.forge.control(&json!({ "do": order, "user": "alice" }));
        site.forge.set_lifetime(3600);
        let (bobs_app, bob) = site.sign_in("bob");
        let bobs = site.session(&bob);
        within(Duration::from_secs(10), "it is noticed", || {
            site.knock(&first) == 401
        });
        for session in &sessions {
            let response = session.post(&ping());
            assert_eq!(response.status, 401, "{order}");
            let challenge = response.header("WWW-Authenticate").unwrap_or_default();
            assert!(challenge.contains("resource_metadata="), "{challenge}");
            assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        }
        within(ENDED, "the children end", || {
            site.broker.children().len() == 1
        });
        assert_eq!(stream.rest(), Vec::<Value>::new());
        for (app, tokens) in [(&app, &first), (&other_app, &second)] {
            let refused = app.refresh(&site, tokens);
            assert_eq!(
                refusal(&refused),
                (400, "invalid_grant".to_owned()),
                "{order}"
            );
        }
        assert_eq!(bobs.post(&ping()).status, 200);
        bobs_app.renewed(&site, &bob);
        // And comes back by signing in.
        let tokens = app.sign_in(&site, &mut Browser::new(), "alice");
        assert_eq!(site.session(&tokens).post(&ping()).status, 200);
    }
}

/// Nobody runs a child at that moment: it is noticed when the client refreshes, or asks.
#[test]
fn who_is_taken_away_while_nothing_runs_gets_no_child() {
    let site = short_lived("2");
    let (app, tokens) = site.sign_in("alice");
    let (_, others) = site.sign_in("alice");
    let issued = Instant::now();
    site.forge
        .control(&json!({ "do": "revoke", "user": "alice" }));
    age(issued, Duration::from_secs(1));
    let response = site.client(&tokens).initialize();
    assert_eq!(response.status, 401, "{response:?}");
    let challenge = response.header("WWW-Authenticate").unwrap_or_default();
    assert!(challenge.contains("resource_metadata="), "{challenge}");
    assert_eq!((site.knock(&tokens), site.knock(&others)), (401, 401));
    assert_eq!(refusal(&app.refresh(&site, &tokens)).1, "invalid_grant");
    assert!(site.broker.children().is_empty());
}

/// B.2: an answer that the provider gave and nobody got has used up the refresh token. What the
/// user has left is good until it expires; then there is no way but to sign in.
#[test]
fn an_answer_of_the_provider_that_is_lost_ends_in_a_sign_in() {
    let site = short_lived("3");
    let (app, tokens) = site.sign_in("alice");
    let issued = Instant::now();
    site.forge.set_lifetime(3600);
    age(issued, Duration::from_secs(1));
    site.forge.fail("refresh", "lose", 1);
    let before = site.client(&tokens).initialize().status;
    assert!([200, 503].contains(&before), "{before}");
    within(Duration::from_secs(5), "it is found out", || {
        let status = site.client(&tokens).initialize().status;
        assert!([200, 401, 503].contains(&status), "{status}");
        status == 401
    });
    assert_eq!(site.forge.count("refreshes_refused"), 1);
    assert_eq!(refusal(&app.refresh(&site, &tokens)).1, "invalid_grant");
    let tokens = app.sign_in(&site, &mut Browser::new(), "alice");
    assert_eq!(site.session(&tokens).post(&ping()).status, 200);
}

/// B.2: the new pair is on the disk before anybody uses it; a broker that is killed right then
/// does not lose the user's sign-in.
#[test]
fn a_refreshed_token_survives_the_worst_end() {
    let mut site = Site::setup()
        .public_url("http://localhost:9")
        .forge(&["--access-lifetime", "2"])
        .start();
    let (_, tokens) = site.sign_in("alice");
    for round in 1..=2 {
        let issued = Instant::now();
        age(issued, Duration::from_secs(1));
        assert_eq!(site.client(&tokens).initialize().status, 200);
        assert!(site.forge.count("refreshes") >= round);
        site = site.restart(Signal::KILL);
    }
    assert_eq!(site.forge.count("refreshes_refused"), 0);
}
