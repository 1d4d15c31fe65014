//! The run directory: `runs/ID` in the state directory, in which a broker writes down which
//! processes are its own. Held by flock for as long as the broker lives: where that lock can be
//! taken, the broker is dead. Several brokers may share a state directory.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::process::{Id, Process};

/// Random bytes of a run's id.
pub(super) const ID_BYTES: usize = 16;
/// Says where the pids in a directory are valid.
const SCOPE: &str = "scope";
/// The broker itself, as a process is written down.
const BROKER: &str = "broker";
/// How long a lock may outlive its broker: a child that had no time to become another program
/// shares it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// A directory whose lock is held here.
pub(super) struct RunDir {
    pub(super) id: String,
    pub(super) path: PathBuf,
    /// Closing it gives the lock back.
    _lock: File,
}

/// A process that was written down, and the session that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: Id,
    pub(super) label: String,
}

/// All runs of a state directory. Brokers that begin take turns while this is held.
pub(super) struct Runs {
    path: PathBuf,
    _turn: File,
}

impl Runs {
    /// # Errors
    /// The OS error.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("runs");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        let turn = File::open(&path)?;
        flock(&turn, FlockOperation::LockExclusive)?;
        Ok(Self { path, _turn: turn })
    }

    /// A directory for a run that begins.
    ///
    /// # Errors
    /// The OS error.
    pub(super) fn create(&self, id: String) -> io::Result<RunDir> {
        let path = self.path.join(&id);
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        fs::write(path.join(SCOPE), scope()?)?;
        let own = own_id()?;
        let text = format!("{} {}", own.pid, text(own, BROKER));
        fs::write(path.join(BROKER), text)?;
        Ok(RunDir {
            id,
            path,
            _lock: lock,
        })
    }

    /// The directories that dead brokers have left.
    ///
    /// # Errors
    /// The OS error if the folder cannot be read.
    pub(super) fn left(&self) -> io::Result<Vec<RunDir>> {
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(run_id) else {
                continue;
            };
            let path = entry.path();
            match lock_of_dead(&path) {
                Ok(Some(lock)) => left.push(RunDir {
                    id,
                    path,
                    _lock: lock,
                }),
                Ok(None) => {}
                Err(error) => log::warn!("cannot look after {}: {error}", path.display()),
            }
        }
        Ok(left)
    }
}

fn run_id(name: &str) -> Option<String> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (name.len() == ID_BYTES * 2 && name.bytes().all(is_hex)).then(|| name.to_owned())
}

/// The lock of a run directory, if its broker is dead.
fn lock_of_dead(path: &Path) -> io::Result<Option<File>> {
    let lock = File::open(path)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline && is_broker_dead(path) => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => return Ok(locked.map(|()| Some(lock))?),
        }
    }
}

/// Whether the broker of this directory is known to have ended.
fn is_broker_dead(path: &Path) -> bool {
    let text = fs::read_to_string(path.join(BROKER)).unwrap_or_default();
    let broker = text
        .split_once(' ')
        .and_then(|(pid, rest)| parse(pid.parse().ok()?, rest));
    is_here(path) && broker.is_some_and(|it| !it.id.runs())
}

/// Whether pids in this directory mean anything: since the machine was started, and in this pid
/// namespace.
fn is_here(path: &Path) -> bool {
    match (fs::read_to_string(path.join(SCOPE)), scope()) {
        (Ok(there), Ok(here)) => there == here,
        _ => false,
    }
}

impl RunDir {
    /// The processes written down here, if their pids still mean anything.
    pub(super) fn records(&self) -> Vec<Record> {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return Vec::new();
        };
        let read = |entry: io::Result<fs::DirEntry>| {
            let path = entry.ok()?.path();
            let pid = path.file_name()?.to_str()?.parse().ok()?;
            parse(pid, &fs::read_to_string(path).ok()?)
        };
        match is_here(&self.path) {
            true => entries.filter_map(read).collect(),
            false => Vec::new(),
        }
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Writes down a process in the run directory `dir`.
///
/// # Errors
/// The OS error.
pub(super) fn write(dir: &Path, process: Id, label: &str) -> io::Result<()> {
    fs::write(dir.join(process.pid.to_string()), text(process, label))
}

fn text(process: Id, label: &str) -> String {
    format!("{} {label}\n", process.start)
}

/// Takes back what [`write`] wrote.
pub(super) fn forget(dir: &Path, pid: i32) {
    // It may not have come to be written.
    let _ = fs::remove_file(dir.join(pid.to_string()));
}

fn parse(pid: i32, text: &str) -> Option<Record> {
    let (start, label) = text.trim_end().split_once(' ')?;
    Some(Record {
        id: Id {
            pid,
            start: start.parse().ok()?,
        },
        label: label.to_owned(),
    })
}

/// The boot and the pid namespace of this process.
fn scope() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = fs::read_link("/proc/self/ns/pid")?;
    Ok(format!("{}\n{}\n", boot.trim_end(), namespace.display()))
}

/// This process, as it is written down.
///
/// # Errors
/// The OS error if `/proc` does not tell.
pub(super) fn own_id() -> io::Result<Id> {
    Process::read(std::process::id().cast_signed())
        .map(|process| process.id)
        .ok_or_else(|| io::Error::other("/proc/self/stat cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_are_taken_for_runs_and_only_records_for_records() {
        for (name, expected) in [
            ("0123456789abcdef0123456789abcdef", true),
            ("0123456789ABCDEF0123456789abcdef", false),
            ("0123456789abcdef", false),
            ("..", false),
        ] {
            assert_eq!(run_id(name).is_some(), expected, "{name}");
        }
        for (text, expected) in [
            ("77 3fa9c1d2\n", Some((77, "3fa9c1d2"))),
            ("77", None),
            ("x y", None),
            ("", None),
        ] {
            let expected = expected.map(|(start, label)| Record {
                id: Id { pid: 5, start },
                label: label.to_owned(),
            });
            assert_eq!(parse(5, text), expected, "{text}");
        }
    }
}
