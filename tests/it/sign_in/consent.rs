//! The page that asks before anything happens, and the callback after the provider (S10, S11, S18;
//! 2026-07-28, security best practices, "Confused Deputy Problem").

use serde_json::json;

use crate::support::Response;
use crate::support::sign_in::browser::{assert_page, form_request, hidden, location, parameter};
use crate::support::sign_in::{App, Browser, Site};

/// What pages are called that people see when something is wrong.
const ELSEWHERE: &str = "This sign-in was started elsewhere";
const OVER: &str = "This sign-in is no longer valid";

/// Headers of everything that a browser gets.
#[track_caller]
fn assert_careful(response: &Response) {
    for (name, value) in [
        ("Cache-Control", "no-store"),
        ("X-Frame-Options", "DENY"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name} of {response:?}");
    }
}

/// The page of a request, in a browser of its own.
#[track_caller]
fn page(site: &Site, app: &App) -> (Browser, Response) {
    let mut browser = Browser::new();
    let page = browser.open(site, &app.url(site));
    assert_eq!(page.status, 200, "{}", page.text());
    (browser, page)
}

/// S10, S11: what the person must know to decide.
#[test]
fn the_page_says_who_asks_for_what() {
    let site = Site::start();
    let (_, page) = page(&site, &site.app());
    let text = page.text();
    for words in [
        "An app",
        "127.0.0.1:7777",
        "http://127.0.0.1:7777/callback",
        "anybody can use any name",
        "started this on this computer",
        &format!("{}/mcp", site.issuer),
        "openid",
        "groups",
        "access to everything that your account can do",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert!(!text.contains("<script"), "{text}");
}

/// S18: what a client says of itself is text.
#[test]
fn names_of_clients_are_no_markup() {
    let site = Site::start();
    let response = site.post_json(
        "/oauth/register",
        &json!({
            "client_name": "<script>alert(1)</script>\u{202e}\"'",
            "redirect_uris": ["https://app.example/cb?x=<\">"],
        }),
    );
    assert_eq!(response.status, 400, "{}", response.text());
    let response = site.post_json(
        "/oauth/register",
        &json!({
            "client_name": "<script>alert(1)</script>\u{202e}\"'",
            "redirect_uris": ["https://app.example/cb?x='&y"],
        }),
    );
    let id = response.json()["client_id"].as_str().unwrap().to_owned();
    let (_, page) = page(&site, &App::known(&id, "https://app.example/cb?x='&y"));
    let text = page.text();
    assert!(
        !text.contains("<script") && !text.contains('\u{202e}'),
        "{text}"
    );
    assert!(
        text.contains("&#60;script") || text.contains("&lt;script"),
        "{text}"
    );
}

/// S18: always, also for those whom the provider would let pass without a word.
#[test]
fn the_page_appears_every_time() {
    let site = Site::start();
    let app = site.app();
    let mut browser = Browser::new();
    app.sign_in(&site, &mut browser, "alice");
    for round in 1..=2 {
        let page = browser.open(&site, &app.url(&site));
        assert_eq!((page.status, page.header("Location")), (200, None));
        assert_eq!(site.forge.count("silent"), round - 1);
        let to = browser.approve(&site, &page);
        let callback = browser.visit_forge(&site, &to, "alice");
        assert_eq!(site.forge.count("silent"), round);
        app.code(&site, &location(&browser.open(&site, &callback)));
    }
    assert_eq!(site.forge.count("consents"), 1);
}

/// S18: before the person agreed, there is no login: not here, not in the browser, and the
/// provider was not asked anything.
#[test]
fn nothing_happens_before_the_person_agrees() {
    let site = Site::start();
    let app = site.app();
    let (mut browser, page) = page(&site, &app);
    let names: Vec<&str> = browser.cookies.iter().map(|it| it.1.as_str()).collect();
    assert_eq!(names, ["mcpb-consent"]);
    assert_eq!(logins(&site), 0);
    let status = site.forge.control(&json!({ "do": "events" }));
    let asked = status.as_array().unwrap().iter();
    let mut asked = asked.filter(|it| it["path"] == "/login/oauth/authorize");
    assert!(asked.next().is_none());
    // What a callback would need, nobody can know.
    let sealed = hidden(&page, "request");
    let callback = format!("{}/oauth/callback?code=x&state={sealed}", site.issuer);
    assert_page(&browser.open(&site, &callback), 400, ELSEWHERE);
    let to = browser.approve(&site, &page);
    assert!(to.starts_with(&site.forge.url), "{to}");
    assert!(browser.cookie("mcpb-login-").is_some());
    assert_eq!(logins(&site), 1);
}

/// Logins that are under way, as the broker has kept them.
fn logins(site: &Site) -> i64 {
    let path = site.broker.dir().path().join("state/broker.db");
    let db = rusqlite::Connection::open(path).unwrap();
    let count = db.query_row("SELECT count(*) FROM logins", [], |row| row.get(0));
    count.unwrap()
}

/// What goes to the provider: fresh secrets each time, PKCE, and nothing of the client's.
#[test]
fn the_request_to_the_provider_is_its_own() {
    let site = Site::start();
    let app = site.app();
    let go = || {
        let (mut browser, page) = page(&site, &app);
        browser.approve(&site, &page)
    };
    let (first, second) = (go(), go());
    for name in ["state", "nonce", "code_challenge"] {
        let values = [&first, &second].map(|it| parameter(it, name).unwrap());
        assert_ne!(values[0], values[1], "{name}");
        assert!(values[0].len() >= 43, "{name}: {}", values[0]);
        assert_ne!(values[0], app.challenge());
        assert_ne!(values[0], app.state);
    }
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "broker"),
        ("code_challenge_method", "S256"),
        ("scope", "openid profile email groups"),
        ("redirect_uri", &*format!("{}/oauth/callback", site.issuer)),
    ] {
        assert_eq!(parameter(&first, name).as_deref(), Some(value), "{name}");
    }
}

