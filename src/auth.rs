//! Who is asking: from an `Authorization` header to a [`Principal`], or to the reason why not.
//! Knows nothing of HTTP beyond the text of that header, and nothing of sessions; whoever holds
//! sessions asks [`Authenticator::refresh`] whose must end.
//!
//! `tokens` is the file of static tokens · `sign_in` ties together what lets users sign in here:
//! the rules of `oauth`, the rows of `store`, the provider of `upstream` · `jwt` are the tokens of
//! an outside authorization server · `web` asks others over HTTPS · `credentials` is what
//! children get of a user's own · `command` is `mcp-broker token`, `people` are `user` and
//! `client`.

mod command;
mod credentials;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
pub(crate) mod jwt;
pub(crate) mod oauth;
mod people;
pub(crate) mod sign_in;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod tokens;
mod upkeep;
pub(crate) mod upstream;
pub(crate) mod web;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};

pub(crate) use command::{TokenAction, run_token_command};
pub(crate) use credentials::{CredentialError, Credentials, Lease, LeaseState, NoCredentials};
pub(crate) use jwt::Algorithm as JwtAlgorithm;
pub(crate) use people::{People, PeopleAction, run_people_command};
pub(crate) use tokens::{TokenError, TokenStore};
pub(crate) use upkeep::Upkeep;

use jwt::JwtDoor;
use oauth::Resources;
use sign_in::SignIn;
use tokens::{Stamp, TokenHash, TokenRecord};

/// Who a verified token stands for. Two principals are the same if issuer and subject are: names
/// can be given again.
#[derive(Clone)]
pub(crate) struct Principal {
    /// Who vouches for the subject: `token` for static tokens, `anonymous` where nobody is asked.
    pub(crate) issuer: Arc<str>,
    /// Unique for the issuer and never given to anybody else. Of a static token: the first 16 hex
    /// digits of its hash.
    pub(crate) subject: Arc<str>,
    /// What people call them.
    pub(crate) name: Arc<str>,
    /// As the upstream provider has it. `None` for static tokens.
    pub(crate) email: Option<Arc<str>>,
    /// What `${user.env.KEY}` stands for in a server's environment. It is secret.
    pub(crate) env: Arc<BTreeMap<String, String>>,
    /// Which of the principal's sign-ins the token comes from. `None` for static tokens.
    pub(crate) grant: Option<Arc<str>>,
}

impl Principal {
    /// Everybody, where `--no-auth` lets everybody in.
    pub(crate) fn anonymous() -> Self {
        let anonymous: Arc<str> = "anonymous".into();
        Self {
            issuer: anonymous.clone(),
            subject: anonymous.clone(),
            name: anonymous,
            email: None,
            env: Arc::default(),
            grant: None,
        }
    }

    /// Whether this, which has lost access, stands for a session of `other`: one sign-in ends what
    /// came of it, anything else all that the principal has.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self == other && (self.grant.is_none() || self.grant == other.grant)
    }

    /// Whether a child that was started for one is what one for the other would be.
    pub(crate) fn is_unchanged(&self, other: &Self) -> bool {
        self == other
            && (&self.name, &self.email, &self.env) == (&other.name, &other.email, &other.env)
    }
}

impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        (&self.issuer, &self.subject) == (&other.issuer, &other.subject)
    }
}

impl Eq for Principal {}

impl Hash for Principal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.issuer, &self.subject).hash(state);
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<&String> = self.env.keys().collect();
        f.debug_struct("Principal")
            .field("issuer", &self.issuer)
            .field("subject", &self.subject)
            .field("name", &self.name)
            .field("env", &env)
            .finish()
    }
}

/// Why a request is not served: it is from nobody, or from somebody who may not. The answers differ
/// (RFC 6750, section 3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AuthError {
    /// There is no `Authorization` header, or one of another scheme than `Bearer`.
    Missing,
    /// The token is malformed, unknown, revoked or expired; which one is not for the client to
    /// learn.
    Invalid,
    /// The token is good, but not for this: a scope is lacking, or its user is not to be let in.
    InsufficientScope,
    /// A key must be fetched before anybody knows: to be asked again on a thread that may wait.
    /// There, that it cannot be had.
    Later,
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "a bearer token is needed",
            Self::Invalid => "the bearer token is unknown, revoked or expired",
            Self::InsufficientScope => "the bearer token does not permit this",
            Self::Later => "the bearer token cannot be checked at the moment",
        })
    }
}

impl std::error::Error for AuthError {}

/// The longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Tells principals by their tokens. Shared by all threads.
pub(crate) struct Authenticator {
    door: Door,
}

