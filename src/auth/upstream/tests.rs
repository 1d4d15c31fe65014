//! Tests of the provider, against one on the loopback interface that answers as Forgejo and others
//! do.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::web::tests::fake::{Fake, json as reply_json, reply};
use super::*;

mod discovery;
mod users;

const SECRET: &str = "gto_s3cret";
const REDIRECT: &str = "https://mcp.example.org/oauth/callback";
const DISCOVERY: &str = "GET /.well-known/openid-configuration";
const TOKEN: &str = "POST /login/oauth/access_token";
const USER_INFO: &str = "GET /login/oauth/userinfo";

/// A provider whose answers a test sets.
struct Provider {
    server: Fake,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answers: HashMap<&'static str, String>,
    /// Head and body of what was asked last, by line.
    asked: HashMap<String, (String, String)>,
    count: HashMap<String, usize>,
}

impl Provider {
    /// One that answers as Forgejo does, and without an ID token.
    fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let server = Fake::http(move |asked| {
            let mut state = shared.lock();
            let heard = (asked.head.clone(), asked.body.clone());
            state.asked.insert(asked.line.clone(), heard);
            *state.count.entry(asked.line.clone()).or_default() += 1;
            let known = state.answers.get(&*asked.line).cloned();
            known.unwrap_or_else(|| reply_json("404 Not Found", "{}"))
        });
        let provider = Self { server, state };
        provider.set(DISCOVERY, "200 OK", &provider.document());
        provider.set(TOKEN, "200 OK", &tokens());
        let info = json!({"sub": "7", "preferred_username": "Alice", "email": "a@example.org"});
        provider.set(USER_INFO, "200 OK", &info);
        provider
    }

    fn document(&self) -> Value {
        let url = |path: &str| self.server.url(path);
        json!({
            "issuer": url(""),
            "authorization_endpoint": url("/login/oauth/authorize"),
            "token_endpoint": url("/login/oauth/access_token"),
            "userinfo_endpoint": url("/login/oauth/userinfo"),
        })
    }

    fn set(&self, line: &'static str, status: &str, body: &Value) {
        self.set_raw(line, reply_json(status, &body.to_string()));
    }

    fn set_raw(&self, line: &'static str, response: String) {
        self.state.lock().answers.insert(line, response);
    }

    fn asked(&self, line: &str) -> (String, String) {
        self.state.lock().asked[line].clone()
    }

    fn count(&self, line: &str) -> usize {
        self.state.lock().count.get(line).copied().unwrap_or(0)
    }

    fn upstream(&self, kind: UpstreamKind) -> Upstream {
        Upstream::new(options(kind, &self.server.url(""))).unwrap()
    }
}

fn options(kind: UpstreamKind, url: &str) -> UpstreamOptions {
    UpstreamOptions {
        kind,
        url: url.to_owned(),
        client_id: "our id".to_owned(),
        client_secret: SECRET.to_owned(),
        scopes: "openid profile email groups".to_owned(),
        name: "Forge".to_owned(),
        allow: Allow::default(),
        ca_file: None,
    }
}

fn tokens() -> Value {
    json!({
        "access_token": "acc3ss",
        "token_type": "bearer",
        "expires_in": 3600,
        "refresh_token": "r3fresh",
    })
}

fn exchange(upstream: &Upstream) -> Result<SignedIn, UpstreamError> {
    upstream.exchange("c0de", "v3rifier", "n0nce", REDIRECT)
}

/// What an error is, and its text.
fn kind(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::SignInAgain(_) => "sign in again",
        UpstreamError::TryAgain(_) => "try again",
        UpstreamError::Broken(_) => "broken",
    }
}

#[test]
fn a_code_is_exchanged_with_the_secret_in_the_header() {
    let provider = Provider::start();
    let upstream = provider.upstream(UpstreamKind::Forgejo);
    let before = SystemTime::now();
    let who = exchange(&upstream).unwrap();
    assert_eq!((&*who.subject, &*who.name), ("7", "Alice"));
    assert_eq!(who.email.as_deref(), Some("a@example.org"));
    let hour = Duration::from_secs(3600);
    let tokens = who.tokens;
    assert_eq!(
        (&*tokens.access, tokens.refresh.as_deref()),
        ("acc3ss", Some("r3fresh"))
    );
    assert_eq!((tokens.lifetime, tokens.scope), (Some(hour), None));
    let expires = tokens.expires.unwrap();
    assert!(before + hour <= expires && expires <= SystemTime::now() + hour);
    let (head, body) = provider.asked(TOKEN);
    let basic = BASE64_STANDARD.encode(format!("our+id:{SECRET}"));
    assert!(
        head.contains(&format!("authorization: Basic {basic}\n")),
        "{head}"
    );
    let form = "grant_type=authorization_code&code=c0de\
        &redirect_uri=https%3A%2F%2Fmcp.example.org%2Foauth%2Fcallback&code_verifier=v3rifier";
    assert_eq!(body, form);
    let (head, _) = provider.asked(USER_INFO);
    assert!(head.contains("authorization: Bearer acc3ss\n"), "{head}");
}

