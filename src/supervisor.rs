//! One child process: spawn, its threads, the exit watch and the stop ladder.
//!
//! Moves bounded lines and cannot read JSON: what comes out of `source` goes to the child's
//! stdin, what the child writes goes to `sink`. Three threads serve a child, each named after
//! its session: `w:` (writer, stdin), `r:` (reader, stdout), `e:` (errors and exit: stderr and
//! the process itself). All of them watch the process descriptor beside their pipe, so a
//! grandchild that holds a pipe open cannot keep a thread here.
//!
//! [`Parent`] is the thread that all children are started on.
//!
//! `rustix` instead of the `nix` that ctrlc brings: it has `pidfd_open`, which `nix` lacks.

mod exit;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod live;
mod parent;
mod pipes;
mod stderr;
mod tether;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::thread::{self, Joined};
pub(crate) use exit::ExitReason;
use exit::Life;
pub(crate) use live::groups as live_groups;
pub(crate) use parent::{Nursery, Parent};
pub(crate) use stderr::StderrTail;
pub(crate) use tether::Tether;

/// How to start a child. Its environment is exactly `env`.
pub(crate) struct Launch {
    /// Short session id: names the threads and stands in every log line.
    pub(crate) label: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    /// Takes what the child writes to stderr.
    pub(crate) stderr: Arc<StderrTail>,
    pub(crate) tether: Tether,
}

/// Bounds of one child.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Longest line taken from stdout, in bytes; longer ones are skipped and reported.
    pub(crate) max_message: usize,
    /// From closing stdin to SIGTERM.
    pub(crate) stop_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub(crate) kill_grace: Duration,
}

/// What the reader thread hands to its sink, in order; `Exited` is the last.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// One line without its end.
    Line(&'a [u8]),
    /// A line of more than `max_message` bytes is skipped.
    TooLong,
    /// It has ended; so it began, and so it ended.
    Skipped { head: &'a [u8], tail: &'a [u8] },
    /// Somebody called [`Waker::wake`].
    Woken,
    /// The process has ended and all it wrote has been delivered.
    Exited(&'a ExitReason),
}

/// Why a child could not be started.
#[derive(Debug)]
pub(crate) struct SpawnError {
    program: PathBuf,
    source: io::Error,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot start {}: {}",
            self.program.display(),
            self.source
        )
    }
}

/// Interrupts a reader thread that waits for its child.
#[derive(Clone)]
pub(crate) struct Waker {
    bell: Arc<OwnedFd>,
    alarm: Arc<Mutex<Option<Instant>>>,
}

impl Waker {
    /// # Errors
    /// The OS error if no descriptor is left.
    pub(crate) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            bell: Arc::new(bell),
            alarm: Arc::default(),
        })
    }

    /// The same at a later moment, which replaces the one before. To be called on the reader
    /// thread, which looks at it before it waits.
    pub(crate) fn wake_at(&self, at: Instant) {
        *self.alarm.lock() = Some(at);
    }

    /// How long the reader thread may wait.
    fn patience(&self) -> Option<Duration> {
        let at = *self.alarm.lock();
        at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether the moment has come; then it is past.
    fn rings(&self) -> bool {
        let mut alarm = self.alarm.lock();
        alarm.take_if(|at| *at <= Instant::now()).is_some()
    }

    /// Makes the reader thread hand an [`Event::Woken`] to its sink; several calls may become one.
    pub(crate) fn wake(&self) {
        // EAGAIN means that the counter is full of wake-ups nobody has taken yet.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        // EAGAIN means that another event came first; either way nothing is pending now.
        let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
    }
}

/// A running child with its threads.
pub(crate) struct Child {
    label: String,
    limits: Limits,
    life: Arc<Life>,
    /// Owned by the writer thread, whose end closes it.
    stdin: Weak<OwnedFd>,
    stderr: Arc<StderrTail>,
    threads: Vec<Joined<()>>,
}