/// S18: the form is good only from our own page, in the browser that was shown it.
#[test]
fn the_form_of_somebody_else_is_refused() {
    let site = Site::start();
    let app = site.app();
    let (browser, page) = page(&site, &app);
    let (other, _) = self::page(&site, &app);
    let sealed = hidden(&page, "request");
    let send = |mut browser: Browser, fields: &[(&str, &str)], without: &[&str]| {
        let form = [("request", &*sealed), ("action", "allow")];
        let mut request = form_request("/oauth/authorize", &form);
        for (name, value) in fields {
            request = request.header(name, value);
        }
        for name in without {
            request = request.without(name);
        }
        browser.send(&site, site.host(), request)
    };
    let own = [("Origin", &*site.issuer), ("Sec-Fetch-Site", "same-origin")];
    assert_page(&send(Browser::new(), &own, &[]), 400, ELSEWHERE);
    assert_page(&send(other, &own, &[]), 400, ELSEWHERE);
    for fields in [
        [
            ("Origin", "http://127.0.0.1:1"),
            ("Sec-Fetch-Site", "same-origin"),
        ],
        [
            ("Origin", "http://localhost"),
            ("Sec-Fetch-Site", "same-site"),
        ],
        [("Origin", &*site.issuer), ("Sec-Fetch-Site", "same-site")],
        [("Origin", &*site.issuer), ("Sec-Fetch-Site", "cross-site")],
        [("Origin", &*site.issuer), ("Sec-Fetch-Site", "none")],
    ] {
        assert_page(&send(browser.clone(), &fields, &[]), 400, ELSEWHERE);
    }
    for origin in ["null", "https://evil.example"] {
        let response = send(browser.clone(), &[("Origin", origin)], &[]);
        assert_page(&response, 400, ELSEWHERE);
    }
    assert_eq!(logins(&site), 0);
    // All that was missing was the page's own.
    location(&send(browser, &own, &[]));
}

