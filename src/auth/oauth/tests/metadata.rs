//! S2, S3, S7, S16 and R1: what we publish.

use serde_json::{Value, json};

use super::super::metadata::{JWKS, openid_metadata, resource_metadata, server_metadata};
use super::ISSUER;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// S2, S3, S4, S5, S7, S16, and `none` for those who look for it.
#[test]
fn of_the_authorization_server() {
    let document = parsed(&server_metadata(ISSUER));
    let expected = json!({
        "issuer": "https://mcp.example.org",
        "authorization_endpoint": "https://mcp.example.org/oauth/authorize",
        "token_endpoint": "https://mcp.example.org/oauth/token",
        "registration_endpoint": "https://mcp.example.org/oauth/register",
        "revocation_endpoint": "https://mcp.example.org/oauth/revoke",
        "scopes_supported": ["mcp"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported":
            ["none", "client_secret_post", "client_secret_basic"],
        "revocation_endpoint_auth_methods_supported":
            ["none", "client_secret_post", "client_secret_basic"],
        "client_id_metadata_document_supported": true,
        "authorization_response_iss_parameter_supported": true,
    });
    assert_eq!(document, expected);
}

/// S2, S7: what readers of OpenID discovery insist on, and nothing that is not so.
#[test]
fn for_readers_of_openid_discovery() {
    let document = parsed(&openid_metadata(ISSUER));
    let plain = parsed(&server_metadata(ISSUER));
    for (key, value) in plain.as_object().unwrap() {
        assert_eq!(document.get(key), Some(value), "{key}");
    }
    let own = document.as_object().unwrap().keys();
    let own: Vec<&String> = own.filter(|key| plain.get(*key).is_none()).collect();
    let expected = [
        "id_token_signing_alg_values_supported",
        "jwks_uri",
        "request_uri_parameter_supported",
        "subject_types_supported",
    ];
    assert_eq!(own, expected);
    assert_eq!(document["jwks_uri"], "https://mcp.example.org/oauth/jwks");
    assert_eq!(document["id_token_signing_alg_values_supported"], json!([]));
    assert_eq!(parsed(JWKS), json!({ "keys": [] }));
}

/// R1, R10, R15.
#[test]
fn of_a_protected_resource() {
    let uri = "https://mcp.example.org/mcp/forge";
    let document = parsed(&resource_metadata(uri, &[ISSUER], &["mcp"], "forge"));
    let expected = json!({
        "resource": uri,
        "authorization_servers": [ISSUER],
        "scopes_supported": ["mcp"],
        "bearer_methods_supported": ["header"],
        "resource_name": "forge",
    });
    assert_eq!(document, expected);
}
