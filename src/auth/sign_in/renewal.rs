//! The users' own tokens at the provider: one record a user, kept fresh for their children.
//!
//! A provider may take an old refresh token for stolen the moment a new one was given out (Forgejo
//! does, for all sign-ins of a user together). So there is one refresh of a user at a time, whoever
//! wants it, and what came of it is on disk before anybody uses it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::SignIn;
use crate::auth::Principal;
use crate::auth::credentials::{CredentialError, Credentials, Lease, LeaseState, Secret};
use crate::auth::store::StoreError;
use crate::auth::upstream::{UpstreamError, UpstreamTokens};

/// A new child gets a token that lasts at least so long, if the provider's last that long at all.
const LEAST_REMAINING: Duration = Duration::from_mins(10);
/// A child's token is replaced so long before it expires, if it lasts long enough.
const BEFORE_EXPIRY: Duration = Duration::from_mins(5);
/// When a provider that could not be reached is tried again.
const RETRY: Duration = Duration::from_secs(15);
/// A child is not replaced sooner, however short-lived its token is.
const LEAST_LEASE: Duration = Duration::from_secs(2);
/// Issuer and subject.
pub(super) type UserKey = (Arc<str>, Arc<str>);

/// Who refreshes, and who holds what.
#[derive(Default)]
pub(super) struct Renewals {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whose tokens are being refreshed.
    flying: HashSet<UserKey>,
    /// Why the last one was in vain: for those who waited for it.
    vain: HashMap<UserKey, UpstreamError>,
    /// What a provider gave and the store did not take. The provider may honour nothing else any
    /// more.
    unsaved: HashMap<UserKey, UpstreamTokens>,
    /// Children with a user's token.
    leases: HashMap<UserKey, Leases>,
}

struct Leases {
    held: Vec<Weak<LeaseState>>,
    /// When there should be a new token. `None`: nobody knows when this one expires, or there will
    /// be none.
    due: Option<SystemTime>,
}

impl Renewals {
    /// There is a new token of this user, on disk.
    pub(super) fn replaced(&self, user: &UserKey) {
        let leases = {
            let mut state = self.state.lock();
            state.unsaved.remove(user);
            state.leases.remove(user)
        };
        for lease in leases.iter().flat_map(|it| &it.held) {
            if let Some(lease) = lease.upgrade() {
                lease.supersede();
            }
        }
    }

    fn hold(&self, user: UserKey, lease: &Arc<LeaseState>, due: Option<SystemTime>) {
        let mut state = self.state.lock();
        let leases = state.leases.entry(user).or_insert_with(|| Leases {
            held: Vec::new(),
            due,
        });
        leases.due = due;
        leases.held.retain(|it| it.strong_count() > 0);
        leases.held.push(Arc::downgrade(lease));
    }

    /// The users whose children's tokens are due.
    fn due(&self, now: SystemTime) -> Vec<UserKey> {
        let mut state = self.state.lock();
        state.leases.retain(|_, leases| {
            leases.held.retain(|it| it.strong_count() > 0);
            !leases.held.is_empty()
        });
        let all = state.leases.iter();
        let due = all.filter(|(_, it)| it.due.is_some_and(|due| due <= now));
        due.map(|(user, _)| user.clone()).collect()
    }

    /// It could not be had: when to try again. `None`: never.
    fn put_off(&self, user: &UserKey, until: Option<SystemTime>) {
        if let Some(leases) = self.state.lock().leases.get_mut(user) {
            leases.due = until;
        }
    }

    /// The caller is to refresh, unless somebody else just did: then why it was in vain, if it was.
    fn take_off(&self, user: &UserKey) -> Turn<'_> {
        let mut state = self.state.lock();
        if !state.flying.contains(user) {
            return Turn::Own(self.begin(&mut state, user));
        }
        self.landed
            .wait_while(&mut state, |state| state.flying.contains(user));
        Turn::Done(state.vain.get(user).cloned())
    }

    /// Waits until nobody else refreshes; nobody does until it is dropped.
    pub(super) fn alone(&self, user: &UserKey) -> Flight<'_> {
        let mut state = self.state.lock();
        self.landed
            .wait_while(&mut state, |state| state.flying.contains(user));
        self.begin(&mut state, user)
    }

    fn begin(&self, state: &mut State, user: &UserKey) -> Flight<'_> {
        state.flying.insert(user.clone());
        state.vain.remove(user);
        Flight(self, user.clone())
    }

    fn land(&self, user: &UserKey) {
        self.state.lock().flying.remove(user);
        self.landed.notify_all();
    }
}