/// What rides in the page cannot be changed by who carries it.
#[test]
fn a_sealed_request_cannot_be_changed() {
    let site = Site::start();
    let app = site.app();
    let (browser, page) = page(&site, &app);
    let sealed = hidden(&page, "request");
    let mut flipped = sealed.clone().into_bytes();
    let middle = flipped.len() / 2;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    let url = format!("{}/oauth/authorize", site.issuer);
    for wrong in [
        "",
        "x",
        "not base64!",
        &sealed[..sealed.len() - 4],
        &sealed[4..],
        &format!("{sealed}AAAA"),
        &flipped,
    ] {
        for action in ["allow", "deny"] {
            let form = [("request", wrong), ("action", action)];
            let response = browser.clone().post(&site, &url, &form);
            assert_page(&response, 400, OVER);
        }
    }
    let missing = browser.clone().post(&site, &url, &[("action", "allow")]);
    assert_page(&missing, 400, OVER);
    assert_eq!(logins(&site), 0);
}

/// Two tabs, and both are good.
#[test]
fn two_pages_in_one_browser_do_not_disturb_each_other() {
    let site = Site::start();
    let (one, two) = (site.app(), site.app());
    let mut browser = Browser::new();
    let first = browser.open(&site, &one.url(&site));
    let second = browser.open(&site, &two.url(&site));
    let to_first = browser.approve(&site, &first);
    let to_second = browser.approve(&site, &second);
    let back = browser.visit_forge(&site, &to_second, "bob");
    two.code(&site, &location(&browser.open(&site, &back)));
    let back = browser.visit_forge(&site, &to_first, "bob");
    one.code(&site, &location(&browser.open(&site, &back)));
    assert_eq!(browser.cookie("mcpb-login-"), None);
}

/// S18, and OAuth 2.1, section 7.9: pages, redirects, and what is wrong.
#[test]
fn headers_keep_pages_from_being_framed_and_kept() {
    let site = Site::start();
    let app = site.app();
    let mut browser = Browser::new();
    let page = browser.open(&site, &app.url(&site));
    let to_provider = browser.answer(&site, &page, "allow");
    let back = browser.visit_forge(&site, &location(&to_provider), "alice");
    let to_client = browser.open(&site, &back);
    let trouble = browser.open(&site, &back);
    for response in [&page, &trouble] {
        let policy = response.header("Content-Security-Policy").unwrap();
        for rule in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let kind = response.header("Content-Type");
        assert_eq!(kind, Some("text/html; charset=utf-8"));
    }
    for response in [&page, &to_provider, &to_client, &trouble] {
        assert_careful(response);
    }
}

/// S18, point 5: the login is bound to the browser, and good for once.
#[test]
fn a_callback_counts_once_and_in_its_own_browser() {
    let site = Site::start();
    let app = site.app();
    let mut browser = Browser::new();
    let callback = browser.until_callback(&site, &app.url(&site), "alice");
    // A browser that knows nothing of it, and one with a login of its own.
    assert_page(&Browser::new().open(&site, &callback), 400, ELSEWHERE);
    let mut other = Browser::new();
    other.until_callback(&site, &app.url(&site), "bob");
    assert_page(&other.open(&site, &callback), 400, ELSEWHERE);
    // It was not used up by those.
    let cookies = browser.clone();
    app.code(&site, &location(&browser.open(&site, &callback)));
    assert_page(&browser.open(&site, &callback), 400, ELSEWHERE);
    // With its cookie kept, it is used all the same.
    assert_page(&cookies.clone().open(&site, &callback), 400, OVER);
    assert_eq!(site.forge.count("exchanges"), 1);
}

