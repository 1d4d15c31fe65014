//! The life of one process: whether it has ended, how, and signals to its group.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{Tether, live};

const SIGKILL: i32 = Signal::KILL.as_raw();

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExitReason {
    Code(i32),
    Signal(i32),
    /// SIGKILL, for it used more memory than it may.
    OutOfMemory,
    /// The OS would not say.
    Unknown,
}

impl From<ExitStatus> for ExitReason {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutOfMemory => f.write_str("killed: it reached its memory limit"),
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}

enum State {
    Running(Child),
    Ended(ExitReason),
}

/// Shared by the threads of one child and by whoever stops it.
pub(super) struct Life {
    pid: Pid,
    /// Readable from the moment the process has ended.
    pidfd: OwnedFd,
    tether: Tether,
    state: Mutex<State>,
    ended: Condvar,
}

impl Life {
    pub(super) fn new(child: Child, pid: Pid, pidfd: OwnedFd, tether: Tether) -> Self {
        live::add(pid);
        Self {
            pid,
            pidfd,
            tether,
            state: Mutex::new(State::Running(child)),
            ended: Condvar::new(),
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// To be polled for input beside a pipe.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Signals the process group. The lock keeps the process from being reaped meanwhile: until
    /// then its id cannot belong to anybody else.
    pub(super) fn kill(&self, signal: Signal) {
        let state = self.state.lock();
        if matches!(*state, State::Running(_)) {
            let killed = kill_process_group(self.pid, signal);
            if killed == Err(Errno::SRCH) {
                // It leads no group yet: that is the launcher's first step.
                let _ = kill_process(self.pid, signal);
            }
        }
    }

    /// Ends what is left of the group and takes the exit status. Called when the pidfd says that
    /// the process has ended, so the wait below returns at once.
    pub(super) fn reap(&self) {
        let is_out_of_memory = self.tether.is_out_of_memory();
        self.kill(Signal::KILL);
        self.tether.kill();
        let mut state = self.state.lock();
        if let State::Running(child) = &mut *state {
            live::remove(self.pid);
            let reason = match child.wait().map_or(ExitReason::Unknown, ExitReason::from) {
                ExitReason::Signal(SIGKILL) if is_out_of_memory => ExitReason::OutOfMemory,
                reason => reason,
            };
            *state = State::Ended(reason);
            self.ended.notify_all();
        }
        drop(state);
        self.tether.reaped();
    }

    /// Waits for [`Life::reap`]; false if it did not come in time.
    pub(super) fn wait_ended(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        while matches!(*state, State::Running(_)) {
            if self.ended.wait_until(&mut state, deadline).timed_out() {
                return matches!(*state, State::Ended(_));
            }
        }
        true
    }

    /// Waits for [`Life::reap`], however long that takes.
    pub(super) fn wait_reason(&self) -> ExitReason {
        let mut state = self.state.lock();
        loop {
            if let State::Ended(reason) = &*state {
                return reason.clone();
            }
            self.ended.wait(&mut state);
        }
    }
}