#[test]
fn the_secret_goes_into_the_body_only_where_the_provider_wants_it_there() {
    let provider = Provider::start();
    for (methods, is_in_body) in [
        (json!(["client_secret_post"]), true),
        (json!(["private_key_jwt", "client_secret_post"]), true),
        (json!(["client_secret_post", "client_secret_basic"]), false),
        (json!([]), false),
        (Value::Null, false),
    ] {
        let mut document = provider.document();
        document["token_endpoint_auth_methods_supported"] = methods.clone();
        provider.set(DISCOVERY, "200 OK", &document);
        exchange(&provider.upstream(UpstreamKind::Forgejo)).unwrap();
        let (head, body) = provider.asked(TOKEN);
        let client = format!("&client_id=our+id&client_secret={SECRET}");
        assert_eq!(body.contains(&client), is_in_body, "{methods}");
        assert_eq!(head.contains("authorization:"), !is_in_body, "{methods}");
    }
}

/// B.2: what Forgejo and Gitea answer, and others may.
#[test]
fn a_refusal_means_to_sign_in_again_to_wait_or_that_we_are_wrong() {
    let provider = Provider::start();
    let error = |status: &str, error: &str, description: &str| {
        let body = json!({"error": error, "error_description": description});
        reply_json(status, &body.to_string())
    };
    const BAD: &str = "400 Bad Request";
    const NO: &str = "401 Unauthorized";
    const UNAUTHORIZED: &str = "unauthorized_client";
    let unknown = "cannot load client with client id: \"x\"";
    for (response, expected) in [
        (
            error(BAD, UNAUTHORIZED, "token was already used"),
            "sign in again",
        ),
        (
            error(BAD, UNAUTHORIZED, "client is not authorized"),
            "sign in again",
        ),
        (
            error(BAD, UNAUTHORIZED, "unable to parse refresh token"),
            "sign in again",
        ),
        (
            error(BAD, "invalid_grant", "grant does not exist"),
            "sign in again",
        ),
        (error(NO, "invalid_token", ""), "sign in again"),
        (error(BAD, "invalid_request", ""), "sign in again"),
        (error(BAD, "", ""), "try again"),
        (reply_json(BAD, "<html>"), "try again"),
        (reply_json(NO, "[]"), "try again"),
        (
            error(BAD, "invalid_client", "invalid client secret"),
            "broken",
        ),
        (error(BAD, "invalid_client", unknown), "broken"),
        (error(NO, "invalid_client", ""), "broken"),
        (error(BAD, UNAUTHORIZED, "invalid client secret"), "broken"),
        (error(BAD, "temporarily_unavailable", ""), "try again"),
        (error("429 Slow", "invalid_grant", ""), "try again"),
        (error("500 Oops", "invalid_grant", ""), "try again"),
        (error("503 Later", "", ""), "try again"),
        (error("403 Forbidden", "", ""), "try again"),
        (error("404 Not Found", "", ""), "broken"),
        (reply("302 Found", "Location: /login\r\n", ""), "broken"),
        (String::new(), "try again"),
    ] {
        provider.set_raw(TOKEN, response.clone());
        let upstream = provider.upstream(UpstreamKind::Forgejo);
        for failed in [upstream.refresh("r").err(), exchange(&upstream).err()] {
            assert_eq!(
                failed.as_ref().map(kind),
                Some(expected),
                "{response} {failed:?}"
            );
        }
    }
}

#[test]
fn a_provider_that_is_gone_during_a_refresh_may_be_tried_again() {
    let provider = Provider::start();
    let upstream = provider.upstream(UpstreamKind::Forgejo);
    upstream.refresh("old").unwrap();
    drop(provider);
    let failed = upstream.refresh("old").unwrap_err();
    assert_eq!(kind(&failed), "try again", "{failed}");
}

