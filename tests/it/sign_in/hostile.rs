//! Those who mean harm: each test is an attack that is known from OAuth's own papers (RFC 9700,
//! OAuth 2.1 section 7, and the best-practice pages of MCP), tried from end to end. `addresses` is
//! about those that a stranger may choose.

mod addresses;

use crate::support::Response;
use crate::support::sign_in::app::refusal;
use crate::support::sign_in::browser::{
    assert_page, encode, form_request, hidden, location, parameter,
};
use crate::support::sign_in::{App, Browser, Site, Tokens, env};

const ELSEWHERE: &str = "This sign-in was started elsewhere";

fn invalid_grant() -> (u16, String) {
    (400, "invalid_grant".to_owned())
}

/// Mix-up (RFC 9700, section 4.4): an answer that names another provider is not taken to this one,
/// neither a code nor an error, and the login is over.
#[test]
fn the_answer_of_another_provider_is_not_taken() {
    let site = Site::start();
    let app = site.app();
    for query in ["code=x", "code=gta_real", "error=access_denied"] {
        let mut browser = Browser::new();
        let callback = browser.until_callback(&site, &app.url(&site), "alice");
        let state = parameter(&callback, "state").unwrap();
        let more = encode(&[("state", &state), ("iss", "https://evil.example")]);
        let wrong = format!("{}/oauth/callback?{query}&{more}", site.issuer);
        let response = browser.open(&site, &wrong);
        assert_eq!(response.header("Location"), None, "{query}");
        assert!(response.status >= 400, "{query}: {}", response.status);
        assert!(browser.open(&site, &callback).status >= 400, "{query}");
    }
    assert_eq!(site.forge.count("exchanges"), 0);
    // Its own name is no harm.
    let mut browser = Browser::new();
    let callback = browser.until_callback(&site, &app.url(&site), "alice");
    let right = format!("{callback}&{}", encode(&[("iss", &site.forge.url)]));
    app.code(&site, &location(&browser.open(&site, &right)));
}

/// Mix-up the other way round (S15): whatever a client hears from here says that it is from here.
#[test]
fn each_answer_to_a_client_names_its_issuer() {
    let site = Site::start();
    let app = site.app();
    // `App` looks at `iss` and `state` in each of these.
    app.obtain_code(&site, &mut Browser::new(), "alice");
    let mut browser = Browser::new();
    let page = browser.open(&site, &app.url(&site));
    app.error(&site, &browser.answer(&site, &page, "deny"));
    let wrong = app.url_with(&site, &[("response_type", "token")]);
    app.error(&site, &browser.open(&site, &wrong));
}

/// Code injection (RFC 9700, section 4.5): a code that was got hold of is worth nothing in another
/// client's hands, or in another session of the same client.
#[test]
fn a_stolen_code_is_worth_nothing_elsewhere() {
    let site = Site::start();
    // To another client, with the challenge's own verifier even.
    let (victim, thief) = (site.app(), site.app());
    let code = victim.obtain_code(&site, &mut Browser::new(), "alice");
    let mut with_verifier = thief.clone();
    with_verifier.verifier = victim.verifier.clone();
    assert_eq!(
        refusal(&with_verifier.redeem(&site, &code)),
        invalid_grant()
    );
    // To another session of the client, which has another verifier.
    let code = victim.obtain_code(&site, &mut Browser::new(), "alice");
    let other_session = App::known(&victim.id, &victim.redirect_uri);
    assert_eq!(
        refusal(&other_session.redeem(&site, &code)),
        invalid_grant()
    );
    // The attempt has burnt it for its owner too: better no session than two.
    assert_eq!(refusal(&victim.redeem(&site, &code)), invalid_grant());
}

