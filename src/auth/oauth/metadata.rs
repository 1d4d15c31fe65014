//! What we publish about ourselves: as authorization server (RFC 8414), as OpenID provider for
//! those who only look there, and about a protected resource (RFC 9728).

use serde_json::{Value, json};

/// The one scope: use of the MCP endpoint that the token is for.
pub(crate) const SCOPE: &str = "mcp";

/// Where the endpoints are, below the issuer.
pub(crate) const AUTHORIZE_PATH: &str = "/oauth/authorize";
pub(crate) const TOKEN_PATH: &str = "/oauth/token";
pub(crate) const REGISTER_PATH: &str = "/oauth/register";
pub(crate) const REVOKE_PATH: &str = "/oauth/revoke";
pub(crate) const JWKS_PATH: &str = "/oauth/jwks";

/// What stands at [`JWKS_PATH`]: we sign nothing.
pub(crate) const JWKS: &str = r#"{"keys":[]}"#;

/// The document at `/.well-known/oauth-authorization-server`, JSON.
///
/// `offline_access` is not among the scopes: everybody gets a refresh token, with or without it.
/// `protected_resources` (RFC 9728, section 4) is left out: it would tell strangers which servers
/// there are.
pub(crate) fn server_metadata(issuer: &str) -> String {
    server(issuer).to_string()
}

/// The document at `/.well-known/openid-configuration`: the same, and what readers of OpenID
/// Connect Discovery 1.0 insist on. TypeScript's SDK refuses it without `jwks_uri`,
/// `subject_types_supported` and `id_token_signing_alg_values_supported`. We issue no ID tokens and
/// do not say that we do: no `openid` scope, no algorithm, an empty key set.
pub(crate) fn openid_metadata(issuer: &str) -> String {
    let mut document = server(issuer);
    document["jwks_uri"] = json!(format!("{issuer}{JWKS_PATH}"));
    document["subject_types_supported"] = json!(["public"]);
    document["id_token_signing_alg_values_supported"] = json!([]);
    // Its default is true.
    document["request_uri_parameter_supported"] = json!(false);
    document.to_string()
}

fn server(issuer: &str) -> Value {
    let at = |path: &str| format!("{issuer}{path}");
    let client_authentication = ["none", "client_secret_post", "client_secret_basic"];
    json!({
        "issuer": issuer,
        "authorization_endpoint": at(AUTHORIZE_PATH),
        "token_endpoint": at(TOKEN_PATH),
        "registration_endpoint": at(REGISTER_PATH),
        "revocation_endpoint": at(REVOKE_PATH),
        "scopes_supported": [SCOPE],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": client_authentication,
        "revocation_endpoint_auth_methods_supported": client_authentication,
        "client_id_metadata_document_supported": true,
        "authorization_response_iss_parameter_supported": true,
    })
}

/// The document about one MCP endpoint, JSON. `resource_uri` must be what users type, character for
/// character: clients compare.
pub(crate) fn resource_metadata(
    resource_uri: &str,
    authorization_servers: &[&str],
    scopes: &[&str],
    name: &str,
) -> String {
    json!({
        "resource": resource_uri,
        "authorization_servers": authorization_servers,
        "scopes_supported": scopes,
        "bearer_methods_supported": ["header"],
        "resource_name": name,
    })
    .to_string()
}