enum Turn<'a> {
    Own(Flight<'a>),
    Done(Option<UpstreamError>),
}

/// Ends a flight, whatever happens.
pub(super) struct Flight<'a>(&'a Renewals, UserKey);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.land(&self.1);
    }
}

impl SignIn {
    /// The user's tokens, refreshed first if they would not last.
    pub(super) fn fresh_tokens(
        &self,
        issuer: &Arc<str>,
        subject: &Arc<str>,
        now: SystemTime,
    ) -> Result<UpstreamTokens, UpstreamError> {
        let user = (Arc::clone(issuer), Arc::clone(subject));
        self.tokens_where(&user, now, |tokens| lasts(tokens, now, wanted(tokens)))
    }

    fn tokens_where(
        &self,
        user: &UserKey,
        now: SystemTime,
        is_good: impl Fn(&UpstreamTokens) -> bool,
    ) -> Result<UpstreamTokens, UpstreamError> {
        loop {
            let tokens = self.kept(user)?;
            if is_good(&tokens) || tokens.refresh.is_none() && lasts(&tokens, now, Duration::ZERO) {
                return Ok(tokens);
            }
            match self.renewals.take_off(user) {
                Turn::Own(_flight) => {
                    if let Err(why) = self.save_late(user) {
                        return make_do(tokens, why, now);
                    }
                    // Somebody may have landed just before.
                    let tokens = self.kept(user)?;
                    return match is_good(&tokens) {
                        true => Ok(tokens),
                        false => self.renew(user, tokens, now),
                    };
                }
                // Asking once more would take as long, for one after the other.
                Turn::Done(Some(why)) => return make_do(tokens, why, now),
                Turn::Done(None) => {}
            }
        }
    }

    fn kept(&self, (issuer, subject): &UserKey) -> Result<UpstreamTokens, UpstreamError> {
        if **issuer != *self.options.upstream.issuer() {
            // It is none of the business of the one that is configured now.
            let why = "it is another provider's".to_owned();
            return Err(UpstreamError::SignInAgain(why));
        }
        let kept = self.store.user(issuer, subject).map_err(trouble)?;
        let tokens = kept.and_then(|(_, tokens)| tokens);
        tokens.ok_or_else(|| UpstreamError::SignInAgain("there is no token".to_owned()))
    }

    /// Asks the provider for new tokens. The caller is the only one who does.
    fn renew(
        &self,
        user: &UserKey,
        tokens: UpstreamTokens,
        now: SystemTime,
    ) -> Result<UpstreamTokens, UpstreamError> {
        let Some(refresh) = &tokens.refresh else {
            return Err(UpstreamError::SignInAgain(
                "its token has expired".to_owned(),
            ));
        };
        let renewed = match self.options.upstream.refresh(refresh) {
            Ok(new) => self.save(user, new),
            Err(why) => Err(why),
        };
        match renewed {
            Ok(new) => Ok(new),
            Err(UpstreamError::SignInAgain(why)) => {
                let (issuer, subject) = user;
                log::warn!("sign-in: the provider takes back what it gave a user: {why}");
                self.store.forget_tokens(issuer, subject).map_err(trouble)?;
                self.reload(now).map_err(trouble)?;
                Err(UpstreamError::SignInAgain(why))
            }
            Err(why) => {
                let vain = &mut self.renewals.state.lock().vain;
                vain.insert(user.clone(), why.clone());
                make_do(tokens, why, now)
            }
        }
    }

    /// Keeps what the provider gave; nobody has it before it is on disk.
    fn save(&self, user: &UserKey, new: UpstreamTokens) -> Result<UpstreamTokens, UpstreamError> {
        match self.store.save_tokens(&user.0, &user.1, &new) {
            Ok(()) => {
                self.renewals.replaced(user);
                Ok(new)
            }
            Err(why @ StoreError::NoUser) => Err(UpstreamError::SignInAgain(why.to_string())),
            Err(why) => {
                let unsaved = &mut self.renewals.state.lock().unsaved;
                unsaved.insert(user.clone(), new);
                Err(trouble(why))
            }
        }
    }

