//! One session and its id.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use rand::TryRng;
use rand::rngs::SysRng;

use crate::auth::Principal;
use crate::bridge::{Bridge, Exchange};

/// Random bytes of a session id: 192 bits, as 48 hexadecimal characters.
const ID_BYTES: usize = 24;
/// Characters of the id that stand in logs and thread names.
const LABEL_CHARS: usize = 8;

/// One session: what an `Mcp-Session-Id` stands for.
pub(crate) struct Session {
    pub(super) id: String,
    pub(super) principal: Principal,
    pub(super) server: Arc<str>,
    pub(super) last_active: Mutex<Instant>,
    /// Set once the child runs; until then nobody but the opener knows the id.
    pub(super) bridge: OnceLock<Bridge>,
    pub(super) child: Mutex<Option<ChildEnd>>,
}

/// What ends the child.
pub(super) struct ChildEnd {
    pub(super) stop: Box<dyn FnOnce() + Send>,
    pub(super) kill: Box<dyn Fn() + Send + Sync>,
}

impl Session {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The first characters of the id: enough to tell sessions apart, useless to steal one.
    pub(crate) fn label(&self) -> &str {
        label(&self.id)
    }

    /// Its client has a request.
    pub(crate) fn touch(&self, now: Instant) {
        *self.last_active.lock() = now;
    }

    /// Whether this is the protocol version it negotiated.
    pub(crate) fn speaks(&self, version: &str) -> bool {
        self.bridge
            .get()
            .is_some_and(|bridge| bridge.speaks(version))
    }

    pub(crate) fn post(&self, exchange: Box<dyn Exchange>) {
        if let Some(bridge) = self.bridge.get() {
            bridge.post(exchange);
        }
    }

    pub(crate) fn listen(&self, exchange: Box<dyn Exchange>, last_event_id: Option<String>) {
        if let Some(bridge) = self.bridge.get() {
            bridge.listen(exchange, last_event_id);
        }
    }

    pub(crate) fn gone(&self, connection: u64) {
        if let Some(bridge) = self.bridge.get() {
            bridge.gone(connection);
        }
    }

    /// Requests without an answer; a session that is starting has its `initialize`.
    pub(super) fn in_flight(&self) -> usize {
        self.bridge.get().map_or(1, Bridge::in_flight)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.label())
    }
}

/// The part of an id that may be shown.
pub(super) fn label(id: &str) -> &str {
    id.get(..LABEL_CHARS).unwrap_or(id)
}

/// `None` if the operating system gives no random bytes.
pub(super) fn new_session_id() -> Option<String> {
    let mut bytes = [0; ID_BYTES];
    SysRng.try_fill_bytes(&mut bytes).ok()?;
    Some(hex::encode(bytes))
}
