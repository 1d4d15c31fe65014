//! What a bridge leaves to another one whose child takes its child's place: the streams of its
//! clients, who notice nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::inbound::SessionInbound;
use super::stream::Stream;
use super::{Bridge, Front};

/// All that belongs to clients and to no request.
#[derive(Default)]
pub(super) struct Estate {
    /// In the order in which they began; those that have ended can be asked for again.
    pub(super) streams: Vec<Stream>,
    /// What the child said while nobody listened, the oldest first.
    pub(super) waiting: VecDeque<Box<str>>,
    /// Dropped when somebody has it.
    _done: Option<Sender<()>>,
}

impl Bridge {
    /// Whether nothing is in flight, on the way or open that another child would not know of. Never
    /// waits.
    pub(crate) fn may_leave(&self) -> bool {
        self.lane.is_at_rest() && self.front.may_leave()
    }

    /// Whether the other child could take the place of this one now: that is so if nothing is in
    /// flight here, and it has been told all that this one was. Stays so as long as nothing is
    /// posted here.
    pub(crate) fn may_be_succeeded_by(&self, heir: &Self) -> bool {
        self.may_leave() && self.handshake().is_told_by(&heir.handshake())
    }

    /// Leaves the streams of this bridge to another one, which will serve its session from now on;
    /// what comes of it is disconnected when that is done.
    pub(crate) fn bequeath(&self, heir: &Self) -> Receiver<()> {
        let (done, is_done) = bounded(0);
        self.front.bequeath(Arc::clone(&heir.front), done);
        is_done
    }
}

impl SessionInbound {
    /// Gives up all streams.
    pub(super) fn leave_to(&mut self, heir: &Arc<dyn Front>, done: Sender<()>) {
        self.waiting_bytes = 0;
        heir.inherit(Estate {
            streams: std::mem::take(&mut self.streams),
            waiting: std::mem::take(&mut self.waiting),
            _done: Some(done),
        });
    }

    /// Goes on with the streams of another bridge.
    pub(super) fn take_on(&mut self, estate: Estate, now: Instant) {
        let Estate {
            streams, waiting, ..
        } = estate;
        let own = std::mem::take(&mut self.streams);
        for mut stream in streams {
            // It may have gone while it was nobody's.
            let connection = stream.connection();
            if let Some(connection) = connection.filter(|it| self.has_departed(*it)) {
                stream.forget_connection(connection);
            }
            if own.iter().any(|it| it.no == stream.no) {
                stream.end(now); // its client is back already, on another connection
            } else {
                self.streams.push(stream);
            }
        }
        self.streams.extend(own);
        self.wait_before(waiting, now);
    }
}