#[test]
fn a_refresh_gives_new_tokens_and_keeps_the_old_one_where_none_is_given() {
    let provider = Provider::start();
    let upstream = provider.upstream(UpstreamKind::Forgejo);
    assert_eq!(
        upstream.refresh("old").unwrap().refresh.as_deref(),
        Some("r3fresh")
    );
    let (_, body) = provider.asked(TOKEN);
    assert_eq!(body, "grant_type=refresh_token&refresh_token=old");
    let answer = json!({"access_token": "new", "token_type": "Bearer", "scope": "openid"});
    provider.set(TOKEN, "200 OK", &answer);
    let tokens = upstream.refresh("old").unwrap();
    assert_eq!(
        (&*tokens.access, tokens.refresh.as_deref()),
        ("new", Some("old"))
    );
    assert_eq!((tokens.expires, tokens.lifetime), (None, None));
    assert_eq!(tokens.scope.as_deref(), Some("openid"));
}

#[test]
fn the_lifetime_of_a_token_is_read_with_lenience() {
    let provider = Provider::start();
    let upstream = provider.upstream(UpstreamKind::Forgejo);
    for (given, seconds) in [
        (json!(3600), Some(3600)),
        (json!("3600"), Some(3600)),
        (json!(3600.0), Some(3600)),
        (json!(0), Some(0)),
        (json!(-1), None),
        (json!("soon"), None),
        (json!(1e300), None),
        (Value::Null, None),
    ] {
        let mut answer = tokens();
        answer["expires_in"] = given.clone();
        provider.set(TOKEN, "200 OK", &answer);
        let tokens = upstream.refresh("r").unwrap();
        assert_eq!(tokens.lifetime, seconds.map(Duration::from_secs), "{given}");
        assert_eq!(tokens.expires.is_some(), seconds.is_some(), "{given}");
    }
}

#[test]
fn an_answer_without_a_usable_token_makes_no_sense() {
    let provider = Provider::start();
    let upstream = provider.upstream(UpstreamKind::Forgejo);
    for answer in [
        json!({}),
        json!([]),
        json!("acc3ss"),
        json!({"access_token": ""}),
        json!({"access_token": 7}),
        json!({"access_token": "a\r\nX: y"}),
        json!({"access_token": "a b"}),
        json!({"access_token": "a", "token_type": "mac"}),
    ] {
        provider.set(TOKEN, "200 OK", &answer);
        let failed = upstream.refresh("r").unwrap_err();
        assert_eq!(kind(&failed), "broken", "{answer}: {failed}");
    }
    provider.set_raw(TOKEN, reply_json("200 OK", "access_token=a"));
    assert_eq!(kind(&upstream.refresh("r").unwrap_err()), "broken");
}

/// RFC 9207.
#[test]
fn no_secret_is_shown() {
    let provider = Provider::start();
    let upstream = provider.upstream(UpstreamKind::Forgejo);
    let options = options(UpstreamKind::Forgejo, "https://codeberg.org");
    let who = exchange(&upstream).unwrap();
    let hides = |text: &str, secrets: &[&str]| {
        let mut secrets = secrets.iter().chain(&["acc3ss", "r3fresh", SECRET]);
        assert!(secrets.all(|secret| !text.contains(secret)), "{text}");
    };
    hides(&format!("{options:?} {who:?} {:?}", who.tokens), &[]);
    let echo = "c0de v3rifier 0ld-refresh gto_s3cret";
    for (status, body) in [
        (
            "400 Bad Request",
            json!({"error": "invalid_grant", "error_description": echo}),
        ),
        (
            "401 Unauthorized",
            json!({"error": "invalid_client", "error_description": echo}),
        ),
        (
            "400 Bad Request",
            json!({"error": echo, "error_description": "a\nb"}),
        ),
        (
            "400 Bad Request",
            json!({"error": "slow_down", "error_description": "a\nb"}),
        ),
        (
            "200 OK",
            json!({"access_token": "acc3ss\n", "refresh_token": "r3fresh"}),
        ),
        (
            "200 OK",
            json!({"access_token": "acc3ss", "token_type": "r3fresh"}),
        ),
        (
            "200 OK",
            json!({"access_token": "acc3ss", "id_token": "r3fresh"}),
        ),
        ("500 Oops", json!({"error": echo})),
    ] {
        provider.set(TOKEN, status, &body);
        let exchanged = exchange(&upstream).err();
        let refreshed = upstream.refresh("0ld-refresh").err();
        for (failed, secrets) in [
            (exchanged, &["c0de", "v3rifier"][..]),
            (refreshed, &["0ld-refresh"]),
        ] {
            let Some(failed) = failed else {
                continue; // a refresh does not look at the ID token
            };
            assert_eq!(failed.to_string().lines().count(), 1, "{failed}");
            hides(&format!("{failed} {failed:?}"), secrets);
        }
    }
}
