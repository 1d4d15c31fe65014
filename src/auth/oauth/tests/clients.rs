//! S4, S5: documents and registrations.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::client::*;
use super::*;

const ID: &str = "https://app.example/oauth/client.json";

/// S4: which ids are addresses of documents.
#[test]
fn ids_that_are_addresses() {
    let long = format!("https://a.example/{}", "x".repeat(2048));
    #[rustfmt::skip]
    let table: &[(&str, bool)] = &[
        (ID, true),
        ("https://app.example:8443/c", true),
        ("https://app.example/c?x=1", true),
        ("https://app.example/", false),
        ("https://app.example", false),
        ("http://app.example/c", false),
        ("http://localhost/c", false),
        ("HTTPS://app.example/c", false),
        ("https://app.example/c#x", false),
        ("https://user@app.example/c", false),
        ("https://app.example/a/../c", false),
        ("https://app.example/./c", false),
        ("https://app.example/%2e%2e/c", false),
        ("https://app.example\\c", false),
        ("https:///c", false),
        ("cursor://x/c", false),
        ("mcpi_abc", false),
        ("", false),
        (&long, false),
    ];
    for (id, expected) in table {
        assert_eq!(is_document_id(id), *expected, "{id}");
    }
}

/// `base` with the members of `changes` in the place of its own; `null` takes one away.
fn with(mut base: Value, changes: &Value) -> String {
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(base.as_object_mut().unwrap().remove(key)),
            value => base[key] = value.clone(),
        }
    }
    base.to_string()
}

/// What is changed about a good document, and the word that the error has in it, or none.
#[rustfmt::skip]
fn changed_documents() -> Vec<(Value, Option<&'static str>)> {
    vec![
        (json!({}), None),
        (json!({ "client_uri": "https://app.example", "jwks_uri": 7, "unknown": {} }), None),
        (json!({ "client_id": null }), Some("client_id")),
        (json!({ "client_id": 7 }), Some("client_id")),
        (json!({ "client_id": format!("{ID}/") }), Some("client_id")),
        (json!({ "client_id": "https://APP.example/oauth/client.json" }), Some("client_id")),
        (json!({ "client_name": null }), Some("client_name")),
        (json!({ "client_name": "" }), Some("client_name")),
        (json!({ "client_name": "\u{200b} \n" }), Some("client_name")),
        (json!({ "client_name": 7 }), Some("client_name")),
        (json!({ "redirect_uris": null }), Some("redirect_uris")),
        (json!({ "redirect_uris": [] }), Some("redirect_uris")),
        (json!({ "redirect_uris": "https://app.example/cb" }), Some("redirect_uris")),
        (json!({ "redirect_uris": [7] }), Some("redirect_uris")),
        (json!({ "redirect_uris": vec!["https://app.example/cb"; 33] }), Some("redirect_uris")),
        (json!({ "redirect_uris": ["https://app.example/cb", "javascript:x"] }), Some("entry 2")),
        (json!({ "redirect_uris": ["http://app.example/cb"] }), Some("entry 1")),
        (json!({ "redirect_uris": ["cursor://app/cb"] }), Some("scheme")),
        (json!({ "redirect_uris": ["com.example.app:/cb"] }), Some("scheme")),
        (json!({ "client_secret": "x" }), Some("secret")),
        (json!({ "client_secret_expires_at": 0 }), Some("secret")),
        (json!({ "token_endpoint_auth_method": "none" }), None),
        (json!({ "token_endpoint_auth_method": "private_key_jwt" }), Some("none")),
        (json!({ "token_endpoint_auth_method": "client_secret_post" }), Some("secret")),
        (json!({ "token_endpoint_auth_method": "client_secret_jwt" }), Some("secret")),
        (json!({ "token_endpoint_auth_method": 7 }), Some("auth_method")),
        (json!({ "token_endpoint_auth_method": "private_key_jwt",
                 "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"] }), None),
        (json!({ "token_endpoint_auth_methods_supported": ["private_key_jwt"] }), Some("none")),
        (json!({ "token_endpoint_auth_methods": ["private_key_jwt", "none"] }), None),
        (json!({ "token_endpoint_auth_methods": "none" }), None),
        (json!({ "token_endpoint_auth_methods_supported":
                 ["none", "client_secret_basic"] }), Some("secret")),
        (json!({ "token_endpoint_auth_methods_supported": [7] }), Some("auth_methods")),
        (json!({ "response_types": ["code"], "application_type": "native" }), None),
        (json!({ "response_types": ["token"] }), Some("response_types")),
        (json!({ "grant_types": ["authorization_code", "refresh_token",
                 "urn:ietf:params:oauth:grant-type:jwt-bearer"] }), None),
        (json!({ "grant_types": ["client_credentials"] }), Some("grant_types")),
        (json!({ "filler": "x".repeat(17_000) }), Some("16 KiB")),
    ]
}

/// S4: the table "CIMD, the AS's duties".
#[test]
fn documents() {
    let good = json!({
        "client_id": ID,
        "client_name": "App",
        "redirect_uris": ["https://app.example/cb", "http://127.0.0.1/cb"],
    });
    for (changes, expected) in changed_documents() {
        let outcome = read_document(ID, &with(good.clone(), &changes));
        match (outcome, expected) {
            (Ok(client), None) => {
                assert_eq!((client.id.as_str(), client.name.as_str()), (ID, "App"));
                assert_eq!(client.redirect_uris.len(), 2);
                assert!(client.auth == ClientAuth::None && client.kind == ClientKind::Document);
            }
            (Err(error), Some(word)) => {
                assert!(error.to_string().contains(word), "{changes}: {error}");
            }
            (outcome, _) => panic!("{changes}: {:?}", outcome.map(|client| client.id)),
        }
    }
    for text in [
        "",
        "[]",
        "null",
        "\"x\"",
        "{",
        "<html>",
        "{\"client_id\":1,}",
    ] {
        assert!(read_document(ID, text).is_err(), "{text}");
    }
}

