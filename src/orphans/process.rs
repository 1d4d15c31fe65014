//! One process as `/proc` shows it: who it is for certain, whose child it is, the marker in its
//! environment. A number alone is no process, for it can be given anew: pid and start time are.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// In the environment of each child and, inherited, of what it starts: `RUN:LABEL.NUMBER`.
pub(crate) const MARKER: &str = "MCP_BROKER_RUN";

/// Far more than `stat` ever has.
const STAT_MAX_BYTES: usize = 1024;
/// The kernel allows 6 MiB of arguments and environment at most (execve(2)).
const ENVIRON_MAX_BYTES: u64 = 6 << 20;

/// One process: no other has or had this pid and this start time since the machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) pid: i32,
    /// In clock ticks since the machine was started.
    pub(super) start: u64,
}

/// What `/proc/PID/stat` says (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: Id,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// It has ended, and its parent has not taken note.
    pub(super) is_zombie: bool,
}

/// All processes that can be seen, by pid.
pub(super) type Table = HashMap<i32, Process>;

impl Id {
    pub(super) fn runs(self) -> bool {
        Process::read(self.pid).is_some_and(|it| it.id == self && !it.is_zombie)
    }
}

impl Process {
    /// `None` if there is no such process.
    pub(super) fn read(pid: i32) -> Option<Self> {
        let mut stat = [0; STAT_MAX_BYTES];
        let len = File::open(format!("/proc/{pid}/stat"))
            .and_then(|mut file| file.read(&mut stat))
            .ok()?;
        Self::parse(pid, &stat[..len])
    }

    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        // The name stands in brackets and may hold anything.
        let name_end = stat.iter().rposition(|byte| *byte == b')')?;
        let fields = str::from_utf8(&stat[name_end + 1..]).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        // Fields 20 and 22; the last one taken was field 5.
        let threads: u32 = fields.nth(14)?.parse().ok()?;
        let start = fields.nth(1)?.parse().ok()?;
        // One whose first thread has ended is shown like this, too.
        let is_zombie = matches!(state, "Z" | "X") && threads <= 1;
        Some(Self {
            id: Id { pid, start },
            parent,
            group,
            is_zombie,
        })
    }

    /// What its marker says, if it has one that may be read.
    pub(super) fn marker(&self) -> Option<String> {
        let mut environ = Vec::new();
        File::open(format!("/proc/{}/environ", self.id.pid))
            .and_then(|file| file.take(ENVIRON_MAX_BYTES).read_to_end(&mut environ))
            .ok()?;
        marker_in(&environ)
    }

    /// Ends this very process. False if it has ended.
    ///
    /// # Errors
    /// The OS error if that is not allowed.
    pub(super) fn kill(&self) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.id.pid) else {
            return Ok(false);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(false),
            opened => opened?,
        };
        // Once the descriptor is open, it stays with the process that had the pid just now.
        if !self.id.runs() {
            return Ok(false);
        }
        match pidfd_send_signal(&pidfd, Signal::KILL) {
            Err(Errno::SRCH) => Ok(false),
            sent => Ok(sent.map(|()| true)?),
        }
    }
}

fn marker_in(environ: &[u8]) -> Option<String> {
    let value = environ.split(|byte| *byte == 0).find_map(|entry| {
        let rest = entry.strip_prefix(MARKER.as_bytes())?;
        rest.strip_prefix(b"=")
    })?;
    String::from_utf8(value.to_vec()).ok()
}

/// # Errors
/// The OS error if `/proc` cannot be read.
pub(super) fn all() -> io::Result<Table> {
    let pids = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let processes = pids.filter_map(Process::read);
    Ok(processes.map(|process| (process.id.pid, process)).collect())
}

/// The process and those it descends from, the nearest first. A parent is never younger than its
/// child: one that seems so has its number from another.
pub(super) fn line_of(table: &Table, process: &Process) -> impl Iterator<Item = Process> {
    std::iter::successors(Some(*process), |child| {
        let parent = table.get(&child.parent)?;
        (parent.id.start <= child.id.start && parent.id != child.id).then_some(*parent)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whatever_the_name() {
        let rest = "S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        let expected = Process {
            id: Id {
                pid: 42,
                start: 98765,
            },
            parent: 7,
            group: 42,
            is_zombie: false,
        };
        for name in ["sh", "a b", ") Z 1 (", "\u{e9}", ""] {
            let stat = format!("42 ({name}) {rest}");
            assert_eq!(
                Process::parse(42, stat.as_bytes()),
                Some(expected),
                "{name}"
            );
        }
        let zombie = Process {
            is_zombie: true,
            ..expected
        };
        let stat = format!("42 (\u{1}\u{7f}) {}", rest.replacen('S', "Z", 1));
        assert_eq!(Process::parse(42, stat.as_bytes()), Some(zombie));
        let running = stat.replacen(" 20 0 1 0 ", " 20 0 2 0 ", 1);
        assert_eq!(Process::parse(42, running.as_bytes()), Some(expected));
        for stat in ["", "42 (sh", "42 (sh)", "42 (sh) S 7 42", "42 (sh) S x 42"] {
            assert_eq!(Process::parse(42, stat.as_bytes()), None, "{stat}");
        }
    }

    #[test]
    fn the_marker_is_a_variable_of_its_own() {
        let check = |environ: &[u8], expected: Option<&str>| {
            assert_eq!(marker_in(environ).as_deref(), expected, "{environ:?}");
        };
        check(b"A=1\0MCP_BROKER_RUN=r:s.1\0B=2\0", Some("r:s.1"));
        check(b"MCP_BROKER_RUN=r:s.1", Some("r:s.1"));
        check(b"X=MCP_BROKER_RUN=r:s.1\0", None);
        check(b"MCP_BROKER_RUNS=r:s.1\0XMCP_BROKER_RUN=r\0", None);
        check(b"MCP_BROKER_RUN=\xff\0", None);
        check(b"", None);
    }

    #[test]
    fn a_process_knows_itself_and_is_told_from_one_that_had_its_number() {
        let own = Process::read(std::process::id().cast_signed()).unwrap();
        assert_eq!(
            all().unwrap().get(&own.id.pid).map(|it| it.id),
            Some(own.id)
        );
        let former = Process {
            id: Id {
                start: own.id.start - 1,
                ..own.id
            },
            ..own
        };
        assert!(!former.kill().unwrap());
    }

    #[test]
    fn no_line_has_a_parent_younger_than_its_child() {
        let process = |pid, parent, start| Process {
            id: Id { pid, start },
            parent,
            group: pid,
            is_zombie: false,
        };
        let listed = [
            process(1, 0, 0),
            process(5, 1, 10),
            process(6, 5, 20),
            process(7, 8, 20),
            process(8, 1, 30),
        ];
        let table: Table = listed.iter().map(|it| (it.id.pid, *it)).collect();
        let line =
            |pid: i32| -> Vec<i32> { line_of(&table, &table[&pid]).map(|it| it.id.pid).collect() };
        assert_eq!(line(6), [6, 5, 1]);
        assert_eq!(line(7), [7]);
        assert_eq!(line(8), [8, 1]);
    }
}
