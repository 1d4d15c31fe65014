//! S1, S6 and RFC 7009: the back channel.

use std::time::Duration;

use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::token::*;
use super::*;

const CODE: [(&str, &str); 5] = [
    ("grant_type", "authorization_code"),
    ("client_id", "abc"),
    ("code", "mcpc_x"),
    ("redirect_uri", "https://app.example/cb"),
    ("code_verifier", VERIFIER),
];
const REFRESH: [(&str, &str); 4] = [
    ("grant_type", "refresh_token"),
    ("client_id", "abc"),
    ("refresh_token", "mcpr_x"),
    ("scope", "mcp"),
];

fn changed(good: &[(&str, &str)], changes: &[(&str, Option<&str>)]) -> String {
    let is_changed = |name: &str| changes.iter().any(|(changed, _)| *changed == name);
    let kept = good.iter().filter(|(name, _)| !is_changed(name)).copied();
    let new = changes
        .iter()
        .filter_map(|(name, value)| Some((*name, (*value)?)));
    form(&kept.chain(new).collect::<Vec<_>>())
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// The error, as code and status.
fn error(outcome: Result<TokenRequest, TokenError>) -> String {
    match outcome {
        Ok(_) => "fine".to_owned(),
        Err(error) => format!("{} {}", error.code, error.status()),
    }
}

#[test]
fn good_requests_are_read_as_they_are_meant() {
    let uri = "https://mcp.example.org/mcp";
    for resource in [None, Some(uri)] {
        let body = changed(&CODE, &[("resource", resource)]);
        let Ok(TokenRequest::Code {
            client,
            code,
            redirect_uri,
            verifier,
            resource: read,
        }) = read_token_request(&body, None)
        else {
            panic!("{body}");
        };
        assert_eq!((client.id.as_str(), code.as_str()), ("abc", "mcpc_x"));
        assert_eq!(redirect_uri.as_deref(), Some("https://app.example/cb"));
        assert_eq!((verifier.as_str(), read.as_deref()), (VERIFIER, resource));
        let body = changed(&REFRESH, &[("resource", resource)]);
        let request = read_token_request(&body, None);
        let Ok(TokenRequest::Refresh {
            client,
            refresh_token,
            resource: read,
        }) = request
        else {
            panic!("{body}");
        };
        assert_eq!(
            (client.id.as_str(), refresh_token.as_str()),
            ("abc", "mcpr_x")
        );
        assert_eq!(read.as_deref(), resource);
    }
    let request = read_token_request(&changed(&CODE, &[("redirect_uri", None)]), None);
    assert!(matches!(
        request,
        Ok(TokenRequest::Code {
            redirect_uri: None,
            ..
        })
    ));
}

/// S1, S6.
#[test]
fn bad_requests_are_told_apart() {
    let long = "x".repeat(3000);
    #[rustfmt::skip]
    let table: &[(&str, Option<&str>, &str)] = &[
        ("grant_type", None, "invalid_request 400"),
        ("grant_type", Some(""), "invalid_request 400"),
        ("grant_type", Some("password"), "unsupported_grant_type 400"),
        ("grant_type", Some("client_credentials"), "unsupported_grant_type 400"),
        ("grant_type", Some("refresh_token"), "invalid_request 400"),
        ("client_id", None, "invalid_client 401"),
        ("client_id", Some(&long), "invalid_request 400"),
        ("client_assertion", Some("eyJ"), "invalid_client 401"),
        ("client_assertion_type", Some("urn:x"), "invalid_client 401"),
        ("code", None, "invalid_request 400"),
        ("code", Some(""), "invalid_request 400"),
        ("code", Some(&long), "invalid_request 400"),
        ("code_verifier", None, "invalid_request 400"),
        ("code_verifier", Some(&long), "invalid_request 400"),
        ("redirect_uri", Some(&long), "invalid_request 400"),
        ("resource", Some(&long), "invalid_target 400"),
        ("resource", Some("https://elsewhere.example/"), "fine"), // for the caller to compare
        ("scope", Some("whatever"), "fine"),
        ("unknown", Some("x"), "fine"),
    ];
    for (name, value, expected) in table {
        let body = changed(&CODE, &[(name, *value)]);
        assert_eq!(
            error(read_token_request(&body, None)),
            *expected,
            "{name} {value:?}"
        );
    }
    for (name, value) in CODE
        .into_iter()
        .chain([("resource", "x"), ("client_secret", "x")])
    {
        let twice = [(name, value), (name, value)];
        let body = format!("{}&{}", changed(&CODE, &[(name, None)]), form(&twice));
        let expected = match name {
            "resource" => "invalid_target 400",
            _ => "invalid_request 400",
        };
        assert_eq!(
            error(read_token_request(&body, None)),
            expected,
            "{name} twice"
        );
    }
    let body = changed(&REFRESH, &[("refresh_token", None)]);
    assert_eq!(
        error(read_token_request(&body, None)),
        "invalid_request 400"
    );
    for body in [
        "",
        "{\"grant_type\":\"authorization_code\"}",
        &"x=1&".repeat(20_000),
    ] {
        assert_eq!(error(read_token_request(body, None)), "invalid_request 400");
    }
}

/// The `Authorization` field; of the body `client_id` and `client_secret`; id and secret as they
/// are read, or the error.
type Proof<'a> = (Option<String>, Option<&'a str>, Option<&'a str>, &'a str);

