//! Clients that register themselves (S5; RFC 7591), with a secret or without, and how they prove
//! who they are.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::support::sign_in::app::refusal;
use crate::support::sign_in::browser::{encode, form_request};
use crate::support::sign_in::{App, Browser, Site, Tokens};

const CALLBACK: &str = "http://127.0.0.1:7777/callback";

/// S5: what was registered, and no more.
#[test]
fn a_client_registers() {
    let site = Site::start();
    let response = site.post_json(
        "/oauth/register",
        &json!({
            "client_name": "An app",
            "redirect_uris": [CALLBACK, "https://app.example/cb"],
            "token_endpoint_auth_method": "none",
            "application_type": "native",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "scope": "mcp offline_access",
            "software_id": "whatever",
        }),
    );
    assert_eq!(response.status, 201, "{}", response.text());
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    let json = response.json();
    assert_eq!(json["redirect_uris"], json!([CALLBACK, "https://app.example/cb"]));
    assert_eq!(json["client_name"], "An app");
    assert_eq!(json["token_endpoint_auth_method"], "none");
    assert_eq!(json.get("client_secret"), None);
    // Two registrations are two clients.
    let id = json["client_id"].as_str().unwrap().to_owned();
    assert_ne!(id, site.app().id);
}

/// S8, RFC 7591, section 3.2.2.
#[test]
fn a_wrong_registration_is_refused() {
    let site = Site::start();
    let uris = |uri: &str| json!({ "redirect_uris": [uri] });
    let many: Vec<String> = (0..33).map(|no| format!("https://app.example/{no}")).collect();
    let (redirect, metadata) = ("invalid_redirect_uri", "invalid_client_metadata");
    for (body, error) in [
        (json!({}), redirect),
        (json!({ "redirect_uris": [] }), redirect),
        (json!({ "redirect_uris": CALLBACK }), redirect),
        (json!({ "redirect_uris": many }), redirect),
        (uris("http://app.example/cb"), redirect),
        (uris("javascript:alert(1)"), redirect),
        (uris("data:text/html,x"), redirect),
        (uris("file:///etc/passwd"), redirect),
        (uris("vbscript:x"), redirect),
        (uris("myapp://cb"), redirect),
        (uris("https://user@app.example/"), redirect),
        (uris("https://app.example/#f"), redirect),
        (uris("/cb"), redirect),
        (
            json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "private_key_jwt" }),
            metadata,
        ),
        (
            json!({ "redirect_uris": [CALLBACK], "grant_types": ["client_credentials"] }),
            metadata,
        ),
        (json!([]), metadata),
    ] {
        let response = site.post_json("/oauth/register", &body);
        assert_eq!(response.status, 400, "{body}: {}", response.text());
        assert_eq!(refusal(&response).1, error, "{body}");
    }
    let no_json = site.post_form("/oauth/register", &[("redirect_uris", CALLBACK)]);
    assert_eq!(no_json.status, 400);
}

