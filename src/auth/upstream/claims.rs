//! What a provider says of a user: the claims of the ID token and of its userinfo endpoint (OpenID
//! Connect Core sections 2, 3.1.3.7 and 5.3).

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::discovery::is_same_issuer;
use super::{SignedIn, UpstreamError, UpstreamTokens};

pub(super) type Claims = Map<String, Value>;

/// How far the provider's clock may be from ours.
const LEEWAY_SECONDS: f64 = 60.0;
const MAX_SUBJECT_BYTES: usize = 255;
const MAX_NAME_CHARS: usize = 64;
const MAX_EMAIL_BYTES: usize = 254;
const MAX_GROUPS: usize = 1000;
const MAX_GROUP_BYTES: usize = 256;

/// What an ID token must say.
pub(super) struct Expected<'a> {
    /// As the provider writes it.
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
}

/// Reads and checks an ID token. Its signature is not looked at: it comes straight from the token
/// endpoint, and TLS vouches for that one (OpenID Connect Core section 3.1.3.7, item 6).
pub(super) fn read_id_token(
    token: &str,
    expected: &Expected,
    now: SystemTime,
) -> Result<Claims, UpstreamError> {
    let issuer = expected.issuer;
    let broken = |why| UpstreamError::Broken(format!("{issuer}: its ID token {why}"));
    let claims = decode(token).ok_or_else(|| broken("is not a JWT"))?;
    check(&claims, expected, now).map_err(broken)?;
    Ok(claims)
}

pub(super) fn no_id_token(issuer: &str) -> UpstreamError {
    UpstreamError::Broken(format!(
        "{issuer}: gives no ID token: put \"openid\" into the scopes"
    ))
}

fn decode(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let payload = parts.nth(1)?;
    if parts.count() != 1 {
        return None;
    }
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&payload).ok()
}

fn check(claims: &Claims, expected: &Expected, now: SystemTime) -> Result<(), &'static str> {
    let text = |key: &str| claims.get(key).and_then(Value::as_str);
    let audiences: Vec<&Value> = match claims.get("aud") {
        Some(Value::Array(many)) => many.iter().collect(),
        Some(one) => vec![one],
        None => Vec::new(),
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = claims.get("exp").and_then(Value::as_f64);
    let is_alive = expires.is_some_and(|exp| now.as_secs_f64() < exp + LEEWAY_SECONDS);
    match () {
        () if !text("iss").is_some_and(|iss| is_same_issuer(iss, expected.issuer)) => {
            Err("is from another issuer")
        }
        () if !audiences.iter().any(|it| **it == expected.client_id) => {
            Err("is for another client")
        }
        () if audiences.len() > 1 && !claims.contains_key("azp") => {
            Err("is for several clients and does not say for which")
        }
        () if claims
            .get("azp")
            .is_some_and(|azp| *azp != expected.client_id) =>
        {
            Err("was given to another client")
        }
        () if !is_alive => Err("has expired: check the clocks"),
        () if text("nonce") != Some(expected.nonce) => Err("belongs to another sign-in"),
        () => Ok(()),
    }
}

pub(super) fn read_user_info(body: &str) -> Option<Claims> {
    serde_json::from_str(body).ok()
}

/// Puts the two together. What the userinfo endpoint says is newer and goes first.
pub(super) fn combine(
    issuer: &str,
    id: Option<Claims>,
    info: Option<Claims>,
    tokens: UpstreamTokens,
) -> Result<SignedIn, UpstreamError> {
    let broken = |why| UpstreamError::Broken(format!("{issuer}: {why}"));
    let subjects = [&info, &id].map(|claims| claims.as_ref().map(|it| subject(it)));
    let subject = match subjects {
        [Some(one), Some(other)] if one != other => None,
        [one, other] => one.or(other).flatten(),
    };
    let subject =
        subject.ok_or_else(|| broken("does not say, or not twice the same, who it is"))?;
    let sources: Vec<&Claims> = [&info, &id].into_iter().flatten().collect();
    let text = |key: &str| {
        let mut found = sources
            .iter()
            .filter_map(|claims| claims.get(key)?.as_str());
        found.find(|text| !text.is_empty())
    };
    let username = text("preferred_username");
    let (email, is_email_verified) = email(&sources);
    let names = [username, text("name"), email, Some(subject)];
    let name = names.into_iter().flatten().map(clean);
    Ok(SignedIn {
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        name: name
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_default(),
        username: username.map(str::to_owned),
        email: email.map(str::to_owned),
        is_email_verified,
        groups: groups(&sources),
        tokens,
    })
}

/// Core section 2: at most 255 ASCII characters.
fn subject(claims: &Claims) -> Option<&str> {
    let subject = claims.get("sub")?.as_str()?;
    let is_good = (1..=MAX_SUBJECT_BYTES).contains(&subject.len())
        && subject
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    is_good.then_some(subject)
}

/// The first address, and whether it is verified: if one source says so and none denies it.
fn email<'a>(sources: &[&'a Claims]) -> (Option<&'a str>, bool) {
    let of = |claims: &&'a Claims| claims.get("email")?.as_str();
    let is_good = |email: &&str| {
        let is_plain = email.bytes().all(|byte| byte > b' ' && byte != 0x7f);
        email.len() <= MAX_EMAIL_BYTES && email.contains('@') && is_plain
    };
    let Some(email) = sources.iter().find_map(of).filter(is_good) else {
        return (None, false);
    };
    let same = sources.iter().filter(|claims| of(claims) == Some(email));
    // Some providers write it as a string.
    let said: Vec<bool> = same
        .filter_map(|claims| match claims.get("email_verified")? {
            Value::String(text) => Some(text == "true"),
            value => Some(*value == true),
        })
        .collect();
    match said.contains(&false) {
        true => (None, false),
        false => (Some(email), !said.is_empty()),
    }
}

/// A list of strings, or one string.
fn groups(sources: &[&Claims]) -> Vec<String> {
    let found = sources.iter().find_map(|claims| claims.get("groups"));
    let all: Vec<&str> = match found {
        Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(group)) => vec![group],
        _ => Vec::new(),
    };
    let fitting = all
        .into_iter()
        .filter(|group| group.len() <= MAX_GROUP_BYTES);
    fitting.take(MAX_GROUPS).map(str::to_owned).collect()
}

/// A name that is fit for a line of a log, a page and an environment variable: without control
/// characters and those that turn the direction of writing or show nothing.
fn clean(name: &str) -> String {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    };
    let name: String = name.chars().filter(|c| !is_odd(*c)).collect();
    let name: String = name.trim().chars().take(MAX_NAME_CHARS).collect();
    name.trim_end().to_owned()
}
