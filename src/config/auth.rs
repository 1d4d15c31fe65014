//! The `broker.auth` object: who vouches for users besides the static tokens. One of `forgejo`,
//! `oidc` (the broker lets them sign in there and issues tokens of its own) and `jwt` (an outside
//! authorization server does). What goes with `listen`, `public_url` and `no_auth` is checked by
//! [`AuthConfig::fits`], as those may come from a flag.
mod fields;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::JwtAlgorithm;

use super::address::{Listen, PublicUrl};
use super::json::{Entry, Fault, Node};
use super::units;

use fields::{ca_file, is_loopback, issuer, name_of, scope_list, scope_text, text, texts, url};

/// Who vouches for users.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AuthConfig {
    pub(crate) kind: AuthKind,
    /// Of the broker's own access tokens.
    pub(crate) access_token_lifetime: Duration,
    /// From a sign-in until the next one is needed, however often its tokens are refreshed.
    pub(crate) refresh_token_lifetime: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AuthKind {
    /// Users sign in there; the broker issues tokens.
    Upstream(UpstreamConfig),
    /// An outside authorization server issues tokens.
    Jwt(JwtConfig),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamKind {
    /// Also Gitea.
    Forgejo,
    Oidc,
}

/// Where users sign in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UpstreamConfig {
    pub(crate) kind: UpstreamKind,
    /// The issuer, as it was typed: `https`, or `http` on a loopback host.
    pub(crate) url: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Secret,
    /// With single spaces between them.
    pub(crate) scopes: String,
    /// What people call it.
    pub(crate) name: String,
    pub(crate) allow: Allow,
    /// Certificates that are trusted instead of the usual ones, PEM. Not yet read.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Who of those that signed in is let in: whoever is in any of the lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Allow {
    pub(crate) users: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) emails: Vec<String>,
    /// Everybody with an account there.
    pub(crate) anyone: bool,
}

/// An outside authorization server and what its tokens must say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JwtConfig {
    /// As it was typed: `iss` must be the same, character for character.
    pub(crate) issuer: String,
    /// `None`: the URL of the resource that is asked for.
    pub(crate) audience: Option<String>,
    /// `None`: what the issuer's discovery document says.
    pub(crate) jwks_url: Option<String>,
    /// At least one.
    pub(crate) algorithms: Vec<JwtAlgorithm>,
    /// What a token's scope must contain. Empty: nothing.
    pub(crate) scopes: Vec<String>,
    pub(crate) allow: AllowSubjects,
    /// Certificates that are trusted instead of the usual ones, PEM. Not yet read.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Whose tokens are taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AllowSubjects {
    pub(crate) subjects: Vec<String>,
    /// Everybody whom the server gives a token for this broker.
    pub(crate) anyone: bool,
}

/// A text that is never printed.
#[derive(Clone, PartialEq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

const DEFAULT_ACCESS: Duration = Duration::from_hours(1);
const DEFAULT_REFRESH: Duration = Duration::from_hours(30 * 24);
/// A second is for tests: with it, each client refreshes all the time.
const ACCESS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
const REFRESH: RangeInclusive<Duration> = Duration::from_hours(1)..=Duration::from_hours(365 * 24);

const KINDS: [&str; 3] = ["forgejo", "oidc", "jwt"];
const KEYS: [&str; 5] = [
    "forgejo",
    "oidc",
    "jwt",
    "access_token_lifetime",
    "refresh_token_lifetime",
];
const UPSTREAM_KEYS: [&str; 8] = [
    "url",
    "client_id",
    "client_secret",
    "client_secret_file",
    "scopes",
    "name",
    "allow",
    "ca_file",
];
const JWT_KEYS: [&str; 7] = [
    "issuer",
    "audience",
    "jwks_url",
    "algorithms",
    "scopes",
    "allow",
    "ca_file",
];

impl UpstreamKind {
    fn default_scopes(self) -> &'static str {
        match self {
            Self::Forgejo => "openid profile email groups",
            Self::Oidc => "openid profile email offline_access",
        }
    }
}

