//! A legacy child.

use std::time::Instant;

use super::{Out, Translator};

pub(crate) struct LegacyChild;

impl Translator for LegacyChild {
    fn begin(&mut self, _now: Instant, _out: &mut Vec<Out>) {}

    fn from_client(&mut self, line: &str, _now: Instant, out: &mut Vec<Out>) {
        out.push(Out::Child(line.to_owned()));
    }

    fn from_child(&mut self, line: &str, _now: Instant, out: &mut Vec<Out>) {
        out.push(Out::Client(line.to_owned()));
    }

    fn due(&self) -> Option<Instant> {
        None
    }

    fn tick(&mut self, _now: Instant, _out: &mut Vec<Out>) {}
}

pub(crate) struct Options {
    pub(crate) server_name: String,
    pub(crate) sealer: Sealer,
    pub(crate) input_timeout: std::time::Duration,
}
pub(crate) struct Sealer;
impl Sealer {
    pub(crate) fn new(_key: [u8; 32], _context: &str) -> Self {
        Self
    }
}
impl LegacyChild {
    pub(crate) fn new(_: Options) -> Self {
        Self
    }
}