enum Door {
    /// `--no-auth`.
    Open(Principal),
    Guarded(Guards),
}

/// Who vouches for tokens: each knows its own, and takes no other's for one of them.
struct Guards {
    tokens: StaticTokens,
    sign_in: Option<Arc<SignIn>>,
    outside: Option<Outside>,
}

/// An outside authorization server.
struct Outside {
    door: Arc<JwtDoor>,
    /// The URIs of each server.
    resources: HashMap<Arc<str>, Vec<String>>,
}

impl Authenticator {
    /// Reads the tokens that there are. `None`: everybody is let in, as [`Principal::anonymous`].
    pub(crate) fn new(tokens: Option<TokenStore>) -> Result<Self, TokenError> {
        let door = match tokens {
            Some(store) => Door::Guarded(Guards {
                tokens: StaticTokens::new(store)?,
                sign_in: None,
                outside: None,
            }),
            None => Door::Open(Principal::anonymous()),
        };
        Ok(Self { door })
    }

    /// Lets in those too who have signed in here.
    pub(crate) fn with_sign_in(mut self, sign_in: Arc<SignIn>) -> Self {
        if let Door::Guarded(guards) = &mut self.door {
            guards.sign_in = Some(sign_in);
        }
        self
    }

    /// Lets in those too who have a token of an outside server for one of these resources.
    pub(crate) fn with_outside(mut self, door: Arc<JwtDoor>, resources: Resources) -> Self {
        if let Door::Guarded(guards) = &mut self.door {
            let mut by_server: HashMap<Arc<str>, Vec<String>> = HashMap::new();
            for uri in resources.all_uris() {
                if let Some(server) = resources.find(&uri).map(|it| it.server) {
                    let uris = resources.uris(&server);
                    by_server.insert(server, uris);
                }
            }
            guards.outside = Some(Outside {
                door,
                resources: by_server,
            });
        }
        self
    }

    /// Who sent a request to this server with this `Authorization` header. Waits for nothing: one
    /// lock for reading, one SHA-256.
    pub(crate) fn check(
        &self,
        authorization: Option<&str>,
        server: &str,
        now: SystemTime,
    ) -> Result<Principal, AuthError> {
        self.find(authorization, server, now, JwtDoor::check)
    }

    /// The same where [`AuthError::Later`] came of it; may wait for the outside server's keys.
    pub(crate) fn check_slowly(
        &self,
        authorization: Option<&str>,
        server: &str,
        now: SystemTime,
    ) -> Result<Principal, AuthError> {
        self.find(authorization, server, now, JwtDoor::check_slowly)
    }

    fn find(
        &self,
        authorization: Option<&str>,
        server: &str,
        now: SystemTime,
        check: impl Fn(&JwtDoor, &str, &[String], SystemTime) -> Result<Principal, AuthError>,
    ) -> Result<Principal, AuthError> {
        let guards = match &self.door {
            Door::Open(everybody) => return Ok(everybody.clone()),
            Door::Guarded(guards) => guards,
        };
        let token = bearer(authorization)?;
        if let Ok(principal) = guards.tokens.find(token, now) {
            return Ok(principal);
        }
        if let Some(sign_in) = &guards.sign_in {
            return sign_in.check(token, server, now);
        }
        match &guards.outside {
            Some(outside) => {
                let uris = outside.resources.get(server).map_or(&[][..], Vec::as_slice);
                check(&outside.door, token, uris, now)
            }
            None => Err(AuthError::Invalid),
        }
    }

    /// Takes over what changed in the token file and the store, and returns the principals who were
    /// valid at the last call and are no longer: revoked, replaced, expired or given another
    /// environment. One with a grant stands for what came in with that grant only. Costs one
    /// `stat`, and one look at the store, when nothing changed. When one of them cannot be used,
    /// what was read last stays in force and the error is logged once, not with every call.
    ///
    /// A request that was let in just before may still open a session after this call has named its
    /// principal; check the header again once the session is registered.
    pub(crate) fn refresh(&self, now: SystemTime) -> Vec<Principal> {
        let Door::Guarded(guards) = &self.door else {
            return Vec::new();
        };
        let mut gone = guards.tokens.refresh(now).unwrap_or_else(|error| {
            log::error!("the tokens read last stay in force: {error}");
            Vec::new()
        });
        if let Some(sign_in) = &guards.sign_in {
            gone.extend(sign_in.refresh(now));
        }
        gone
    }
}

