//! What one child takes over from another, and one session from another: see `handshake`.

use std::time::Instant;

use super::Table;
use crate::bridge::handshake::{self, Change, Handshake};
use crate::jsonrpc::{self, Id, Kind, Message};
use crate::mcp;

/// Open questions of a child that are remembered; a child with more is not given another session.
const MAX_ASKED: usize = 256;

impl Table {
    /// The child takes the place of another one, and is being told what that one knew.
    pub(in crate::bridge) fn replay(&mut self, handshake: Handshake, since: Instant) {
        self.version = handshake.version().into_owned();
        self.handshake = handshake;
        self.handshake.children = self.handshake.children.saturating_add(1);
        // So that nobody takes this child's streams for those of another.
        self.last_post = u64::from(self.handshake.children) << 32;
        (self.initialize_seen, self.initialized_said) = (true, true);
        self.replaying = Some(since);
    }

    /// Events of a stream that more than one child can have are numbered from here, for the same
    /// reason.
    pub(in crate::bridge) fn first_event(&self) -> u64 {
        u64::from(self.handshake.children) << 32
    }

    /// The new child has answered with this `result`; false if it chose another revision than its
    /// client knows.
    pub(in crate::bridge) fn end_replay(&mut self, result: &str) -> bool {
        self.replaying = None;
        self.handshake.result = result.into();
        let version = self.handshake.version().into_owned();
        if self.version.is_empty() {
            // The broker ended between the session's id and the first child's answer.
            self.version = version;
            return true;
        }
        version == self.version
    }

    /// What a new child would have to be told if the client learned its session's id now, before
    /// the answer to its `initialize`.
    pub(in crate::bridge) fn announce(&self, post: u64) -> Option<(String, Handshake)> {
        let mut own = self.pending.values().filter(|pending| pending.post == post);
        let params = own.find_map(|pending| match &pending.change {
            Some(Change::Initialize(params)) => Some(params.clone()),
            _ => None,
        })?;
        let mut handshake = self.handshake.clone();
        handshake.initialize = params;
        Some((self.session.clone(), handshake))
    }

    /// Whether the child has still to answer its first `initialize`.
    pub(in crate::bridge) fn is_starting(&self) -> bool {
        self.version.is_empty() || self.replaying.is_some()
    }

    /// The client's `initialize` as a line, if it is what has this id and waits for its answer.
    pub(in crate::bridge) fn initialize_line(&self, id: &Id) -> Option<String> {
        let pending = self.pending.get(id)?;
        let Some(Change::Initialize(params)) = &pending.change else {
            return None;
        };
        let handshake = Handshake {
            initialize: params.clone(),
            ..Handshake::default()
        };
        String::from_utf8(handshake.first_line(&pending.id_text)).ok()
    }

    pub(in crate::bridge) fn is_closed(&self) -> bool {
        self.closed || self.is_parked
    }

    /// Whether nothing is taken from this session: it has ended, or its child has gone to another.
    pub(in crate::bridge) fn is_closed_to(&self, tenant: u64) -> bool {
        self.is_closed() || self.tenant != tenant
    }

    pub(in crate::bridge) fn is_parked(&self) -> bool {
        self.is_parked
    }

    /// Whether another session can have it; `None` as long as that is not known.
    pub(in crate::bridge) fn is_free(&self) -> Option<bool> {
        if !self.is_parked || self.closed || self.has_asked() {
            return Some(false);
        }
        (self.is_emptied && self.probe.is_none()).then_some(true)
    }

    /// Nothing of the session before is left outside.
    pub(in crate::bridge) fn emptied(&mut self) {
        self.is_emptied = self.is_parked;
    }

    /// Whether this is the id of our ping, which is answered therewith.
    pub(in crate::bridge) fn take_probe(&mut self, id: &Id) -> bool {
        self.probe.take_if(|probe| probe == id).is_some()
    }

    fn has_asked(&self) -> bool {
        self.asked_too_much || !self.asked.is_empty()
    }

    /// Whether another session could have the child and notice nothing of this one.
    pub(in crate::bridge) fn may_park(&self) -> bool {
        self.may_leave()
            // Its answer would be that to a request of the next session, whose ids are the same.
            && !self.is_late
            && self.handshake.leaves_no_trace()
    }

    /// Whether another child that knows the handshake could take this one's place.
    pub(in crate::bridge) fn may_leave(&self) -> bool {
        !self.is_closed()
            && !self.is_starting()
            && !self.draining
            && (self.initialized_seen || self.initialized_said)
            && self.pending.is_empty()
            && !self.has_asked()
            && !self.greets
    }

    /// A connection that has gone.
    pub(in crate::bridge) fn has_departed(&self, connection: u64) -> bool {
        self.departed.contains(connection)
    }

    /// Frees the child for another session, if that can be; gives the ping it has to answer first.
    /// One that hangs would be handed on otherwise: its next client gets the answer to `initialize`
    /// from us, and then nothing for ever. `label` makes the id tell who asks.
    pub(in crate::bridge) fn park(&mut self, label: &str) -> Option<Vec<u8>> {
        if !self.may_park() {
            return None;
        }
        let id = format!("mcp-broker/{label}/ping-{}", self.tenant);
        let ping = handshake::line(&format!("\"{id}\""), mcp::method::PING, "");
        self.probe = Some(Id::String(id.into()));
        (self.is_parked, self.is_emptied) = (true, false);
        Some(ping)
    }

    pub(in crate::bridge) fn hand_over(&mut self, session: &str, tenant: u64) {
        session.clone_into(&mut self.session);
        self.tenant = tenant;
        (self.is_parked, self.is_emptied) = (false, false);
        (self.greets, self.initialized_said) = (true, true);
    }

    /// What to answer `initialize` with, the first time, if the child is not to be asked.
    pub(in crate::bridge) fn take_greeting(&mut self) -> Option<(String, Handshake)> {
        std::mem::take(&mut self.greets).then(|| (self.session.clone(), self.handshake.clone()))
    }

    /// Takes note of a notification or a response of the client; false if the child shall not get
    /// it.
    pub(in crate::bridge) fn hear(&mut self, message: &Message<'_>, now: Instant) -> bool {
        if message.kind == Kind::Response {
            self.asked.remove(&message.id);
        } else if message.method == mcp::method::INITIALIZED {
            self.initialized_seen = true;
            return !self.initialized_said;
        } else if let Some(id) = cancelled_id(message) {
            self.cancel(&id, now);
        }
        true
    }

    /// Takes note of what the child says on its own.
    pub(in crate::bridge) fn overhear(&mut self, message: &Message<'_>) {
        if message.kind == Kind::Request {
            match self.asked.len() < MAX_ASKED {
                true => _ = self.asked.insert(message.id.clone()),
                false => self.asked_too_much = true,
            }
        } else if let Some(id) = cancelled_id(message) {
            self.asked.remove(&id);
        }
    }

    /// The child has answered a request that changes something.
    pub(in crate::bridge) fn apply(&mut self, change: Change, result: &str) -> (String, Handshake) {
        self.handshake.apply(change, result);
        (self.session.clone(), self.handshake.clone())
    }
}

/// 2025-11-25, cancellation, "Cancellation Flow".
fn cancelled_id(message: &Message<'_>) -> Option<Id> {
    if message.method != mcp::method::CANCELLED {
        return None;
    }
    message
        .params
        .and_then(|params| jsonrpc::member(params, "requestId"))
        .and_then(Id::parse)
}
