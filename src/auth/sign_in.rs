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
use super::store::{Issued, Key, LiveAccess, Store, StoreError};
use super::upstream::{Admission, Upstream};
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
    grants: HashMap<Arc<str>, Known>,
    /// Changes with each change here: who has read the store before begins again.
    version: u64,
    /// How often the store was read.
    readings: u64,
    /// The store is known to say something else.
    is_stale: bool,
    reloaded: Option<SystemTime>,
}

/// What the store has in force.
struct Reading {
    /// Of the view, before it was read.
    version: u64,
    ids: HashSet<Arc<str>>,
    live: Vec<LiveAccess>,
}

struct Known {
    principal: Principal,
    expires: SystemTime,
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
        sign_in.expel()?;
        sign_in.reload(now)?;
        Ok(sign_in)
    }

    /// Who may enter may have changed since the last start.
    fn expel(&self) -> Result<(), StoreError> {
        let upstream = &self.options.upstream;
        let may_enter = |subject: &str, admission: &Admission| upstream.admits(subject, admission);
        match self.store.expel(upstream.issuer(), &may_enter)? {
            0 => {}
            count => log::warn!("sign-in: {count} people are no longer allowed in and are out"),
        }
        Ok(())
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
            Ok(false) if self.view.read().is_behind(now) => self.reload(now),
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

    /// Reads what is in force, and notes which grants no longer are. If it fails,
    /// [`Self::refresh`] tries again: nobody else will say once more that something changed.
    fn reload(&self, now: SystemTime) -> Result<(), StoreError> {
        {
            let mut view = self.view.write();
            view.is_stale = true;
            view.version += 1; // who is reading just now may not have seen why
        }
        // What is issued or revoked meanwhile may be missing in what was read.
        while !self.try_reload(now)? {}
        Ok(())
    }

    /// False if something was issued or revoked while the store was read.
    fn try_reload(&self, now: SystemTime) -> Result<bool, StoreError> {
        let reading = self.read(now)?;
        Ok(self.take_over(&reading, now))
    }

    fn read(&self, now: SystemTime) -> Result<Reading, StoreError> {
        let mut reading = Reading {
            version: self.view.read().version,
            ids: self.store.grant_ids(now)?,
            live: self.store.live_access(now)?,
        };
        // Whoever signed in at another provider than the one that is configured now is a stranger.
        let issuer = self.options.upstream.issuer();
        reading.live.retain(|it| *it.issuer == *issuer);
        Ok(reading)
    }

    fn take_over(&self, reading: &Reading, now: SystemTime) -> bool {
        let entry = |it: &LiveAccess| (it.hash, Access::new(it));
        let access: HashMap<_, _> = reading.live.iter().map(entry).collect();
        let gone: Vec<Principal> = {
            let mut view = self.view.write();
            if view.version != reading.version {
                return false;
            }
            let gone = view
                .grants
                .extract_if(|id, _| !reading.ids.contains(id))
                .map(|(_, known)| known.principal)
                .collect();
            for it in &reading.live {
                if let Some(access) = access.get(&it.hash) {
                    view.know(it, &access.principal);
                }
            }
            view.version += 1;
            view.readings += 1;
            view.is_stale = false;
            view.access = access;
            view.reloaded = Some(now);
            gone
        };
        self.ended.lock().extend(gone);
        true
    }

    /// How often the store was read until now: for [`Self::entered`], before tokens are issued.
    fn readings(&self) -> u64 {
        self.view.read().readings
    }

    /// Tokens were issued, and are on disk. If the store was read since `readings`, it may have
    /// been without a grant that was revoked at once: then it is read once more, soon.
    fn entered(&self, issued: &Issued, readings: u64) {
        let access = Access::new(&issued.live);
        let mut view = self.view.write();
        view.version += 1;
        view.is_stale |= view.readings != readings;
        for hash in &issued.dropped {
            view.access.remove(hash);
        }
        view.know(&issued.live, &access.principal);
        view.access.insert(issued.live.hash, access);
    }
}

impl View {
    fn know(&mut self, live: &LiveAccess, principal: &Principal) {
        let known = Known {
            principal: principal.clone(),
            expires: live.grant_expires,
        };
        self.grants.insert(Arc::clone(&live.grant), known);
    }

    /// Whether the store has to be read, though nobody else changed it.
    fn is_behind(&self, now: SystemTime) -> bool {
        self.is_stale || self.grants.values().any(|it| it.expires <= now)
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
