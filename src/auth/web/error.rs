//! Why there is no answer, in one line for the operator's log: what, where, and what to do. Never a
//! query, a header or a body.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use super::document::NotPublic;

const MAX_WHY_CHARS: usize = 200;

/// Why there is no answer. `place` is the origin and path that was asked.
#[derive(Debug)]
pub(crate) enum WebError {
    /// The address is none that may be asked at all.
    Url {
        why: &'static str,
    },
    /// The name stands for an address that is not public.
    NotPublic {
        place: String,
    },
    /// No name, no route, no listener, or a connection that broke.
    Unreachable {
        place: String,
        why: String,
    },
    /// The certificate is not trusted, or it is not TLS at all.
    Tls {
        place: String,
        why: String,
    },
    Timeout {
        place: String,
        after: Duration,
    },
    TooLarge {
        place: String,
    },
    /// Not followed: it may lead anywhere.
    Redirect {
        place: String,
    },
    /// A document comes with 200 only.
    Status {
        place: String,
        status: u16,
    },
    /// Not what was asked for.
    Content {
        place: String,
        why: &'static str,
    },
    /// As many documents as may be are being fetched.
    Busy,
    CaFile {
        path: PathBuf,
        why: String,
    },
}

impl WebError {
    /// Puts an error of the client library into our words.
    pub(super) fn of(error: ureq::Error, place: &str, timeout: Duration) -> Self {
        let place = place.to_owned();
        match error {
            ureq::Error::Timeout(_) => Self::Timeout {
                place,
                after: timeout,
            },
            ureq::Error::Io(error) if error.kind() == ErrorKind::TimedOut => Self::Timeout {
                place,
                after: timeout,
            },
            ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => {
                Self::TooLarge { place }
            }
            ureq::Error::Other(error) if error.is::<NotPublic>() => Self::NotPublic { place },
            ureq::Error::BadUri(_) => Self::Url {
                why: "is not a URL",
            },
            ureq::Error::HostNotFound => Self::Unreachable {
                place,
                why: "there is no such host".to_owned(),
            },
            ureq::Error::Tls(why) => Self::Tls {
                place,
                why: why.to_owned(),
            },
            ureq::Error::Rustls(error) => Self::Tls {
                place,
                why: plain(&error.to_string()),
            },
            // So rustls reports what it makes of the other side's bytes.
            ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => Self::Tls {
                place,
                why: plain(&error.to_string()),
            },
            ureq::Error::Io(error) => Self::Unreachable {
                place,
                why: plain(&error.to_string()),
            },
            error => Self::Unreachable {
                place,
                why: plain(&error.to_string()),
            },
        }
    }
}

/// The text without what would break a line of a log; it may come from the other side.
pub(crate) fn plain(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_WHY_CHARS).collect()
}

impl fmt::Display for WebError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { why } => write!(f, "the address {why}: correct it"),
            Self::NotPublic { place } => write!(
                f,
                "{place}: refused, as its host has an address that is not public: \
                 serve the document from the internet"
            ),
            Self::Unreachable { place, why } => write!(
                f,
                "{place}: cannot be reached ({why}): check the name, the network and the server"
            ),
            Self::Tls { place, why } => write!(
                f,
                "{place}: no trusted TLS connection ({why}): \
                 check its certificate, or give a private CA as \"ca_file\""
            ),
            Self::Timeout { place, after } => write!(
                f,
                "{place}: no whole answer within {} ms: try again, or check that server",
                after.as_millis()
            ),
            Self::TooLarge { place } => {
                write!(f, "{place}: the answer is too large: check the address")
            }
            Self::Redirect { place } => write!(
                f,
                "{place}: answers with a redirect, which is not followed: \
                 give the address that it leads to"
            ),
            Self::Status { place, status } => write!(
                f,
                "{place}: answers with status {status} instead of 200: check that server"
            ),
            Self::Content { place, why } => {
                write!(f, "{place}: the answer {why}: check the address")
            }
            Self::Busy => f.write_str("too many documents are being fetched: try again"),
            Self::CaFile { path, why } => {
                write!(f, "ca_file {}: {why}: give a PEM file", path.display())
            }
        }
    }
}

impl std::error::Error for WebError {}
