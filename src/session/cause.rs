//! Why a session ends, and what follows from it.

use std::fmt;

use crate::bridge::End;
use crate::metrics::EndCause;

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Deleted,
    /// No request for `idle_timeout`.
    Idle,
    /// Older than `max_session_age`.
    Expired,
    /// Another one of the same principal took its place.
    Evicted,
    Revoked,
    /// Of those that are shared: the token of its child is not the newest any more.
    Refreshed,
    Shutdown,
    /// Its child or its bridge.
    Backend(End),
}

impl Cause {
    pub(super) fn for_metrics(&self) -> EndCause {
        match self {
            Self::Deleted => EndCause::Deleted,
            Self::Idle => EndCause::Idle,
            Self::Expired => EndCause::Expired,
            Self::Evicted => EndCause::Evicted,
            Self::Revoked => EndCause::Revoked,
            Self::Refreshed => EndCause::Refreshed,
            Self::Shutdown => EndCause::Shutdown,
            Self::Backend(End::ClientGone) => EndCause::ClientGone,
            Self::Backend(End::StartFailed { .. }) => EndCause::StartFailed,
            Self::Backend(End::Exited { .. }) => EndCause::ChildExit,
            Self::Backend(End::Fault) => EndCause::Fault,
        }
    }

    /// Whether its owner may come back to it, if its server is one that can be revived.
    pub(super) fn is_revivable(&self) -> bool {
        match self {
            Self::Idle | Self::Evicted | Self::Refreshed | Self::Shutdown => true,
            Self::Backend(end) => *end != End::ClientGone,
            Self::Deleted | Self::Expired | Self::Revoked => false,
        }
    }

    /// Whether its child may wait for the client's next session.
    pub(super) fn frees_child(&self) -> bool {
        matches!(self, Self::Deleted | Self::Evicted)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "deleted by its client",
            Self::Idle => "idle",
            Self::Expired => "older than max_session_age",
            Self::Evicted => "made room for a newer one of the same user",
            Self::Revoked => "the token was revoked or has expired",
            Self::Refreshed => "its user has a newer token for the next one",
            Self::Shutdown => "the broker is shutting down",
            Self::Backend(end) => return end.fmt(f),
        })
    }
}
