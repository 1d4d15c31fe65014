//! How many descriptors there may be, and what fits into them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::{edge, session};

/// A connection takes four descriptors and a session takes four; the usual soft limit of 1,024
/// would end the broker at some 200 users.
pub(super) fn raise_limit(Rlimit { maximum, .. }: Rlimit) {
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        log::warn!("cannot raise the limit of open files: {error}");
    }
}

/// As many sessions and connections as configured, and no more than there can be descriptors
/// for: tiny_http ends for good when it finds none.
pub(super) fn fit(config: &mut Config, has_admin: bool) {
    const PER_CONNECTION: usize = 4;
    const RESERVED: usize = 64 + session::ENDING_MIN * 6;
    const FOR_ADMIN: usize = edge::ADMIN_CONNECTIONS_MAX * PER_CONNECTION;
    /// One that runs, and one that is being stopped.
    const PER_SESSION: usize = 2 * 6;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let available = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(RESERVED + if has_admin { FOR_ADMIN } else { 0 });
    // Half of them for connections, or less if fewer connections are allowed.
    let for_connections = config.max_connections.saturating_mul(PER_CONNECTION);
    let for_connections = for_connections.min(available / 2);
    let sessions = ((available - for_connections) / PER_SESSION).max(1);
    if config.max_sessions == 0 {
        config.max_sessions = sessions;
    } else if config.max_sessions > sessions {
        log::warn!("max_sessions is {sessions}: the limit of open files is {limit}");
        config.max_sessions = sessions;
    }
    let left = available.saturating_sub(config.max_sessions.saturating_mul(PER_SESSION));
    let connections = (left / PER_CONNECTION).max(1);
    if config.max_connections > connections {
        log::warn!("max_connections is {connections}: the limit of open files is {limit}");
        config.max_connections = connections;
    }
}
