//! Where a provider's endpoints are (OpenID Connect Discovery section 4): asked once an hour, and
//! not at every request while it fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use super::super::web::{Web, WebError};
use super::{UpstreamError, of_status};

const PATH: &str = "/.well-known/openid-configuration";
const KEPT: Duration = Duration::from_secs(60 * 60);
const COOL_DOWN: Duration = Duration::from_secs(10);

/// What a provider says of itself.
#[derive(Debug)]
pub(super) struct Provider {
    /// As it writes it.
    pub(super) issuer: String,
    pub(super) authorization: String,
    pub(super) token: String,
    pub(super) user_info: Option<String>,
    /// It knows `client_secret_post` only.
    pub(super) takes_secret_in_body: bool,
    /// It names itself in authorization responses (RFC 9207).
    pub(super) sends_iss: bool,
}

pub(super) struct Discovery {
    /// Without a trailing slash.
    issuer: String,
    known: Mutex<Option<Known>>,
}

struct Known {
    found: Result<Arc<Provider>, UpstreamError>,
    until: Instant,
}

impl Discovery {
    /// # Errors
    /// If no provider can have this URL.
    pub(super) fn new(url: &str) -> Result<Self, WebError> {
        Web::check(url)?;
        Ok(Self {
            issuer: url.strip_suffix('/').unwrap_or(url).to_owned(),
            known: Mutex::new(None),
        })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What is known, or what the provider answers now. What was known serves on while the provider
    /// does not answer.
    pub(super) fn provider(&self, web: &Web, now: Instant) -> Result<Arc<Provider>, UpstreamError> {
        let old = match &*self.known.lock() {
            Some(known) if now < known.until => return known.found.clone(),
            Some(known) => known.found.clone().ok(),
            None => None,
        };
        // Nobody waits for another one here: two that ask at once are two small requests.
        let (found, time) = match (self.ask(web), old) {
            (Ok(provider), _) => (Ok(Arc::new(provider)), KEPT),
            (Err(UpstreamError::TryAgain(_)), Some(old)) => (Ok(old), COOL_DOWN),
            (Err(error), _) => (Err(error), COOL_DOWN),
        };
        *self.known.lock() = Some(Known {
            found: found.clone(),
            until: now + time,
        });
        found
    }

    fn ask(&self, web: &Web) -> Result<Provider, UpstreamError> {
        let url = format!("{}{PATH}", self.issuer);
        let answer = web.get_json(&url, None)?;
        if answer.status != 200 {
            return Err(of_status(&url, answer.status));
        }
        read(&self.issuer, &answer.body)
            .map_err(|why| UpstreamError::Broken(format!("{url}: {why}: check the provider's url")))
    }
}

/// Whether two issuers are the same. One trailing slash makes no difference: Forgejo and Gitea
/// write theirs with one or without, by version and by place.
pub(super) fn is_same_issuer(one: &str, other: &str) -> bool {
    let bare = |issuer| str::strip_suffix(issuer, "/").unwrap_or(issuer);
    bare(one) == bare(other)
}

fn read(issuer: &str, body: &str) -> Result<Provider, &'static str> {
    let document: Value = serde_json::from_str(body).map_err(|_| "does not answer in JSON")?;
    let text = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    // Whoever answers for another issuer could sign in that one's users.
    let own = text("issuer").filter(|own| is_same_issuer(own, issuer));
    let endpoint = |key: &str, missing: &'static str| match text(key) {
        None => Err(missing),
        Some(url) => match Web::check(&url) {
            Ok(()) => Ok(url),
            Err(_) => Err("names an endpoint that is not an https URL"),
        },
    };
    let user_info = match document.get("userinfo_endpoint") {
        None | Some(Value::Null) => None,
        Some(_) => Some(endpoint("userinfo_endpoint", "names no userinfo_endpoint")?),
    };
    Ok(Provider {
        issuer: own.ok_or("answers for another issuer than this one")?,
        authorization: endpoint("authorization_endpoint", "names no authorization_endpoint")?,
        token: endpoint("token_endpoint", "names no token_endpoint")?,
        user_info,
        takes_secret_in_body: takes_secret_in_body(&document),
        sends_iss: document["authorization_response_iss_parameter_supported"] == true,
    })
}

/// Basic is the default where nothing is said (OpenID Connect Discovery section 3).
fn takes_secret_in_body(document: &Value) -> bool {
    let methods = document["token_endpoint_auth_methods_supported"].as_array();
    let lists = |method: &str| methods.is_some_and(|all| all.iter().any(|it| it == method));
    lists("client_secret_post") && !lists("client_secret_basic")
}