/// Login fixation, and code injection at our own callback: the provider's code of one browser in
/// the callback of another.
#[test]
fn a_code_of_one_browser_is_not_taken_from_another() {
    let site = Site::start();
    let app = site.app();
    let mut attacker = Browser::new();
    let theirs = attacker.until_callback(&site, &app.url(&site), "bob");
    let mut victim = Browser::new();
    let own = victim.until_callback(&site, &app.url(&site), "alice");
    // The link as it is: the victim would be bob from then on.
    assert_page(&victim.clone().open(&site, &theirs), 400, ELSEWHERE);
    // The attacker's code with the victim's state: PKCE towards the provider holds where the
    // provider keeps it, which a silent sign-in does.
    let mut silent = attacker.clone();
    let theirs = silent.until_callback(&site, &app.url(&site), "bob");
    let code = parameter(&theirs, "code").unwrap();
    let state = parameter(&own, "state").unwrap();
    let injected = encode(&[("code", &code), ("state", &state)]);
    let injected = format!("{}/oauth/callback?{injected}", site.issuer);
    let response = victim.open(&site, &injected);
    assert_page(&response, 403, "Not signed in");
    assert_page(&victim.open(&site, &own), 400, "no longer valid");
}

/// Replay: of a code to the token endpoint by eight at once, of whom one gets something, and that
/// ends.
#[test]
fn a_code_that_is_raced_for_gives_nobody_anything_in_the_end() {
    let site = Site::start();
    let app = site.app();
    let code = app.obtain_code(&site, &mut Browser::new(), "alice");
    let responses = at_once(8, || app.redeem(&site, &code));
    let (won, lost): (Vec<_>, Vec<_>) = responses.iter().partition(|it| it.status == 200);
    assert_eq!(won.len(), 1);
    for response in lost {
        assert_eq!(refusal(response), invalid_grant());
    }
    let tokens = Tokens::of(won[0]);
    assert_eq!(site.knock(&tokens), 401);
    assert_eq!(refusal(&app.refresh(&site, &tokens)), invalid_grant());
}

/// Does something so many times at once.
fn at_once(count: usize, f: impl Fn() -> Response + Sync) -> Vec<Response> {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|_| scope.spawn(&f)).collect();
        all.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

/// Refresh races: several processes of one client share what it stored. Each gets a successor, all
/// of which let in; the one that is used first goes on.
#[test]
fn eight_refreshes_at_once_are_one_client_in_a_hurry() {
    let site = Site::start();
    let (app, tokens) = site.sign_in("alice");
    let responses = at_once(8, || app.refresh(&site, &tokens));
    let all: Vec<Tokens> = responses.iter().map(Tokens::of).collect();
    for (no, one) in all.iter().enumerate() {
        assert!(all[..no].iter().all(|it| it != one));
        assert_eq!(site.knock(one), 400);
    }
    // There is an end to it: a ninth is one too many, and an alarm.
    assert_eq!(refusal(&app.refresh(&site, &tokens)), invalid_grant());
    assert_eq!(site.knock(&all[0]), 401);
}

/// The thief is first with the old token, and within the grace: as soon as both go on, it shows.
#[test]
fn a_thief_within_the_grace_is_found_out() {
    let site = Site::start();
    let (app, tokens) = site.sign_in("alice");
    let thief = app.renewed(&site, &tokens);
    let owner = app.renewed(&site, &tokens);
    let thief = app.renewed(&site, &thief);
    assert_eq!(refusal(&app.refresh(&site, &owner)), invalid_grant());
    assert_eq!((site.knock(&thief), site.knock(&owner)), (401, 401));
    assert_eq!(refusal(&app.refresh(&site, &thief)), invalid_grant());
}

