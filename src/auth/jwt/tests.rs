//! The door with keys of its own making: what is signed as it must be gets in, and nothing else.
//!
//! `signer` is the outside server · `refused` what is not taken · `rotation` keys that come and go.

mod refused;
mod rotation;
mod signer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use signer::Signer;

const ISSUER: &str = "https://id.example.org";
const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn resource() -> Vec<String> {
    [
        "https://mcp.example.org/mcp",
        "https://mcp.example.org/mcp/git",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn options() -> JwtOptions {
    JwtOptions {
        issuer: ISSUER.into(),
        audience: None,
        algorithms: Algorithm::ALL.to_vec(),
        scopes: Vec::new(),
        subjects: None,
    }
}

/// What a token usually says.
fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "https://mcp.example.org/mcp", "sub": "u1", "exp": NOW + 600,
        "iat": NOW, "nbf": NOW, "scope": "openid mcp", "client_id": "c1",
    })
}

/// The usual claims with some of them other; null: without them.
fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value.is_null() {
            true => drop(claims.as_object_mut().unwrap().remove(name)),
            false => claims[name] = value.clone(),
        }
    }
    claims
}

/// A key server that says what it is told.
struct Fake {
    answer: Mutex<Result<(String, Option<Duration>), String>>,
    asked: AtomicUsize,
}

impl Fake {
    fn new(signers: &[&Signer]) -> Arc<Self> {
        Arc::new(Self {
            answer: Mutex::new(Ok((key_set(signers), None))),
            asked: AtomicUsize::new(0),
        })
    }

    fn say(&self, signers: &[&Signer], cache: Option<Duration>) {
        *self.answer.lock() = Ok((key_set(signers), cache));
    }