/// Nor do eight at once: one of them is signed in.
#[test]
fn a_callback_that_comes_eight_times_at_once_counts_once() {
    let site = Site::start();
    let app = site.app();
    let mut browser = Browser::new();
    let callback = browser.until_callback(&site, &app.url(&site), "alice");
    let open = || browser.clone().open(&site, &callback);
    let responses: Vec<Response> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        all.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = responses.iter().partition(|it| it.status == 303);
    assert_eq!(won.len(), 1);
    app.code(&site, &location(won[0]));
    for response in lost {
        assert_page(response, 400, OVER);
    }
    assert_eq!(site.forge.count("exchanges"), 1);
}

/// A cookie of another login under this one's name: that is no accident, and burns the login.
#[test]
fn a_callback_with_a_wrong_cookie_burns_the_login() {
    let site = Site::start();
    let app = site.app();
    let mut browser = Browser::new();
    let callback = browser.until_callback(&site, &app.url(&site), "alice");
    let mut wrong = browser.clone();
    for cookie in &mut wrong.cookies {
        if cookie.1.starts_with("mcpb-login-") {
            cookie.2 = "A".repeat(43);
        }
    }
    assert_page(&wrong.open(&site, &callback), 400, ELSEWHERE);
    assert_page(&browser.open(&site, &callback), 400, OVER);
    assert_eq!(site.forge.count("exchanges"), 0);
}

#[test]
fn callbacks_that_make_no_sense_get_a_page() {
    let site = Site::start();
    let app = site.app();
    let mut browser = Browser::new();
    let callback = browser.until_callback(&site, &app.url(&site), "alice");
    let at = |query: &str| format!("{}/oauth/callback?{query}", site.issuer);
    for query in ["", "code=x", "error=access_denied"] {
        assert_page(&browser.clone().open(&site, &at(query)), 400, OVER);
    }
    for query in ["code=x&state=", "code=x&state=unknown"] {
        assert_page(&browser.clone().open(&site, &at(query)), 400, ELSEWHERE);
    }
    let state = parameter(&callback, "state").unwrap();
    let no_code = at(&format!("state={state}"));
    assert_page(&browser.open(&site, &no_code), 400, OVER);
    assert_eq!(site.forge.count("exchanges"), 0);
}

/// What the provider says instead of a code.
#[test]
fn an_error_of_the_provider_is_told() {
    let site = Site::start();
    let app = site.app();
    let with = |error: &str| {
        let mut browser = Browser::new();
        let callback = browser.until_callback(&site, &app.url(&site), "alice");
        let state = parameter(&callback, "state").unwrap();
        let query = crate::support::sign_in::browser::encode(&[
            ("error", error),
            ("error_description", "<b>why</b>"),
            ("state", &state),
        ]);
        browser.open(&site, &format!("{}/oauth/callback?{query}", site.issuer))
    };
    assert_eq!(app.error(&site, &with("access_denied")), "access_denied");
    for (error, status, title) in [
        (
            "temporarily_unavailable",
            503,
            "The provider does not answer",
        ),
        ("server_error", 503, "The provider does not answer"),
        ("invalid_scope", 403, "Not signed in"),
        ("<b>bold</b>", 403, "Not signed in"),
    ] {
        let response = with(error);
        assert_page(&response, status, title);
        assert!(!response.text().contains("<b>"), "{}", response.text());
    }
    assert_eq!(site.forge.count("exchanges"), 0);
}

/// Scopes of clients that use a scheme of their own: a page with a link, since browsers open an
/// app only where somebody has just asked for it.
#[test]
fn an_app_is_opened_by_hand() {
    let site = Site::start();
    let uri = "cursor://anysphere.cursor-mcp/oauth/callback";
    let app = App::register(&site, uri);
    let response = Browser::new().come_back(&site, &app.url(&site), "alice");
    assert_eq!((response.status, response.header("Location")), (200, None));
    let link = response.text().split_once("href=\"cursor:").unwrap().1;
    let link = link.split_once('"').unwrap().0;
    let link = format!("cursor:{link}")
        .replace("&#38;", "&")
        .replace("&amp;", "&");
    let code = app.code(&site, &link);
    assert_eq!(app.redeem(&site, &code).status, 200);
}
