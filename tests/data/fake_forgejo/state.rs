//! What the forge remembers: accounts, browser sessions, grants, codes and tokens. A grant belongs
//! to a user and the application, and its counter decides which refresh token still works.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use crate::faults::Faults;
use crate::http::{Reply, Request};
use crate::jwt::{self, Key};
use crate::options::Options;

pub(crate) struct Forge {
    /// The issuer: the root URL without its slash.
    pub(crate) url: String,
    pub(crate) key: Key,
    pub(crate) faults: Faults,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) invalidate: bool,
    refresh_lifetime: Duration,
    started: Instant,
    memory: Mutex<Memory>,
}

/// Everything that changes.
pub(crate) struct Memory {
    pub(crate) users: Vec<User>,
    pub(crate) redirect_uris: Vec<String>,
    pub(crate) access_lifetime: Duration,
    /// By the value of the browser's cookie.
    pub(crate) sessions: HashMap<String, Session>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) codes: HashMap<String, Code>,
    pub(crate) access: HashMap<String, Access>,
    pub(crate) refresh: HashMap<String, Refresh>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) events: Vec<Value>,
    last_grant: u64,
}

#[derive(Clone)]
pub(crate) struct User {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

impl User {
    pub(crate) fn email(&self) -> String {
        format!("{}@example.org", self.name)
    }
}

/// Of a browser that has logged in.
#[derive(Clone, Default)]
pub(crate) struct Session {
    /// A [`User::id`].
    pub(crate) user: u64,
    /// Of the consent page that was shown last: client id, state, redirect URI.
    pub(crate) asked: Option<[String; 3]>,
    /// What survives the consent page: only `plain`, since the arm for S256 is empty.
    pub(crate) challenge: Option<Challenge>,
}

/// Of RFC 7636.
#[derive(Clone, PartialEq)]
pub(crate) struct Challenge {
    pub(crate) method: String,
    pub(crate) value: String,
}

#[derive(Clone)]
pub(crate) struct Grant {
    pub(crate) id: u64,
    pub(crate) user: u64,
    pub(crate) scope: String,
    pub(crate) nonce: String,
    pub(crate) counter: u64,
}

impl Grant {
    pub(crate) fn has(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|it| it == scope)
    }
}

pub(crate) struct Code {
    pub(crate) grant: u64,
    pub(crate) challenge: Option<Challenge>,
}

pub(crate) struct Access {
    pub(crate) grant: u64,
    pub(crate) expires: SystemTime,
}

#[derive(Clone)]
pub(crate) struct Refresh {
    pub(crate) grant: u64,
    pub(crate) counter: u64,
    pub(crate) expires: SystemTime,
}

impl Forge {
    pub(crate) fn new(url: String, options: Options) -> Self {
        let users = (1..).zip(options.users);
        let memory = Memory {
            users: users
                .map(|(id, (name, groups))| User { id, name, groups })
                .collect(),
            redirect_uris: options.redirect_uris,
            access_lifetime: options.access_lifetime,
            sessions: HashMap::new(),
            grants: Vec::new(),
            codes: HashMap::new(),
            access: HashMap::new(),
            refresh: HashMap::new(),
            counts: BTreeMap::new(),
            events: Vec::new(),
            last_grant: 0,
        };
        Self {
            url,
            key: Key::new(),
            faults: Faults::default(),
            client_id: options.client_id,
            client_secret: options.client_secret,
            invalidate: options.invalidate,
            refresh_lifetime: options.refresh_lifetime,
            started: Instant::now(),
            memory: Mutex::new(memory),
        }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock()
    }

    /// Writes down a request and how it was answered: `None`, not at all.
    pub(crate) fn note(&self, request: &Request, reply: Option<&Reply>) {
        let location = reply.and_then(|it| it.headers.iter().find(|it| it.0 == "Location"));
        let event = json!({
            "ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "headers": request.headers,
            "body": request.body,
            "status": reply.map(|it| it.status),
            "location": location.map(|it| &it.1),
        });
        self.memory().events.push(event);
    }

