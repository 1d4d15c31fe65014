//! A modern child.

use std::time::Instant;

use super::{Out, Translator};

pub(crate) struct ModernChild;

impl Translator for ModernChild {
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

impl ModernChild {
    pub(crate) fn new(_server_name: &str) -> Self {
        Self
    }
}

pub(crate) fn is_modern_refusal(_error: &str) -> bool {
    false
}
