//! Renewals with a real store, and a provider that counts what it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use super::*;
use crate::auth::oauth::{Hash, Resource, Resources, hash};
use crate::auth::sign_in::SignInOptions;
use crate::auth::store::{NewGrant, NewTokens, User};
use crate::auth::tests::TempDir;
use crate::auth::upstream::{Allow, Upstream, UpstreamKind, UpstreamOptions};
use crate::auth::web::tests::fake::{Fake, json as reply};

const HOUR: u64 = 3600;
const VERIFIER: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGH";
const CHALLENGE: &str = "nVXX3UnLnNDXIwmsMQ2iaWUSgHUZIdcv8lDpDMU5KbA";

/// A broker, and a provider that answers with what `answer` makes of the number of the request.
struct World {
    dir: TempDir,
    sign_in: SignIn,
    provider: Fake,
    asked: Arc<AtomicUsize>,
    start: SystemTime,
}

impl World {
    fn new(label: &str, answer: impl Fn(usize) -> String + Send + Sync + 'static) -> Self {
        let dir = TempDir::new(label);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let provider = Fake::http(move |it| match it.line.as_str() {
            "POST /token" => answer(count.fetch_add(1, Ordering::SeqCst)),
            _ => {
                let host = it.head.lines().find_map(|it| it.strip_prefix("host:"));
                let url = format!("http://{}", host.unwrap_or_default().trim());
                let document = json!({
                    "issuer": url,
                    "authorization_endpoint": format!("{url}/authorize"),
                    "token_endpoint": format!("{url}/token"),
                });
                reply("200 OK", &document.to_string())
            }
        });
        let upstream = UpstreamOptions {
            kind: UpstreamKind::Forgejo,
            url: provider.url(""),
            client_id: "us".to_owned(),
            client_secret: "secret".to_owned(),
            scopes: "openid".to_owned(),
            name: "Forge".to_owned(),
            allow: Allow::default(),
            ca_file: None,
        };
        let options = SignInOptions {
            resources: Resources::new("https://mcp.example.org", &["forge".into()]),
            upstream: Upstream::new(upstream).unwrap(),
            access_lifetime: Duration::from_secs(HOUR),
            grant_lifetime: Duration::from_secs(30 * 24 * HOUR),
        };
        let start = SystemTime::now();
        let sign_in = SignIn::open(options, dir.path(), None, start).unwrap();
        Self {
            dir,
            sign_in,
            provider,
            asked,
            start,
        }
    }

    fn at(&self, second: u64) -> SystemTime {
        self.start + Duration::from_secs(second)
    }

    /// Somebody has signed in at this issuer, with a token that lasts from `start` for an hour.
    fn user_of(&self, issuer: &str, subject: &str) -> UserKey {
        let user = User {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            name: subject.to_owned(),
            email: None,
        };
        let tokens = UpstreamTokens {
            access: "access".to_owned(),
            refresh: Some("refresh".to_owned()),
            expires: Some(self.at(HOUR)),
            lifetime: Some(Duration::from_secs(HOUR)),
            scope: None,
        };
        self.sign_in
            .store
            .save_user(&user, &tokens, self.start)
            .unwrap();
        (issuer.into(), subject.into())
    }

    fn user(&self, subject: &str) -> UserKey {
        self.user_of(&self.provider.url(""), subject)
    }

    fn code(&self, user: &UserKey, code: &str, ends: u64) -> Hash {
        let grant = NewGrant {
            grant: format!("grant of {code}"),
            issuer: user.0.to_string(),
            subject: user.1.to_string(),
            client_id: "https://app.example/client.json".to_owned(),
            client_name: "A client".to_owned(),
            resource: Resource {
                uri: "https://mcp.example.org/mcp".to_owned(),
                server: "forge".into(),
            },
            scope: "mcp".to_owned(),
            redirect_uri: "https://app.example/back".to_owned(),
            challenge: CHALLENGE.to_owned(),
            expires: self.at(ends),
        };
        let code = hash(code);
        self.sign_in
            .store
            .add_code(&code, &grant, self.start)
            .unwrap();
        code
    }

