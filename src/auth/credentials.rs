//! What a user who signed in lends to their children: the access token of the upstream provider.
//!
//! A child gets it in its environment, which cannot change: when a newer token is in force, the
//! lease of the older one says so, and whoever holds it sees to a new child.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::Principal;

/// Where the spawner gets tokens from.
pub(crate) trait Credentials: Send + Sync {
    /// The token of this user with enough of its life left for a child to begin with. May wait for
    /// the provider.
    ///
    /// # Errors
    /// [`CredentialError`].
    fn lease(&self, principal: &Principal, now: SystemTime) -> Result<Lease, CredentialError>;
}

/// A token, and what becomes of it. In use as long as anybody else holds the `state`.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) token: Secret,
    pub(crate) state: Arc<LeaseState>,
}

/// What is said of a token after it was given out.
#[derive(Debug, Default)]
pub(crate) struct LeaseState {
    superseded: AtomicBool,
}

impl LeaseState {
    /// A newer token of the same user is stored for good, and will be given out from now on.
    #[cfg_attr(not(test), allow(dead_code))] // until signing in is wired
    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
    }

    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }
}

/// A text that is not shown by accident.
pub(crate) struct Secret(String);

impl Secret {
    #[cfg_attr(not(test), allow(dead_code))] // until signing in is wired
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why there is no token.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))] // until signing in is wired
pub(crate) enum CredentialError {
    /// The provider takes back what it gave, or there is nothing any more: the user must sign in.
    SignInAgain,
    /// The provider cannot be asked just now: why, in one line without secrets.
    TryAgain(String),
    /// The user has never signed in there: of a static token, say, nothing can be passed on.
    None,
}

/// Where nobody signs in.
pub(crate) struct NoCredentials;

impl Credentials for NoCredentials {
    fn lease(&self, _: &Principal, _: SystemTime) -> Result<Lease, CredentialError> {
        Err(CredentialError::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let lease = Lease {
            token: Secret::new("hunter2".to_owned()),
            state: Arc::default(),
        };
        assert!(!format!("{lease:?}").contains("hunter2"));
        assert_eq!(lease.token.reveal(), "hunter2");
    }

    #[test]
    fn where_nobody_signs_in_there_is_nothing_to_lend() {
        let lent = NoCredentials.lease(&Principal::anonymous(), SystemTime::UNIX_EPOCH);
        assert_eq!(lent.unwrap_err(), CredentialError::None);
    }
}