/// The token of a header. The scheme's case does not matter (RFC 9110, section 11.1); a token is
/// `token68`.
fn bearer(authorization: Option<&str>) -> Result<&str, AuthError> {
    let header = authorization.ok_or(AuthError::Missing)?.trim();
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Missing); // RFC 6750, section 3.1: as if there were none
    }
    let token = token.trim_start();
    let characters = token.trim_end_matches('=');
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    if characters.is_empty() || token.len() > MAX_TOKEN_BYTES || !characters.bytes().all(valid) {
        return Err(AuthError::Invalid);
    }
    Ok(token)
}

/// What a token is good for.
struct Grant {
    principal: Principal,
    /// `None`: for ever.
    expires: Option<SystemTime>,
}

impl Grant {
    fn is_over(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// Found by the hash of the token: what an attacker can time says nothing about a token that
/// exists.
type Grants = HashMap<TokenHash, Arc<Grant>>;

/// The tokens in force, and the file they come from.
struct StaticTokens {
    grants: RwLock<Grants>,
    file: Mutex<Watched>,
}

struct Watched {
    store: TokenStore,
    /// The file as it was read last.
    read: Stamp,
    /// Why it could not be read at the last try.
    trouble: Option<String>,
}

impl StaticTokens {
    fn new(store: TokenStore) -> Result<Self, TokenError> {
        let (records, read) = store.load()?;
        let file = Mutex::new(Watched {
            store,
            read,
            trouble: None,
        });
        Ok(Self {
            grants: RwLock::new(grants(records)),
            file,
        })
    }

    fn find(&self, token: &str, now: SystemTime) -> Result<Principal, AuthError> {
        let hash = tokens::hash(token);
        let grant = self
            .grants
            .read()
            .get(&hash)
            .cloned()
            .ok_or(AuthError::Invalid)?;
        if grant.is_over(now) {
            return Err(AuthError::Invalid);
        }
        Ok(grant.principal.clone())
    }

    fn refresh(&self, now: SystemTime) -> Result<Vec<Principal>, TokenError> {
        let changed = self.file.lock().changed()?;
        if changed.is_none() && !self.grants.read().values().any(|grant| grant.is_over(now)) {
            return Ok(Vec::new());
        }
        let mut grants = self.grants.write();
        let mut next = changed.unwrap_or_else(|| grants.clone());
        next.retain(|_, grant| !grant.is_over(now));
        let before = std::mem::replace(&mut *grants, next);
        let stays = |hash: &TokenHash, grant: &Grant| {
            grants
                .get(hash)
                .is_some_and(|next| next.principal.is_unchanged(&grant.principal))
        };
        let gone = before.iter().filter(|(hash, grant)| !stays(hash, grant));
        Ok(gone.map(|(_, grant)| grant.principal.clone()).collect())
    }
}

impl Watched {
    /// The file's grants, if it is not the file that was read last. After an error the next call
    /// tries again, so that trouble that passes by itself (no descriptors left, say) leaves nothing
    /// behind.
    fn changed(&mut self) -> Result<Option<Grants>, TokenError> {
        let loaded = match self.store.is_still(&self.read) {
            Ok(true) => Ok(None),
            Ok(false) => self.store.load().map(Some),
            Err(error) => Err(error),
        };
        match loaded {
            Ok(None) => {
                self.trouble = None;
                Ok(None)
            }
            Ok(Some((records, read))) => {
                (self.read, self.trouble) = (read, None);
                Ok(Some(grants(records)))
            }
            Err(error) => {
                let trouble = error.to_string();
                if self
                    .trouble
                    .replace(trouble.clone())
                    .is_some_and(|known| known == trouble)
                {
                    return Ok(None);
                }
                Err(error)
            }
        }
    }
}

impl From<TokenRecord> for Principal {
    fn from(record: TokenRecord) -> Self {
        Self {
            issuer: "token".into(),
            subject: hex::encode(&record.hash[..8]).into(),
            name: record.name.into(),
            email: None,
            env: Arc::new(record.env),
            grant: None,
        }
    }
}

fn grants(records: Vec<TokenRecord>) -> Grants {
    let grant = |record: TokenRecord| {
        (
            record.hash,
            Arc::new(Grant {
                expires: record.expires,
                principal: record.into(),
            }),
        )
    };
    records.into_iter().map(grant).collect()
}

/// Whether this can be the name of an environment variable: a letter or `_`, then also digits, `.`
/// and `-`. `PATH`, `LD_PRELOAD` and the like are names as any other: what a token carries reaches
/// a child only where the operator wrote `${user.env.KEY}`, under a name that the operator chose.
pub(crate) fn is_env_key(key: &str) -> bool {
    const LONGEST_BYTES: usize = 128;
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    key.len() <= LONGEST_BYTES
        && key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && key.bytes().all(rest)
}