/// A client with a secret and its ways to show it.
#[test]
fn a_confidential_client_must_show_its_secret() {
    let site = Site::start();
    for method in ["client_secret_post", "client_secret_basic"] {
        let response = site.post_json(
            "/oauth/register",
            &json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": method }),
        );
        let json = response.json();
        let text = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("{json}"));
        let (id, secret) = (text("client_id"), text("client_secret"));
        assert_eq!(json["client_secret_expires_at"], 0);
        let app = App::known(id, CALLBACK);
        let code = app.obtain_code(&site, &mut Browser::new(), "alice");
        let invalid = (401, "invalid_client".to_owned());
        for wrong in ["", "mcps_wrong", id] {
            let response = app.redeem_with(&site, &code, &[("client_secret", wrong)]);
            assert_eq!(refusal(&response), invalid, "{method} {wrong:?}");
        }
        // Neither one of those was a use of the code.
        let response = app.redeem_with(&site, &code, &[("client_secret", secret)]);
        let tokens = Tokens::of(&response);
        assert_eq!(refusal(&app.refresh(&site, &tokens)), invalid);
        let basic = |secret: &str| {
            let basic = BASE64_STANDARD.encode(format!("{id}:{secret}"));
            let form = [("grant_type", "refresh_token"), ("refresh_token", &tokens.refresh)];
            form_request("/oauth/token", &form)
                .header("Host", site.host())
                .header("Authorization", &format!("Basic {basic}"))
                .send(site.addr())
        };
        let wrong = basic("mcps_wrong");
        assert_eq!(refusal(&wrong), invalid);
        let challenge = wrong.header("WWW-Authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Basic "), "{challenge}");
        Tokens::of(&basic(secret));
        // Both at once are none (RFC 6749, section 2.3).
        let both = encode(&[("grant_type", "refresh_token"), ("client_secret", secret)]);
        let request = form_request("/oauth/token", &[]).body(both);
        let basic = BASE64_STANDARD.encode(format!("{id}:{secret}"));
        let request = request.header("Authorization", &format!("Basic {basic}"));
        assert_eq!(request.header("Host", site.host()).send(site.addr()).status, 400);
        let log = site.broker.log();
        assert!(!log.contains(secret), "{log}");
    }
}

/// A.3: clients register again when they hear exactly this.
#[test]
fn an_unknown_client_hears_invalid_client() {
    let site = Site::start();
    let (_, tokens) = site.sign_in("alice");
    let stranger = App::known("client-unknown", CALLBACK);
    let invalid = (401, "invalid_client".to_owned());
    assert_eq!(refusal(&stranger.redeem(&site, "mcpc_x")), invalid);
    assert_eq!(refusal(&stranger.refresh(&site, &tokens)), invalid);
    assert_eq!(refusal(&stranger.revoke(&site, &tokens.access)), invalid);
    let nobody = site.post_form("/oauth/token", &[("grant_type", "refresh_token")]);
    assert_eq!(refusal(&nobody), invalid);
    assert_eq!(site.knock(&tokens), 400);
}

/// Clients outlive the broker; what they registered is read back.
#[test]
fn a_client_is_known_after_a_restart() {
    let site = Site::setup().public_url("http://localhost:9").start();
    let app = site.app();
    let site = site.restart(rustix::process::Signal::TERM);
    app.sign_in(&site, &mut Browser::new(), "alice");
    let other = app.url_with(&site, &[("redirect_uri", "https://other.example/")]);
    assert_eq!(Browser::new().open(&site, &other).status, 400);
}

/// RFC 7009, section 2: an access token goes alone, with a refresh token everything goes.
#[test]
fn a_client_gives_back_what_it_was_given() {
    let site = Site::start();
    let (app, tokens) = site.sign_in("alice");
    let (other, _) = site.sign_in("bob");
    let session = site.session(&tokens);
    // Others can take nothing away, and are told nothing.
    for token in [&tokens.access, &tokens.refresh] {
        assert_eq!(other.revoke(&site, token).status, 200);
    }
    assert_eq!(app.revoke(&site, "mcpa_unknown").status, 200);
    assert_eq!(site.knock(&tokens), 400);
    assert_eq!(app.revoke(&site, &tokens.access).status, 200);
    assert_eq!(site.knock(&tokens), 401);
    // The sign-in goes on, and so does the session.
    let next = app.renewed(&site, &tokens);
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let session = session.with_token(&next.access);
    assert_eq!(session.post(&ping).status, 200);
    let mut stream = session.listen();
    assert_eq!(app.revoke(&site, &next.refresh).status, 200);
    assert_eq!(site.knock(&next), 401);
    assert_eq!(refusal(&app.refresh(&site, &next)).1, "invalid_grant");
    let ended = std::time::Duration::from_millis(2500);
    crate::support::within(ended, "its child ends", || site.broker.children().is_empty());
    assert_eq!(stream.rest(), Vec::<Value>::new());
    let missing = site.post_form("/oauth/revoke", &[("client_id", &app.id)]);
    assert_eq!(refusal(&missing), (400, "invalid_request".to_owned()));
}
