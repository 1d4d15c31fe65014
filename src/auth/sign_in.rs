//! Signing in: ties the rules of `oauth`, the rows of `store` and the provider of `upstream`
//! together. What HTTP's side asks for may take seconds and belongs on threads that may wait; only
//! [`SignIn::check`] is for every request, and reads nothing but memory.
//!
//! `authorize` is the way of a browser · `tokens` are the endpoints of programs · `clients` finds
//! out who a client is · `renewal` keeps the users' own tokens fresh, for their children.

mod authorize;
mod clients;
mod renewal;
mod tokens;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::oauth::{self, Hash, Resources};
use super::store::{Key, LiveAccess, Store, StoreError};
use super::upstream::Upstream;
use super::web::Documents;
use super::{AuthError, Principal};

pub(crate) use authorize::{Approved, Back, Consent, Problem};
pub(crate) use tokens::NotRegistered;

/// How signing in goes.
pub(crate) struct SignInOptions {
    /// `Authorization` servers and their resources: this broker's own.
    pub(crate) resources: Resources,
    pub(crate) upstream: Upstream,
    /// Of an access token.
    pub(crate) access_lifetime: Duration,
    /// From a sign-in to the next, however often tokens are refreshed.
    pub(crate) grant_lifetime: Duration,
}

/// The broker's own authorization server. Shared by all threads.
pub(crate) struct SignIn {
    options: SignInOptions,
    store: Store,
    key: Arc<Key>,
    documents: Documents,
    view: RwLock<View>,
    /// Whose sessions must end, since the last call of [`SignIn::refresh`].
    ended: Mutex<Vec<Principal>>,
    /// What was wrong with the store at the last call of [`SignIn::refresh`].
    trouble: Mutex<Option<String>>,
    renewals: renewal::Renewals,
}

/// What is in force, as the store had it last.
#[derive(Default)]
struct View {
    access: HashMap<Hash, Access>,
    /// Those that ever let anybody in since the start, by their ids.
    grants: HashMap<Arc<str>, Principal>,
    /// Changes with each change here: who has read the store before begins again.
    version: u64,
    /// How often the store was read: what was issued before, and is not here yet, may be revoked.
    reloads: u64,
    reloaded: Option<SystemTime>,
}

struct Access {
    principal: Principal,
    server: Arc<str>,
    expires: SystemTime,
}

/// How often expired rows are thrown away.
const PURGE_INTERVAL: Duration = Duration::from_mins(10);

impl SignIn {
    /// Opens the store of this state directory.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be trusted: nobody is let in then.
    pub(crate) fn open(
        options: SignInOptions,
        state_dir: &Path,
        credentials_dir: Option<&Path>,
        now: SystemTime,
    ) -> Result<Self, StoreError> {
        let key = Arc::new(Key::load_or_create(state_dir, credentials_dir)?);
        let store = Store::open(state_dir, Arc::clone(&key))?;
        let sign_in = Self {
            options,
            store,
            key,
            documents: Documents::new(),
            view: RwLock::default(),
            ended: Mutex::default(),
            trouble: Mutex::default(),
            renewals: renewal::Renewals::default(),
        };
        sign_in.store.purge(now)?;
        sign_in.reload(now)?;
        Ok(sign_in)
    }

    pub(crate) fn resources(&self) -> &Resources {
        &self.options.resources
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.options.upstream
    }

    /// Whom an access token stands for, if it was issued for this server.
    pub(super) fn check(
        &self,
        token: &str,
        server: &str,
        now: SystemTime,
    ) -> Result<Principal, AuthError> {
        let view = self.view.read();
        let access = view.access.get(&oauth::hash(token));
        let access = access.ok_or(AuthError::Invalid)?;
        // 2026-07-28, authorization, "Token Audience Binding and Validation".
        if *access.server != *server || access.expires <= now {
            return Err(AuthError::Invalid);
        }
        Ok(access.principal.clone())
    }

