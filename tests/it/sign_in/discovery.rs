//! What the authorization server says of itself.

use serde_json::json;

use crate::support::sign_in::Site;

/// S2, S3, S7, S12, S15, S16: and the same document for those who look for OpenID.
#[test]
fn the_metadata_says_what_there_is() {
    let site = Site::start();
    let at = |path: &str| format!("{}/oauth/{path}", site.issuer);
    let methods = json!(["none", "client_secret_post", "client_secret_basic"]);
    let expected = json!({
        "issuer": site.issuer,
        "authorization_endpoint": at("authorize"),
        "token_endpoint": at("token"),
        "registration_endpoint": at("register"),
        "revocation_endpoint": at("revoke"),
        "scopes_supported": ["mcp"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "client_id_metadata_document_supported": true,
        "authorization_response_iss_parameter_supported": true,
    });
    let response = site.get("/.well-known/oauth-authorization-server");
    assert_eq!((response.status, response.json()), (200, expected.clone()));
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
    let openid = site.get("/.well-known/openid-configuration").json();
    let expected = expected.as_object().cloned().unwrap_or_default();
    for (name, value) in expected {
        assert_eq!(openid[&name], value, "{name}");
    }
    let keys = openid["jwks_uri"].as_str().unwrap_or_default();
    let keys = site.get(keys.trim_start_matches(&site.issuer));
    assert_eq!(keys.json(), json!({ "keys": [] }));
}

/// S3: the issuer is where it was found, whatever the address that was connected to.
#[test]
fn the_issuer_is_the_public_url() {
    let site = Site::setup().public_url("https://mcp.example.org").start();
    let json = site.get("/.well-known/oauth-authorization-server").json();
    assert_eq!(json["issuer"], "https://mcp.example.org");
    assert_eq!(
        json["token_endpoint"],
        "https://mcp.example.org/oauth/token"
    );
    let json = site.get("/.well-known/oauth-protected-resource/mcp").json();
    assert_eq!(json["resource"], "https://mcp.example.org/mcp");
    assert_eq!(
        json["authorization_servers"],
        json!(["https://mcp.example.org"])
    );
}

/// S3: it is a bare origin, so nothing is to be had under a path.
#[test]
fn there_is_no_metadata_of_other_issuers() {
    let site = Site::start();
    for path in [
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/openid-configuration/mcp",
        "/mcp/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/",
        "/oauth",
        "/oauth/",
        "/oauth/introspect",
        "/authorize",
        "/token",
        "/register",
    ] {
        assert_eq!(site.get(path).status, 404, "{path}");
    }
}

#[test]
fn each_endpoint_has_its_methods() {
    let site = Site::start();
    for (path, allowed) in [
        ("/.well-known/oauth-authorization-server", "GET, OPTIONS"),
        ("/.well-known/oauth-protected-resource/mcp", "GET, OPTIONS"),
        ("/oauth/authorize", "GET, POST"),
        ("/oauth/callback", "GET"),
        ("/oauth/token", "POST, OPTIONS"),
        ("/oauth/register", "POST, OPTIONS"),
        ("/oauth/revoke", "POST, OPTIONS"),
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if allowed.split(", ").any(|it| it == method) {
                continue;
            }
            let response = site.request(method, path).send(site.addr());
            assert_eq!(response.status, 405, "{method} {path}");
            assert_eq!(response.header("Allow"), Some(allowed), "{method} {path}");
        }
    }
}

/// Without `auth` there is nothing of all this.
#[test]
fn a_broker_without_sign_in_has_no_such_endpoints() {
    let broker = crate::support::Broker::setup().user("alice", &[]).start();
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
        "/oauth/authorize",
        "/oauth/token",
    ] {
        let response = crate::support::Request::new("GET", path).send(broker.addr());
        assert_eq!(response.status, 404, "{path}");
    }
}