    fn fail(&self) {
        *self.answer.lock() = Err("no route to host".to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl KeySource for Arc<Fake> {
    fn fetch(&self) -> Result<Fetched, String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (body, cache) = self.answer.lock().clone()?;
        Ok(Fetched { body, cache })
    }
}

fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// A door that has the keys already.
fn door(options: JwtOptions, signers: &[&Signer]) -> JwtDoor {
    let door = JwtDoor::new(options, Box::new(Fake::new(signers)));
    door.tick(at(NOW));
    door
}

fn check(door: &JwtDoor, token: &str) -> Result<Principal, AuthError> {
    door.check(token, &resource(), at(NOW))
}

/// R11.
#[test]
fn each_algorithm_is_verified_with_its_key() {
    let signers: Vec<Signer> = Algorithm::ALL.into_iter().map(Signer::new).collect();
    let all: Vec<&Signer> = signers.iter().collect();
    let door = door(options(), &all);
    for signer in &signers {
        let name = signer.algorithm.name();
        let token = signer.sign(&claims());
        let principal = check(&door, &token).expect(name);
        assert_eq!((&*principal.issuer, &*principal.subject), (ISSUER, "u1"));
        assert!(principal.env.is_empty() && principal.grant.is_none());
        for other in Algorithm::ALL
            .into_iter()
            .filter(|it| *it != signer.algorithm)
        {
            // The same bytes under another name, and with another key.
            let mut header = signer.header();
            header["alg"] = json!(other.name());
            let token = signer.sign_with(&header, &claims());
            let refused = check(&door, &token).err();
            assert_eq!(refused, Some(AuthError::Invalid), "{name} {}", other.name());
            header = signer.header();
            header["kid"] = json!(other.name());
            let token = signer.sign_with(&header, &claims());
            let refused = check(&door, &token).err();
            assert_eq!(
                refused,
                Some(AuthError::Invalid),
                "{name} by {}",
                other.name()
            );
        }
    }
}

/// RFC 7515, appendix A.3, and RFC 8037, appendix A.4.
#[test]
fn signatures_of_the_rfcs_verify() {
    for (key, algorithm, message, signature) in [
        (
            json!({"kty": "EC", "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
            Algorithm::Es256,
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
             cGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            Algorithm::EdDsa,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let keys = keys::read_set(&json!({ "keys": [key] }).to_string()).unwrap();
        let signature = jws::decode(signature).unwrap();
        let verify = |message: &str| keys[0].verify(algorithm, message.as_bytes(), &signature);
        assert!(verify(message), "{}", algorithm.name());
        assert!(!verify(&message[1..]), "{}", algorithm.name());
    }
}

#[test]
fn a_principal_has_a_name_that_can_be_shown() {
    let signer = Signer::new(Algorithm::EdDsa);
    let door = door(options(), &[&signer]);
    for (changes, name, email) in [
        (json!({}), "u1", None),
        (
            json!({"preferred_username": "alice", "name": "Alice A."}),
            "alice",
            None,
        ),
        (json!({"name": "Zoë O'Neil"}), "Zoë O'Neil", None),
        (
            json!({"name": " \u{202e}a\r\nb\u{0}<i>\u{1b}[1m "}),
            "abi1m",
            None,
        ),
        (
            json!({"preferred_username": "\n", "email": "a@b.org"}),
            "a@b.org",
            Some("a@b.org"),
        ),
        (
            json!({"email": "a@b.org", "email_verified": true}),
            "a@b.org",
            Some("a@b.org"),
        ),
        (
            json!({"email": "a@b.org", "email_verified": false}),
            "u1",
            None,
        ),
        (
            json!({"email": "a@b.org", "email_verified": "false"}),
            "u1",
            None,
        ),
        (json!({"email": "a b@c"}), "u1", None),
        (json!({"email": "@"}), "u1", None),
        (json!({"preferred_username": 7, "name": ["x"]}), "u1", None),
        (json!({"name": "x".repeat(100)}), &"x".repeat(64), None),
        (json!({"sub": "|"}), "user", None),
    ] {
        let token = signer.sign(&claims_with(changes.clone()));
        let found = check(&door, &token).unwrap();
        assert_eq!(
            (&*found.name, found.email.as_deref()),
            (name, email),
            "{changes}"
        );
    }
}

/// R4, R12, R16.
#[test]
fn audience_scope_and_subject_are_as_configured() {
    let signer = Signer::new(Algorithm::Es256);
    let check = |options: JwtOptions, changes: Value, expected: Result<(), AuthError>| {
        let door = door(options, &[&signer]);
        let token = signer.sign(&claims_with(changes.clone()));
        assert_eq!(check(&door, &token).map(drop), expected, "{changes}");
    };
    let (good, bad) = (Ok(()), Err(AuthError::Invalid));
    for (aud, expected) in [
        (json!("https://mcp.example.org/mcp/git"), good),
        (json!("HTTPS://MCP.example.org/mcp/"), good),
        (json!(["urn:other", "https://mcp.example.org/mcp"]), good),
        (json!("https://mcp.example.org/MCP"), bad),
        (json!("https://mcp.example.org/mcp//"), bad),
        (json!("https://mcp.example.org/mcp/other"), bad),
        (json!("https://mcp.example.org"), bad),
        (json!("https://mcp.example.org.evil.org/mcp"), bad),
        (json!("http://mcp.example.org/mcp"), bad),
        (json!(["https://mcp.example.org/mcp", 1]), bad),
        (json!({"https://mcp.example.org/mcp": 1}), bad),
        (json!([]), bad),
        (json!(""), bad),
        (Value::Null, bad),
    ] {
        check(options(), json!({ "aud": aud }), expected);
    }
    let configured = || JwtOptions {
        audience: Some("urn:mcp".to_owned()),
        ..options()
    };
    check(configured(), json!({"aud": "urn:mcp"}), good);
    check(configured(), json!({}), bad);
    check(configured(), json!({"aud": "URN:mcp"}), bad);
    let scoped = || JwtOptions {
        scopes: vec!["mcp".to_owned(), "read".to_owned()],
        ..options()
    };
    let lacking = Err(AuthError::InsufficientScope);
    for (said, expected) in [
        (json!({"scope": "mcp openid read"}), good),
        (json!({"scope": ["mcp", "read"]}), good),
        (json!({"scope": null, "scp": "read mcp"}), good),
        (json!({"scope": "mcp", "scp": ["read"]}), good),
        (json!({"scope": "mcp"}), lacking),
        (json!({"scope": "mcp readonly"}), lacking),
        (json!({"scope": "MCP READ"}), lacking),
        (json!({"scope": null}), lacking),
        (json!({"scope": {"mcp": 1, "read": 1}}), lacking),
        // What is wrong otherwise comes first.
        (json!({"scope": null, "exp": NOW}), bad),
    ] {
        check(scoped(), said, expected);
    }
    let listed = || JwtOptions {
        subjects: Some(vec!["u1".to_owned()]),
        ..options()
    };
    check(listed(), json!({}), good);
    check(listed(), json!({"sub": "u2"}), lacking);
    check(listed(), json!({"sub": "U1"}), lacking);
}

/// R12: what was verified for one resource says nothing about another.
#[test]
fn a_token_that_was_seen_is_asked_about_everything_again() {
    let signer = Signer::new(Algorithm::Es384);
    let door = door(options(), &[&signer]);
    let token = signer.sign(&claims());
    for _ in 0..3 {
        assert!(check(&door, &token).is_ok());
    }
    assert_eq!(door.seen.len(), 1);
    let other = ["https://mcp.example.org/mcp/other".to_owned()];
    let refused = door.check(&token, &other, at(NOW)).err();
    assert_eq!(refused, Some(AuthError::Invalid));
    let late = |seconds| door.check(&token, &resource(), at(NOW + seconds)).is_ok();
    assert!(late(599) && !late(600) && late(599));
    for index in 0..3000 {
        let principal = check(&door, &token).unwrap();
        let verified = Verified {
            principal,
            expires: at(NOW + 600),
            edition: 1,
        };
        let text = index.to_string();
        door.seen.add(seen::shown(&text, &[]), verified);
    }
    assert!(door.seen.len() <= 1024, "{}", door.seen.len());
    assert!(check(&door, &token).is_ok());
}
