//! Authorization requests and codes: PKCE, `state`, `iss`, `resource`, and what one code is for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::sign_in::app::refusal;
use crate::support::sign_in::browser::{location, parameter};
use crate::support::sign_in::{App, Browser, Site, Tokens, env};
use crate::support::within;

/// Within these, what was taken away has ended; a little more for a machine under load.
const ENDED: Duration = Duration::from_millis(2500);

fn invalid_grant() -> (u16, String) {
    (400, "invalid_grant".to_owned())
}

/// S1, S6, S15: the way of everybody, to the user's own token in their child (R14).
#[test]
fn a_user_signs_in() {
    let site = Site::start();
    let (_, tokens) = site.sign_in("alice");
    let mut session = site.session(&tokens);
    assert_eq!(env(&mut session, "NAME"), "alice");
    let token = env(&mut session, "TOKEN");
    assert!(!token.is_empty() && token != tokens.access, "{token}");
    // R17: nothing of the client's tokens is where others could read it.
    for text in [site.broker.log(), site.broker.stdout()] {
        for secret in [&tokens.access, &tokens.refresh, &token] {
            assert!(!text.contains(secret.as_str()), "{text}");
        }
    }
}

/// R4, S6, S15: what the client did wrong, it is told, with `state` and `iss`.
#[test]
fn a_wrong_request_goes_back_to_the_client() {
    let site = Site::start();
    let app = site.app();
    let elsewhere = format!("{}/mcp/other", site.issuer);
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("code_challenge", "")], "invalid_request"),
        (&[("code_challenge", "short")], "invalid_request"),
        (&[("code_challenge_method", "")], "invalid_request"),
        (&[("code_challenge_method", "plain")], "invalid_request"),
        (&[("response_type", "")], "invalid_request"),
        (&[("response_type", "token")], "unsupported_response_type"),
        (&[("response_mode", "fragment")], "invalid_request"),
        (&[("request", "eyJ")], "request_not_supported"),
        (
            &[("request_uri", "https://x.example/")],
            "request_uri_not_supported",
        ),
        (&[("prompt", "none")], "interaction_required"),
        (
            &[("resource", "https://elsewhere.example/mcp")],
            "invalid_target",
        ),
        (&[("resource", &elsewhere)], "invalid_target"),
        (&[("resource", "nonsense")], "invalid_target"),
    ];
    for (changes, error) in cases {
        let response = Browser::new().open(&site, &app.url_with(&site, changes));
        assert_eq!(app.error(&site, &response), *error, "{changes:?}");
    }
    assert_eq!(site.forge.count("logins"), 0);
}

/// Parameters that nobody knows, and scopes that nobody has, are no mistake: some send them.
#[test]
fn unknown_parameters_are_ignored() {
    let site = Site::start();
    let app = site.app();
    let changes = [
        ("prompt", "consent"),
        ("scope", "openid offline_access mcp everything"),
        ("nonce", "n"),
        ("audience", "x"),
    ];
    let url = app.url_with(&site, &changes);
    let back = Browser::new().sign_in(&site, &url, "alice");
    let response = app.redeem(&site, &app.code(&site, &back));
    assert_eq!(response.json()["scope"], "mcp", "{}", response.text());
}

/// RFC 6749, section 3.1: without `state` there is none in the answer either.
#[test]
fn a_client_without_state_gets_none() {
    let site = Site::start();
    let app = site.app();
    let url = app.url_with(&site, &[("state", "")]);
    let back = Browser::new().sign_in(&site, &url, "alice");
    assert_eq!(parameter(&back, "state"), None, "{back}");
    assert_eq!(
        parameter(&back, "iss").as_ref(),
        Some(&site.issuer),
        "{back}"
    );
}

/// S6: a wrong verifier burns the code, and the right one comes too late.
#[test]
fn a_wrong_verifier_burns_the_code() {
    let site = Site::start();
    let other = "another-verifier-of-some-forty-three-characters";
    for (wrong, error) in [
        (other, "invalid_grant"),
        ("short", "invalid_grant"),
        ("", "invalid_request"),
    ] {
        let app = site.app();
        let code = app.obtain_code(&site, &mut Browser::new(), "alice");
        let response = app.redeem_with(&site, &code, &[("code_verifier", wrong)]);
        assert_eq!(refusal(&response), (400, error.to_owned()), "{wrong}");
        let right = app.redeem(&site, &code);
        // A request without a verifier was none at all.
        match wrong {
            "" => assert_eq!(right.status, 200),
            _ => assert_eq!(refusal(&right), invalid_grant()),
        }
    }
}

/// S9: the code is bound to the redirect URI and to the client, and a misfit burns it.
#[test]
fn a_code_is_bound_to_its_request() {
    let site = Site::start();
    let stranger = site.app().id;
    for change in [
        ("redirect_uri", "http://127.0.0.1:7777/other"),
        ("redirect_uri", "http://127.0.0.1:7778/callback"),
        ("client_id", &*stranger),
    ] {
        let app = site.app();
        let code = app.obtain_code(&site, &mut Browser::new(), "alice");
        let response = app.redeem_with(&site, &code, &[change]);
        assert_eq!(refusal(&response), invalid_grant(), "{change:?}");
        assert_eq!(
            refusal(&app.redeem(&site, &code)),
            invalid_grant(),
            "{change:?}"
        );
    }
    // OAuth 2.1 no longer asks for it to be repeated.
    let app = site.app();
    let code = app.obtain_code(&site, &mut Browser::new(), "alice");
    Tokens::of(&app.redeem_with(&site, &code, &[("redirect_uri", "")]));
}

