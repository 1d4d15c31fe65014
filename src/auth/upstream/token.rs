//! What a token endpoint says (RFC 6749 sections 5.1 and 5.2), and what its refusals mean for the
//! user: to sign in again, to wait, or nothing at all.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::super::web::{Answer, plain};
use super::{UpstreamError, UpstreamTokens, of_status};

/// A good answer.
pub(super) struct Granted {
    pub(super) tokens: UpstreamTokens,
    pub(super) id_token: Option<String>,
}

/// For messages.
pub(super) struct Context<'a> {
    /// Who answers.
    pub(super) place: &'a str,
    /// What was sent and must not be repeated, should the other side do so.
    pub(super) secrets: &'a [&'a str],
}

/// Reads the answer to a request that was sent at `asked`.
pub(super) fn read(
    answer: &Answer,
    context: &Context,
    asked: SystemTime,
) -> Result<Granted, UpstreamError> {
    let body: Option<Value> = serde_json::from_str(&answer.body).ok();
    match answer.status {
        200 => body
            .ok_or("does not answer in JSON")
            .and_then(|body| granted(&body, asked))
            .map_err(|why| {
                let place = context.place;
                UpstreamError::Broken(format!("{place}: its token endpoint {why}"))
            }),
        400 | 401 => Err(refused(answer.status, &body.unwrap_or_default(), context)),
        status => {
            let says = format!("{}: its token endpoint", context.place);
            Err(of_status(&says, status))
        }
    }
}

fn granted(body: &Value, asked: SystemTime) -> Result<Granted, &'static str> {
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    // It goes into headers and environments.
    let is_token =
        |token: &String| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    let access = text("access_token").filter(is_token);
    let kind = text("token_type").unwrap_or_else(|| "bearer".to_owned());
    if !kind.eq_ignore_ascii_case("bearer") {
        return Err("gives tokens of another type than Bearer");
    }
    let lifetime = body.get("expires_in").and_then(seconds);
    Ok(Granted {
        tokens: UpstreamTokens {
            access: access.ok_or("gives no access_token")?,
            refresh: text("refresh_token").filter(|token| !token.is_empty()),
            expires: lifetime.and_then(|time| asked.checked_add(time)),
            lifetime,
            scope: text("scope"),
        },
        id_token: text("id_token").filter(|token| !token.is_empty()),
    })
}

/// Some providers write the number as a string or with a fraction.
fn seconds(value: &Value) -> Option<Duration> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    };
    let number = number.filter(|it| (0.0..=u32::MAX.into()).contains(it));
    number.map(Duration::from_secs_f64)
}

/// What a refusal means. One without a word of OAuth is not the provider's but of something before
/// it, and no reason to take a user's access away. Forgejo and Gitea say `unauthorized_client` for
/// a refresh token that was used already and for a code that is not good, and with another
/// description for our own secret.
fn refused(status: u16, body: &Value, context: &Context) -> UpstreamError {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    let (error, description) = (text("error"), text("error_description"));
    let said = match error {
        "" => format!("status {status}"),
        _ => quote(error, description, context.secrets),
    };
    let place = context.place;
    match error {
        "invalid_client" => own_fault(place, &said),
        "unauthorized_client" if description.contains("client secret") => own_fault(place, &said),
        "" | "temporarily_unavailable" | "server_error" | "slow_down" => UpstreamError::TryAgain(
            format!("{place}: cannot give tokens now ({said}): try again later"),
        ),
        _ => UpstreamError::SignInAgain(format!(
            "{place}: does not go on with this sign-in ({said}): sign in again"
        )),
    }
}

fn own_fault(place: &str, said: &str) -> UpstreamError {
    UpstreamError::Broken(format!(
        "{place}: does not accept our client_id and client_secret ({said}): \
         compare them with those of the application there"
    ))
}

/// The provider's words, unless they repeat what we sent.
fn quote(error: &str, description: &str, secrets: &[&str]) -> String {
    let is_safe = |text: &str| {
        let mut secrets = secrets.iter().filter(|secret| !secret.is_empty());
        !secrets.any(|secret| text.contains(secret))
    };
    match (error, description) {
        (error, _) if !is_safe(error) => "an error".to_owned(),
        (error, "") => plain(error),
        (error, description) if is_safe(description) => plain(&format!("{error}: {description}")),
        (error, _) => plain(error),
    }
}