/// S1: how a client shows who it is (RFC 6749, section 2.3).
#[test]
fn clients_authenticate_in_one_way() {
    #[rustfmt::skip]
    let table: &[Proof] = &[
        (None, Some("abc"), None, "abc"),
        (None, Some("abc"), Some(""), "abc"),
        (None, Some("abc"), Some("s"), "abc s"),
        (Some(basic("abc:s")), None, None, "abc s"),
        (Some(basic("abc:s").replace("Basic", "bAsIc")), None, None, "abc s"),
        (Some(basic("abc:s")), Some("abc"), None, "abc s"),
        (Some(basic("abc:s")), Some("abc"), Some(""), "abc s"),
        (Some(basic("abc:")), None, None, "abc"),
        (Some(basic("abc:s:t")), None, None, "abc s:t"),
        (Some(basic("a%3Ab+c:s%2Bt+%26=")), None, None, "a:b c s+t &="),
        (Some(basic("https%3A%2F%2Fa.example%2Fc:")), None, None, "https://a.example/c"),
        (Some("Bearer xyz".to_owned()), Some("abc"), None, "abc"),
        (Some(basic("abc:s")), None, Some("s"), "invalid_request"),
        (Some(basic("abc:s")), Some("abc"), Some("s"), "invalid_request"),
        (Some(basic("abc:s")), Some("abd"), None, "invalid_request"),
        (Some(basic("abc")), None, None, "invalid_client"),
        (Some(basic(":s")), None, None, "invalid_client"),
        (Some(basic("abc:s&t")), None, None, "invalid_client"),
        (Some("Basic".to_owned()), Some("abc"), None, "invalid_client"),
        (Some("Basic ???".to_owned()), Some("abc"), None, "invalid_client"),
        (Some(format!("Basic {}", STANDARD.encode([0xff, b':']))), None, None, "invalid_client"),
        (Some(basic(&format!("abc:{}", "x".repeat(4096)))), None, None, "invalid_client"),
        (Some("Bearer xyz".to_owned()), None, None, "invalid_client"),
        (None, None, None, "invalid_client"),
        (None, None, Some("s"), "invalid_client"),
    ];
    for (field, id, secret, expected) in table {
        let body = changed(&REFRESH, &[("client_id", *id), ("client_secret", *secret)]);
        let words: Vec<&str> = expected.rsplitn(2, ' ').collect();
        match read_token_request(&body, field.as_deref()) {
            Err(error) => assert_eq!(error.code, *expected, "{field:?} {body}"),
            Ok(request) => {
                let TokenRequest::Refresh { client: proof, .. } = request else {
                    panic!("it asks for a code's tokens: {body}");
                };
                let (id, secret) = match (words.len(), expected) {
                    (_, &"a:b c s+t &=") => ("a:b c", Some("s+t &=")),
                    (1, _) => (words[0], None),
                    _ => (words[1], Some(words[0])),
                };
                assert_eq!(proof.id, id, "{field:?}");
                let known = |auth| Client {
                    auth,
                    ..client(id, &[])
                };
                let wrong = known(ClientAuth::Secret(hash("wrong")));
                assert!(!proof.proves(&wrong), "{field:?}");
                let public = known(ClientAuth::None);
                assert_eq!(proof.proves(&public), secret.is_none(), "{field:?}");
                if let Some(secret) = secret {
                    let right = known(ClientAuth::Secret(hash(secret)));
                    assert!(proof.proves(&right), "{field:?}");
                    assert!(!proof.proves(&Client {
                        id: "other".to_owned(),
                        ..right
                    }));
                }
            }
        }
    }
}