impl Child {
    /// Starts the process and its three threads.
    ///
    /// `source` blocks for the next bytes to the child, and returns `None` to close its stdin.
    ///
    /// # Errors
    /// [`SpawnError`] with the program and the OS error; nothing is left running then.
    pub(crate) fn start(
        nursery: &Nursery,
        launch: Launch,
        limits: Limits,
        waker: Waker,
        source: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
        sink: impl FnMut(Event<'_>) + Send + 'static,
    ) -> Result<Self, SpawnError> {
        let program = launch.program.clone();
        Self::start_threads(nursery, launch, limits, waker, source, sink)
            .map_err(|source| SpawnError { program, source })
    }

    fn start_threads(
        nursery: &Nursery,
        mut launch: Launch,
        limits: Limits,
        waker: Waker,
        source: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
        sink: impl FnMut(Event<'_>) + Send + 'static,
    ) -> io::Result<Self> {
        let label = launch.label.clone();
        let (life, pipes) = spawn(nursery, &mut launch)?;
        let mut child = Self {
            label,
            limits,
            life: Arc::clone(&life),
            stdin: Weak::new(),
            stderr: launch.stderr,
            threads: Vec::with_capacity(3),
        };
        if let Err(error) = child.serve(pipes, waker, source, sink) {
            // Without its threads the child cannot be stopped politely.
            life.kill(Signal::KILL);
            life.reap();
            return Err(error);
        }
        Ok(child)
    }

    fn serve(
        &mut self,
        pipes: Pipes,
        waker: Waker,
        source: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
        sink: impl FnMut(Event<'_>) + Send + 'static,
    ) -> io::Result<()> {
        let Pipes {
            stdin,
            stdout,
            stderr,
        } = pipes;
        let (label, life, tail) = (&self.label, &self.life, &self.stderr);
        let (e_life, e_tail) = (Arc::clone(life), Arc::clone(tail));
        let keeper = thread::spawn(format!("e:{label}"), move || {
            stderr::drain(&stderr, &e_tail, &e_life);
        })?;
        self.threads.push(keeper);
        let (r_life, max) = (Arc::clone(life), self.limits.max_message);
        let reader = thread::spawn(format!("r:{label}"), move || {
            pipes::read_lines(&stdout, &waker, &r_life, max, sink);
        })?;
        self.threads.push(reader);
        let stdin = Arc::new(stdin);
        self.stdin = Arc::downgrade(&stdin);
        let w_life = Arc::clone(life);
        // The last: the end of the process, which is what follows an error, ends the other two,
        // but not a thread that waits for `source`.
        let writer = thread::spawn(format!("w:{label}"), move || {
            pipes::write_lines(stdin, &w_life, source);
        })?;
        self.threads.push(writer);
        Ok(())
    }

    /// The process id, which is the process group's too.
    pub(crate) fn pid(&self) -> u32 {
        self.life.pid().as_raw_nonzero().get().unsigned_abs()
    }

    /// Writes whole lines to the child from any thread, if that takes no waiting; false if
    /// nothing was written. Not to be called while `source` has bytes under way.
    pub(crate) fn write_now(&self) -> impl Fn(&[u8]) -> bool + Send + Sync + use<> {
        let stdin = Weak::clone(&self.stdin);
        move |bytes| pipes::write_now(&stdin, bytes)
    }

    /// A handle that can kill the child while another thread runs [`Child::stop`].
    pub(crate) fn killer(&self) -> Killer {
        Killer(Arc::clone(&self.life))
    }

    /// The stop ladder: waits for the end (its source must have returned `None` by now, so that
    /// stdin closes), then SIGTERM, then SIGKILL to the whole group. Returns when the process is
    /// reaped and the threads are joined.
    pub(crate) fn stop(mut self) {
        let Self {
            label,
            limits,
            life,
            ..
        } = &self;
        if !life.wait_ended(limits.stop_grace) {
            log::debug!("child {label} outlived its stdin, sending SIGTERM");
            life.kill(Signal::TERM);
            if !life.wait_ended(limits.kill_grace) {
                log::warn!("child {label} ignored SIGTERM, sending SIGKILL");
                life.kill(Signal::KILL);
            }
        }
        for thread in self.threads.drain(..) {
            thread.join();
        }
    }
}

impl Drop for Child {
    /// One that is let go of without [`Child::stop`] ends at once, and its threads with it.
    fn drop(&mut self) {
        self.life.kill(Signal::KILL);
    }
}

/// Ends a child at once.
#[derive(Clone)]
pub(crate) struct Killer(Arc<Life>);

impl Killer {
    /// SIGKILL to the whole group, if it has not ended yet.
    pub(crate) fn kill(&self) {
        self.0.kill(Signal::KILL);
    }
}

struct Pipes {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

fn spawn(nursery: &Nursery, launch: &mut Launch) -> io::Result<(Arc<Life>, Pipes)> {
    let mut tether = std::mem::take(&mut launch.tether);
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.args)
        .env_clear()
        .envs(launch.env.iter().map(|(key, value)| (key, value)))
        .envs(tether.env())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = tether.spawn(nursery, command)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let pid = Pid::from_child(&child);
    let opened = pidfd_open(pid, PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|pidfd| {
            let missing = || io::Error::other("a pipe to the child is missing");
            let pipes = Pipes {
                stdin: stdin.ok_or_else(missing)?.into(),
                stdout: stdout.ok_or_else(missing)?.into(),
                stderr: stderr.ok_or_else(missing)?.into(),
            };
            for pipe in [&pipes.stdin, &pipes.stdout, &pipes.stderr] {
                set_nonblocking(pipe)?;
            }
            Ok((pidfd, pipes))
        });
    match opened {
        Ok((pidfd, pipes)) => Ok((Arc::new(Life::new(child, pid, pidfd, tether)), pipes)),
        Err(error) => {
            // It has just started and nobody knows it yet: end it without ceremony.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Our end of a pipe has an open file description of its own, so the child notices nothing.
fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(
        &fd,
        flags | rustix::fs::OFlags::NONBLOCK,
    )?)
}

#[cfg(test)]
mod tests;
