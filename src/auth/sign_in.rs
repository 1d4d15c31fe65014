//! Signing in: ties the rules of `oauth`, the rows of `store` and the provider of `upstream`
//! together. What HTTP's side asks for may take seconds and belongs on threads that may wait; only
//! [`SignIn::check`] is for every request, and reads nothing but memory.
//!
//! `authorize` is the way of a browser · `tokens` are the endpoints of programs · `clients` finds
//! out who a client is · `renewal` keeps the users' own tokens fresh, for their children.

mod authorize;
mod clients;
mod renewal;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::oauth::{self, Hash, Resources};
use super::store::{Key, LiveAccess, LiveGrant, Store, StoreError};
use super::upstream::Upstream;
use super::web::Documents;
use super::{AuthError, Principal};

pub(crate) use authorize::{Approved, Back, Consent, Problem};
pub(crate) use renewal::Renewal;
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
    /// By its id.
    grants: HashMap<Arc<str>, Principal>,
    /// Changes with each grant and token that comes or goes here.
    version: u64,
    purged: Option<SystemTime>,
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
        if !self.view.read().purged.is_none_or(is_due) {
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

    /// False if the view changed while the store was read.
    fn try_reload(&self, now: SystemTime) -> Result<bool, StoreError> {
        let version = self.view.read().version;
        let grants = self.store.live_grants(now)?;
        let access = self.store.live_access(now)?;
        let grants: HashMap<_, _> = grants.iter().map(principal_of).collect();
        let access = access.into_iter().filter_map(|it| {
            let principal = grants.get(&*it.grant)?.clone();
            Some((it.token, Access::new(&it, principal)))
        });
        let access = access.collect();
        let gone: Vec<Principal> = {
            let mut view = self.view.write();
            if view.version != version {
                return Ok(false);
            }
            let before = std::mem::take(&mut view.grants);
            let gone = before.into_iter().filter(|(id, _)| !grants.contains_key(id));
            let gone = gone.map(|(_, principal)| principal).collect();
            *view = View {
                access,
                grants,
                version,
                purged: Some(now),
            };
            gone
        };
        self.ended.lock().extend(gone);
        Ok(true)
    }

    /// An access token was issued; it is on disk already.
    fn entered(&self, grant: &LiveGrant, access: &LiveAccess, now: SystemTime) {
        let (id, principal) = principal_of(grant);
        let mut view = self.view.write();
        view.version += 1;
        view.access.retain(|_, it| it.expires > now);
        view.grants.insert(id, principal.clone());
        let entry = Access::new(access, principal);
        view.access.insert(access.token, entry);
    }

    /// These grants are no more, on disk: nobody gets in with them from now on.
    fn left(&self, grants: &[Arc<str>]) {
        let gone: Vec<Principal> = {
            let mut view = self.view.write();
            view.version += 1;
            let ids: HashSet<&str> = grants.iter().map(|id| &**id).collect();
            let is_of_them = |it: &Access| {
                let grant = it.principal.grant.as_deref();
                grant.is_some_and(|grant| ids.contains(grant))
            };
            view.access.retain(|_, it| !is_of_them(it));
            let gone = grants.iter().filter_map(|id| view.grants.remove(id));
            gone.collect()
        };
        self.ended.lock().extend(gone);
    }

    /// A single access token is no more.
    fn forgotten(&self, token: &Hash) {
        let mut view = self.view.write();
        view.version += 1;
        view.access.remove(token);
    }
}

impl Access {
    fn new(access: &LiveAccess, principal: Principal) -> Self {
        Self {
            principal,
            server: Arc::clone(&access.server),
            expires: access.expires,
        }
    }
}

fn principal_of(grant: &LiveGrant) -> (Arc<str>, Principal) {
    let principal = Principal {
        issuer: Arc::clone(&grant.issuer),
        subject: Arc::clone(&grant.subject),
        name: Arc::clone(&grant.name),
        email: grant.email.clone(),
        env: Arc::default(),
        grant: Some(Arc::clone(&grant.id)),
    };
    (Arc::clone(&grant.id), principal)
}
