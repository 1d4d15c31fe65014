//! A look at processes through `/proc`, and signals.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// One line of `/proc/PID/stat` (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) group: i32,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in brackets and may hold anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        Some(Self {
            pid,
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
        })
    }

    fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// The children of `pid` that run.
pub(crate) fn children(pid: i32) -> Vec<Process> {
    let mut processes = all();
    processes.retain(|process| process.parent == pid && !process.is_zombie());
    processes
}

/// The children of `pid` that have ended and were not waited for.
pub(crate) fn zombies(pid: i32) -> Vec<Process> {
    let mut processes = all();
    processes.retain(|process| process.parent == pid && process.is_zombie());
    processes
}

/// The processes of a group that run. One in state Z whose parent has gone counts as ended: not
/// every pid 1 reaps.
pub(crate) fn group(group: i32) -> Vec<Process> {
    let mut processes = all();
    processes.retain(|process| process.group == group && !process.is_zombie());
    processes
}

/// Whether the process runs.
pub(crate) fn runs(pid: i32) -> bool {
    Process::read(pid).is_some_and(|process| !process.is_zombie())
}

/// The processes that run with this in their environment, as `KEY=VALUE` or the beginning of it.
pub(crate) fn with_env(entry: &str) -> Vec<Process> {
    let mut processes = all();
    processes.retain(|process| {
        let environ = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let mut entries = environ.split(|byte| *byte == 0);
        !process.is_zombie() && entries.any(|it| it.starts_with(entry.as_bytes()))
    });
    processes
}

/// When the process was started, in clock ticks since the machine was (field 22 of its `stat`).
#[track_caller]
pub(crate) fn start_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let start = fields.split(' ').nth(19);
    start.expect("22 fields").parse().expect("a number")
}

/// Names of the threads of a process.
pub(crate) fn threads(pid: i32) -> Vec<String> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

/// Descriptors that a process has open.
pub(crate) fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Resident memory in KiB.
pub(crate) fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.and_then(|line| line.trim().strip_suffix(" kB"));
    figure.and_then(|figure| figure.parse().ok()).unwrap_or(0)
}

/// Sends a signal to a process that was started here, directly or not.
pub(crate) fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a pid");
    // It may have ended meanwhile.
    let _ = kill_process(pid, signal);
}
