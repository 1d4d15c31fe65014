//! The rules of the broker's own authorization server (OAuth 2.1): pure, time is passed in.
//!
//! `authorize` reads what a browser brings · `client` knows who may ask · `redirect` where an
//! answer may go · `token` the back channel · `metadata` what we publish · `form` their common
//! way of reading parameters.
pub(crate) mod authorize;
pub(crate) mod client;
mod form;
pub(crate) mod metadata;
pub(crate) mod redirect;
#[cfg(test)]
mod tests;
pub(crate) mod token;

use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

/// SHA-256 of a secret's text. Our secrets have 256 random bits, so a fast hash is as good as a
/// slow one.
pub(crate) type Hash = [u8; 32];

/// The hash by which a secret is kept and found.
pub(crate) fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

/// A new secret: `prefix`, then 256 random bits in base64url. The prefix tells people and scanners
/// of leaked secrets what it is: `mcpa_` an access token, `mcpr_` a refresh token, `mcpc_` a code,
/// `mcps_` a client's secret. Fails where the operating system has no random numbers.
pub(crate) fn mint(prefix: &str) -> io::Result<String> {
    let mut bytes = [0; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Whether two texts of bytes are the same, in a time that does not say where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differ = one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && differ == 0
}

/// One MCP endpoint, as a token is issued for it (RFC 8707).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// As our metadata spell it: no trailing slash, the issuer's own spelling of the host.
    pub(crate) uri: String,
    pub(crate) server: Arc<str>,
}

/// Everything that tokens are issued for.
#[derive(Debug)]
pub(crate) struct Resources {
    issuer: String,
    servers: Vec<Arc<str>>,
}

impl Resources {
    /// `issuer` is a bare origin, such as `https://mcp.example.org`.
    pub(crate) fn new(issuer: &str, servers: &[Arc<str>]) -> Self {
        Self {
            issuer: issuer.trim_end_matches('/').to_owned(),
            servers: servers.to_vec(),
        }
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The resource that a client names. The case of scheme and host does not matter, nor does one
    /// trailing slash (2026-07-28, authorization, "Canonical Server URI"). `ISSUER/mcp/NAME` always
    /// means that server, `ISSUER/mcp` only an only one.
    pub(crate) fn find(&self, uri: &str) -> Option<Resource> {
        let origin = uri.get(..self.issuer.len())?;
        if !origin.eq_ignore_ascii_case(&self.issuer) {
            return None;
        }
        let path = uri.get(origin.len()..)?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let rest = path.strip_prefix("/mcp")?;
        if rest.is_empty() {
            return self.only();
        }
        let name = rest.strip_prefix('/')?;
        let server = self.servers.iter().find(|server| &***server == name)?;
        Some(self.resource(path, server))
    }

    /// What a client means that names none: the only one that there is.
    pub(crate) fn only(&self) -> Option<Resource> {
        match &self.servers[..] {
            [server] => Some(self.resource("/mcp", server)),
            _ => None,
        }
    }

    /// Whether what a client names now is what a code or a token was issued for: the same server,
    /// by whichever of its names.
    pub(crate) fn is_for(&self, issued: &Resource, asked: &str) -> bool {
        let asked = self.find(asked);
        asked.is_some_and(|asked| asked.server == issued.server)
    }

    /// Every name of every server.
    pub(crate) fn all_uris(&self) -> Vec<String> {
        let named = self
            .servers
            .iter()
            .map(|server| format!("{}/mcp/{server}", self.issuer));
        let only = self.only().map(|it| it.uri);
        only.into_iter().chain(named).collect()
    }

    /// Every name of one server.
    pub(crate) fn uris(&self, server: &str) -> Vec<String> {
        let is_its = |uri: &String| self.find(uri).is_some_and(|it| *it.server == *server);
        self.all_uris().into_iter().filter(is_its).collect()
    }

    fn resource(&self, path: &str, server: &Arc<str>) -> Resource {
        Resource {
            uri: format!("{}{path}", self.issuer),
            server: server.clone(),
        }
    }
}

/// How a client shows at the token endpoint that it is itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// Not at all: a public client. PKCE binds its codes, rotation its refresh tokens.
    None,
    /// By a secret, in the body or by `Basic`.
    Secret(Hash),
}

/// Where we know a client from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// It registered itself (RFC 7591).
    Registered,
    /// From the document at its id.
    Document,
    /// From our own copy of such a document.
    Pinned,
}

/// Whom a code or a token may be given to.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) id: String,
    /// What it calls itself: without control characters, but never to be trusted.
    pub(crate) name: String,
    /// At least one; each is one that `redirect::is_allowed`.
    pub(crate) redirect_uris: Vec<String>,
    pub(crate) auth: ClientAuth,
    pub(crate) kind: ClientKind,
}
