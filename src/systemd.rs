//! What the service manager gives and wants to hear: sockets that it has opened, when the broker
//! is ready, when it stops, and that it is alive (sd_listen_fds(3), sd_notify(3)). Without a
//! service manager all of it does nothing. The variables are read, never passed on: children get
//! an environment of their own.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sd_notify::NotifyState;

/// Sockets that were passed, with the names that the socket units give them.
///
/// # Errors
/// The OS error, or `InvalidInput` if the variables contradict each other.
pub(crate) fn passed_sockets() -> io::Result<Vec<(OwnedFd, String)>> {
    if sd_notify::listen_fds()?.len() == 0 {
        // Names that are left over from those of another process are no contradiction.
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names()?;
    // A bare number cannot safely be made an owner. The kernel gives a copy of any descriptor of a
    // process, and each process may ask for its own.
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    passed
        .map(|(number, name)| {
            let fd = pidfd_getfd(&own, number, PidfdGetfdFlags::empty())?;
            Ok((fd, name))
        })
        .collect()
}

/// How often the service manager wants to hear that the broker is alive.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// All clients are served from now on; `status` is what `systemctl status` shows.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub(crate) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

pub(crate) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot notify the service manager: {error}");
    }
}
