//! The front for one client of the legacy era: its session is the child.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::errands::Errands;
use super::estate::Estate;
use super::inbound::SessionInbound;
use super::lane::{Heard, Lane};
use super::outbound::{Aside, Taken};
use super::table::Table;
use super::{
    Bridge, End, Exchange, Front, Handshake, Options, Outbound, Refusal, outbound, replay,
};
use crate::translate::Translator;

/// What the three faces share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) lane: Arc<Lane>,
    pub(super) table: Mutex<Table>,
    pub(super) errands: Errands<Errand>,
}

/// What other threads ask of the reader thread.
pub(super) enum Errand {
    /// A GET: becomes the session's stream, or resumes the one named by `Last-Event-ID`.
    Listen {
        exchange: Box<dyn Exchange>,
        tenant: u64,
        last_event_id: Option<String>,
    },
    /// The translator has answered a client in the child's place.
    HandIn(Heard),
    /// The client at the other end of a connection has gone.
    Gone { connection: u64 },
    /// The session has ended, and the child may get another one: let go of what is left.
    Park,
    /// Another bridge serves the session from now on: give it the streams.
    Bequeath {
        heir: Arc<dyn Front>,
        done: Sender<()>,
    },
    /// And this is it.
    Inherit(Box<Estate>),
    /// The session ends: answer everybody.
    Close,
}

/// The three faces of a new bridge.
pub(super) fn bridge(
    mut options: Options,
    translator: Option<Box<dyn Translator>>,
) -> (Bridge, Outbound, SessionInbound) {
    let mut table = Table::new(options.session.clone(), Arc::clone(&options.quota));
    let (script, prompter) = match options.replay.take() {
        Some((handshake, since)) => {
            table.replay(handshake.clone(), since);
            let (script, prompter) = replay::prepare(handshake, &options.label);
            (Some(script), Some(prompter))
        }
        None => (None, None),
    };
    let (lane, inbox) = Lane::new(script.is_some());
    let lane = Arc::new(lane);
    if let Some(mut translator) = translator {
        // Nothing comes of it before the client has said something.
        lane.install(|out| {
            translator.begin(Instant::now(), out);
            translator
        });
    }
    let shared = Arc::new(Shared {
        options,
        lane: Arc::clone(&lane),
        table: Mutex::new(table),
        errands: Errands::new(),
    });
    let inbound = SessionInbound::new(prompter, Arc::clone(&shared));
    let front: Arc<dyn Front> = shared;
    let outbound = Outbound::new(inbox, script, Arc::clone(&lane), Arc::clone(&front));
    (Bridge { lane, front }, outbound, inbound)
}

impl Shared {
    fn send_errand(&self, errand: Errand) {
        self.errands.send(errand, &self.options.wake);
    }
}

impl Front for Shared {
    fn accept(
        &self,
        tenant: u64,
        exchange: Box<dyn Exchange>,
        body: io::Result<Vec<u8>>,
        now: Instant,
    ) -> Option<Taken> {
        outbound::accept(self, tenant, exchange, body, now)
    }

    fn run_aside(&self, aside: Aside) {
        aside.run(self);
    }

    fn why_closed(&self) -> Refusal {
        self.table.lock().why_closed()
    }

    fn why_closed_to(&self, tenant: u64) -> (Refusal, Refusal) {
        self.table.lock().why_closed_to(tenant)
    }

    fn hand_in(&self, heard: Heard) {
        self.send_errand(Errand::HandIn(heard));
    }

    fn listen(&self, tenant: u64, exchange: Box<dyn Exchange>, last_event_id: Option<String>) {
        self.send_errand(Errand::Listen {
            exchange,
            tenant,
            last_event_id,
        });
    }

    fn gone(&self, connection: u64) {
        self.send_errand(Errand::Gone { connection });
    }

    fn in_flight(&self) -> usize {
        self.table.lock().in_flight()
    }

    fn has_clients(&self) -> bool {
        self.table.lock().has_clients()
    }

    fn tick(&self, now: Instant) {
        let start_timeout = self.options.start_timeout;
        let due = self.table.lock().is_due(start_timeout, now);
        if due {
            (self.options.wake)();
        }
    }

    fn drain(&self) {
        self.table.lock().draining = true;
    }

    fn close(&self) {
        self.send_errand(Errand::Close);
    }

    fn fault(&self) {
        self.options.host.ended(End::Fault);
    }

    fn is_starting(&self) -> bool {
        self.table.lock().is_awaited()
    }

    fn is_initialized(&self) -> bool {
        !self.table.lock().handshake.result.is_empty()
    }

    fn speaks(&self, version: &str) -> bool {
        self.table.lock().version == version
    }

    fn handshake(&self) -> Handshake {
        self.table.lock().handshake.clone()
    }

    fn may_park(&self) -> bool {
        self.table.lock().may_park()
    }

    fn park(&self) -> Option<Vec<u8>> {
        self.table.lock().park(&self.options.label)
    }

    fn let_go(&self) {
        self.send_errand(Errand::Park);
    }

    fn hand_over(&self, session: &str, tenant: u64) {
        self.table.lock().hand_over(session, tenant);
    }

    fn rest(&self) {
        self.table.lock().rests = true;
    }

    fn may_leave(&self) -> bool {
        self.table.lock().may_leave()
    }

    fn bequeath(&self, heir: Arc<dyn Front>, done: Sender<()>) {
        self.send_errand(Errand::Bequeath { heir, done });
    }

    fn inherit(&self, estate: Estate) {
        self.send_errand(Errand::Inherit(Box::new(estate)));
    }
}
