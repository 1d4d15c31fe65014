//! The answers to who is not let in, with how to get in.

use super::{Asker, Face, Rendered, busy};
use crate::auth::AuthError;
use crate::jsonrpc::code;

/// RFC 6750 section 3: without credentials the challenge carries no error. RFC 9728 section 5.1:
/// it says where to learn how to get a token.
pub(super) fn unauthorized(asker: Asker<'_>, why: AuthError, face: &Face) -> Rendered {
    let (status, error) = match why {
        AuthError::Missing => (401, None),
        AuthError::Invalid => (401, Some("invalid_token")),
        AuthError::InsufficientScope => (403, Some("insufficient_scope")),
        AuthError::Later => return busy(asker, "the token cannot be checked yet: try again"),
    };
    let mut challenge = "Bearer realm=\"mcp-broker\"".to_owned();
    if let Some(error) = error {
        challenge.push_str(&format!(", error=\"{error}\""));
    }
    if let Some(how) = &face.challenge {
        challenge.push_str(", ");
        challenge.push_str(how);
    }
    asker
        .error(status, code::SERVER_ERROR, &why.to_string())
        .with("WWW-Authenticate", &challenge)
}