    fn fresh(&self, user: &UserKey, second: u64) -> Result<String, &'static str> {
        let tokens = self.sign_in.fresh_tokens(&user.0, &user.1, self.at(second));
        tokens.map(|it| it.access).map_err(|why| match why {
            UpstreamError::SignInAgain(_) => "sign in again",
            UpstreamError::TryAgain(_) => "try again",
            UpstreamError::Broken(_) => "broken",
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The answer number `no`: a pair that lasts for an hour from now.
fn pair(no: usize) -> String {
    let pair = json!({
        "access_token": format!("access-{no}"),
        "token_type": "bearer",
        "expires_in": 4 * HOUR,
        "refresh_token": format!("refresh-{no}"),
    });
    reply("200 OK", &pair.to_string())
}

fn down(_: usize) -> String {
    reply("503 Service Unavailable", "{}")
}

/// Facts B.2: a provider may honour the newest pair only, and it gave that once.
#[test]
fn what_the_store_does_not_take_is_kept_until_it_does() {
    let world = World::new("renewal-unsaved", |no| match no {
        0 => pair(no),
        _ => reply("400 Bad Request", r#"{"error":"invalid_grant"}"#),
    });
    let user = world.user("1");
    let other = rusqlite::Connection::open(world.dir.path().join("broker.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(world.fresh(&user, HOUR), Err("try again"));
    assert_eq!(world.fresh(&user, HOUR), Err("try again"));
    assert_eq!(world.asked(), 1);
    other.execute_batch("ROLLBACK").unwrap();
    world.sign_in.tend(world.at(HOUR));
    assert_eq!(world.sign_in.kept(&user).unwrap().access, "access-0");
    assert_eq!(world.fresh(&user, HOUR), Ok("access-0".to_owned()));
    assert_eq!(world.asked(), 1);
}

/// Facts B.2: it is not to be told another provider's refresh token.
#[test]
fn users_of_another_provider_are_strangers() {
    let world = World::new("renewal-stranger", pair);
    let (own, other) = (world.user("1"), world.user_of("https://old.example", "1"));
    for (user, code) in [(&own, "own"), (&other, "other")] {
        let hashed = world.code(user, code, HOUR);
        let new = NewTokens {
            access: hash(&format!("access of {code}")),
            access_expires: world.at(HOUR),
            refresh: hash(&format!("refresh of {code}")),
        };
        let store = &world.sign_in.store;
        assert!(
            store
                .redeem_code(&hashed, &|_| Ok(()), &new, world.start)
                .is_ok()
        );
    }
    world.sign_in.reload(world.start).unwrap();
    let check = |token| world.sign_in.check(token, "forge", world.start).is_ok();
    assert!(check("access of own") && !check("access of other"));
    assert_eq!(world.fresh(&other, HOUR), Err("sign in again"));
    assert_eq!(world.asked(), 0);
    assert_eq!(world.fresh(&own, HOUR), Ok("access-0".to_owned()));
}

/// A provider that hangs holds up each of those who wait once, not one after the other.
#[test]
fn those_who_wait_for_a_refresh_share_what_comes_of_it() {
    const WAITERS: usize = 8;
    let ready = Arc::new(AtomicUsize::new(0));
    let all_there = Arc::clone(&ready);
    let world = World::new("renewal-shared", move |no| {
        // Those who are not waiting yet are about to.
        let (_never, pause) = std::sync::mpsc::channel::<()>();
        while all_there.load(Ordering::SeqCst) < WAITERS {
            let _ = pause.recv_timeout(Duration::from_millis(10));
        }
        let _ = pause.recv_timeout(Duration::from_millis(200));
        down(no)
    });
    let user = world.user("1");
    thread::scope(|scope| {
        for _ in 0..WAITERS {
            scope.spawn(|| {
                ready.fetch_add(1, Ordering::SeqCst);
                assert_eq!(world.fresh(&user, HOUR), Err("try again"));
            });
        }
    });
    assert!(world.asked() < WAITERS / 2, "{}", world.asked());
    // Nobody is told of it later.
    let before = world.asked();
    assert_eq!(world.fresh(&user, HOUR), Err("try again"));
    assert_eq!(world.asked(), before + 1);
}

/// A sign-in is not overwritten by what a refresh before it brought.
#[test]
fn whoever_signs_in_waits_for_a_refresh_under_way() {
    let renewals = Renewals::default();
    let user: UserKey = ("issuer".into(), "subject".into());
    let order = Mutex::new(Vec::new());
    let flight = renewals.alone(&user);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _flight = renewals.alone(&user);
            order.lock().push("sign-in");
        });
        order.lock().push("refresh");
        drop(flight);
    });
    assert_eq!(*order.lock(), ["refresh", "sign-in"]);
    assert!(matches!(renewals.take_off(&user), Turn::Own(_)));
}

#[test]
fn a_provider_that_is_down_holds_up_one_refresh_at_a_time() {
    let world = World::new("renewal-down", down);
    let state = Arc::default();
    for subject in ["1", "2", "3"] {
        let user = world.user(subject);
        world.sign_in.renewals.hold(user, &state, Some(world.start));
    }
    for tries in 1..=3 {
        world.sign_in.tend(world.at(HOUR));
        assert_eq!(world.asked(), tries, "each user has a turn");
    }
    world.sign_in.tend(world.at(HOUR));
    assert_eq!(world.asked(), 3, "not due again before a while");
}

/// A lease of a token that somebody else replaced meanwhile does not hide when the new one ends.
#[test]
fn a_token_that_is_not_due_yet_is_due_in_its_time() {
    let world = World::new("renewal-due", pair);
    let user = world.user("1");
    let state = Arc::default();
    world.sign_in.renewals.hold(user, &state, Some(world.start));
    world.sign_in.tend(world.start);
    assert_eq!((world.asked(), state.is_superseded()), (0, false));
    world.sign_in.tend(world.at(HOUR - 300));
    assert_eq!((world.asked(), state.is_superseded()), (1, true));
}

#[test]
fn an_answer_promises_no_more_than_the_grant_has_left() {
    let world = World::new("renewal-promise", pair);
    let user = world.user("1");
    for (code, ends, expected) in [("long", 2 * HOUR, HOUR), ("short", 600, 599)] {
        world.code(&user, code, ends);
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "authorization_code")
            .append_pair("client_id", "https://app.example/client.json")
            .append_pair("code", code)
            .append_pair("code_verifier", VERIFIER)
            .finish();
        let answer = world.sign_in.token(&body, None, world.start).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let promised = answer["expires_in"].as_u64().unwrap();
        assert!((expected..=expected + 1).contains(&promised), "{promised}");
    }
}
