//! Documents that a stranger names: those of clients whose id is a URL (OAuth Client ID Metadata
//! Document). The stranger chooses the address, so these requests must not become a way into the
//! network that the broker stands in.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{HeaderMap, Uri, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::address::is_public;
use super::{Target, WebError, careful, lifetime, read_text};

const MAX_URL_BYTES: usize = 2048;
/// Drafts of the specification suggest 5 KiB.
const MAX_BYTES: u64 = 10 << 10;
const MAX_KEPT: usize = 256;
const MIN_KEPT: Duration = Duration::from_secs(5 * 60);
const MAX_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What may be asked. Only tests have other rules than the default ones.
struct Rules {
    allows: fn(IpAddr) -> bool,
    allows_port: fn(u16) -> bool,
    is_https: bool,
    timeout: Duration,
    at_once: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            allows: is_public,
            // Whoever serves a document on another port has no use for the reserved ones, where
            // other kinds of services listen.
            allows_port: |port| port == 443 || port >= 1024,
            is_https: true,
            timeout: Duration::from_secs(5),
            at_once: 4,
        }
    }
}

/// Fetches documents and keeps those that it got for as long as their servers say, within limits.
pub(crate) struct Documents {
    agent: Agent,
    rules: Rules,
    running: AtomicUsize,
    kept: Mutex<HashMap<String, Kept>>,
}

struct Kept {
    document: Arc<str>,
    until: Instant,
}

impl Documents {
    pub(crate) fn new() -> Self {
        Self::with(Rules::default(), DefaultResolver::default())
    }

    fn with(rules: Rules, names: impl Resolver) -> Self {
        let guard = Guard {
            names,
            allows: rules.allows,
        };
        let config = careful(rules.timeout).build();
        Self {
            agent: Agent::with_parts(config, DefaultConnector::new(), guard),
            rules,
            running: AtomicUsize::new(0),
            kept: Mutex::default(),
        }
    }

    /// The document at an address, of at most 10 KiB; it takes at most 5 seconds. Whoever finds
    /// that it is not valid says so with [`forget`](Self::forget): only good ones are kept.
    ///
    /// # Errors
    /// If the address may not be asked, or does not answer as it should. `Busy` where four are
    /// being fetched.
    pub(crate) fn fetch(&self, url: &str, now: Instant) -> Result<Arc<str>, WebError> {
        let target = self.check(url)?;
        if let Some(document) = self.find(url, now) {
            return Ok(document);
        }
        let _slot = self.take_slot()?;
        let (document, lifetime) = self.get(url, target)?;
        let document: Arc<str> = document.into();
        self.keep(url, document.clone(), now, lifetime);
        Ok(document)
    }

    /// Takes a document out of the cache.
    pub(crate) fn forget(&self, url: &str) {
        self.kept.lock().remove(url);
    }

    fn check(&self, url: &str) -> Result<Target, WebError> {
        let refuse = |why| Err(WebError::Url { why });
        if url.len() > MAX_URL_BYTES {
            return refuse("is longer than 2048 bytes");
        }
        let target = Target::read(url)?;
        if target.is_https != self.rules.is_https {
            return refuse("is not an https URL");
        }
        if !target.has_path {
            return refuse("has no path");
        }
        if !target.port.is_none_or(self.rules.allows_port) {
            return refuse("has a port other than 443 and below 1024");
        }
        Ok(target)
    }

    fn get(&self, url: &str, target: Target) -> Result<(String, Option<Duration>), WebError> {
        let Target { place, .. } = target;
        let response = self.agent.get(url).call();
        let mut response =
            response.map_err(|error| WebError::of(error, &place, self.rules.timeout))?;
        match response.status().as_u16() {
            200 if is_json(response.headers()) => {}
            200 => {
                return Err(WebError::Content {
                    place,
                    why: "is not JSON by its Content-Type",
                });
            }
            300..400 => return Err(WebError::Redirect { place }),
            status => return Err(WebError::Status { place, status }),
        }
        let lifetime = lifetime(response.headers());
        let text = read_text(&mut response, MAX_BYTES, &place, self.rules.timeout)?;
        Ok((text, lifetime))
    }

    fn take_slot(&self) -> Result<Slot<'_>, WebError> {
        let slot = Slot(&self.running);
        match self.running.fetch_add(1, Ordering::AcqRel) < self.rules.at_once {
            true => Ok(slot),
            false => Err(WebError::Busy),
        }
    }

    fn find(&self, url: &str, now: Instant) -> Option<Arc<str>> {
        let kept = self.kept.lock();
        let found = kept.get(url).filter(|found| now < found.until);
        found.map(|found| found.document.clone())
    }

    fn keep(&self, url: &str, document: Arc<str>, now: Instant, lifetime: Option<Duration>) {
        let time = lifetime.unwrap_or(MIN_KEPT).clamp(MIN_KEPT, MAX_KEPT_FOR);
        let until = now + time;
        let mut kept = self.kept.lock();
        if kept.len() >= MAX_KEPT && !kept.contains_key(url) {
            kept.retain(|_, other| now < other.until);
            while kept.len() >= MAX_KEPT {
                let first = kept.iter().min_by_key(|(_, other)| other.until);
                let Some(first) = first.map(|(url, _)| url.clone()) else {
                    break;
                };
                kept.remove(&first);
            }
        }
        kept.insert(url.to_owned(), Kept { document, until });
    }
}

/// One of the documents being fetched; counts from when it is made until it is dropped.
struct Slot<'a>(&'a AtomicUsize);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next());
    let kind = kind.unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Looks names up and hands out only what was checked. The connection goes to the very addresses
/// that it returns, so a name that changes between check and connection gains nothing.
#[derive(Debug)]
struct Guard<R> {
    names: R,
    allows: fn(IpAddr) -> bool,
}

impl<R: Resolver> Resolver for Guard<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.names.resolve(uri, config, timeout)?;
        // One bad address spoils the name: it is not for us to pick the good ones.
        match found.iter().all(|address| (self.allows)(address.ip())) {
            true => Ok(found),
            false => Err(ureq::Error::Other(Box::new(NotPublic))),
        }
    }
}

/// Travels through the client library's error.
#[derive(Debug)]
pub(super) struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a public address")
    }
}

impl std::error::Error for NotPublic {}

#[cfg(test)]
mod tests;