impl AuthConfig {
    /// Reads the object, and the file of its secret. `env` reads the broker's own environment.
    pub(super) fn read(
        entry: &Entry<'_>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Fault> {
        let entries = entry.value.entries()?;
        let mut kinds = entries
            .iter()
            .filter(|one| KINDS.contains(&one.key.as_str()));
        let (mut access, mut refresh) = (None, None);
        for one in &entries {
            let slot = match one.key.as_str() {
                "access_token_lifetime" => (&mut access, ACCESS),
                "refresh_token_lifetime" => (&mut refresh, REFRESH),
                key if KINDS.contains(&key) => continue,
                _ => return Err(one.unknown(KEYS)),
            };
            if entries.iter().any(|other| other.key == "jwt") {
                return Err(one.at.fault(format!(
                    "{:?} is of no use with \"jwt\": the broker then issues no tokens",
                    one.key
                )));
            }
            let time = units::duration(&one.value.scalar()?, slot.1);
            *slot.0 = Some(time.map_err(|why| one.value.fault(format!("{}: {why}", one.key)))?);
        }
        let Some(chosen) = kinds.next() else {
            let message = "\"auth\" needs one of \"forgejo\", \"oidc\" and \"jwt\"";
            return Err(entry.at.fault(message));
        };
        if let Some(second) = kinds.next() {
            return Err(second.at.fault(format!(
                "{:?} and {:?} at once: \"auth\" takes one of them",
                chosen.key, second.key
            )));
        }
        let kind = match chosen.key.as_str() {
            "forgejo" => AuthKind::Upstream(upstream(UpstreamKind::Forgejo, chosen, env)?),
            "oidc" => AuthKind::Upstream(upstream(UpstreamKind::Oidc, chosen, env)?),
            _ => AuthKind::Jwt(jwt(chosen)?),
        };
        Ok(Self {
            kind,
            access_token_lifetime: access.unwrap_or(DEFAULT_ACCESS),
            refresh_token_lifetime: refresh.unwrap_or(DEFAULT_REFRESH),
        })
    }

    /// Whether it can be used with the rest of what was said; the error says what to change. S3
    /// (the issuer is a bare origin) and S12 (everything over HTTPS, except on this machine).
    pub(super) fn fits(
        &self,
        no_auth: bool,
        public_url: Option<&PublicUrl>,
        listen: &Listen,
    ) -> Result<(), String> {
        if no_auth {
            return Err("\"auth\" together with no_auth: leave one of them out".to_owned());
        }
        match (public_url, listen) {
            (Some(url), _) if !url.path.is_empty() => Err(format!(
                "with \"auth\", public_url must have no path, and {url} has: \
                 give the broker a host name of its own"
            )),
            (Some(url), _) if url.scheme != "https" && !is_loopback(url) => Err(format!(
                "with \"auth\", public_url must be https, not {url}: tokens would be sent in the \
                 clear"
            )),
            (Some(_), _) => Ok(()),
            (None, Listen::Tcp(address)) if address.ip().to_canonical().is_loopback() => Ok(()),
            (None, _) => Err(format!(
                "\"auth\" needs public_url, as nobody could know how {listen} is reached: \
                 set it to what users type, like https://mcp.example.org"
            )),
        }
    }

    /// What an operator may not have meant.
    pub(super) fn warning(&self) -> Option<String> {
        match &self.kind {
            AuthKind::Upstream(upstream) if upstream.allow.anyone => Some(format!(
                "auth: whoever has an account at {} is let in",
                upstream.url
            )),
            _ => None,
        }
    }
}

fn upstream(
    kind: UpstreamKind,
    object: &Entry<'_>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<UpstreamConfig, Fault> {
    let (mut address, mut client_id, mut secret, mut allow) = (None, None, None, None);
    let (mut scopes, mut name, mut roots) = (None, None, None);
    for entry in object.value.entries()? {
        let value = &entry.value;
        match entry.key.as_str() {
            "url" => address = Some(issuer(&entry)?),
            "client_id" => client_id = Some(text(&entry.key, value)?),
            "client_secret" | "client_secret_file" if secret.is_some() => {
                let message = "\"client_secret\" and \"client_secret_file\": leave one of them out";
                return Err(entry.at.fault(message));
            }
            "client_secret" => secret = Some(fields::secret(value, env)?),
            "client_secret_file" => secret = Some(fields::secret_file(value)?),
            "scopes" => scopes = Some(scope_text(value)?),
            "name" => name = Some(text(&entry.key, value)?),
            "allow" => allow = Some(allow_upstream(&entry)?),
            "ca_file" => roots = Some(ca_file(value)?),
            _ => return Err(entry.unknown(UPSTREAM_KEYS)),
        }
    }
    let url = address.ok_or_else(|| missing(object, "url"))?;
    Ok(UpstreamConfig {
        kind,
        name: name.unwrap_or_else(|| name_of(&url)),
        url,
        client_id: client_id.ok_or_else(|| missing(object, "client_id"))?,
        client_secret: secret
            .map(Secret)
            .ok_or_else(|| missing(object, "client_secret"))?,
        scopes: scopes.unwrap_or_else(|| kind.default_scopes().to_owned()),
        allow: allow.ok_or_else(|| missing(object, "allow"))?,
        ca_file: roots,
    })
}

