//! What strangers may ask: so much at once, and no more from one address.

use serde_json::json;

use crate::support::Response;
use crate::support::sign_in::app::refusal;
use crate::support::sign_in::browser::assert_page;
use crate::support::sign_in::{Browser, Site};

/// Bodies up to this are read.
const BODY_MAX_BYTES: usize = 64 * 1024;

#[track_caller]
fn assert_wait(response: &Response) {
    let wait = response.header("Retry-After").map(str::parse::<u64>);
    assert!(matches!(wait, Some(Ok(1..=60))), "{response:?}");
}

/// S5: who registers without end is told to wait; who has a token goes on.
#[test]
fn registrations_of_an_address_are_limited() {
    let site = Site::start();
    let (app, tokens) = site.sign_in("alice");
    let body = json!({ "redirect_uris": ["https://app.example/cb"] });
    let mut registered = 1;
    let refused = loop {
        let response = site.post_json("/oauth/register", &body);
        match response.status {
            201 => registered += 1,
            _ => break response,
        }
        assert!(registered < 40, "no end of it");
    };
    // One more may have been allowed meanwhile.
    assert!((30..=32).contains(&registered), "{registered}");
    assert_eq!(
        refusal(&refused),
        (429, "temporarily_unavailable".to_owned())
    );
    assert_eq!(refused.header("Access-Control-Allow-Origin"), Some("*"));
    assert_wait(&refused);
    app.renewed(&site, &tokens);
    assert_eq!(site.knock(&tokens), 400);
}

/// The other ones too; a person gets a page.
#[test]
fn a_browser_that_asks_too_often_gets_a_page() {
    let site = Site::start();
    let url = format!("{}/oauth/authorize", site.issuer);
    let mut browser = Browser::new();
    let ask = || browser.open(&site, &url);
    let refused = std::iter::repeat_with(ask)
        .take(100)
        .find(|it| it.status == 429);
    let refused = refused.expect("an end of it");
    assert_page(&refused, 429, "Too many attempts");
    assert_wait(&refused);
    let form = [("grant_type", "refresh_token"), ("client_id", "x")];
    let token = site.post_form("/oauth/token", &form);
    assert_eq!(refusal(&token), (400, "invalid_request".to_owned()));
    // What has no limit is answered all the same.
    assert_eq!(
        site.get("/.well-known/oauth-authorization-server").status,
        200
    );
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let site = Site::start();
    for path in [
        "/oauth/token",
        "/oauth/register",
        "/oauth/revoke",
        "/oauth/authorize",
    ] {
        for (len, is_read) in [(BODY_MAX_BYTES, true), (BODY_MAX_BYTES + 1, false)] {
            let request = site.request("POST", path);
            let response = request.body("x".repeat(len)).send(site.addr());
            assert_eq!(
                response.status == 413,
                !is_read,
                "{path} {len}: {response:?}"
            );
        }
    }
}

/// A query is as limited as a head is.
#[test]
fn a_query_that_is_too_long_is_refused() {
    let site = Site::start();
    let app = site.app();
    for len in [10_000, 60_000] {
        let url = app.url_with(&site, &[("state", &"s".repeat(len))]);
        let response = Browser::new().open(&site, &url);
        assert!(
            [303, 400, 414, 431].contains(&response.status),
            "{}",
            response.status
        );
        assert_ne!(response.status, 200);
    }
}

/// R11: what is no text, or no form, is no request.
#[test]
fn bodies_that_make_no_sense_are_refused() {
    let site = Site::start();
    let form = "application/x-www-form-urlencoded";
    for (path, kind, body) in [
        ("/oauth/token", form, &b"\xff\xfe"[..]),
        ("/oauth/token", "application/json", b"{}"),
        ("/oauth/token", form, b""),
        ("/oauth/register", "application/json", b"{"),
        ("/oauth/register", "application/json", b"null"),
        ("/oauth/register", form, b"redirect_uris=x"),
        ("/oauth/revoke", form, b"%%%=&&&"),
    ] {
        let request = site.request("POST", path).header("Content-Type", kind);
        let response = request.body(body).send(site.addr());
        let status = response.status;
        assert!(
            [400, 401, 413].contains(&status),
            "{path} {body:?}: {response:?}"
        );
    }
}

/// How many registrations of this client a broker takes until it says that it is enough.
fn taken(site: &Site, forwarded: &str) -> usize {
    let body = json!({ "redirect_uris": ["https://app.example/cb"] }).to_string();
    let ask = || {
        let request = site.request("POST", "/oauth/register").body(&*body);
        let request = request.header("Content-Type", "application/json");
        let request = request.header("X-Forwarded-For", forwarded);
        request.send(site.addr()).status
    };
    (0..40).take_while(|_| ask() == 201).count()
}

/// An address is what a trusted proxy says, and nobody else.
#[test]
fn behind_a_proxy_each_address_has_its_own_limit() {
    let trusting = |whom: &[&str]| {
        let setup = Site::setup();
        setup
            .with(|it| it.setting("trusted_proxies", json!(whom)))
            .start()
    };
    let proxied = trusting(&["127.0.0.1"]);
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        let count = taken(&proxied, address);
        assert!((30..=32).contains(&count), "{address}: {count}");
    }
    // What the proxy was told by its client counts for nothing.
    let count = taken(&proxied, "203.0.113.9, 192.0.2.1");
    assert!(count <= 2, "{count}");
    let direct = trusting(&[]);
    assert!((30..=32).contains(&taken(&direct, "192.0.2.1")));
    assert!(taken(&direct, "192.0.2.2") <= 2);
}
