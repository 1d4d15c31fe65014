//! What programs ask: discovery, userinfo, introspection, and the API of the forge. Each answers
//! by the user whose token it is shown.

use serde_json::{Value, json};

use crate::http::{Reply, Request};
use crate::state::{Forge, Grant, User};

/// Scopes that say nothing of the API; a grant with none but these may do everything.
const SIGN_IN_SCOPES: [&str; 4] = ["openid", "profile", "email", "groups"];

pub(crate) fn discovery(forge: &Forge) -> Reply {
    let at = |path: &str| format!("{}/login/oauth/{path}", forge.url);
    Reply::json(
        200,
        &json!({
            "issuer": forge.url,
            "authorization_endpoint": at("authorize"),
            "token_endpoint": at("access_token"),
            "jwks_uri": at("keys"),
            "userinfo_endpoint": at("userinfo"),
            "introspection_endpoint": at("introspect"),
            "response_types_supported": ["code", "id_token"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "subject_types_supported": ["public"],
            "scopes_supported": SIGN_IN_SCOPES,
            "claims_supported": [
                "aud", "exp", "iat", "iss", "sub", "name", "preferred_username", "profile",
                "picture", "website", "locale", "updated_at", "email", "email_verified", "groups",
            ],
            "code_challenge_methods_supported": ["plain", "S256"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
        }),
    )
}

pub(crate) fn userinfo(forge: &Forge, request: &Request) -> Reply {
    let Some((user, _)) = request.token().and_then(|token| forge.whose(token)) else {
        return Reply::text(401, "no valid authorization")
            .with("WWW-Authenticate", "Bearer realm=\"\"".to_owned());
    };
    let mut answer = json!({
        "sub": user.id.to_string(),
        "name": user.name,
        "preferred_username": user.name,
        "email": user.email(),
        "picture": format!("{}/avatars/{}", forge.url, user.id),
    });
    if !user.groups.is_empty() {
        answer["groups"] = user.groups.into();
    }
    Reply::json(200, &answer)
}

pub(crate) fn introspect(forge: &Forge, request: &Request) -> Reply {
    let expected = (forge.client_id.clone(), forge.client_secret.clone());
    if request.basic() != Some(Ok(expected)) {
        return Reply::text(401, "no valid authorization")
            .with("WWW-Authenticate", "Basic realm=\"\"".to_owned());
    }
    let token = request.form("token").unwrap_or_default();
    let Some((user, grant)) = forge.whose(&token) else {
        return Reply::json(200, &json!({ "active": false }));
    };
    let answer = json!({
        "active": true,
        "scope": grant.scope,
        "username": user.name,
        "iss": forge.url,
        "sub": user.id.to_string(),
        "aud": [forge.client_id],
    });
    Reply::json(200, &answer)
}

pub(crate) fn api(forge: &Forge, request: &Request) -> Reply {
    let path = request.path.trim_start_matches("/api/v1");
    if path == "/version" {
        return Reply::json(200, &json!({ "version": "13.0.0+gitea-1.22.0" }));
    }
    let Some(token) = request.token() else {
        return refusal(forge, 401, "token is required");
    };
    let Some((user, grant)) = forge.whose(token) else {
        return refusal(forge, 401, "invalid username, password or token");
    };
    let (wanted, answer): (&[&str], Value) = match path {
        "/user" => (&["user"], account(forge, &user)),
        "/user/emails" => (
            &["user"],
            json!([{ "email": user.email(), "verified": true, "primary": true }]),
        ),
        "/user/orgs" => (&["user", "organization"], organizations(&user)),
        "/user/repos" => (
            &["user", "repository"],
            json!([repository(forge, &user, "notes")]),
        ),
        path if path == format!("/users/{}/repos", user.name) => {
            (&["user"], json!([repository(forge, &user, "notes")]))
        }
        path if path == format!("/repos/{}/notes", user.name) => {
            (&["repository"], repository(forge, &user, "notes"))
        }
        _ => {
            return refusal(forge, 404, "The target couldn't be found.");
        }
    };
    match wanted.iter().find(|it| !may_read(&grant, it)) {
        Some(missing) => {
            let why =
                format!("token does not have at least one of required scope(s): [read:{missing}]");
            refusal(forge, 403, &why)
        }
        None => Reply::json(200, &answer),
    }
}

/// Without any scope of the API a token may do everything.
fn may_read(grant: &Grant, category: &str) -> bool {
    let scopes = grant.scope.split(' ');
    let mut scopes = scopes.filter(|it| !it.is_empty() && !SIGN_IN_SCOPES.contains(it));
    let Some(first) = scopes.next() else {
        return true;
    };
    let suffices = |scope: &str| match scope.split_once(':') {
        Some((access, named)) => ["read", "write"].contains(&access) && named == category,
        None => scope == "all",
    };
    suffices(first) || scopes.any(suffices)
}

fn account(forge: &Forge, user: &User) -> Value {
    json!({
        "id": user.id,
        "login": user.name,
        "username": user.name,
        "full_name": user.name,
        "email": user.email(),
        "html_url": format!("{}/{}", forge.url, user.name),
        "avatar_url": format!("{}/avatars/{}", forge.url, user.id),
        "is_admin": false,
    })
}

fn organizations(user: &User) -> Value {
    let groups = user.groups.iter().filter(|group| !group.contains(':'));
    groups
        .map(|group| json!({ "name": group, "username": group }))
        .collect()
}

/// Everybody has one, and nobody sees another's.
fn repository(forge: &Forge, user: &User, name: &str) -> Value {
    let full_name = format!("{}/{name}", user.name);
    json!({
        "id": user.id,
        "name": name,
        "owner": account(forge, user),
        "html_url": format!("{}/{full_name}", forge.url),
        "clone_url": format!("{}/{full_name}.git", forge.url),
        "full_name": full_name,
        "description": format!("Notes of {}", user.name),
        "private": true,
        "default_branch": "main",
    })
}

fn refusal(forge: &Forge, status: u16, why: &str) -> Reply {
    let url = format!("{}/api/swagger", forge.url);
    Reply::json(status, &json!({ "message": why, "url": url }))
}
