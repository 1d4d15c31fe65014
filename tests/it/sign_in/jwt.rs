//! `auth.jwt`: an outside authorization server issues the tokens, and the broker is nothing but a
//! protected resource (R1 to R6, R11, R12).

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::sign_in::env;
use crate::support::{Broker, Request, Response, Session, eventually, fake_mcp};

const METADATA: &str = "/.well-known/oauth-protected-resource";

/// One of the outside server's keys.
struct Key {
    id: String,
    pair: Ed25519KeyPair,
}

impl Key {
    fn new(id: &str) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self {
            id: id.to_owned(),
            pair: Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap(),
        }
    }

    /// Its public half (RFC 8037).
    fn jwk(&self) -> Value {
        let public = BASE64_URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref());
        json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
            "kid": self.id, "x": public,
        })
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(
            &json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": self.id }),
            claims,
        )
    }

    fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let encode = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
        let text = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}.{signature}")
    }
}

/// The outside server: its metadata and its keys. Lives as long as the test process does.
struct Issuer {
    url: String,
    published: Arc<Mutex<Vec<Value>>>,
    /// Paths that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self {
            url: url.clone(),
            published: Arc::default(),
            asked: Arc::default(),
        };
        issuer.publish(keys);
        let (published, asked) = (Arc::clone(&issuer.published), Arc::clone(&issuer.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let keys = json!({ "keys": *published.lock().unwrap() });
                // Whoever asks may have gone.
                let _ = answer(stream, &url, &keys, &asked);
            }
        });
        issuer
    }

    fn publish(&self, keys: &[&Key]) {
        *self.published.lock().unwrap() = keys.iter().map(|it| it.jwk()).collect();
    }

    fn fetches(&self) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|it| *it == "/keys").count()
    }
}

fn answer(
    mut stream: TcpStream,
    url: &str,
    keys: &Value,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let path = first.split(' ').nth(1).unwrap_or_default();
    asked.lock().unwrap().push(path.to_owned());
    let (status, body) = match path {
        "/.well-known/oauth-authorization-server" => {
            let json = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
            ("200 OK", json.to_string())
        }
        "/keys" => ("200 OK", keys.to_string()),
        _ => ("404 Not Found", String::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A broker that takes the issuer's tokens with the scope `mcp`, over two servers, of which
/// only `a` has need of a user.
fn broker(issuer: &Issuer) -> Broker {
    let entry = json!({ "command": fake_mcp(), "env": {
        "NAME": "${user.name}", "SUB": "${user.sub}", "MAIL": "${user.email}",
    }});
    let jwt = json!({ "issuer": issuer.url, "scopes": ["mcp"], "allow": { "anyone": true } });
    Broker::setup()
        .server_entry("a", entry)
        .server_entry("b", json!({ "command": fake_mcp() }))
        .setting("public_url", "https://mcp.example.org")
        .setting("auth", json!({ "jwt": jwt }))
        .user("carol", &[])
        .start()
}

fn claims(issuer: &Issuer) -> Value {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    json!({
        "iss": issuer.url,
        "sub": "user-1",
        "aud": "https://mcp.example.org/mcp/a",
        "iat": now,
        "exp": now + 600,
        "scope": "openid mcp",
        "client_id": "client",
        "jti": "1",
        "preferred_username": "alice",
        "email": "alice@example.org",
    })
}

fn client(broker: &Broker, token: &str) -> Session {
    broker.client().at("/mcp/a").with_token(token)
}

/// The answer to a `GET` without a session: 400 for somebody.
fn knock(broker: &Broker, token: &str) -> Response {
    client(broker, token).request("GET").send(broker.addr())
}

#[test]
fn a_good_token_is_served() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]);
    let broker = broker(&issuer);
    let mut session = client(&broker, &key.sign(&claims(&issuer))).ready();
    assert_eq!(env(&mut session, "NAME"), "alice");
    assert_eq!(env(&mut session, "SUB"), "user-1");
    assert_eq!(env(&mut session, "MAIL"), "alice@example.org");
    // Another token of the same user is the same user, and of another one it is not.
    let mut other = claims(&issuer);
    other["jti"] = json!("2");
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let with = |claims: &Value| session.clone().with_token(&key.sign(claims));
    assert_eq!(with(&other).post(&ping).status, 200);
    other["sub"] = json!("user-2");
    assert_eq!(with(&other).post(&ping).status, 403);
    // Static tokens go on.
    let carol = broker.user("carol").at("/mcp/b").ready();
    assert_eq!(carol.post(&ping).status, 200);
    assert_eq!(issuer.fetches(), 1);
}

