//! Tokens of an outside authorization server (RFC 9068, RFC 7519): verified, never issued.
//!
//! `jws` takes a token apart · `strict` reads its JSON · `algorithm` is what signatures may be ·
//! `claims` what it must say · `keys` is the server's key set, `key_ring` when it is fetched and
//! `discovery` from where · `seen` remembers what was verified.
mod algorithm;
mod claims;
mod discovery;
mod jws;
mod key_ring;
mod keys;
mod seen;
mod strict;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(crate) use algorithm::Algorithm;
pub(crate) use discovery::KeysByUrl;

use super::{AuthError, Principal};
use key_ring::KeyRing;
use seen::{Seen, Verified};

/// What tokens are taken.
pub(crate) struct JwtOptions {
    /// `iss`, character for character.
    pub(crate) issuer: Arc<str>,
    /// `None`: the resource that is asked for.
    pub(crate) audience: Option<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    /// All of them are needed.
    pub(crate) scopes: Vec<String>,
    /// Whose. `None`: anyone's.
    pub(crate) subjects: Option<Vec<String>>,
}

/// Where the server's keys come from.
pub(crate) trait KeySource: Send + Sync {
    /// Fetches them; may take as long as a request over the network does, within limits of its own.
    /// The error is one line for the log.
    fn fetch(&self) -> Result<Fetched, String>;
}

/// What was fetched.
pub(crate) struct Fetched {
    pub(crate) body: String,
    /// For how long it may be kept, as `Cache-Control` says.
    pub(crate) cache: Option<Duration>,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Bad(&'static str),
    NotAllowed(&'static str),
    Later,
}

/// Lets in whom an outside server vouches for. Shared by all threads.
pub(crate) struct JwtDoor {
    options: JwtOptions,
    keys: KeyRing,
    seen: Seen,
}

impl JwtDoor {
    /// Fetches nothing yet.
    pub(crate) fn new(options: JwtOptions, source: Box<dyn KeySource>) -> Self {
        Self {
            options,
            keys: KeyRing::new(source),
            seen: Seen::default(),
        }
    }

    /// Whom a token stands for that is shown for the resource of these URIs (R11, R12). Never
    /// waits: [`AuthError::Later`] where keys must be fetched first.
    pub(crate) fn check(
        &self,
        token: &str,
        resources: &[String],
        now: SystemTime,
    ) -> Result<Principal, AuthError> {
        self.verify(token, resources, now).map_err(|why| match why {
            Refusal::Later => AuthError::Later,
            Refusal::Bad(why) => {
                log::debug!("auth: a token was refused: {why}");
                AuthError::Invalid
            }
            Refusal::NotAllowed(why) => {
                log::debug!("auth: a token is not enough: {why}");
                AuthError::InsufficientScope
            }
        })
    }

    /// The same for a thread that may wait for keys to be fetched. [`AuthError::Later`]: they
    /// cannot be had.
    pub(crate) fn check_slowly(
        &self,
        token: &str,
        resources: &[String],
        now: SystemTime,
    ) -> Result<Principal, AuthError> {
        match self.check(token, resources, now) {
            Err(AuthError::Later) => {
                self.keys.fetch(now);
                self.check(token, resources, now)
            }
            known => known,
        }
    }

    /// Fetches keys that are old, or none yet, so that no request has to wait for it. For a thread
    /// that may wait; at any interval.
    pub(crate) fn tick(&self, now: SystemTime) {
        if self.keys.is_due(now) {
            self.keys.fetch(now);
        }
    }

    fn verify(
        &self,
        token: &str,
        resources: &[String],
        now: SystemTime,
    ) -> Result<Principal, Refusal> {
        let shown = seen::shown(token, resources);
        if let Some(edition) = self.keys.edition(now)
            && let Some(principal) = self.seen.find(&shown, edition, now)
        {
            return Ok(principal);
        }
        let signed = jws::read(token).map_err(Refusal::Bad)?;
        if !self.options.algorithms.contains(&signed.algorithm) {
            return Err(Refusal::Bad("its algorithm is not a configured one"));
        }
        // Before its key is looked for: only who knows what a token must say can make us fetch.
        let said = claims::check(&signed.claims, &self.options, resources, now);
        if let Err(Refusal::Bad(why)) = said {
            return Err(Refusal::Bad(why));
        }
        let id = signed.key_id.as_deref();
        let (key, edition) = self.keys.find(id, signed.algorithm, now)?;
        if !key.verify(signed.algorithm, signed.message, &signed.signature) {
            return Err(Refusal::Bad("its signature is not the server's"));
        }
        let (principal, expires) = said?;
        let verified = Verified {
            principal: principal.clone(),
            expires,
            edition,
        };
        self.seen.add(shown, verified);
        Ok(principal)
    }
}