    /// Tokens for a grant, which kill the refresh tokens that were issued before.
    pub(crate) fn issue(&self, memory: &mut Memory, grant: u64) -> Option<Value> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let access_lifetime = memory.access_lifetime.as_secs();
        let grant = memory.grants.iter_mut().find(|it| it.id == grant)?;
        if self.invalidate {
            grant.counter += 1;
        }
        let grant = grant.clone();
        let expires = now + access_lifetime;
        let access = self
            .key
            .sign(&json!({ "gnt": grant.id, "tt": 0, "exp": expires, "iat": now }));
        let refresh_expires = now + self.refresh_lifetime.as_secs();
        let refresh = self.key.sign(&json!({
            "gnt": grant.id, "tt": 1, "cnt": grant.counter, "exp": refresh_expires, "iat": now,
        }));
        let mut answer = json!({
            "access_token": access,
            "token_type": "bearer",
            "expires_in": access_lifetime,
            "refresh_token": refresh,
        });
        if grant.has("openid") {
            let user = memory.users.iter().find(|it| it.id == grant.user)?;
            let claims = self.id_token(user, &grant, now, expires);
            answer["id_token"] = self.key.sign(&claims).into();
        }
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let access_entry = Access {
            grant: grant.id,
            expires: at(expires),
        };
        let refresh_entry = Refresh {
            grant: grant.id,
            counter: grant.counter,
            expires: at(refresh_expires),
        };
        memory.access.insert(access, access_entry);
        memory.refresh.insert(refresh, refresh_entry);
        Some(answer)
    }

    fn id_token(&self, user: &User, grant: &Grant, now: u64, expires: u64) -> Value {
        let mut claims = json!({
            "iss": self.url,
            "sub": user.id.to_string(),
            "aud": [self.client_id],
            "exp": expires,
            "iat": now,
        });
        if !grant.nonce.is_empty() {
            claims["nonce"] = grant.nonce.as_str().into();
        }
        if grant.has("profile") {
            claims["name"] = user.name.as_str().into();
            claims["preferred_username"] = user.name.as_str().into();
            claims["profile"] = format!("{}/{}", self.url, user.name).into();
            claims["picture"] = format!("{}/avatars/{}", self.url, user.id).into();
        }
        if grant.has("email") {
            claims["email"] = user.email().into();
            claims["email_verified"] = true.into();
        }
        if grant.has("groups") && !user.groups.is_empty() {
            claims["groups"] = user.groups.clone().into();
        }
        claims
    }

    /// Whose access token that is, while it is good.
    pub(crate) fn whose(&self, token: &str) -> Option<(User, Grant)> {
        let memory = self.memory();
        let access = memory.access.get(token)?;
        if access.expires <= SystemTime::now() {
            return None;
        }
        let grant = memory.grants.iter().find(|it| it.id == access.grant)?;
        let user = memory.users.iter().find(|it| it.id == grant.user)?;
        Some((user.clone(), grant.clone()))
    }
}

impl Memory {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn user_named(&self, name: &str) -> Option<u64> {
        let found = self.users.iter().find(|user| user.name == name);
        found.map(|user| user.id)
    }

    pub(crate) fn grant_of(&mut self, user: u64) -> Option<&mut Grant> {
        self.grants.iter_mut().find(|grant| grant.user == user)
    }

    /// The first consent of a user.
    pub(crate) fn new_grant(&mut self, user: u64, scope: String) -> &mut Grant {
        self.last_grant += 1;
        self.grants.push(Grant {
            id: self.last_grant,
            user,
            scope,
            nonce: String::new(),
            counter: 1,
        });
        let last = self.grants.len() - 1;
        &mut self.grants[last]
    }

    /// Case and a last slash do not count, everything else does.
    pub(crate) fn is_redirect_uri(&self, uri: &str) -> bool {
        let plain = |uri: &str| {
            let lower = uri.to_ascii_lowercase();
            lower.strip_suffix('/').map(str::to_owned).unwrap_or(lower)
        };
        self.redirect_uris.iter().any(|it| plain(it) == plain(uri))
    }
}

/// A new secret.
#[expect(
    clippy::expect_used,
    reason = "fails only without a source of randomness"
)]
pub(crate) fn mint(prefix: &str) -> String {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).expect("randomness");
    format!("{prefix}{}", jwt::encode(&bytes))
}