/// R12 and RFC 8707: the token request cannot ask for another resource than the code's.
#[test]
fn the_resource_cannot_change_between_code_and_token() {
    let site = Site::setup().server("a").server("b").start();
    let uri = |name: &str| format!("{}/mcp/{name}", site.issuer);
    let app = site.app().at(&uri("a"));
    for wrong in [uri("b"), "https://elsewhere.example/mcp".to_owned()] {
        let code = app.obtain_code(&site, &mut Browser::new(), "alice");
        let response = app.redeem_with(&site, &code, &[("resource", &wrong)]);
        assert_eq!(
            refusal(&response),
            (400, "invalid_target".to_owned()),
            "{wrong}"
        );
    }
    // Left out, it is the code's.
    let code = app.obtain_code(&site, &mut Browser::new(), "alice");
    let tokens = Tokens::of(&app.redeem_with(&site, &code, &[("resource", "")]));
    let refused = app.clone().at(&uri("b")).refresh(&site, &tokens);
    assert_eq!(refusal(&refused), (400, "invalid_target".to_owned()));
    let tokens = app.renewed(&site, &tokens);
    let status = |path| {
        site.client(&tokens)
            .at(path)
            .request("GET")
            .send(site.addr())
            .status
    };
    assert_eq!((status("/mcp/a"), status("/mcp/b")), (400, 401));
}

/// RFC 8707: where there are two servers, nobody can know which one is meant.
#[test]
fn with_two_servers_a_request_must_name_one() {
    let site = Site::setup().server("a").server("b").start();
    let app = site.app();
    for changes in [&[][..], &[("resource", &*format!("{}/mcp", site.issuer))]] {
        let response = Browser::new().open(&site, &app.url_with(&site, changes));
        assert_eq!(app.error(&site, &response), "invalid_target", "{changes:?}");
    }
    let both = format!(
        "{}&resource={1}/mcp/a&resource={1}/mcp/b",
        app.url(&site),
        site.issuer
    );
    let response = Browser::new().open(&site, &both);
    assert_eq!(app.error(&site, &response), "invalid_target");
}

/// S1: the second use ends what the first one gave, the running session and its child with it, and
/// nothing of anybody else.
#[test]
fn a_code_that_comes_twice_ends_what_it_gave() {
    let site = Site::start();
    let app = site.app();
    let code = app.obtain_code(&site, &mut Browser::new(), "alice");
    let tokens = Tokens::of(&app.redeem(&site, &code));
    let (other_app, other) = site.sign_in("alice");
    let (_, bob) = site.sign_in("bob");
    // Only then: with another sign-in a child is replaced.
    let session = site.session(&tokens);
    let mut stream = session.listen();
    let other_session = site.session(&other);
    let bobs = site.session(&bob);
    assert_eq!(site.broker.children().len(), 3);
    assert_eq!(refusal(&app.redeem(&site, &code)), invalid_grant());
    assert_eq!(site.knock(&tokens), 401);
    assert_eq!(refusal(&app.refresh(&site, &tokens)), invalid_grant());
    within(ENDED, "its child ends", || {
        site.broker.children().len() == 2
    });
    assert_eq!(stream.rest(), Vec::<Value>::new());
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    for session in [other_session, bobs] {
        assert_eq!(session.post(&ping).status, 200);
    }
    other_app.renewed(&site, &other);
}

#[test]
fn a_made_up_code_is_refused() {
    let site = Site::start();
    let app = site.app();
    for code in ["mcpc_x", "x", &"y".repeat(3000)] {
        let (status, error) = refusal(&app.redeem(&site, code));
        assert_eq!(status, 400);
        assert!(
            ["invalid_grant", "invalid_request"].contains(&&*error),
            "{error}"
        );
    }
    let missing = refusal(&app.redeem_with(&site, "", &[("code", "")]));
    assert_eq!(missing, (400, "invalid_request".to_owned()));
    let wrong = refusal(&app.redeem_with(&site, "x", &[("grant_type", "password")]));
    assert_eq!(wrong, (400, "unsupported_grant_type".to_owned()));
}

/// S15, S16: the user says no on our page.
#[test]
fn cancel_goes_back_to_the_client() {
    let site = Site::start();
    let app: App = site.app();
    let mut browser = Browser::new();
    let page = browser.open(&site, &app.url(&site));
    let response = browser.answer(&site, &page, "deny");
    assert_eq!(app.error(&site, &response), "access_denied");
    assert!(!location(&response).contains("code="));
    assert_eq!(browser.cookie("mcpb-login"), None);
    assert_eq!(site.forge.count("logins"), 0);
}
