//! Where a browser may be sent with a code: which addresses a client may have at all, and when the
//! one it asks for is one of them (OAuth 2.1, sections 2.3 and 7.12; RFC 8252, section 7).

use fluent_uri::Uri;

use super::form::MAX_LONG;

/// Schemes of programs that are known to use one without a dot. All others must look like a domain
/// turned round (RFC 8252, section 7.1), which keeps `javascript`, `data`, `file` and their like out.
const PRIVATE_SCHEMES: [&str; 8] = [
    "claude",
    "cursor",
    "vscode",
    "vscode-insiders",
    "vscodium",
    "windsurf",
    "zed",
    "goose",
];

/// The names of this computer that stand in redirect addresses.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// Whether a browser may ever be sent there: `https`, `http` to this computer, or a scheme that
/// belongs to a program. The error says what is wrong, to follow "it".
pub(crate) fn is_allowed(uri: &str) -> Result<(), &'static str> {
    let parts = Parts::read(uri)?;
    match &parts.target {
        Target::Https { .. } | Target::Loopback { .. } => Ok(()),
        Target::Private if is_private_scheme(parts.scheme) => Ok(()),
        Target::Private => Err("has a scheme that is not accepted"),
    }
}

/// Whether the address asked for is the registered one. They are compared as texts; only the port
/// of `http` to this computer does not matter, since a program there takes whichever is free (RFC
/// 8252, section 7.3). That goes for the name `localhost` too: known clients register it so.
pub(crate) fn matches(registered: &str, asked: &str) -> bool {
    if is_allowed(asked).is_err() {
        return false;
    }
    if registered == asked {
        return true;
    }
    let (Ok(registered), Ok(asked)) = (Parts::read(registered), Parts::read(asked)) else {
        return false;
    };
    match (registered.target, asked.target) {
        (
            Target::Loopback { host, rest, .. },
            Target::Loopback {
                host: h, rest: r, ..
            },
        ) => registered.scheme == asked.scheme && (host, rest) == (h, r),
        _ => false,
    }
}

/// Whom the answer goes to, for the consent page: the host, with a port that is not the usual one;
/// of a scheme that belongs to a program, the scheme and its colon.
pub(crate) fn host_for_people(uri: &str) -> String {
    let Ok(parts) = Parts::read(uri) else {
        return "an unknown place".to_owned();
    };
    match parts.target {
        Target::Private => format!("{}:", parts.scheme),
        Target::Https { host, port } | Target::Loopback { host, port, .. } => match port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        },
    }
}

/// Whether the answer goes to a program on the user's own computer, by its address. Anybody there
/// can listen, and so nobody there is known by it.
pub(crate) fn is_loopback(uri: &str) -> bool {
    match Parts::read(uri).map(|parts| parts.target) {
        Ok(Target::Loopback { .. }) => true,
        Ok(Target::Https { host, .. }) => is_loopback_host(host),
        _ => false,
    }
}

/// Whether only web pages and this computer can be meant: what a document may list.
pub(super) fn is_of_the_web(uri: &str) -> bool {
    Parts::read(uri).is_ok_and(|parts| !matches!(parts.target, Target::Private))
}

/// An address that means the same to every reader.
struct Parts<'a> {
    scheme: &'a str,
    target: Target<'a>,
}

enum Target<'a> {
    Https {
        host: &'a str,
        port: Option<u16>,
    },
    /// `http`.
    Loopback {
        host: &'a str,
        port: Option<u16>,
        /// Path and query.
        rest: &'a str,
    },
    /// Any other scheme.
    Private,
}

impl<'a> Parts<'a> {
    /// Refuses what a browser might read otherwise than we do. The grammar of RFC 3986 already
    /// leaves out backslashes, spaces, control characters and everything that is not ASCII.
    fn read(text: &'a str) -> Result<Self, &'static str> {
        if text.len() > MAX_LONG {
            return Err("is too long");
        }
        let uri = Uri::parse(text).map_err(|_| "is not an absolute address")?;
        if uri.has_fragment() {
            return Err("has a fragment");
        }
        check_encoding(
            uri.path().as_str(),
            uri.query().map_or("", |it| it.as_str()),
        )?;
        let authority = uri.authority();
        if authority.as_ref().is_some_and(|it| it.has_userinfo()) {
            return Err("has a user name in it");
        }
        let scheme = uri.scheme().as_str();
        let is_http = scheme.eq_ignore_ascii_case("http");
        if !is_http && !scheme.eq_ignore_ascii_case("https") {
            let target = Target::Private;
            return Ok(Self { scheme, target });
        }
        let authority = authority.ok_or("has no host")?;
        let host = authority.host();
        check_host(host)?;
        let port = match authority.port().map(|port| port.as_str()) {
            None => None,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err("has a port that cannot be"),
                Ok(port) => Some(port),
            },
        };
        let target = match is_http {
            false => Target::Https { host, port },
            true if is_loopback_host(host) => {
                let rest = authority_end(text, authority.as_str());
                Target::Loopback { host, port, rest }
            }
            true => return Err("is not https, and not on this computer"),
        };
        Ok(Self { scheme, target })
    }
}

/// What follows `SCHEME://AUTHORITY`.
fn authority_end<'a>(text: &'a str, authority: &str) -> &'a str {
    let start = text.find("://").map_or(text.len(), |at| at + "://".len());
    text.get(start + authority.len()..).unwrap_or_default()
}

fn is_private_scheme(scheme: &str) -> bool {
    let is_label = |label: &str| label.starts_with(|it: char| it.is_ascii_alphanumeric());
    PRIVATE_SCHEMES.contains(&scheme) || (scheme.contains('.') && scheme.split('.').all(is_label))
}

fn is_loopback_host(host: &str) -> bool {
    LOOPBACK.iter().any(|it| host.eq_ignore_ascii_case(it))
}

/// Refuses what a browser or the server behind it might turn into another path or another line.
fn check_encoding(path: &str, query: &str) -> Result<(), &'static str> {
    let lower = path.to_ascii_lowercase();
    if ["%2e", "%2f", "%5c"].iter().any(|it| lower.contains(it)) {
        return Err("has an encoded dot or slash in its path");
    }
    if path
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        return Err("has dots for a part of its path");
    }
    let is_control = |text: &str| {
        let encoded = text
            .match_indices('%')
            .filter_map(|(at, _)| text.get(at + 1..at + 3));
        let mut bytes = encoded.filter_map(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.any(|byte| byte.is_ascii_control())
    };
    match is_control(path) || is_control(query) {
        true => Err("has an encoded control character"),
        false => Ok(()),
    }
}

/// A name that is spelt as it is looked up, or a literal address in its one usual form.
fn check_host(host: &str) -> Result<(), &'static str> {
    if let Some(literal) = host.strip_prefix('[') {
        let address = literal.strip_suffix(']').unwrap_or_default();
        let parsed = address.parse::<std::net::Ipv6Addr>();
        return parsed.map(drop).map_err(|_| "has a host that cannot be");
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if host.is_empty() || host.starts_with('.') || !host.bytes().all(valid) {
        return Err("has a host that cannot be");
    }
    // Browsers take `0x7f.1` and `2130706433` for 127.0.0.1: a number must be a whole address.
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with(|it: char| it.is_ascii_digit());
    match is_number && host.parse::<std::net::Ipv4Addr>().is_err() {
        true => Err("has a host that cannot be"),
        false => Ok(()),
    }
}