/// PKCE downgrade (RFC 9700, section 4.8): neither left out, nor plain, nor at the end only.
#[test]
fn pkce_cannot_be_left_out() {
    let site = Site::start();
    let app = site.app();
    for changes in [
        &[("code_challenge", ""), ("code_challenge_method", "")][..],
        &[("code_challenge", "")],
        &[("code_challenge_method", "")],
        &[("code_challenge_method", "plain")],
        &[("code_challenge_method", "s256")],
    ] {
        let response = Browser::new().open(&site, &app.url_with(&site, changes));
        assert_eq!(
            app.error(&site, &response),
            "invalid_request",
            "{changes:?}"
        );
    }
    let challenge = app.challenge();
    for verifier in [&*challenge, "", "x"] {
        let code = app.obtain_code(&site, &mut Browser::new(), "alice");
        let response = app.redeem_with(&site, &code, &[("code_verifier", verifier)]);
        assert_eq!(response.status, 400, "{verifier:?}");
    }
    // Twice: which of the two would count?
    let twice = format!("{}&code_challenge=x", app.url(&site));
    let response = Browser::new().open(&site, &twice);
    assert_eq!(app.error(&site, &response), "invalid_request");
}

/// R12: a token of another resource, and of another broker.
#[test]
fn a_token_of_another_resource_opens_nothing() {
    let site = Site::setup().server("a").server("b").start();
    let elsewhere = Site::start();
    let (_, foreign) = elsewhere.sign_in("alice");
    let app = site.app().at(&format!("{}/mcp/a", site.issuer));
    let tokens = app.sign_in(&site, &mut Browser::new(), "alice");
    let mut session = site.client(&tokens).at("/mcp/a").ready();
    let theirs = env(&mut session, "TOKEN");
    for (token, path) in [
        (&foreign.access, "/mcp/a"),
        (&tokens.access, "/mcp/b"),
        (&tokens.refresh, "/mcp/a"),
        (&theirs, "/mcp/a"),
    ] {
        let client = site.broker.client().with_token(token).at(path);
        let response = client.request("GET").send(site.addr());
        assert_eq!(response.status, 401, "{path}");
        let session = session.clone().with_token(token).at(path);
        assert_eq!(session.delete().status, 401, "{path}");
    }
    assert_eq!(refusal(&app.refresh(&site, &foreign)), invalid_grant());
}

/// Cookie tossing: a host beside ours sets cookies of ours, with another path or before ours. Two
/// of one name are worth none, whichever comes first.
#[test]
fn two_cookies_of_one_name_are_worth_nothing() {
    let site = Site::start();
    let app = site.app();
    let mut attacker = Browser::new();
    let page = attacker.open(&site, &app.url(&site));
    let sealed = hidden(&page, "request");
    let theirs = attacker.cookie("mcpb-consent").unwrap();
    let mut victim = Browser::new();
    victim.open(&site, &app.url(&site));
    let own = victim.cookie("mcpb-consent").unwrap();
    let send = |cookies: &str| {
        let form = [("request", &*sealed), ("action", "allow")];
        form_request("/oauth/authorize", &form)
            .header("Host", site.host())
            .header("Origin", &site.issuer)
            .header("Cookie", cookies)
            .send(site.addr())
    };
    let pair = |value: &str| format!("mcpb-consent={value}");
    for cookies in [
        format!("{}; {}", pair(theirs), pair(own)),
        format!("{}; {}", pair(own), pair(theirs)),
        format!("{}; {}", pair(theirs), pair(theirs)),
        format!("x{}", pair(theirs)),
        format!("x={}", pair(theirs)),
        format!("\"{}\"", pair(theirs)),
        pair(""),
    ] {
        assert_page(&send(&cookies), 400, ELSEWHERE);
    }
    location(&send(&format!("other=1;{}", pair(theirs))));
}

/// The same at the callback, where the cookie is what binds a login to a browser.
#[test]
fn two_login_cookies_of_one_name_are_worth_nothing() {
    let site = Site::start();
    let app = site.app();
    let mut browser = Browser::new();
    let callback = browser.until_callback(&site, &app.url(&site), "alice");
    let mut tossed = browser.clone();
    let mut twice = tossed.cookies.clone();
    twice.retain(|it| it.1.starts_with("mcpb-login-"));
    twice.iter_mut().for_each(|it| it.2 = "A".repeat(43));
    tossed.cookies.extend(twice);
    assert_page(&tossed.open(&site, &callback), 400, ELSEWHERE);
    // Which took nothing from the real one.
    app.code(&site, &location(&browser.open(&site, &callback)));
}

