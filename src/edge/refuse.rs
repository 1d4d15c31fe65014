//! What the edge answers by itself, in place of anything behind it.

use std::fmt;
use std::time::SystemTime;

/// Why a request goes no further. The connection is closed after each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    BadRequest(&'static str),
    Timeout,
    BodyTooLarge,
    UriTooLong,
    ExpectationFailed,
    HeadTooLarge,
    NotImplemented(&'static str),
    /// The HTTP side gave no answer.
    BadGateway,
    Busy(&'static str),
    VersionNotSupported,
}

impl Refusal {
    /// RFC 9110 section 15, RFC 6585 section 5.
    fn status(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "400 Bad Request",
            Self::Timeout => "408 Request Timeout",
            Self::BodyTooLarge => "413 Content Too Large",
            Self::UriTooLong => "414 URI Too Long",
            Self::ExpectationFailed => "417 Expectation Failed",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::NotImplemented(_) => "501 Not Implemented",
            Self::BadGateway => "502 Bad Gateway",
            Self::Busy(_) => "503 Service Unavailable",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }

    /// The whole response.
    pub(super) fn response(self) -> Vec<u8> {
        let body = format!("{self}\n");
        let retry = if matches!(self, Self::Busy(_)) {
            "Retry-After: 5\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 {}\r\nDate: {}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n{retry}Connection: close\r\n\r\n{body}",
            self.status(),
            httpdate::fmt_http_date(SystemTime::now()),
            body.len(),
        )
        .into_bytes()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(why) => write!(f, "bad request: {why}"),
            Self::Timeout => f.write_str("the request did not arrive in time"),
            Self::BodyTooLarge => f.write_str("the body is larger than max_body"),
            Self::UriTooLong => f.write_str("the request line is longer than 8 KiB"),
            Self::ExpectationFailed => f.write_str("the only expectation known is 100-continue"),
            Self::HeadTooLarge => f.write_str("the head is larger than 16 KiB or 100 fields"),
            Self::NotImplemented(what) => write!(f, "{what} is not implemented"),
            Self::BadGateway => f.write_str("the request got no answer"),
            Self::Busy(why) => write!(f, "{why}, try again"),
            Self::VersionNotSupported => f.write_str("only HTTP/1.0 and HTTP/1.1 are spoken here"),
        }
    }
}
