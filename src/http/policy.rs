//! Which `Host` and which `Origin` may ask: the defence against DNS rebinding and against pages
//! of other sites (2025-11-25, transports, "Security Warning"). Checked before anything else.

use super::reply::Answer;

/// Names under which a broker on the same machine is reached.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Hosts and origins beside the loopback ones.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// Without port, lower case: the host of `public_url`, and the address listened on if it is
    /// a specific one.
    pub(crate) hosts: Vec<String>,
    /// As browsers write them: scheme, host, and the port unless it is the scheme's own.
    pub(crate) origins: Vec<String>,
}

impl Policy {
    /// # Errors
    /// 403 for a foreign `Host`.
    pub(super) fn check_host(&self, host: Option<&str>) -> Result<(), Answer> {
        let name = without_port(host.unwrap_or_default()).to_ascii_lowercase();
        match LOOPBACK.contains(&&*name) || self.hosts.contains(&name) {
            true => Ok(()),
            false => Err(Answer::HostForbidden),
        }
    }

    /// Gives the origin that may read the answer, if the request names one.
    ///
    /// # Errors
    /// 403 for a foreign `Origin`.
    pub(super) fn check_origin(&self, origin: Option<&str>) -> Result<Option<String>, Answer> {
        let Some(origin) = origin else {
            return Ok(None);
        };
        let lower = origin.to_ascii_lowercase();
        let is_loopback = lower
            .strip_prefix("http://")
            .or_else(|| lower.strip_prefix("https://"))
            .is_some_and(|authority| LOOPBACK.contains(&without_port(authority)));
        if !is_loopback && !self.origins.contains(&lower) {
            return Err(Answer::OriginForbidden);
        }
        Ok(Some(origin.to_owned()))
    }

    /// Both.
    ///
    /// # Errors
    /// 403 for a foreign `Host` or `Origin`.
    pub(super) fn check(
        &self,
        host: Option<&str>,
        origin: Option<&str>,
    ) -> Result<Option<String>, Answer> {
        self.check_host(host)?;
        self.check_origin(origin)
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_host_and_origin() {
        let policy = Policy {
            hosts: vec!["mcp.example.org".to_owned()],
            origins: vec!["https://app.example.org".to_owned()],
        };
        let check = |host, origin, expected| {
            let result = policy.check(host, origin).map(|_| ());
            assert_eq!(result, expected, "{host:?} {origin:?}");
        };
        let (host, origin) = (Err(Answer::HostForbidden), Err(Answer::OriginForbidden));
        check(Some("localhost:8787"), None, Ok(()));
        check(Some("LOCALHOST"), None, Ok(()));
        check(Some("127.0.0.1:1"), None, Ok(()));
        check(Some("[::1]:8787"), None, Ok(()));
        check(Some("mcp.example.org"), None, Ok(()));
        check(Some("mcp.example.org:443"), None, Ok(()));
        check(Some("evil.example"), None, host);
        let host = || Err(Answer::HostForbidden);
        check(Some("localhost.evil.example"), None, host());
        check(Some("127.0.0.1.evil.example:80"), None, host());
        check(Some("localhost:80@evil.example"), None, host());
        check(Some(""), None, host());
        check(None, None, host());
        check(Some("localhost"), Some("http://localhost:3000"), Ok(()));
        check(Some("localhost"), Some("https://127.0.0.1"), Ok(()));
        check(Some("localhost"), Some("https://app.example.org"), Ok(()));
        check(Some("localhost"), Some("http://evil.example"), origin);
        let origin = || Err(Answer::OriginForbidden);
        check(Some("localhost"), Some("null"), origin());
        check(Some("localhost"), Some(""), origin());
        check(Some("localhost"), Some("http://app.example.org"), origin());
        check(
            Some("localhost"),
            Some("http://localhost.evil.example"),
            origin(),
        );
        check(
            Some("localhost"),
            Some("http://localhost:1/evil.example"),
            origin(),
        );
    }
}