    /// Takes over what `mcp-broker user` and `client` changed, and returns whose sessions must end
    /// since the last call: a principal with a grant stands for the sessions of that grant. While
    /// the store is in trouble what was known stays in force, as long as it lasts.
    pub(super) fn refresh(&self, now: SystemTime) -> Vec<Principal> {
        let result = match self.store.changed_by_others() {
            Ok(true) => self.reload(now),
            Ok(false) => self.purge(now),
            Err(error) => Err(error),
        };
        let trouble = result.err().map(|error| error.to_string());
        let mut known = self.trouble.lock();
        if let Some(why) = trouble.as_ref().filter(|_| *known != trouble) {
            log::error!("sign-in: what is known stays in force: {why}");
        }
        *known = trouble;
        std::mem::take(&mut *self.ended.lock())
    }

    fn purge(&self, now: SystemTime) -> Result<(), StoreError> {
        let is_due = |last: SystemTime| {
            let waited = now.duration_since(last).unwrap_or(PURGE_INTERVAL);
            waited >= PURGE_INTERVAL
        };
        if !self.view.read().reloaded.is_none_or(is_due) {
            return Ok(());
        }
        self.store.purge(now)?;
        self.reload(now)
    }

    /// Reads what is in force, and notes which grants no longer are.
    fn reload(&self, now: SystemTime) -> Result<(), StoreError> {
        // What is issued or revoked meanwhile may be missing in what was read.
        while !self.try_reload(now)? {}
        Ok(())
    }

    /// False if something was issued while the store was read.
    fn try_reload(&self, now: SystemTime) -> Result<bool, StoreError> {
        let version = self.view.read().version;
        let ids = self.store.grant_ids(now)?;
        let live = self.store.live_access(now)?;
        let access: HashMap<_, _> = live.iter().map(|it| (it.hash, Access::new(it))).collect();
        let gone: Vec<Principal> = {
            let mut view = self.view.write();
            if view.version != version {
                return Ok(false);
            }
            let gone = view.grants.extract_if(|id, _| !ids.contains(id));
            let gone = gone.map(|(_, principal)| principal).collect();
            for it in access.values() {
                view.know(&it.principal);
            }
            view.version += 1;
            view.reloads += 1;
            view.access = access;
            view.reloaded = Some(now);
            gone
        };
        self.ended.lock().extend(gone);
        Ok(true)
    }
}

impl View {
    /// Tokens were issued, and are on disk. False, and nothing done, if the store was read since
    /// there were so many `reloads`: whoever did may know that they are revoked already.
    #[must_use]
    fn enter(&mut self, live: &LiveAccess, dropped: &[Hash], reloads: u64) -> bool {
        if self.reloads != reloads {
            return false;
        }
        let access = Access::new(live);
        self.version += 1;
        for hash in dropped {
            self.access.remove(hash);
        }
        self.know(&access.principal);
        self.access.insert(live.hash, access);
        true
    }

    fn know(&mut self, principal: &Principal) {
        if let Some(grant) = &principal.grant {
            self.grants.insert(Arc::clone(grant), principal.clone());
        }
    }
}

impl Access {
    fn new(live: &LiveAccess) -> Self {
        Self {
            principal: Principal {
                issuer: Arc::clone(&live.issuer),
                subject: Arc::clone(&live.subject),
                name: Arc::clone(&live.name),
                email: live.email.clone(),
                env: Arc::default(),
                grant: Some(Arc::clone(&live.grant)),
            },
            server: Arc::clone(&live.resource.server),
            expires: live.expires,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_revoked_before_it_was_entered_stays_out() {
        let resources = Resources::new("http://127.0.0.1", &["a".into()]);
        let live = LiveAccess {
            hash: oauth::hash("mcpa_x"),
            grant: "grant".into(),
            issuer: "https://git.example".into(),
            subject: "1".into(),
            name: "alice".into(),
            email: None,
            client_id: "client".into(),
            resource: resources.only().unwrap(),
            scope: "mcp".into(),
            expires: SystemTime::UNIX_EPOCH,
        };
        let mut view = View::default();
        let before = view.reloads;
        view.reloads += 1;
        assert!(!view.enter(&live, &[], before));
        assert!(view.access.is_empty() && view.grants.is_empty());
        assert!(view.enter(&live, &[], view.reloads));
        assert!(view.access.contains_key(&live.hash));
        // What is dropped for it goes.
        let next = LiveAccess {
            hash: oauth::hash("mcpa_y"),
            ..live.clone()
        };
        assert!(view.enter(&next, &[live.hash], view.reloads));
        assert_eq!(view.access.keys().collect::<Vec<_>>(), [&next.hash]);
    }
}