/// R3, R11, R12, R13.
#[test]
fn a_wrong_token_is_refused() {
    let (key, other) = (Key::new("one"), Key::new("one"));
    let issuer = Issuer::start(&[&key]);
    let broker = broker(&issuer);
    let good = claims(&issuer);
    assert_eq!(knock(&broker, &key.sign(&good)).status, 400);
    let past = good["iat"].as_u64().unwrap() - 10;
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        key.sign(&claims)
    };
    let unsigned = json!({ "alg": "none", "typ": "at+jwt" });
    let hmac = json!({ "alg": "HS256", "typ": "at+jwt", "kid": "one" });
    let signed = key.sign(&good);
    let cut = signed.rsplit_once('.').unwrap().0;
    for (why, token) in [
        (
            "of another server",
            with("aud", json!("https://mcp.example.org/mcp/b")),
        ),
        (
            "of another resource",
            with("aud", json!("https://elsewhere.example")),
        ),
        (
            "of the issuer",
            with("aud", json!("https://mcp.example.org")),
        ),
        ("for nobody", with("aud", Value::Null)),
        (
            "of another issuer",
            with("iss", json!("https://evil.example")),
        ),
        ("expired", with("exp", json!(past))),
        ("for ever", with("exp", Value::Null)),
        ("to come", with("nbf", json!(past + 6000))),
        ("of nobody", with("sub", Value::Null)),
        ("with another key", other.sign(&good)),
        ("unsigned", key.sign_as(&unsigned, &good)),
        ("with a shared secret", key.sign_as(&hmac, &good)),
        ("without a signature", format!("{cut}.")),
        ("no token", "mcpa_x".to_owned()),
    ] {
        let response = knock(&broker, &token);
        assert_eq!(response.status, 401, "{why}: {response:?}");
        let challenge = response.header("WWW-Authenticate").unwrap_or_default();
        assert!(
            challenge.contains("error=\"invalid_token\""),
            "{why}: {challenge}"
        );
        let metadata = format!("https://mcp.example.org{METADATA}/mcp/a");
        let expected = format!("resource_metadata=\"{metadata}\", scope=\"mcp\"");
        assert!(challenge.contains(&expected), "{why}: {challenge}");
    }
    // Each key is asked for once, whatever strangers send.
    assert_eq!(issuer.fetches(), 1);
}

/// R12: the same token at the other server.
#[test]
fn a_token_for_one_server_is_refused_at_the_other() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]);
    let broker = broker(&issuer);
    let token = key.sign(&claims(&issuer));
    let at = |path: &str| {
        let client = broker.client().at(path).with_token(&token);
        client.request("GET").send(broker.addr()).status
    };
    assert_eq!((at("/mcp/a"), at("/mcp/b"), at("/mcp/a")), (400, 401, 400));
}

/// R4, R6, R7.
#[test]
fn a_token_without_the_scope_is_not_enough() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]);
    let broker = broker(&issuer);
    for scope in [
        json!("openid profile"),
        json!("mcpx"),
        json!(""),
        json!(["other"]),
    ] {
        let mut claims = claims(&issuer);
        claims["scope"] = scope.clone();
        let response = knock(&broker, &key.sign(&claims));
        assert_eq!(response.status, 403, "{scope}: {response:?}");
        let challenge = response.header("WWW-Authenticate").unwrap_or_default();
        for words in [
            "Bearer ",
            "error=\"insufficient_scope\"",
            "scope=\"mcp\"",
            "resource_metadata=\"https://mcp.example.org/.well-known/",
        ] {
            assert!(challenge.contains(words), "{scope}: {challenge}");
        }
    }
}

/// R1: the outside server is named, and nothing of one is here.
#[test]
fn the_metadata_names_the_outside_server() {
    let issuer = Issuer::start(&[]);
    let broker = broker(&issuer);
    let get = |path: &str| Request::new("GET", path).send(broker.addr());
    let expected = json!({
        "resource": "https://mcp.example.org/mcp/a",
        "authorization_servers": [issuer.url],
        "scopes_supported": ["mcp"],
        "bearer_methods_supported": ["header"],
        "resource_name": "a",
    });
    assert_eq!(get(&format!("{METADATA}/mcp/a")).json(), expected);
    for path in [
        METADATA,
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/oauth/authorize",
        "/oauth/callback",
        "/oauth/token",
        "/oauth/register",
        "/oauth/revoke",
        "/oauth/jwks",
    ] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    assert!(!broker.dir().path().join("state/broker.db").exists());
}

/// Both keys stand there for a while, then the old one is taken away.
#[test]
fn keys_are_changed() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::start(&[&old, &new]);
    let broker = broker(&issuer);
    let status = |broker: &Broker, key: &Key| knock(broker, &key.sign(&claims(&issuer))).status;
    assert_eq!((status(&broker, &old), status(&broker, &new)), (400, 400));
    issuer.publish(&[&new]);
    let broker = broker.restart(Signal::TERM);
    assert_eq!((status(&broker, &new), status(&broker, &old)), (400, 401));
}

/// Without keys nobody can tell a good token from a bad one: try again, and no open door.
#[test]
fn without_its_keys_nobody_is_let_in() {
    let key = Key::new("one");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = Issuer {
        url: format!("http://{}", nobody.local_addr().unwrap()),
        published: Arc::default(),
        asked: Arc::default(),
    };
    drop(nobody);
    let broker = broker(&issuer);
    let response = knock(&broker, &key.sign(&claims(&issuer)));
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.header("Retry-After").is_some(), "{response:?}");
    assert_eq!(broker.client().at("/mcp/a").initialize().status, 401);
    let carol = broker.user("carol").at("/mcp/b").initialize();
    assert_eq!(carol.status, 200);
}

/// A token that expires is none; its session goes on with the next one.
#[test]
fn a_token_expires() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]);
    let broker = broker(&issuer);
    let mut claims = claims(&issuer);
    let session = client(&broker, &key.sign(&claims)).ready();
    let soon = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 2;
    claims["exp"] = json!(soon);
    let short = key.sign(&claims);
    assert_eq!(knock(&broker, &short).status, 400);
    eventually("it expires", || knock(&broker, &short).status == 401);
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(session.clone().with_token(&short).post(&ping).status, 401);
    assert_eq!(session.post(&ping).status, 200);
}
