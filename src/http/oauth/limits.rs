//! What one address may ask of the endpoints that anybody can reach: buckets that fill by the
//! minute. An address of IPv6 stands for its /64, which is one household's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Endpoint;

/// Buckets that are kept; with more, all further addresses share one.
const BUCKETS_MAX: usize = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Browser,
    Token,
    Register,
}

impl Kind {
    fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Authorize | Endpoint::Callback => Self::Browser,
            Endpoint::Register => Self::Register,
            _ => Self::Token,
        }
    }

    /// Requests at once, and a minute. Hosted clients come for all their users from a few
    /// addresses.
    fn allowed(self) -> (u32, u32) {
        match self {
            Self::Browser => (60, 60),
            Self::Token => (120, 240),
            Self::Register => (30, 20),
        }
    }
}

#[derive(Default)]
pub(in crate::http) struct Limits(Mutex<HashMap<(Kind, Option<IpAddr>), Bucket>>);

/// What an address may still ask, at a time.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn fill(self, kind: Kind, now: Instant) -> Self {
        let (burst, per_minute) = kind.allowed();
        let waited = now.saturating_duration_since(self.at).as_secs_f64();
        let tokens = self.tokens + waited * f64::from(per_minute) / 60.0;
        Self {
            tokens: tokens.min(f64::from(burst)),
            at: now,
        }
    }
}

impl Limits {
    /// Takes one request from the address's bucket.
    ///
    /// # Errors
    /// It is empty: after so many seconds it is worth trying again.
    pub(super) fn take(&self, endpoint: &Endpoint, peer: &str, now: Instant) -> Result<(), u64> {
        let kind = Kind::of(endpoint);
        let (burst, per_minute) = kind.allowed();
        let mut key = (kind, address(peer));
        let mut buckets = self.0.lock();
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&key) {
            let is_full =
                |kind: Kind, it: &Bucket| it.fill(kind, now).tokens >= f64::from(kind.allowed().0);
            buckets.retain(|(kind, _), it| !is_full(*kind, it));
            if buckets.len() >= BUCKETS_MAX {
                key = (kind, None);
            }
        }
        let new = Bucket {
            tokens: f64::from(burst),
            at: now,
        };
        let bucket = buckets.entry(key).or_insert(new);
        *bucket = bucket.fill(kind, now);
        if bucket.tokens < 1.0 {
            let wait = (1.0 - bucket.tokens) * 60.0 / f64::from(per_minute);
            return Err(Duration::from_secs_f64(wait).as_secs() + 1);
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

/// The address that counts; `None` for a Unix socket and what is no address.
fn address(peer: &str) -> Option<IpAddr> {
    let address = peer.parse::<std::net::SocketAddr>().map(|it| it.ip());
    match address
        .or_else(|_| peer.parse::<IpAddr>())
        .ok()?
        .to_canonical()
    {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            Some(IpAddr::V6(Ipv6Addr::from_bits(prefix)))
        }
        address => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(limits: &Limits, endpoint: &Endpoint, peer: &str, now: Instant) -> usize {
        let take = || limits.take(endpoint, peer, now);
        (0..10_000).take_while(|_| take().is_ok()).count()
    }

    #[test]
    fn an_address_has_its_bucket_which_fills_by_the_minute() {
        let (limits, start) = (Limits::default(), Instant::now());
        let (token, register) = (&Endpoint::Token, &Endpoint::Register);
        assert_eq!(taken(&limits, token, "192.0.2.1", start), 120);
        assert_eq!(limits.take(token, "192.0.2.1", start), Err(1));
        // Other kinds and other addresses are not affected.
        assert_eq!(taken(&limits, register, "192.0.2.1", start), 30);
        assert_eq!(limits.take(register, "192.0.2.1", start), Err(4));
        assert_eq!(taken(&limits, token, "192.0.2.2", start), 120);
        let later = start + Duration::from_secs(30);
        assert_eq!(taken(&limits, token, "192.0.2.1", later), 120);
        assert_eq!(taken(&limits, register, "192.0.2.1", later), 10);
    }

    #[test]
    fn a_household_is_one_address() {
        let (limits, now) = (Limits::default(), Instant::now());
        assert_eq!(taken(&limits, &Endpoint::Token, "2001:db8::1", now), 120);
        assert_eq!(taken(&limits, &Endpoint::Token, "2001:db8::2", now), 0);
        assert_eq!(
            taken(&limits, &Endpoint::Token, "2001:db8:0:1::2", now),
            120
        );
        assert_eq!(
            taken(&limits, &Endpoint::Token, "::ffff:192.0.2.1", now),
            120
        );
        assert_eq!(taken(&limits, &Endpoint::Token, "192.0.2.1", now), 0);
    }

    #[test]
    fn a_flood_of_addresses_shares_one_bucket_in_the_end() {
        let (limits, now) = (Limits::default(), Instant::now());
        let from = |index: u32| IpAddr::from(index.to_be_bytes()).to_string();
        let tries = u32::try_from(BUCKETS_MAX).unwrap() + 1000;
        let passed = (0..tries).filter(|it| limits.take(&Endpoint::Token, &from(*it), now).is_ok());
        assert_eq!(passed.count(), BUCKETS_MAX + 120);
        assert_eq!(limits.0.lock().len(), BUCKETS_MAX + 1);
        // After a while all are full again, and thrown away.
        let later = now + Duration::from_secs(60);
        assert!(limits.take(&Endpoint::Token, "192.0.2.1", later).is_ok());
        assert!(limits.0.lock().len() <= 2);
    }
}
