//! The stand-in against what was seen on the real one: consent once, the counter of a grant, and
//! the exact words of its refusals.

use std::time::Duration;

use serde_json::{Value, json};

use crate::control;
use crate::http::{Reply, Request};
use crate::options::Options;
use crate::routes::route;
use crate::state::Forge;

const CALLBACK: &str = "http://127.0.0.1:9/oauth/callback";
const VERIFIER: &str = "a-verifier-of-some-forty-three-characters-12";
/// `printf %s "$VERIFIER" | openssl dgst -sha256 -binary | basenc --base64url`
const CHALLENGE: &str = "FxKstJo-npL-Fgop87ItSBHm1Gk4lMgtRKbVuopGGZU";

fn forge(invalidate: bool) -> Forge {
    let options = Options {
        port: 0,
        users: vec![("alice".to_owned(), vec!["friends".to_owned()])],
        client_id: "broker".to_owned(),
        client_secret: "secret".to_owned(),
        redirect_uris: vec![CALLBACK.to_owned()],
        access_lifetime: Duration::from_secs(3600),
        refresh_lifetime: Duration::from_secs(7200),
        invalidate,
    };
    Forge::new("http://127.0.0.1:1".to_owned(), options)
}

fn form(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

fn send(forge: &Forge, method: &str, target: &str, cookie: &str, body: String) -> Reply {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: vec![("cookie".to_owned(), cookie.to_owned())],
        body,
    };
    route(forge, &request)
}

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    let found = reply.headers.iter().find(|(it, _)| *it == name);
    &found.unwrap_or_else(|| panic!("no {name}")).1
}

/// The cookie of alice's browser.
fn log_in(forge: &Forge) -> String {
    let body = form(&[("user_name", "alice"), ("password", "any")]);
    let reply = send(forge, "POST", "/user/login", "", body);
    assert_eq!(reply.status, 303);
    let cookie = header(&reply, "Set-Cookie").split(';').next();
    cookie.expect("a pair").to_owned()
}

fn ask(forge: &Forge, cookie: &str) -> Reply {
    let query = form(&[
        ("client_id", "broker"),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("state", "s t"),
        ("scope", "openid groups"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]);
    let target = format!("/login/oauth/authorize?{query}");
    send(forge, "GET", &target, cookie, String::new())
}

fn consent(forge: &Forge, cookie: &str, granted: &str) -> Reply {
    let body = form(&[
        ("client_id", "broker"),
        ("redirect_uri", CALLBACK),
        ("state", "s t"),
        ("scope", "openid groups"),
        ("granted", granted),
    ]);
    send(forge, "POST", "/login/oauth/grant", cookie, body)
}

/// The parameter of a redirect to the callback.
fn back(reply: &Reply, name: &str) -> String {
    let location = header(reply, "Location");
    let query = location
        .strip_prefix(&format!("{CALLBACK}?"))
        .expect("to the callback");
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let found = pairs.find(|(it, _)| it == name);
    found.expect("the parameter").1.into_owned()
}

fn token(forge: &Forge, pairs: &[(&str, &str)]) -> (u16, Value) {
    let client = [("client_id", "broker"), ("client_secret", "secret")];
    let body = form(&[&client, pairs].concat());
    let reply = send(forge, "POST", "/login/oauth/access_token", "", body);
    let answer = serde_json::from_str(&reply.body).expect("JSON");
    (reply.status, answer)
}

fn exchange(forge: &Forge, code: &str, verifier: &str) -> (u16, Value) {
    let pairs = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("code_verifier", verifier),
    ];
    token(forge, &pairs)
}

fn refresh(forge: &Forge, tokens: &Value) -> (u16, Value) {
    let old = tokens["refresh_token"].as_str().expect("a refresh token");
    token(
        forge,
        &[("grant_type", "refresh_token"), ("refresh_token", old)],
    )
}

fn refused(why: &str) -> (u16, Value) {
    let answer = json!({ "error": "unauthorized_client", "error_description": why });
    (400, answer)
}

/// Through the consent page, then two logins without one.
fn three_logins(forge: &Forge) -> [Value; 3] {
    let cookie = log_in(forge);
    assert_eq!(ask(forge, &cookie).status, 200, "a page, the first time");
    let first = consent(forge, &cookie, "true");
    assert_eq!(first.status, 303);
    assert_eq!(back(&first, "state"), "s t");
    let codes = [first, ask(forge, &cookie), ask(forge, &log_in(forge))];
    assert_eq!(codes[1].status, 302, "no page any more");
    codes.map(|reply| {
        let (status, tokens) = exchange(forge, &back(&reply, "code"), VERIFIER);
        assert_eq!(status, 200, "{tokens}");
        tokens
    })
}

#[test]
fn a_login_or_a_refresh_kills_all_refresh_tokens_before_it() {
    let forge = forge(true);
    let [first, second, third] = three_logins(&forge);
    for dead in [&first, &second] {
        assert_eq!(refresh(&forge, dead), refused("token was already used"));
    }
    let (status, next) = refresh(&forge, &third);
    assert_eq!(status, 200);
    assert_eq!(refresh(&forge, &third), refused("token was already used"));
    assert_eq!(refresh(&forge, &next).0, 200);
    let access = first["access_token"].as_str().expect("an access token");
    assert!(
        forge.whose(access).is_some(),
        "they go on until they expire"
    );
}

#[test]
fn without_invalidation_all_refresh_tokens_stay() {
    let forge = forge(false);
    for tokens in three_logins(&forge) {
        assert_eq!(refresh(&forge, &tokens).0, 200);
        assert_eq!(refresh(&forge, &tokens).0, 200);
    }
}

#[test]
fn the_challenge_counts_only_without_the_consent_page() {
    let forge = forge(true);
    let cookie = log_in(&forge);
    ask(&forge, &cookie);
    let code = back(&consent(&forge, &cookie, "true"), "code");
    assert_eq!(exchange(&forge, &code, "wrong").0, 200);
    assert_eq!(
        exchange(&forge, &code, VERIFIER),
        refused("client is not authorized"),
        "a code works once"
    );
    let code = back(&ask(&forge, &cookie), "code");
    for verifier in ["wrong", ""] {
        assert_eq!(
            exchange(&forge, &code, verifier),
            refused("client is not authorized")
        );
    }
    assert_eq!(exchange(&forge, &code, VERIFIER).0, 200);
}

#[test]
fn a_user_may_refuse_and_a_foreign_form_gets_nowhere() {
    let forge = forge(true);
    let cookie = log_in(&forge);
    assert_eq!(consent(&forge, &cookie, "true").status, 400, "never asked");
    ask(&forge, &cookie);
    let reply = consent(&forge, &cookie, "false");
    assert_eq!(back(&reply, "error"), "access_denied");
    assert_eq!(ask(&forge, &cookie).status, 200, "asked again");
}

#[test]
fn a_grant_taken_away_takes_its_tokens_along() {
    let forge = forge(true);
    let [_, _, tokens] = three_logins(&forge);
    let order = json!({ "do": "revoke", "user": "alice" }).to_string();
    let request = Request {
        method: "POST".to_owned(),
        path: "/control".to_owned(),
        query: String::new(),
        headers: Vec::new(),
        body: order,
    };
    assert_eq!(control::answer(&forge, &request).status, 200);
    let access = tokens["access_token"].as_str().expect("an access token");
    assert!(forge.whose(access).is_none());
    let (status, answer) = refresh(&forge, &tokens);
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_grant")));
}
