//! What goes wrong on demand, request by request.

use std::time::Duration;

use parking_lot::Mutex;

/// A step of the flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Discovery,
    Keys,
    Authorize,
    Exchange,
    Refresh,
    Userinfo,
    Introspect,
    Api,
}

impl Place {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "discovery" => Self::Discovery,
            "keys" => Self::Keys,
            "authorize" => Self::Authorize,
            "exchange" => Self::Exchange,
            "refresh" => Self::Refresh,
            "userinfo" => Self::Userinfo,
            "introspect" => Self::Introspect,
            "api" => Self::Api,
            _ => return None,
        })
    }
}

/// How a request goes wrong.
#[derive(Clone, Copy)]
pub(crate) enum Effect {
    /// Not served; this status.
    Status(u16),
    /// Not served; silence, then the connection ends.
    Hang(Duration),
    /// Served at once, answered later.
    Late(Duration),
    /// Not served; the connection ends.
    Close,
    /// Served, and the answer is lost.
    Lose,
    /// Not served; half a JSON document.
    Garbage,
}

impl Effect {
    pub(crate) fn named(name: &str, time: Duration) -> Option<Self> {
        Some(match name {
            "hang" => Self::Hang(time),
            "late" => Self::Late(time),
            "close" => Self::Close,
            "lose" => Self::Lose,
            "garbage" => Self::Garbage,
            status => Self::Status(status.parse().ok()?),
        })
    }
}

/// The faults to come.
#[derive(Default)]
pub(crate) struct Faults {
    coming: Mutex<Vec<(Place, Effect)>>,
}

impl Faults {
    /// The next fault there, which is then used up.
    pub(crate) fn take(&self, place: Place) -> Option<Effect> {
        let mut coming = self.coming.lock();
        let at = coming.iter().position(|(it, _)| *it == place)?;
        Some(coming.remove(at).1)
    }

    pub(crate) fn add(&self, place: Place, effect: Effect, times: usize) {
        let more = std::iter::repeat_n((place, effect), times);
        self.coming.lock().extend(more);
    }

    pub(crate) fn clear(&self) {
        self.coming.lock().clear();
    }
}