fn jwt(object: &Entry<'_>) -> Result<JwtConfig, Fault> {
    let (mut from, mut audience, mut jwks_url, mut allow) = (None, None, None, None);
    let (mut algorithms, mut scopes, mut roots) = (None, None, None);
    for entry in object.value.entries()? {
        let value = &entry.value;
        match entry.key.as_str() {
            "issuer" => from = Some(issuer(&entry)?),
            "audience" => audience = Some(text(&entry.key, value)?),
            "jwks_url" => jwks_url = Some(url(&entry)?),
            "algorithms" => algorithms = Some(read_algorithms(value)?),
            "scopes" => scopes = Some(scope_list(value)?),
            "allow" => allow = Some(allow_subjects(&entry)?),
            "ca_file" => roots = Some(ca_file(value)?),
            _ => return Err(entry.unknown(JWT_KEYS)),
        }
    }
    Ok(JwtConfig {
        issuer: from.ok_or_else(|| missing(object, "issuer"))?,
        audience,
        jwks_url,
        algorithms: algorithms.unwrap_or_else(|| JwtAlgorithm::USUAL.to_vec()),
        scopes: scopes.unwrap_or_default(),
        allow: allow.ok_or_else(|| missing(object, "allow"))?,
        ca_file: roots,
    })
}

fn missing(object: &Entry<'_>, key: &str) -> Fault {
    let why = match key {
        "allow" => ": nobody would be let in",
        _ => "",
    };
    let message = format!("{:?} has no {key:?}{why}", object.key);
    object.at.fault(message)
}

fn read_algorithms(list: &Node<'_>) -> Result<Vec<JwtAlgorithm>, Fault> {
    let mut algorithms = Vec::new();
    for item in list.items()? {
        let name = item.string()?;
        let Some(algorithm) = JwtAlgorithm::parse(&name) else {
            return Err(item.fault(fields::unknown_algorithm(&name)));
        };
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    match algorithms.is_empty() {
        true => Err(list.fault("\"algorithms\" is empty: no token would be taken")),
        false => Ok(algorithms),
    }
}

fn allow_upstream(object: &Entry<'_>) -> Result<Allow, Fault> {
    let mut allow = Allow::default();
    for entry in object.value.entries()? {
        match entry.key.as_str() {
            "users" => allow.users = texts(&entry)?,
            "groups" => allow.groups = texts(&entry)?,
            "emails" => allow.emails = texts(&entry)?,
            "anyone" => allow.anyone = entry.value.boolean()?,
            _ => return Err(entry.unknown(["users", "groups", "emails", "anyone"])),
        }
    }
    let listed = [&allow.users, &allow.groups, &allow.emails];
    somebody(object, allow.anyone, listed.iter().any(|it| !it.is_empty()))?;
    Ok(allow)
}

fn allow_subjects(object: &Entry<'_>) -> Result<AllowSubjects, Fault> {
    let mut allow = AllowSubjects::default();
    for entry in object.value.entries()? {
        match entry.key.as_str() {
            "subjects" => allow.subjects = texts(&entry)?,
            "anyone" => allow.anyone = entry.value.boolean()?,
            _ => return Err(entry.unknown(["subjects", "anyone"])),
        }
    }
    somebody(object, allow.anyone, !allow.subjects.is_empty())?;
    Ok(allow)
}

fn somebody(object: &Entry<'_>, anyone: bool, listed: bool) -> Result<(), Fault> {
    match (anyone, listed) {
        (false, false) => Err(object
            .at
            .fault("\"allow\" lets nobody in: list who may enter, or say \"anyone\": true")),
        (true, true) => Err(object
            .at
            .fault("\"allow\" lets anyone in and lists some: leave one of them out")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