/// A.2, "DCR in practice": never trust `client_name`.
#[test]
fn names_are_made_fit_for_a_page() {
    let long = "x".repeat(500);
    #[rustfmt::skip]
    let table: &[(&str, &str)] = &[
        ("Claude", "Claude"),
        ("  A \t B\r\nC ", "A B C"),
        ("a\u{202e}b\u{200b}c\u{feff}", "abc"),
        ("a\u{0}b\u{1b}[31m", "a b [31m"),
        ("Caf\u{e9} \u{1f980}", "Caf\u{e9} \u{1f980}"),
        ("<b>&amp;", "<b>&amp;"), // the page's affair
        ("", "a client without a name"),
        ("\u{3164}\u{2800}", "a client without a name"),
        (&long, &long[..80]),
    ];
    for (given, expected) in table {
        let body = json!({ "client_name": given, "redirect_uris": ["https://a.example/"] });
        assert_eq!(
            read_registration(&body.to_string()).unwrap().name,
            *expected,
            "{given:?}"
        );
    }
}

/// S5: RFC 7591. The method that is registered, or the error.
#[test]
fn registrations() {
    let good = json!({ "redirect_uris": ["http://localhost:8787/callback"] });
    let (redirect, metadata) = ("invalid_redirect_uri", "invalid_client_metadata");
    #[rustfmt::skip]
    let table: &[(Value, &str)] = &[
        (json!({}), "none"),
        (json!({ "token_endpoint_auth_method": "none" }), "none"),
        (json!({ "token_endpoint_auth_method": "client_secret_post" }), "client_secret_post"),
        (json!({ "token_endpoint_auth_method": "client_secret_basic" }), "client_secret_basic"),
        (json!({ "token_endpoint_auth_method": "private_key_jwt" }), metadata),
        (json!({ "token_endpoint_auth_method": ["none"] }), metadata),
        (json!({ "application_type": "native" }), "none"),
        (json!({ "application_type": "web" }), "none"),
        (json!({ "application_type": "toaster" }), metadata),
        (json!({ "grant_types": ["authorization_code", "refresh_token"] }), "none"),
        (json!({ "grant_types": ["refresh_token"] }), metadata),
        (json!({ "grant_types": "authorization_code" }), metadata),
        (json!({ "response_types": ["code"] }), "none"),
        (json!({ "response_types": ["token"] }), metadata),
        (json!({ "response_types": [] }), metadata),
        (json!({ "scope": "mcp offline_access", "software_id": "x", "contacts": [7] }), "none"),
        (json!({ "client_name": 7 }), metadata),
        (json!({ "redirect_uris": null }), redirect),
        (json!({ "redirect_uris": [] }), redirect),
        (json!({ "redirect_uris": "x" }), redirect),
        (json!({ "redirect_uris": ["javascript:alert(1)"] }), redirect),
        (json!({ "redirect_uris": ["https://a.example/#x"] }), redirect),
        (json!({ "redirect_uris": ["http://a.example/"] }), redirect),
        (json!({ "redirect_uris": ["cursor://anysphere.cursor-mcp/oauth/callback"] }), "none"),
        (json!({ "redirect_uris": vec!["https://a.example/"; 33] }), redirect),
        (json!({ "filler": "x".repeat(17_000) }), metadata),
    ];
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
    for (changes, expected) in table {
        let body = with(good.clone(), changes);
        let registration = match read_registration(&body) {
            Ok(registration) => registration,
            Err(error) => {
                let answer: Value = serde_json::from_str(&error.to_json()).unwrap();
                assert_eq!(answer["error"], *expected, "{changes}: {error}");
                assert!(!answer["error_description"].as_str().unwrap().is_empty());
                continue;
            }
        };
        let secret = registration.wants_secret().then_some("mcps_x");
        assert_eq!(secret.is_some(), *expected != "none", "{changes}");
        let client = registration.to_client("abc", secret);
        let is_secret = client.auth == ClientAuth::Secret(hash("mcps_x"));
        assert_eq!(is_secret, secret.is_some(), "{changes}");
        assert!(client.id == "abc" && client.kind == ClientKind::Registered);
        let answer = registration.response("abc", secret, now);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["token_endpoint_auth_method"], *expected, "{changes}");
        assert_eq!(answer["redirect_uris"], json!(client.redirect_uris));
        assert_eq!(answer.get("client_secret").and_then(Value::as_str), secret);
    }
    for text in ["", "[]", "null", "7", "redirect_uris=https://a.example/"] {
        assert!(read_registration(text).is_err(), "{text}");
    }
}

/// RFC 7591, section 3.2.1.
#[test]
fn the_answer_to_a_registration() {
    let body = json!({
        "client_name": "Cursor",
        "redirect_uris": ["cursor://anysphere.cursor-mcp/oauth/callback"],
        "token_endpoint_auth_method": "client_secret_basic",
        "application_type": "native",
        "scope": "everything",
    });
    let registration = read_registration(&body.to_string()).unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let answer = registration.response("abc", Some("mcps_x"), now);
    let expected = json!({
        "client_id": "abc",
        "client_id_issued_at": 1_000_000,
        "client_secret": "mcps_x",
        "client_secret_expires_at": 0,
        "client_name": "Cursor",
        "redirect_uris": ["cursor://anysphere.cursor-mcp/oauth/callback"],
        "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "application_type": "native",
        "scope": "mcp",
    });
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), expected);
}
