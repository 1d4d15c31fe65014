//! Processes and files, as `/proc` and the file system show them: whose children still run, what
//! the broker holds. Finds processes by a variable of their environment, which nothing that a child
//! starts can lose by leaving its group or session.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A process, told from later ones of the same pid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
    pub(crate) command: String,
}

/// What the broker holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    pub(crate) resident_kib: usize,
}

/// State, parent and start time of `/proc/PID/stat` (proc_pid_stat(5)).
fn stat(pid: i32) -> Option<(char, i32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some((state, parent, fields.nth(17)?.parse().ok()?))
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The running processes that have this in their environment.
pub(crate) fn marked(variable: &str) -> BTreeSet<Process> {
    let has_mark = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|it| it == variable.as_bytes())
    };
    let describe = |pid: i32| {
        let (state, _, started) = stat(pid)?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let command = match command.rsplit_once('/') {
            Some((_, name)) => name.trim().to_owned(),
            None => command.trim().to_owned(),
        };
        (!matches!(state, 'Z' | 'X')).then_some(Process {
            pid,
            started,
            command,
        })
    };
    pids()
        .filter(|pid| has_mark(*pid))
        .filter_map(describe)
        .collect()
}

/// How many children of `pid` have ended and were not waited for.
pub(crate) fn zombies(pid: i32) -> usize {
    let is_zombie = |of: &i32| matches!(stat(*of), Some(('Z', parent, _)) if parent == pid);
    pids().filter(is_zombie).count()
}

pub(crate) fn holdings(pid: i32) -> Holdings {
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|line| line.trim().strip_suffix(" kB"));
    Holdings {
        threads: count("task"),
        descriptors: count("fd"),
        resident_kib: resident
            .and_then(|kib| kib.trim().parse().ok())
            .unwrap_or(0),
    }
}

/// Names of the threads of a process.
pub(crate) fn threads(pid: i32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let mut names: Vec<String> = names.map(|name| name.trim_end().to_owned()).collect();
    names.sort();
    names
}

/// Sends a signal to a process that this run has started, directly or not.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

/// Ends what is left of a run, also what forks meanwhile.
pub(crate) fn end_all(variable: &str) -> usize {
    let mut ended = 0;
    for _ in 0..50 {
        let left = marked(variable);
        if left.is_empty() {
            break;
        }
        ended += left.len();
        left.iter().for_each(|it| signal(it.pid, Signal::KILL));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    ended
}

/// All that is in a directory, by path, and how often: numbers and random names count as one.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            let relative = path.strip_prefix(directory).unwrap_or(&path);
            let parts = relative.iter().map(|part| kind(&part.to_string_lossy()));
            let name = parts.collect::<Vec<_>>().join("/");
            *found.entry(name).or_default() += 1;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(path);
            }
        }
    }
    found
}

/// A name without what tells it from others of its kind: numbers, and long hexadecimal ones.
fn kind(name: &str) -> String {
    let is_hex = |word: &&str| word.len() >= 8 && word.chars().all(|c| c.is_ascii_hexdigit());
    let words: Vec<&str> = name.split('.').collect();
    let word = |word: &&str| match is_hex(word) {
        true => "*".to_owned(),
        false => word.replace(char::is_numeric, ""),
    };
    words.iter().map(word).collect::<Vec<_>>().join(".")
}
