//! What a token must say to be taken (RFC 7519, section 4.1; RFC 9068, section 4), and whom it then
//! stands for. Pure: who signed it has been or will be checked by the caller.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::auth::Principal;

use super::{JwtOptions, Refusal};

/// How far the other server's clock may be off.
const LEEWAY: Duration = Duration::from_secs(60);
const MAX_SUBJECT_BYTES: usize = 256;
const MAX_EMAIL_BYTES: usize = 254;
const MAX_NAME_CHARS: usize = 64;

/// Whom the token stands for and until when, if it is for one of `resources` (R12) and in force.
pub(super) fn check(
    claims: &Map<String, Value>,
    options: &JwtOptions,
    resources: &[String],
    now: SystemTime,
) -> Result<(Principal, SystemTime), Refusal> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(&options.issuer) {
        return Err(Refusal::Bad("its iss is not the configured issuer"));
    }
    check_audience(claims.get("aud"), options, resources)?;
    let expires = check_times(claims, now)?;
    let subject = text("sub").filter(|subject| is_subject(subject));
    let subject = subject.ok_or(Refusal::Bad("it has no sub that could be used"))?;
    if !has_scopes(claims, &options.scopes) {
        return Err(Refusal::NotAllowed("it lacks a scope"));
    }
    let is_listed = |subjects: &Vec<String>| subjects.iter().any(|one| one == subject);
    if !options.subjects.as_ref().is_none_or(is_listed) {
        return Err(Refusal::NotAllowed("its sub is not in \"allow\""));
    }
    let email = email(claims);
    let candidates = [
        text("preferred_username"),
        text("name"),
        email,
        Some(subject),
    ];
    let name = candidates.into_iter().flatten().find_map(plain_name);
    let principal = Principal {
        issuer: options.issuer.clone(),
        subject: subject.into(),
        name: name.unwrap_or_else(|| "user".into()),
        email: email.map(Arc::from),
        env: Arc::default(),
        grant: None,
    };
    Ok((principal, expires))
}

/// RFC 7519, section 4.1.3: one string, or a list of them.
fn check_audience(
    audience: Option<&Value>,
    options: &JwtOptions,
    resources: &[String],
) -> Result<(), Refusal> {
    let is_meant = |one: &Value| {
        one.as_str().is_some_and(|one| match &options.audience {
            Some(configured) => one == configured.as_str(),
            None => resources.iter().any(|uri| is_same(one, uri)),
        })
    };
    let meant = match audience {
        Some(Value::Array(list)) => list.iter().all(Value::is_string) && list.iter().any(is_meant),
        Some(one) => is_meant(one),
        None => false,
    };
    match meant {
        true => Ok(()),
        false => Err(Refusal::Bad("its aud is not this resource")),
    }
}

/// R16: scheme and host in any case, and a slash at the end does not matter. All else does.
fn is_same(audience: &str, resource: &str) -> bool {
    let plain = |uri: &str| -> Option<(String, String)> {
        let uri = uri.strip_suffix('/').unwrap_or(uri);
        let authority = uri.find("://")? + 3;
        let path = uri[authority..]
            .find('/')
            .map_or(uri.len(), |at| authority + at);
        Some((uri[..path].to_ascii_lowercase(), uri[path..].to_owned()))
    };
    plain(audience).is_some_and(|audience| Some(audience) == plain(resource))
}

/// When the token ends. `nbf` and `iat` may be a little ahead, `exp` is what it is.
fn check_times(claims: &Map<String, Value>, now: SystemTime) -> Result<SystemTime, Refusal> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => match numeric_date(value) {
            Some(time) => Ok(Some(time)),
            None => Err(Refusal::Bad("it has a time that is none")),
        },
    };
    let expires = time("exp")?.ok_or(Refusal::Bad("it has no exp"))?;
    if expires <= now {
        return Err(Refusal::Bad("it has expired"));
    }
    for name in ["nbf", "iat"] {
        if time(name)?.is_some_and(|start| start > now + LEEWAY) {
            return Err(Refusal::Bad("it is not valid yet: compare the clocks"));
        }
    }
    Ok(expires)
}

/// RFC 7519, section 2: seconds since 1970, possibly with a fraction.
fn numeric_date(value: &Value) -> Option<SystemTime> {
    let since = match value.as_u64() {
        Some(seconds) => Duration::from_secs(seconds),
        None => Duration::try_from_secs_f64(value.as_f64()?).ok()?,
    };
    // Sums with it must not overflow.
    const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);
    UNIX_EPOCH.checked_add(since.min(YEAR_9999))
}

fn is_subject(subject: &str) -> bool {
    (1..=MAX_SUBJECT_BYTES).contains(&subject.len())
        && !subject.chars().any(char::is_control)
        && !subject.trim().is_empty()
}

/// `scope` is a string (RFC 8693, section 4.2); some servers have a list, or call it `scp`.
fn has_scopes(claims: &Map<String, Value>, wanted: &[String]) -> bool {
    let mut granted: Vec<&str> = Vec::new();
    for value in ["scope", "scp"].iter().filter_map(|name| claims.get(*name)) {
        match value {
            Value::String(text) => granted.extend(text.split(' ')),
            Value::Array(list) => granted.extend(list.iter().filter_map(Value::as_str)),
            _ => {}
        }
    }
    wanted.iter().all(|scope| granted.contains(&scope.as_str()))
}

/// One that its server does not say is unverified.
fn email(claims: &Map<String, Value>) -> Option<&str> {
    let verified = claims.get("email_verified");
    if verified.is_some_and(|value| *value == false || *value == "false") {
        return None;
    }
    let email = claims.get("email")?.as_str()?;
    let valid = |c: char| !c.is_control() && !c.is_whitespace();
    let is_email = email.len() <= MAX_EMAIL_BYTES && email.chars().all(valid);
    let (user, host) = email.split_once('@')?;
    (is_email && !user.is_empty() && !host.is_empty()).then_some(email)
}

/// A name that can stand in a log, a page and an environment. `None`: nothing is left of it.
fn plain_name(name: &str) -> Option<Arc<str>> {
    let fits = |c: &char| c.is_alphanumeric() || " ._@+-'".contains(*c);
    let name: String = name.chars().filter(fits).take(MAX_NAME_CHARS).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.into())
}
