//! Who vouches for users besides the static tokens, as configured: this broker's own
//! authorization server with a provider behind it, or one outside.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::ServeError;
use crate::auth::jwt::{Fetched, JwtDoor, JwtOptions, KeysByUrl};
use crate::auth::oauth::Resources;
use crate::auth::oauth::metadata::SCOPE;
use crate::auth::sign_in::{SignIn, SignInOptions};
use crate::auth::upstream::{Allow, Upstream, UpstreamError, UpstreamKind, UpstreamOptions};
use crate::auth::web::{self, Web};
use crate::auth::{Authenticator, Credentials, NoCredentials, Upkeep};
use crate::config::{self, AuthConfig, AuthKind, Config, JwtConfig, UpstreamConfig};
use crate::http::Protected;

/// What signing in needs of the others, and what they need of it.
pub(super) struct SigningIn {
    /// What clients without a token are told.
    pub(super) protected: Option<Protected>,
    /// What children are given.
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) upkeep: Option<Upkeep>,
}

/// Sets it up; asks nobody outside yet. `urls` are where clients connect to.
///
/// # Errors
/// The store or the configuration cannot be used.
pub(super) fn open(
    config: &Config,
    authenticator: Authenticator,
    urls: &[String],
) -> Result<(Authenticator, SigningIn), ServeError> {
    let Some(auth) = &config.auth_server else {
        let none = SigningIn {
            protected: None,
            credentials: Arc::new(NoCredentials),
            upkeep: None,
        };
        return Ok((authenticator, none));
    };
    let servers = config.servers.iter();
    let servers: Vec<Arc<str>> = servers.map(|it| it.name.as_str().into()).collect();
    let issuer = match &config.public_url {
        Some(url) => url.origin(),
        None => urls.first().cloned().unwrap_or_default(),
    };
    let resources = || Resources::new(&issuer, &servers);
    match &auth.kind {
        AuthKind::Upstream(upstream) => here(config, auth, upstream, authenticator, resources),
        AuthKind::Jwt(jwt) => outside(jwt, authenticator, resources),
    }
}

fn here(
    config: &Config,
    auth: &AuthConfig,
    upstream: &UpstreamConfig,
    authenticator: Authenticator,
    resources: impl Fn() -> Resources,
) -> Result<(Authenticator, SigningIn), ServeError> {
    let upstream = Upstream::new(options(upstream)).map_err(|why| match why {
        UpstreamError::SignInAgain(why)
        | UpstreamError::TryAgain(why)
        | UpstreamError::Broken(why) => ServeError::SignIn(why),
    })?;
    let options = SignInOptions {
        resources: resources(),
        upstream,
        access_lifetime: auth.access_token_lifetime,
        grant_lifetime: auth.refresh_token_lifetime,
    };
    let credentials_dir = std::env::var_os("CREDENTIALS_DIRECTORY");
    let credentials_dir = credentials_dir.as_deref().map(Path::new);
    let now = SystemTime::now();
    let sign_in = SignIn::open(options, &config.state_dir, credentials_dir, now);
    let sign_in = Arc::new(sign_in.map_err(ServeError::Store)?);
    let resources = resources();
    let issuers = vec![resources.issuer().to_owned()];
    let scopes = vec![SCOPE.to_owned()];
    let protected = Protected::new(resources, issuers, scopes, Some(Arc::clone(&sign_in)));
    let tended = Arc::clone(&sign_in);
    let upkeep = Upkeep::start(move |now| tended.tend(now)).map_err(ServeError::Start)?;
    let signing_in = SigningIn {
        protected: Some(protected),
        credentials: Arc::clone(&sign_in) as Arc<dyn Credentials>,
        upkeep: Some(upkeep),
    };
    Ok((authenticator.with_sign_in(sign_in), signing_in))
}

fn outside(
    jwt: &JwtConfig,
    authenticator: Authenticator,
    resources: impl Fn() -> Resources,
) -> Result<(Authenticator, SigningIn), ServeError> {
    let web = Web::new(jwt.ca_file.as_deref(), web::TIMEOUT);
    let web = web.map_err(|why| ServeError::SignIn(why.to_string()))?;
    let get = move |url: &str| {
        let answer = web.get_json(url, None).map_err(|why| why.to_string())?;
        match answer.status {
            200 => Ok(Fetched {
                body: answer.body,
                cache: answer.cache,
            }),
            status => Err(format!("status {status}")),
        }
    };
    let keys = KeysByUrl::new(&jwt.issuer, jwt.jwks_url.as_deref(), get);
    let options = JwtOptions {
        issuer: jwt.issuer.as_str().into(),
        audience: jwt.audience.clone(),
        algorithms: jwt.algorithms.clone(),
        scopes: jwt.scopes.clone(),
        subjects: (!jwt.allow.anyone).then(|| jwt.allow.subjects.clone()),
    };
    let door = Arc::new(JwtDoor::new(options, Box::new(keys)));
    let issuers = vec![jwt.issuer.clone()];
    let protected = Protected::new(resources(), issuers, jwt.scopes.clone(), None);
    let tended = Arc::clone(&door);
    let upkeep = Upkeep::start(move |now| tended.tick(now)).map_err(ServeError::Start)?;
    let signing_in = SigningIn {
        protected: Some(protected),
        credentials: Arc::new(NoCredentials),
        upkeep: Some(upkeep),
    };
    Ok((authenticator.with_outside(door, resources()), signing_in))
}

fn options(config: &UpstreamConfig) -> UpstreamOptions {
    let allow = &config.allow;
    UpstreamOptions {
        kind: match config.kind {
            config::UpstreamKind::Forgejo => UpstreamKind::Forgejo,
            config::UpstreamKind::Oidc => UpstreamKind::Oidc,
        },
        url: config.url.clone(),
        client_id: config.client_id.clone(),
        client_secret: config.client_secret.expose().to_owned(),
        scopes: config.scopes.clone(),
        name: config.name.clone(),
        allow: Allow {
            users: allow.users.clone(),
            groups: allow.groups.clone(),
            emails: allow.emails.clone(),
            anyone: allow.anyone,
        },
        ca_file: config.ca_file.clone(),
    }
}
