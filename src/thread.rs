//! Threads with a name, an owner and a join; the only caller of `std::thread`.
//!
//! `ps -L` then tells the story of a running broker, and a panic is one thread's affair: it is
//! logged in one line (see [`install_panic_hook`]) and handed to the owner as `None`.

use std::io;
use std::panic;
use std::thread::{self, JoinHandle};

/// Enough for every thread here: none recurses, and their buffers live on the heap.
const STACK_SIZE_BYTES: usize = 256 * 1024;
/// Of a [`spawn_brief`]. glibc gives the stack of a thread that has ended to the next one, with up
/// to 20 KiB of memory in it, but none that is more than four times larger than asked for.
const BRIEF_STACK_SIZE_BYTES: usize = 8 * STACK_SIZE_BYTES;

/// Starts a named thread. Linux shows the first 15 bytes of the name.
///
/// # Errors
/// The OS error if no thread can be started (out of memory, `pids.max`).
pub(crate) fn spawn<T, F>(name: impl Into<String>, f: F) -> io::Result<Joined<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    spawn_on(STACK_SIZE_BYTES, name.into(), f)
}

/// The same for a thread that ends soon and uses more of its stack than those of a session do,
/// which are many and wait for hours: they shall not inherit it.
///
/// # Errors
/// As [`spawn`].
pub(crate) fn spawn_brief<T, F>(name: impl Into<String>, f: F) -> io::Result<Joined<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    spawn_on(BRIEF_STACK_SIZE_BYTES, name.into(), f)
}

fn spawn_on<T, F>(stack_size: usize, name: String, f: F) -> io::Result<Joined<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let handle = thread::Builder::new()
        .name(name)
        .stack_size(stack_size)
        .spawn(f)?;
    Ok(Joined(Some(handle)))
}

/// A running thread; dropping it waits for the thread to end.
pub(crate) struct Joined<T>(Option<JoinHandle<T>>);

impl<T> Joined<T> {
    /// Waits for the end. `None` means that the thread panicked.
    pub(crate) fn join(mut self) -> Option<T> {
        self.0.take().and_then(|handle| handle.join().ok())
    }

    /// Whether joining would return at once.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<T> Drop for Joined<T> {
    fn drop(&mut self) {
        // A thread cannot wait for its own end; it is about to come anyway.
        let is_own = |handle: &JoinHandle<T>| handle.thread().id() == thread::current().id();
        if let Some(handle) = self.0.take().filter(|handle| !is_own(handle)) {
            // A panic has been logged by the hook; there is nobody here to hand it to.
            let _ = handle.join();
        }
    }
}

/// Makes a panic one log line with thread and place, instead of a backtrace on stderr.
pub(crate) fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("?").to_owned();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("no message");
        log::error!("thread panicked name={name} at={place}: {message}");
    }));
}
