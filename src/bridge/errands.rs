//! What other threads ask of the reader thread, in order.

use std::collections::VecDeque;

use parking_lot::Mutex;

pub(super) struct Errands<T>(Mutex<VecDeque<T>>);

impl<T> Errands<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Gives the reader thread one more, and wakes it.
    pub(super) fn send(&self, errand: T, wake: &dyn Fn()) {
        self.0.lock().push_back(errand);
        wake();
    }

    pub(super) fn take(&self) -> Option<T> {
        self.0.lock().pop_front()
    }
}