/// RFC 6749, section 5.2.
#[test]
fn errors_and_their_faces() {
    let table = [
        (TokenError::invalid_request("x"), "invalid_request", 400),
        (TokenError::invalid_grant("x"), "invalid_grant", 400),
        (TokenError::invalid_target("x"), "invalid_target", 400),
        (TokenError::invalid_client(), "invalid_client", 401),
        (TokenError::unavailable("x"), "temporarily_unavailable", 503),
    ];
    for (error, code, status) in table {
        assert_eq!((error.code, error.status()), (code, status));
        let body: Value = serde_json::from_str(&error.to_json()).unwrap();
        let expected = json!({ "error": code, "error_description": error.description });
        assert_eq!(body, expected);
        assert!(error.to_string().starts_with(code));
        let is_challenged = error.challenge(Some("basic x")).is_some();
        assert_eq!(is_challenged, status == 401);
        assert_eq!(
            (error.challenge(None), error.challenge(Some("Bearer x"))),
            (None, None)
        );
    }
}

/// S6: RFC 7636, section 4.6 and appendix B.
#[test]
fn a_verifier_matches_its_challenge_only() {
    let (short, long) = ("x".repeat(42), "x".repeat(129));
    let digest = |text: &str| URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()));
    #[rustfmt::skip]
    let table: &[(&str, &str, bool)] = &[
        (VERIFIER, CHALLENGE, true),
        (&long[..128], &digest(&long[..128]), true),
        (&short, &digest(&short), false),
        (&long, &digest(&long), false),
        ("", &digest(""), false),
        (CHALLENGE, CHALLENGE, false),
        (VERIFIER, VERIFIER, false),
        (VERIFIER, "", false),
        (VERIFIER, &CHALLENGE[..42], false),
        (VERIFIER, &CHALLENGE.to_ascii_lowercase(), false),
        (&VERIFIER.replace('k', "l"), CHALLENGE, false),
        (&VERIFIER.replace('-', "+"), &digest(&VERIFIER.replace('-', "+")), false),
    ];
    for (verifier, challenge, expected) in table {
        assert_eq!(
            pkce_matches(verifier, challenge),
            *expected,
            "{verifier} {challenge}"
        );
    }
}

/// RFC 7009, section 2.1.
#[test]
fn revocations() {
    let read = |body: &str, field: Option<&str>| match read_revocation(body, field) {
        Ok(revocation) => format!("{} {}", revocation.client.id, revocation.token),
        Err(error) => error.code.to_owned(),
    };
    let field = basic("abc:s");
    #[rustfmt::skip]
    let table: &[(&str, Option<&str>, &str)] = &[
        ("token=mcpr_x&client_id=abc", None, "abc mcpr_x"),
        ("token=mcpr_x&token_type_hint=access_token&client_id=abc", None, "abc mcpr_x"),
        ("token=mcpr_x&token_type_hint=whatever&client_id=abc", None, "abc mcpr_x"),
        ("token=mcpr_x", Some(&field), "abc mcpr_x"),
        ("token=mcpr_x&client_secret=s", Some(&field), "invalid_request"),
        ("token=mcpr_x", None, "invalid_client"),
        ("client_id=abc", None, "invalid_request"),
        ("token=&client_id=abc", None, "invalid_request"),
        ("token=x&token=y&client_id=abc", None, "invalid_request"),
    ];
    for (body, field, expected) in table {
        assert_eq!(read(body, *field), *expected, "{body}");
    }
}

/// S13.
#[test]
fn what_a_client_gets() {
    let answer = token_response("mcpa_x", "mcpr_x", Duration::from_secs(3600), "mcp");
    let expected = json!({
        "access_token": "mcpa_x",
        "token_type": "Bearer",
        "expires_in": 3600,
        "refresh_token": "mcpr_x",
        "scope": "mcp",
    });
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), expected);
}
