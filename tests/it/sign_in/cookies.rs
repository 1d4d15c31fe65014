//! The cookies of signing in, behind a proxy with TLS and without.

use crate::support::sign_in::browser::{location, set_cookies};
use crate::support::sign_in::{App, Browser, Site};

/// The cookies that are set on the way, with their attributes.
fn all_cookies(site: &Site, app: &App) -> [String; 3] {
    let mut browser = Browser::new();
    let page = browser.open(site, &app.url(site));
    let approved = browser.answer(site, &page, "allow");
    let back = browser.visit_forge(site, &location(&approved), "alice");
    let last = browser.open(site, &back);
    app.code(site, &location(&last));
    [&page, &approved, &last].map(|response| {
        let cookies = set_cookies(response);
        assert_eq!(cookies.len(), 1, "{cookies:?}");
        cookies[0].to_owned()
    })
}

/// S18, point 3: out of reach of scripts, of other sites and of other hosts.
#[test]
fn behind_tls_cookies_are_bound_to_the_host() {
    let site = Site::setup().public_url("https://mcp.example.org").start();
    let app = site.app();
    let cookies = all_cookies(&site, &app);
    for cookie in &cookies {
        for attribute in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
    }
    let [consent, login, unset] = &cookies;
    assert!(consent.starts_with("__Host-mcpb-consent="), "{consent}");
    assert!(login.starts_with("__Host-mcpb-login-"), "{login}");
    assert!(login.ends_with("; Max-Age=600"), "{login}");
    assert!(unset.starts_with("__Host-mcpb-login-"), "{unset}");
    assert!(unset.ends_with("; Max-Age=0"), "{unset}");
}

/// Browsers take a `__Host-` cookie over TLS only.
#[test]
fn without_tls_cookies_have_plain_names() {
    let site = Site::start();
    for cookie in all_cookies(&site, &site.app()) {
        assert!(cookie.starts_with("mcpb-"), "{cookie}");
        assert!(!cookie.contains("Secure"), "{cookie}");
        for attribute in ["; Path=/", "; HttpOnly", "; SameSite=Lax"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
    }
}

/// S12, S15: behind TLS everything else goes as without.
#[test]
fn a_user_signs_in_behind_a_proxy_with_tls() {
    let site = Site::setup().public_url("https://mcp.example.org").start();
    let app = App::register(&site, "https://claude.ai/api/mcp/auth_callback");
    let app = app.at("https://mcp.example.org/mcp");
    let tokens = app.sign_in(&site, &mut Browser::new(), "alice");
    assert_eq!(site.knock(&tokens), 400);
    // The plain cookie names are nothing here.
    let mut browser = Browser::new();
    let page = browser.open(&site, &app.url(&site));
    for cookie in &mut browser.cookies {
        cookie.1 = cookie.1.trim_start_matches("__Host-").to_owned();
    }
    assert_eq!(browser.answer(&site, &page, "allow").status, 400);
}

/// The browser's cookie stays the same: pages in other tabs go on.
#[test]
fn a_consent_cookie_that_nobody_made_is_replaced() {
    let site = Site::start();
    let app = site.app();
    let mut browser = Browser::new();
    let cookie = ["127.0.0.1", "mcpb-consent", "chosen-by-somebody-else"];
    browser.cookies.push(cookie.map(str::to_owned).into());
    browser.open(&site, &app.url(&site));
    let first = browser.cookie("mcpb-consent").unwrap().to_owned();
    assert_ne!(first, "chosen-by-somebody-else");
    assert!(first.len() >= 43, "{first}");
    browser.open(&site, &app.url(&site));
    assert_eq!(browser.cookie("mcpb-consent"), Some(&*first));
}
