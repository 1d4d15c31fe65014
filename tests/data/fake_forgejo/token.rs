//! `/login/oauth/access_token`: codes and refresh tokens for tokens. All refusals have status 400.

use std::time::SystemTime;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::http::{Reply, Request};
use crate::state::{Challenge, Forge};

/// An error code and its description.
type Refused = (&'static str, String);

pub(crate) fn answer(forge: &Forge, request: &Request) -> Reply {
    let grant_type = request.form("grant_type").unwrap_or_default();
    let (counts, result) = match grant_type.as_str() {
        "refresh_token" => (["refreshes", "refreshes_refused"], refresh(forge, request)),
        "authorization_code" => (["exchanges", "exchanges_refused"], exchange(forge, request)),
        _ => {
            let why = "Only refresh_token or authorization_code grant type is supported";
            let refused = ("unsupported_grant_type", why.to_owned());
            (["tokens", "tokens_refused"], Err(refused))
        }
    };
    forge.memory().count(counts[usize::from(result.is_err())]);
    match result {
        Ok(tokens) => Reply::json(200, &tokens),
        Err((error, why)) => Reply::json(400, &json!({ "error": error, "error_description": why })),
    }
}

fn refused<T>(error: &'static str, why: &str) -> Result<T, Refused> {
    Err((error, why.to_owned()))
}

/// Client id and secret from the body, completed by those of the header.
fn client(request: &Request) -> Result<(String, String), Refused> {
    let id = request.form("client_id").unwrap_or_default();
    let secret = request.form("client_secret").unwrap_or_default();
    if !id.is_empty() && !secret.is_empty() {
        return Ok((id, secret));
    }
    let Some(basic) = request.basic() else {
        return Ok((id, secret));
    };
    let Ok((header_id, header_secret)) = basic else {
        return refused("invalid_request", "cannot parse basic auth header");
    };
    for (name, body, header) in [
        ("client_id", &id, &header_id),
        ("client_secret", &secret, &header_secret),
    ] {
        if !body.is_empty() && body != header {
            let why = format!("{name} in request body inconsistent with Authorization header");
            return refused("invalid_request", &why);
        }
    }
    Ok((header_id, header_secret))
}

/// Whether this is the application; a wrong secret has another error for codes than for refresh
/// tokens.
fn check_client(
    forge: &Forge,
    request: &Request,
    wrong_secret: &'static str,
) -> Result<(), Refused> {
    let (id, secret) = client(request)?;
    if id != forge.client_id {
        let why = format!("cannot load client with client id: '{id}'");
        return refused("invalid_client", &why);
    }
    if secret.is_empty() {
        return refused(wrong_secret, "invalid empty client secret");
    }
    if secret != forge.client_secret {
        return refused(wrong_secret, "invalid client secret");
    }
    Ok(())
}

fn exchange(forge: &Forge, request: &Request) -> Result<Value, Refused> {
    check_client(forge, request, "unauthorized_client")?;
    let mut memory = forge.memory();
    let redirect_uri = request.form("redirect_uri").unwrap_or_default();
    if !redirect_uri.is_empty() && !memory.is_redirect_uri(&redirect_uri) {
        return refused("unauthorized_client", "unexpected redirect URI");
    }
    let code = request.form("code").unwrap_or_default();
    let Some(found) = memory.codes.get(&code) else {
        return refused("unauthorized_client", "client is not authorized");
    };
    let verifier = request.form("code_verifier").unwrap_or_default();
    if !verifies(found.challenge.as_ref(), &verifier) {
        return refused("unauthorized_client", "client is not authorized");
    }
    let grant = found.grant;
    memory.codes.remove(&code);
    match forge.issue(&mut memory, grant) {
        Some(tokens) => Ok(tokens),
        None => refused("unauthorized_client", "client is not authorized"),
    }
}

/// Without a challenge, anything will do.
fn verifies(challenge: Option<&Challenge>, verifier: &str) -> bool {
    let Some(challenge) = challenge else {
        return true;
    };
    let transformed = match challenge.method.as_str() {
        "S256" => BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())),
        _ => verifier.to_owned(),
    };
    !verifier.is_empty() && transformed == challenge.value
}

fn refresh(forge: &Forge, request: &Request) -> Result<Value, Refused> {
    check_client(forge, request, "invalid_client")?;
    let token = request.form("refresh_token").unwrap_or_default();
    let mut memory = forge.memory();
    let known = memory.refresh.get(&token).cloned();
    let Some(known) = known.filter(|it| it.expires > SystemTime::now()) else {
        return refused("unauthorized_client", "unable to parse refresh token");
    };
    let Some(grant) = memory.grants.iter().find(|it| it.id == known.grant) else {
        return refused("invalid_grant", "grant does not exist");
    };
    if forge.invalidate && grant.counter != known.counter {
        return refused("unauthorized_client", "token was already used");
    }
    match forge.issue(&mut memory, known.grant) {
        Some(tokens) => Ok(tokens),
        None => refused("invalid_grant", "grant does not exist"),
    }
}