    /// Keeps what could not be kept before, if there is any. The caller is the only one who does.
    fn save_late(&self, user: &UserKey) -> Result<(), UpstreamError> {
        let unsaved = self.renewals.state.lock().unsaved.remove(user);
        match unsaved.map(|new| self.save(user, new)) {
            // Of somebody who is no more there is nothing to keep.
            None | Some(Ok(_) | Err(UpstreamError::SignInAgain(_))) => Ok(()),
            Some(Err(why)) => Err(why),
        }
    }

    /// Refreshes what children hold, where it is time. Whoever is not to be had keeps it waiting
    /// once: the others are seen to the next time.
    pub(crate) fn tend(&self, now: SystemTime) {
        let unsaved: Vec<_> = self.renewals.state.lock().unsaved.keys().cloned().collect();
        for user in unsaved {
            let _flight = self.renewals.alone(&user);
            if self.save_late(&user).is_err() {
                return;
            }
        }
        for user in self.renewals.due(now) {
            let is_good = |tokens: &UpstreamTokens| due_of(tokens).is_none_or(|due| due > now);
            let (due, is_vain) = match self.tokens_where(&user, now, is_good) {
                Ok(tokens) if is_good(&tokens) => (due_of(&tokens), false),
                Ok(_) => (Some(now + RETRY), true),
                Err(UpstreamError::SignInAgain(_)) => (None, false),
                Err(why) => {
                    log::warn!("sign-in: a child's token cannot be replaced: {why}");
                    (Some(now + RETRY), true)
                }
            };
            self.renewals.put_off(&user, due);
            if is_vain {
                return;
            }
        }
    }
}

impl Credentials for SignIn {
    fn lease(&self, principal: &Principal, now: SystemTime) -> Result<Lease, CredentialError> {
        if principal.grant.is_none() {
            return Err(CredentialError::None);
        }
        let user = (
            Arc::clone(&principal.issuer),
            Arc::clone(&principal.subject),
        );
        let refused = |why| match why {
            UpstreamError::SignInAgain(_) => CredentialError::SignInAgain,
            UpstreamError::TryAgain(why) | UpstreamError::Broken(why) => {
                CredentialError::TryAgain(why)
            }
        };
        let tokens = self.fresh_tokens(&user.0, &user.1, now).map_err(refused)?;
        let state = Arc::new(LeaseState::default());
        let due = due_of(&tokens).map(|due| due.max(now + LEAST_LEASE));
        self.renewals.hold(user.clone(), &state, due);
        // Another may have replaced it before it was held.
        let kept = self.kept(&user).map_err(refused)?;
        if kept.access != tokens.access {
            state.supersede();
        }
        Ok(Lease {
            token: Secret::new(tokens.access),
            state,
        })
    }
}

/// What there is may do for a while, although it is not refreshed.
fn make_do(
    tokens: UpstreamTokens,
    why: UpstreamError,
    now: SystemTime,
) -> Result<UpstreamTokens, UpstreamError> {
    if !lasts(&tokens, now, Duration::ZERO) {
        return Err(why);
    }
    log::warn!("sign-in: a user's token is not refreshed yet: {why}");
    Ok(tokens)
}

/// Whether a token is good for so long.
fn lasts(tokens: &UpstreamTokens, now: SystemTime, time: Duration) -> bool {
    tokens.expires.is_none_or(|expires| expires > now + time)
}

/// How long the token of a new child is to last.
fn wanted(tokens: &UpstreamTokens) -> Duration {
    match tokens.lifetime {
        Some(all) => (all / 2).max(LEAST_REMAINING.min(all * 3 / 4)),
        None => LEAST_REMAINING,
    }
}

/// When the token of a running child is to be replaced.
fn due_of(tokens: &UpstreamTokens) -> Option<SystemTime> {
    tokens.refresh.as_ref()?;
    let before = match tokens.lifetime {
        Some(all) => BEFORE_EXPIRY.min(all / 3),
        None => BEFORE_EXPIRY,
    };
    tokens.expires?.checked_sub(before)
}

fn trouble(why: StoreError) -> UpstreamError {
    log::error!("sign-in: {why}");
    UpstreamError::TryAgain("the broker's own store is in trouble".to_owned())
}

#[cfg(test)]
mod tests;
