//! Where the broker listens, what it is called from outside, and which web pages may talk to it.
//! Pure parsing into one normal form each, so that later comparisons are comparisons of text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A listening address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    /// `unix:/path`: a Unix socket, guarded by the permissions of its directory.
    Unix(PathBuf),
}

impl Listen {
    /// The longest path the kernel takes for a Unix socket (`sun_path` without its final NUL).
    const UNIX_PATH_BYTES: usize = 107;

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = path.len() <= Self::UNIX_PATH_BYTES && !path.contains('\0');
            return match fits && Path::new(path).is_absolute() {
                true => Ok(Self::Unix(PathBuf::from(path))),
                false => Err(format!(
                    "{text:?} needs an absolute path of at most {} bytes",
                    Self::UNIX_PATH_BYTES
                )),
            };
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        numeric.parse().map(Self::Tcp).map_err(|_| {
            format!(
                "{text:?} is not an address: write it like 127.0.0.1:8787, [::1]:8787 \
             or unix:/run/mcp-broker.sock"
            )
        })
    }

    /// An address that only this machine can reach.
    pub(super) fn parse_local(text: &str) -> Result<Self, String> {
        let listen = Self::parse(text)?;
        match listen.is_local() {
            true => Ok(listen),
            false => Err(format!(
                "other machines can reach {listen}: use 127.0.0.1, [::1] or unix:/PATH"
            )),
        }
    }

    /// Whether only programs of this machine can connect.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The URL by which clients reach the broker, usually that of a reverse proxy in front. Prints as
/// it was given, in normal form: lower case, no default port, no slash at the end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PublicUrl {
    /// `http` or `https`.
    pub(crate) scheme: String,
    /// A name, an IPv4 address or a bracketed IPv6 address.
    pub(crate) host: String,
    /// `None`: the scheme's own port.
    pub(crate) port: Option<u16>,
    /// Empty, or what comes before `/mcp`: `/tools`.
    pub(crate) path: String,
}

impl PublicUrl {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} {why}, write it like https://mcp.example.org");
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("is not a URL"))?;
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(wrong("is neither http nor https"));
        }
        if rest.contains(['?', '#']) {
            return Err(wrong("has a query or a fragment"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = host_and_port(authority, &scheme).map_err(|why| wrong(&why))?;
        let path = path.trim_end_matches('/');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
        if !path.bytes().all(plain)
            || path.contains("//")
            || path.split('/').any(|part| matches!(part, "." | ".."))
        {
            return Err(wrong("has a path with characters that need no place there"));
        }
        Ok(Self {
            scheme,
            host,
            port,
            path: path.to_owned(),
        })
    }

    /// The host, with the port unless it is the scheme's own: what a client sends as `Host`.
    pub(crate) fn authority(&self) -> String {
        join(&self.host, self.port)
    }

    /// `scheme://authority`: what a web page served from here sends as `Origin`.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority())
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

/// The normal form of an origin (RFC 6454, section 6.2), as browsers send it. Any scheme: desktop
/// clients have their own.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("{text:?} {why}, write it like https://app.example.org");
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| wrong("is not an origin"))?;
    let scheme = scheme.to_ascii_lowercase();
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(valid)
    {
        return Err(wrong("is not an origin"));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(wrong("has more than a scheme, a host and a port"));
    }
    let (host, port) = host_and_port(authority, &scheme).map_err(|why| wrong(&why))?;
    Ok(format!("{scheme}://{}", join(&host, port)))
}

fn join(host: &str, port: Option<u16>) -> String {
    match port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Takes `host[:port]` apart. The scheme's own port comes back as `None`.
fn host_and_port(authority: &str, scheme: &str) -> Result<(String, Option<u16>), String> {
    if authority.contains('@') {
        return Err("has a user name".to_owned());
    }
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => {
            (&authority[..colon], Some(&authority[colon + 1..]))
        }
        _ => (authority, None),
    };
    let host = normal_host(host).ok_or_else(|| format!("has no valid host: {host:?}"))?;
    let port = match port {
        None => None,
        Some(digits) if digits.starts_with(|first: char| first.is_ascii_digit()) => Some(
            digits
                .parse::<u16>()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("has no valid port: {digits:?}"))?,
        ),
        Some(other) => return Err(format!("has no valid port: {other:?}")),
    };
    let usual = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Ok((host, port.filter(|port| Some(*port) != usual)))
}

fn normal_host(host: &str) -> Option<String> {
    const LONGEST_BYTES: usize = 253;
    if let Some(inside) = host.strip_prefix('[') {
        let address: Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let host = host.to_ascii_lowercase();
    let numeric = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric {
        return host
            .parse::<Ipv4Addr>()
            .ok()
            .map(|address| address.to_string());
    }
    let valid = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    (host.len() <= LONGEST_BYTES && host.split('.').all(valid)).then_some(host)
}

/// An IP address on its own.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an IP address: write it like 10.0.0.2"))
}

#[cfg(test)]
mod tests;
