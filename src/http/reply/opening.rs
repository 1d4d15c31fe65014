//! What is said when no session could be opened.

use super::{Asker, Face, RETRY_AFTER_FULL, Rendered, busy, challenge, draining, no_session};
use crate::auth::AuthError;
use crate::jsonrpc::code;
use crate::session::OpenError;

/// Seconds: a provider that cannot be reached is seldom back at once.
const RETRY_AFTER_PROVIDER: &str = "10";

pub(super) fn failed(asker: Asker<'_>, why: &OpenError, face: &Face) -> Rendered {
    let error = |status, code, message: &str| asker.error(status, code, message);
    match why {
        OpenError::Full => error(503, code::SERVER_ERROR, "all sessions are taken")
            .with("Retry-After", RETRY_AFTER_FULL),
        OpenError::UserStarting => busy(asker, "all sessions of this user are just being opened"),
        OpenError::LowMemory => error(503, code::SERVER_ERROR, "too little memory is free")
            .with("Retry-After", RETRY_AFTER_FULL),
        OpenError::Pause { left, why } => {
            let seconds = left.as_secs() + 1;
            let message = format!("next try in {seconds} s, because the last ones failed: {why}");
            error(503, code::SERVER_ERROR, &message).with("Retry-After", &seconds.to_string())
        }
        OpenError::Draining => draining(asker),
        OpenError::Ended => no_session(asker, face),
        // As to a stream that is over: clients take it for an answer.
        OpenError::Asleep => error(
            405,
            code::INVALID_REQUEST,
            "the session sleeps: the next POST wakes it",
        )
        .with("Allow", "POST, DELETE"),
        OpenError::Lost => busy(asker, "the session has ended before it began: try again"),
        OpenError::Busy => busy(asker, "too much is being started just now: try again"),
        OpenError::SignInAgain => challenge::unauthorized(asker, AuthError::Invalid, face),
        OpenError::TryAgain(why) => {
            let message = format!("the sign-in provider could not be reached: {why}");
            error(503, code::SERVER_ERROR, &message).with("Retry-After", RETRY_AFTER_PROVIDER)
        }
        OpenError::Spawn(message) => error(500, code::INTERNAL_ERROR, message),
        OpenError::NoRandomness => error(
            500,
            code::INTERNAL_ERROR,
            "the operating system gave no random bytes",
        ),
    }
}
