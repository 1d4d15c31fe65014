//! Connections that have gone: their requests may still be on the way here.

use std::collections::VecDeque;

/// So many are remembered. None comes again under its number.
const MAX: usize = 64;

/// The latest stand last.
#[derive(Default)]
pub(super) struct Departed(VecDeque<u64>);

impl Departed {
    pub(super) fn note(&mut self, connection: u64) {
        if self.0.len() == MAX {
            self.0.pop_front();
        }
        self.0.push_back(connection);
    }

    pub(super) fn contains(&self, connection: u64) -> bool {
        self.0.contains(&connection)
    }
}