/// Clickjacking: no page can be framed, errors included, and none has anything active in it.
#[test]
fn no_page_can_be_framed() {
    let site = Site::start();
    let app = site.app();
    let mut browser = Browser::new();
    let at = |path: &str| format!("{}{path}", site.issuer);
    for url in [
        app.url(&site),
        app.url_with(&site, &[("client_id", "unknown")]),
        app.url_with(&site, &[("redirect_uri", "https://evil.example")]),
        at("/oauth/authorize"),
        at("/oauth/callback"),
        at("/oauth/callback?state=x&code=y"),
    ] {
        let response = browser.open(&site, &url);
        assert_eq!(response.header("X-Frame-Options"), Some("DENY"), "{url}");
        let policy = response
            .header("Content-Security-Policy")
            .unwrap_or_default();
        assert!(policy.contains("frame-ancestors 'none'"), "{url}: {policy}");
        assert!(policy.contains("default-src 'none'"), "{url}: {policy}");
        for active in ["<script", "<iframe", "onload=", "onclick=", "http-equiv"] {
            assert!(!response.text().contains(active), "{url}: {active}");
        }
    }
}

/// Confused deputy, as it is told in the best practices: the victim has a grant at the provider,
/// and the attacker's client a link. Without the victim's word on our page nothing comes of it.
#[test]
fn a_link_alone_brings_an_attacker_nothing() {
    let site = Site::start();
    let mut victim = Browser::new();
    site.app().sign_in(&site, &mut victim, "alice");
    let evil = App::register(&site, "https://evil.example/cb");
    let page = victim.open(&site, &evil.url(&site));
    assert_eq!((page.status, page.header("Location")), (200, None));
    assert!(page.text().contains("evil.example"), "{}", page.text());
    // The attacker's own page, approved by the attacker, and its cookies are no use for the victim.
    let mut attacker = Browser::new();
    let own = attacker.open(&site, &evil.url(&site));
    let to = attacker.approve(&site, &own);
    let callback = victim.visit_forge(&site, &to, "alice");
    assert_eq!(site.forge.count("silent"), 1);
    assert_page(&victim.open(&site, &callback), 400, ELSEWHERE);
    // A form of the attacker's site, which the victim's browser sends without cookies.
    let sealed = hidden(&own, "request");
    let form = [("request", &*sealed), ("action", "allow")];
    let cross = form_request("/oauth/authorize", &form)
        .header("Host", site.host())
        .header("Sec-Fetch-Site", "cross-site")
        .header("Origin", "https://evil.example")
        .send(site.addr());
    assert_eq!((cross.status, cross.header("Location")), (403, None));
}

/// What is sealed for one thing is good for nothing else.
#[test]
fn sealed_values_are_good_in_their_place_only() {
    let site = Site::start();
    let app = site.app();
    let mut browser = Browser::new();
    let page = browser.open(&site, &app.url(&site));
    let sealed = hidden(&page, "request");
    for query in [
        encode(&[("code", "x"), ("state", &sealed)]),
        encode(&[("code", &sealed), ("state", &sealed)]),
    ] {
        let url = format!("{}/oauth/callback?{query}", site.issuer);
        assert_page(&browser.open(&site, &url), 400, ELSEWHERE);
    }
    assert_eq!(refusal(&app.redeem(&site, &sealed)).0, 400);
    let tokens = Tokens {
        access: sealed.clone(),
        refresh: sealed,
    };
    assert_eq!(refusal(&app.refresh(&site, &tokens)).0, 400);
    assert_eq!(site.knock(&tokens), 401);
}
