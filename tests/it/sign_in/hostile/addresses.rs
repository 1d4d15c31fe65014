//! Addresses that a stranger chooses: where a browser is sent, and where the broker itself goes.

use std::io::ErrorKind;
use std::net::TcpListener;

use serde_json::json;

use super::invalid_grant;
use crate::support::sign_in::app::refusal;
use crate::support::sign_in::browser::assert_page;
use crate::support::sign_in::{App, Browser, Site};

/// Redirect tricks: what one parser takes for the registered address and a browser for another.
#[test]
fn no_trick_sends_a_browser_anywhere_else() {
    let site = Site::start();
    let web = App::register(&site, "https://app.example/cb");
    let loopback = App::register(&site, "http://127.0.0.1:7777/callback");
    let tricks = [
        "https://app.example/cb@evil.example",
        "https://app.example@evil.example/cb",
        "https://evil.example\\@app.example/cb",
        "https://evil.example#@app.example/cb",
        "https://evil.example/https://app.example/cb",
        "https://app.example.evil.example/cb",
        "https://app.example:443@evil.example/cb",
        "https://app.example/cb/../evil",
        "https://app.example/cb/..",
        "https://app.example/%2e%2e/evil",
        "https://app.example/cb%00",
        "https://app.example/cb%0d%0aLocation:%20https://evil.example",
        "https://app.example/cb\r\nLocation: https://evil.example",
        "https://app.example/cb ",
        " https://app.example/cb",
        "https://app.example/cb\u{0}",
        "https://app.example\u{2215}cb",
        "https://app\u{3002}example/cb",
        "https:/app.example/cb",
        "https:app.example/cb",
        "//app.example/cb",
        "/cb",
        "javascript:alert(1)//https://app.example/cb",
        "data:text/html,<script>1</script>",
        "http://127.0.0.1:7777@evil.example/callback",
        "http://127.0.0.1:7777.evil.example/callback",
        "http://127.0.0.1.evil.example:7777/callback",
        "http://127.0.0.1\\evil.example:7777/callback",
        "http://2130706433:7777/callback",
        "http://0x7f.1:7777/callback",
        "http://127.1:7777/callback",
        "http://0.0.0.0:7777/callback",
        "http://[::ffff:127.0.0.1]:7777/callback",
        "http://localhost.evil.example:7777/callback",
        "http://127.0.0.1:7777/callback/..;/x",
    ];
    for (no, trick) in tricks.iter().enumerate() {
        let app = [&web, &loopback][usize::from(no >= 24)];
        let url = app.url_with(&site, &[("redirect_uri", trick)]);
        let response = Browser::new().open(&site, &url);
        assert_eq!(response.status, 400, "{trick:?}");
        assert_eq!(response.header("Location"), None, "{trick:?}");
        let text = response.text();
        assert!(!text.contains("<form"), "{trick:?}: {text}");
        assert!(!text.contains("href=\"http"), "{trick:?}: {text}");
    }
}

/// The same at registration.
#[test]
fn no_trick_can_be_registered() {
    let site = Site::start();
    for trick in [
        "https://app.example@evil.example/cb",
        "https://app.example\\evil.example/cb",
        "https://app.example/cb#fragment",
        "https://app.example/a/../cb",
        "https://app.example/%2e%2e/cb",
        "https://app.example/%0d%0a",
        "http://app.example/cb",
        "http://2130706433/cb",
        "http://0x7f.1/cb",
        "http://127.0.0.1.evil.example/cb",
        "http://localhost.evil.example/cb",
        "JAVASCRIPT:alert(1)",
        "view-source:https://app.example",
        "blob:https://app.example/1",
        "about:blank",
        "intent://x#Intent;end",
        "ms-settings:x",
        "file:///etc/passwd",
        "",
    ] {
        let body = json!({ "redirect_uris": [trick] });
        let response = site.post_json("/oauth/register", &body);
        assert_eq!(response.status, 400, "{trick:?}: {}", response.text());
        assert_eq!(refusal(&response).1, "invalid_redirect_uri", "{trick:?}");
    }
}

/// SSRF (A.2, CIMD): a `client_id` is an address that a stranger has chosen. Nothing inside is
/// asked, and the stranger learns nothing of what is there.
#[test]
fn no_document_is_fetched_from_inside() {
    let site = Site::start();
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    open.set_nonblocking(true).unwrap();
    let port = open.local_addr().unwrap().port();
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "[fe80::1]",
        "[fd00::1]",
        "user@127.0.0.1",
    ] {
        let id = format!("https://{host}:{port}/client.json");
        let app = App::known(&id, "https://app.example/cb");
        let response = Browser::new().open(&site, &app.url(&site));
        assert_page(&response, 400, "This app is not known here");
        assert!(
            matches!(open.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock),
            "{host}"
        );
    }
    for id in [
        format!("https://127.0.0.1:{port}"),
        format!("https://127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}/client.json"),
        format!("https://127.0.0.1:{port}/a/../client.json"),
        format!("https://127.0.0.1:{port}/client.json#x"),
        format!("gopher://127.0.0.1:{port}/_x"),
        "https://app.example:22/client.json".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let app = App::known(&id, "https://app.example/cb");
        let response = Browser::new().open(&site, &app.url(&site));
        assert_page(&response, 400, "This app is not known here");
        assert!(!response.text().contains("root:"), "{id}");
    }
    assert!(open.accept().is_err());
    // At the token endpoint nothing is fetched at all.
    let app = App::known(
        &format!("https://127.0.0.1:{port}/x"),
        "https://app.example/cb",
    );
    assert_eq!(refusal(&app.redeem(&site, "mcpc_x")), invalid_grant());
    assert!(open.accept().is_err());
}
