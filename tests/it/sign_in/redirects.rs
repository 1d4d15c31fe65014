//! Where a browser is sent with a code (S8, S9, S10): what was registered, character for
//! character, but for the port of a program on the user's own computer.

use crate::support::sign_in::browser::{assert_page, location};
use crate::support::sign_in::{App, Browser, Site};

const WRONG: &str = "The app&#39;s request is not right";

/// The answer to a client that has registered one address and asks for another.
fn ask(site: &Site, app: &App, asked: &str) -> crate::support::Response {
    let url = app.url_with(site, &[("redirect_uri", asked)]);
    Browser::new().open(site, &url)
}

/// S9: RFC 8252, section 7.3, also for the name `localhost`.
#[test]
fn the_port_of_a_loopback_address_does_not_matter() {
    let site = Site::start();
    for (registered, all) in [
        (
            "http://127.0.0.1/callback",
            &[
                "http://127.0.0.1/callback",
                "http://127.0.0.1:50123/callback",
            ][..],
        ),
        (
            "http://localhost:8787/callback",
            &["http://localhost/callback", "http://localhost:1/callback"],
        ),
        ("http://[::1]:1/cb?a=b", &["http://[::1]:65535/cb?a=b"]),
    ] {
        let app = App::register(&site, registered);
        for asked in all {
            let response = ask(&site, &app, asked);
            assert_eq!(response.status, 200, "{registered} {asked}");
            let app = App {
                redirect_uri: (*asked).to_owned(),
                ..app.clone()
            };
            app.sign_in(&site, &mut Browser::new(), "alice");
        }
    }
}

/// S9, S10: anything else is a page, and never a redirect.
#[test]
fn any_other_address_is_refused_with_a_page() {
    let site = Site::start();
    for (registered, all) in [
        (
            "http://127.0.0.1:7777/callback",
            &[
                "http://localhost:7777/callback",
                "http://[::1]:7777/callback",
                "http://127.0.0.2:7777/callback",
                "https://127.0.0.1:7777/callback",
                "http://127.0.0.1:7777/callback/",
                "http://127.0.0.1:7777/Callback",
                "http://127.0.0.1:7777/callback?x=y",
                "http://127.0.0.1:7777/callback?",
                "http://127.0.0.1:7777/callback#f",
                "http://127.0.0.1:7777/",
                "http://127.0.0.1:0/callback",
                "http://127.0.0.1:99999/callback",
            ][..],
        ),
        (
            "https://app.example/cb?x=1",
            &[
                "https://app.example:8443/cb?x=1",
                "https://app.example:443/cb?x=1",
                "http://app.example/cb?x=1",
                "https://APP.example/cb?x=1",
                "https://app.example/cb",
                "https://app.example/cb?x=1&y=2",
                "https://app.example/cb?x=2",
                "https://evil.example/cb?x=1",
                "https://app.example.evil.example/cb?x=1",
            ],
        ),
        (
            "com.example.app:/cb",
            &[
                "com.example.app:/cb2",
                "com.example.ap:/cb",
                "com.example.app://cb",
            ],
        ),
    ] {
        let app = App::register(&site, registered);
        assert_eq!(ask(&site, &app, registered).status, 200, "{registered}");
        for asked in all {
            let response = ask(&site, &app, asked);
            assert_eq!(response.status, 400, "{registered} {asked}");
            assert_page(&response, 400, WRONG);
            // Not in a link either.
            assert!(
                !response.text().contains("href=\"http"),
                "{}",
                response.text()
            );
        }
    }
}

/// S10: nor is anybody redirected when the address is missing or there twice, or the client.
#[test]
fn a_request_without_a_certain_address_is_a_page() {
    let site = Site::start();
    let app = site.app();
    let url = app.url(&site);
    let twice = |name: &str, value: &str| format!("{url}&{name}={value}");
    for url in [
        app.url_with(&site, &[("redirect_uri", "")]),
        app.url_with(&site, &[("client_id", "")]),
        twice("redirect_uri", "https://evil.example/"),
        twice("client_id", "other"),
    ] {
        assert_page(&Browser::new().open(&site, &url), 400, WRONG);
    }
    let unknown = app.url_with(&site, &[("client_id", "client-unknown")]);
    let page = Browser::new().open(&site, &unknown);
    assert_page(&page, 400, "This app is not known here");
    // Of one web address there can be no doubt.
    let app = App::register(&site, "https://app.example/cb");
    let url = app.url_with(&site, &[("redirect_uri", "")]);
    assert_eq!(Browser::new().open(&site, &url).status, 200);
}

/// RFC 6749, section 3.1.2: a query that was there stays.
#[test]
fn the_answer_is_added_to_the_query_that_is_there() {
    let site = Site::start();
    let app = App::register(&site, "https://app.example/cb?x=%20y");
    let back = Browser::new().sign_in(&site, &app.url(&site), "alice");
    assert!(
        back.starts_with("https://app.example/cb?x=%20y&code=mcpc_"),
        "{back}"
    );
    app.code(&site, &back);
}

/// S4, S9: a well-known client needs no registration, and has its own addresses only.
#[test]
fn a_well_known_client_is_known_without_a_network() {
    let site = Site::start();
    let id = "https://claude.ai/oauth/claude-code-client-metadata";
    let app = App::known(id, "http://localhost:51234/callback");
    let mut browser = Browser::new();
    let page = browser.open(&site, &app.url(&site));
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains("Claude Code"), "{}", page.text());
    let to = browser.approve(&site, &page);
    let callback = browser.visit_forge(&site, &to, "alice");
    let code = app.code(&site, &location(&browser.open(&site, &callback)));
    assert_eq!(app.redeem(&site, &code).status, 200);
    for asked in [
        "http://localhost:51234/other",
        "https://claude.ai/api/mcp/auth_callback",
        "http://evil.example/callback",
    ] {
        assert_page(&ask(&site, &app, asked), 400, WRONG);
    }
}

/// S10, S11: a link to us leads nobody to a stranger's site, not by a mistake in it either.
#[test]
fn a_mistake_sends_nobody_to_a_strangers_site() {
    let site = Site::start();
    for uri in ["https://evil.example/cb", "com.evil.app:/cb"] {
        let app = App::register(&site, uri);
        for change in [
            ("response_type", "token"),
            ("code_challenge", ""),
            ("prompt", "none"),
            ("resource", "https://elsewhere.example"),
        ] {
            let url = app.url_with(&site, &[change]);
            assert_page(&Browser::new().open(&site, &url), 400, WRONG);
        }
    }
}
